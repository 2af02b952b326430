"""A little sweep to run on the local Ray, and one that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.records.sweep_result import SweepResult


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic(folder, num_posts=80, seed=3)
    return folder


def little_tree(folder: Path, corpus: Path, encoder: Path) -> dict[str, Any]:
    """Four cells on a tiny encoder, everything under `folder`."""
    return {
        "name": "little",
        "question": "Does pooling matter?",
        "base": {
            "data": {"data_dir": str(corpus), "num_folds": 3},
            "model": {"name": str(encoder), "max_length": 48},
            "training": {"num_epochs": 3, "batch_size": 32},
            "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"},
            "output": {"experiment_name": "little"},
        },
        "space": {
            "model.pooling_strategy": {"grid": ["mean", "cls"]},
            "training.learning_rate": {"grid": ["1e-3", "1e-2"]},
        },
        "resources": {"max_concurrent": 1},
        "report": {"enabled": False},
        "finalize": {"export_limit_gib": 0},
        "storage": str(folder / "storage"),
    }


@pytest.fixture
def sweep_tree(tmp_path: Path, small_corpus: Path, tiny_bert: Path) -> dict[str, Any]:
    return little_tree(tmp_path, small_corpus, tiny_bert)


@pytest.fixture(scope="session")
def finished_sweep(
    local_ray: None, tmp_path_factory: pytest.TempPathFactory, small_corpus: Path, tiny_bert: Path
) -> tuple[dict[str, Any], SweepResult]:
    """A sweep that has ended, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    tree = little_tree(folder, small_corpus, tiny_bert)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        return tree, run_sweep(spec_of(tree))


def spec_of(tree: dict[str, Any], **changes: Any) -> SweepSpec:
    return SweepSpec.from_mapping({**tree, **changes}, source="little.yaml")
