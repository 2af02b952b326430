"""A small corpus and settings that train in a second, and the store of a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.config import RunConfig
from gemma_nli.corpus.synthetic import write_synthetic
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic(folder, num_posts=60, seed=3)
    return folder


@pytest.fixture(scope="session")
def few_posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For trained encoders."""
    folder = tmp_path_factory.mktemp("few")
    write_synthetic(folder, num_posts=24, seed=3)
    return folder


def small_settings(corpus: Path, encoder: Path, uri: str | None) -> dict[str, Any]:
    return {
        "data.data_dir": str(corpus),
        "data.num_folds": 2,
        "model.name": str(encoder),
        "model.max_length": 48,
        "training.num_epochs": 2,
        "training.learning_rate": 1e-2,
        "training.batch_size": 32,
        "mlflow.tracking_uri": uri,
        "output.experiment_name": "single",
    }


@pytest.fixture
def config(corpus_folder: Path, tiny_bert: Path, sqlite_uri: str) -> RunConfig:
    return RunConfig().with_settings(small_settings(corpus_folder, tiny_bert, sqlite_uri))


@pytest.fixture
def words(corpus_folder: Path, tiny_bert: Path, sqlite_uri: str) -> list[str]:
    """The same settings as words of a command."""
    return [f"{k}={v}" for k, v in small_settings(corpus_folder, tiny_bert, sqlite_uri).items()]


@pytest.fixture
def client(sqlite_uri: str) -> MlflowClient:
    return MlflowClient(sqlite_uri, sqlite_uri)


@pytest.fixture
def runs_of(client: MlflowClient) -> Callable[[str], list[Any]]:
    def runs(experiment: str) -> list[Any]:
        found = client.get_experiment_by_name(experiment)
        return list(client.search_runs([found.experiment_id])) if found else []

    return runs
