"""A little sweep whose trials are trained in this process, so that the engine has none left to run on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gemma_nli.features import FeatureStore
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.prepare import prepare
from gemma_nli.trial import TrialJournal
from gemma_nli.trial.trial_run import TrialRun


def tree_of(folder: Path, encoder: Path, **test: Any) -> dict[str, Any]:
    return {
        "name": "sealed",
        "base": {
            "data": {"data_dir": str(folder / "data"), "num_folds": 3, "test": test or None},
            "model": {"name": str(encoder), "max_length": 32},
            "training": {"num_epochs": 3, "batch_size": 32},
            "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "system_metrics_seconds": None},
            "output": {"experiment_name": "sealed"},
        },
        "compare": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "tune": {"training.learning_rate": {"grid": ["1e-3", "1e-2"]}},
        "finalize": {"export_limit_gib": 0},
        "storage": str(folder / "storage"),
    }


def spec_of(tree: dict[str, Any]) -> SweepSpec:
    return SweepSpec.from_mapping(tree, "sealed.yaml")


def train_here(spec: SweepSpec) -> None:
    """The sweep's trials without Ray, which then has nothing left to run."""
    ready = prepare(spec)
    store = FeatureStore(ready.storage / "features", spec.base.features)
    for key, cell in ready.cells.items():
        with TrialRun(TrialJournal(ready.storage, key), cell.config, ready.corpus, ready.pairs, store) as trial:
            trial.begin()
            while not trial.over:
                trial.step()
