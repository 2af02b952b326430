"""One small local Ray for all tests of the room, and a little sweep to run on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.sweep.spec import SweepSpec


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A real Ray with two CPUs, started once; sweeps join it."""
    from gemma_nli.sweep.cluster import ray_session

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    with ray_session():
        yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic(folder, num_posts=80, seed=3)
    return folder


@pytest.fixture
def sweep_tree(tmp_path: Path, small_corpus: Path, tiny_bert: Path) -> dict[str, Any]:
    """Four cells on a tiny encoder, everything under the test's own folder."""
    return {
        "name": "little",
        "question": "Does pooling matter?",
        "base": {
            "data": {"data_dir": str(small_corpus), "num_folds": 3},
            "model": {"name": str(tiny_bert), "max_length": 48},
            "training": {"num_epochs": 3, "batch_size": 32},
            "mlflow": {"tracking_uri": f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"},
            "output": {"experiment_name": "little"},
        },
        "space": {
            "model.pooling_strategy": {"grid": ["mean", "cls"]},
            "training.learning_rate": {"grid": ["1e-3", "1e-2"]},
        },
        "storage": str(tmp_path / "storage"),
    }


def spec_of(tree: dict[str, Any], **changes: Any) -> SweepSpec:
    return SweepSpec.from_mapping({**tree, **changes}, source="little.yaml")
