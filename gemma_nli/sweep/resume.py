"""Sweeps started before, found again by name from any folder."""

from __future__ import annotations

import os
from typing import Any

from gemma_nli.base.errors import SweepError
from gemma_nli.base.masking import MASK
from gemma_nli.spec.spec import SweepSpec, load_stored_sweep
from gemma_nli.sweep.finalize import finalize
from gemma_nli.sweep.prepare import Prepared, prepare
from gemma_nli.sweep.records.mlflow_recorder import Recorder, flush
from gemma_nli.sweep.records.outcome import outcome_of
from gemma_nli.sweep.records.saved_report import honest_tags, kept_report
from gemma_nli.sweep.records.sweep_folder import SweepFolder, find_sweep
from gemma_nli.sweep.records.written_cards import kept_card
from gemma_nli.sweep.register_ensemble import chosen_ensemble, finalize_ensemble


def stored_spec(name: str) -> SweepSpec:
    """The spec that a sweep was last started with.

    A store's address is saved without its password; $MLFLOW_TRACKING_URI then says where MLflow is.

    Raises:
        SweepError: no sweep of that name, or a password is needed but missing.
        ConfigError, SpecError: its stored spec is damaged.
    """
    sweep_id, storage = find_sweep(name)
    folder = SweepFolder(storage / "sweeps" / sweep_id)
    folder.pull()
    path = folder.path / "spec.yaml"
    spec = load_stored_sweep(path, to_run=True)
    overrides = []
    if MASK in (spec.base.mlflow.tracking_uri or ""):
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise SweepError(
                f"sweep '{name}' was started with a password in mlflow.tracking_uri, which is not stored; "
                "set $MLFLOW_TRACKING_URI, or type the sweep command again."
            )
        overrides.append("mlflow.tracking_uri=null")
    if MASK in (spec.base.mlflow.artifact_location or ""):
        overrides.append("mlflow.artifact_location=null")  # only a new experiment needs it
    if MASK in (spec.search.storage or ""):
        raise SweepError(
            f"sweep '{name}' was started with a password in search.storage, which is not stored; "
            "type the sweep command again."
        )
    return load_stored_sweep(path, overrides, to_run=True) if overrides else spec


def flush_sweep(name: str) -> tuple[int, int]:
    """Send MLflow what a sweep could not send, and register its best trial if that is still to be done.

    Returns:
        (trials up to date, trials still waiting)
    """
    ready = prepare(stored_spec(name))
    folder = SweepFolder(ready.folder)
    with folder.held(ready.spec.name):
        ready.take_up(folder.cells())
        return flush(ready, folder, lambda recorder: _register(ready, folder, recorder))


def _register(ready: Prepared, folder: SweepFolder, recorder: Recorder) -> dict[str, Any] | None:
    best = outcome_of(ready).best
    record = ready.read(best.key) if best is not None else None
    if record is None:
        return None
    if (several := chosen_ensemble(ready, folder)) is not None:
        return finalize_ensemble(ready, several, recorder, card=kept_card(folder, several.key)).registered
    tags, card = honest_tags(kept_report(folder), record.key), kept_card(folder, record.key)
    return finalize(ready, record, recorder, tags=tags, card=card).registered
