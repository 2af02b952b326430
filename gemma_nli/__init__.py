"""gemma_nli: a sweep engine for cross-validated ablations of text-pair classifiers.

What stands in `__all__` is public: it changes with a line in CHANGELOG.md. Each name is imported when it is first used,
so that `import gemma_nli` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemma_nli.base.version import __version__

__all__ = [
    "BestTrial",
    "ConfigError",
    "Corpus",
    "CorpusError",
    "CvResult",
    "EncoderError",
    "ExperimentTracker",
    "FeatureError",
    "FeatureStore",
    "FoldResult",
    "GemmaNliError",
    "JournalError",
    "LocalRun",
    "PairScorer",
    "PairTable",
    "ReportError",
    "RunConfig",
    "SearchSpace",
    "SpecError",
    "StorageError",
    "SweepBusyError",
    "SweepError",
    "SweepResult",
    "SweepSpec",
    "TrackingError",
    "TrainingError",
    "__version__",
    "best_trial",
    "build_pairs",
    "compare_runs",
    "cross_validate",
    "list_experiments",
    "list_models",
    "list_runs",
    "list_trials",
    "load_config",
    "load_corpus",
    "load_model",
    "load_scorer",
    "load_sweep",
    "metric_history",
    "predict_file",
    "report_sweeps",
    "reproduce",
    "run_here",
    "run_sweep",
    "use_store",
    "write_corpus",
    "write_synthetic",
]

if TYPE_CHECKING:
    from gemma_nli.base.errors import (
        ConfigError,
        CorpusError,
        EncoderError,
        FeatureError,
        GemmaNliError,
        JournalError,
        ReportError,
        SpecError,
        StorageError,
        SweepBusyError,
        SweepError,
        TrackingError,
        TrainingError,
    )
    from gemma_nli.config import RunConfig, load_config
    from gemma_nli.corpus.pairs import PairTable, build_pairs
    from gemma_nli.corpus.redsm5 import Corpus, load_corpus, write_corpus
    from gemma_nli.corpus.synthetic import write_synthetic
    from gemma_nli.features import FeatureStore
    from gemma_nli.local.predict import predict_file
    from gemma_nli.local.reproduce import reproduce
    from gemma_nli.local.train import LocalRun, run_here
    from gemma_nli.model.bundles.scorer import PairScorer
    from gemma_nli.spec.space import SearchSpace
    from gemma_nli.spec.spec import SweepSpec, load_sweep
    from gemma_nli.sweep.engine import run_sweep
    from gemma_nli.sweep.records.make_report import report_sweeps
    from gemma_nli.sweep.records.sweep_result import SweepResult
    from gemma_nli.tracking.read.frames import compare_runs, list_experiments, list_models, list_runs, metric_history
    from gemma_nli.tracking.read.queries import BestTrial, best_trial, list_trials
    from gemma_nli.tracking.registry.registered_models import load_model, load_scorer
    from gemma_nli.tracking.store.mlflow_functions import use_store
    from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker
    from gemma_nli.training.cross_validation import cross_validate
    from gemma_nli.training.results import CvResult, FoldResult

_HOMES = {
    "base.errors": "ConfigError CorpusError EncoderError FeatureError GemmaNliError JournalError ReportError "
    "SpecError StorageError SweepBusyError SweepError TrackingError TrainingError",
    "config": "RunConfig load_config",
    "corpus.pairs": "PairTable build_pairs",
    "corpus.redsm5": "Corpus load_corpus write_corpus",
    "corpus.synthetic": "write_synthetic",
    "features": "FeatureStore",
    "local.predict": "predict_file",
    "local.reproduce": "reproduce",
    "local.train": "LocalRun run_here",
    "model.bundles.scorer": "PairScorer",
    "spec.space": "SearchSpace",
    "spec.spec": "SweepSpec load_sweep",
    "sweep.engine": "run_sweep",
    "sweep.records.make_report": "report_sweeps",
    "sweep.records.sweep_result": "SweepResult",
    "tracking.read.frames": "compare_runs list_experiments list_models list_runs metric_history",
    "tracking.read.queries": "BestTrial best_trial list_trials",
    "tracking.registry.registered_models": "load_model load_scorer",
    "tracking.store.mlflow_functions": "use_store",
    "tracking.write.experiment_tracker": "ExperimentTracker",
    "training.cross_validation": "cross_validate",
    "training.results": "CvResult FoldResult",
}
_MODULE_OF = {name: f"gemma_nli.{module}" for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import gemma_nli` must not cost a torch import."""
    if name not in _MODULE_OF:
        from gemma_nli.base.errors import did_you_mean

        raise AttributeError(f"module 'gemma_nli' has no attribute {name!r}{did_you_mean(name, _MODULE_OF)}")
    import importlib

    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
