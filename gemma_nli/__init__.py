"""gemma_nli: a sweep engine for cross-validated ablations of text-pair classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RunConfig", "SweepSpec", "__version__", "best_trial", "cross_validate", "load_config", "run_sweep"]

if TYPE_CHECKING:
    from gemma_nli.config import RunConfig, load_config
    from gemma_nli.spec.spec import SweepSpec
    from gemma_nli.sweep.engine import run_sweep
    from gemma_nli.tracking.queries import best_trial
    from gemma_nli.training.cross_validation import cross_validate

_HOMES = {
    "RunConfig": "gemma_nli.config",
    "SweepSpec": "gemma_nli.spec.spec",
    "best_trial": "gemma_nli.tracking.queries",
    "cross_validate": "gemma_nli.training.cross_validation",
    "load_config": "gemma_nli.config",
    "run_sweep": "gemma_nli.sweep.engine",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import gemma_nli` must not cost a torch import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gemma_nli' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
