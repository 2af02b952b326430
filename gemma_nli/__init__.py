"""gemma_nli: a sweep engine for cross-validated ablations of text-pair classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemma_nli.base.version import __version__

__all__ = [
    "ExperimentTracker",
    "RunConfig",
    "SweepSpec",
    "__version__",
    "best_trial",
    "compare_runs",
    "cross_validate",
    "list_experiments",
    "list_models",
    "list_runs",
    "load_config",
    "load_model",
    "metric_history",
    "reproduce",
    "run_here",
    "run_sweep",
    "use_store",
]

if TYPE_CHECKING:
    from gemma_nli.config import RunConfig, load_config
    from gemma_nli.local.reproduce import reproduce
    from gemma_nli.local.train import run_here
    from gemma_nli.spec.spec import SweepSpec
    from gemma_nli.sweep.engine import run_sweep
    from gemma_nli.tracking.read.frames import compare_runs, list_experiments, list_models, list_runs, metric_history
    from gemma_nli.tracking.read.queries import best_trial
    from gemma_nli.tracking.registry.registered_models import load_model
    from gemma_nli.tracking.store.use import use_store
    from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker
    from gemma_nli.training.cross_validation import cross_validate

_HOMES = {
    "ExperimentTracker": "gemma_nli.tracking.write.experiment_tracker",
    "RunConfig": "gemma_nli.config",
    "SweepSpec": "gemma_nli.spec.spec",
    "best_trial": "gemma_nli.tracking.read.queries",
    "compare_runs": "gemma_nli.tracking.read.frames",
    "cross_validate": "gemma_nli.training.cross_validation",
    "list_experiments": "gemma_nli.tracking.read.frames",
    "list_models": "gemma_nli.tracking.read.frames",
    "list_runs": "gemma_nli.tracking.read.frames",
    "load_config": "gemma_nli.config",
    "load_model": "gemma_nli.tracking.registry.registered_models",
    "metric_history": "gemma_nli.tracking.read.frames",
    "reproduce": "gemma_nli.local.reproduce",
    "run_here": "gemma_nli.local.train",
    "run_sweep": "gemma_nli.sweep.engine",
    "use_store": "gemma_nli.tracking.store.use",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import gemma_nli` must not cost a torch import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gemma_nli' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
