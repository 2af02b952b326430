"""Sweeps started before, found again by name from any folder."""

from __future__ import annotations

from gemma_nli.sweep.folder import SweepFolder, find_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.recorder import flush
from gemma_nli.sweep.spec import SweepSpec, load_sweep


def stored_spec(name: str) -> SweepSpec:
    """The spec that a sweep was last started with.

    A tracking URI with a password was stored without it: set $MLFLOW_TRACKING_URI before going on.

    Raises:
        SweepError: no sweep of that name. ConfigError, SpecError: its stored spec is damaged.
    """
    sweep_id, storage = find_sweep(name)
    return load_sweep(storage / "sweeps" / sweep_id / "spec.yaml")


def flush_sweep(name: str) -> tuple[int, int]:
    """Send MLflow what a sweep could not; (trials up to date, trials still waiting)."""
    ready = prepare(stored_spec(name))
    folder = SweepFolder(ready.folder)
    with folder.held(ready.spec.name):
        return flush(ready, folder)
