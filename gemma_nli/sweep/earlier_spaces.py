"""What a study's sweep has found in earlier forms of its space, with the same or other settings varied.

A sweep's id hashes what its space does not vary, so a space that gains or loses a setting makes another sweep. Both
share the storage, the name and the folds: trials of one that lie in the other's space are its trials too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gemma_nli.config import home
from gemma_nli.spec.space import Cell
from gemma_nli.sweep.prepare import Prepared, is_confirming
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import TrialRecord, read_trial


def take_up_earlier(ready: Prepared, folder: SweepFolder) -> None:
    """Of a study: note the trials of its folder, and those of sweeps of its name with another space that fit."""
    if ready.spec.search.algorithm != "optuna":
        return
    noted = folder.cells()
    ready.take_up(noted)
    for key, settings in noted.items():
        if key not in ready.proposed and not is_confirming(settings):
            ready.left_out += _is_finished(ready, read_trial(ready.storage, key))
    for key, settings in _of_other_spaces(ready):
        record = read_trial(ready.storage, key) if key not in ready.proposed and key not in noted else None
        if record is None or not _is_finished(ready, record) or not _same_but_for_the_space(ready, record, settings):
            continue
        own = ready.spec.space.settings_for(ready.spec.base, record.config)
        config = ready.spec.space.configure(ready.spec.base, own) if own is not None else None
        if own is None or config is None or ready.key_of(config) != key:
            ready.left_out += 1
            continue
        ready.proposed[key] = Cell(own, config)
        ready.records[key] = record


def how_many_fit(ready: Prepared) -> str | None:
    """`3 of 4 finished trials fit this space`, or None without any."""
    fit = sum(ready.records[key].state == "finished" for key in ready.proposed if key in ready.records)
    total = fit + ready.left_out
    return f"{fit} of {total} finished trials fit this space" if total else None


def _of_other_spaces(ready: Prepared) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and settings of the trials of every other sweep of this name on this storage that was started from this
    machine.
    """
    for path in sorted((home() / "sweeps").glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        same = isinstance(entry, dict) and entry.get("name") == ready.spec.name
        if same and entry.get("storage") == str(ready.storage) and path.stem != ready.sweep_id:
            other = SweepFolder(ready.storage / "sweeps" / path.stem)
            other.pull()
            yield from ((key, found) for key, found in other.cells().items() if not is_confirming(found))


def _is_finished(ready: Prepared, record: TrialRecord | None) -> bool:
    return record is not None and record.state == "finished" and record.fold_fingerprint == ready.pairs.fingerprint


def _same_but_for_the_space(ready: Prepared, record: TrialRecord, settings: dict[str, Any]) -> bool:
    """Whether the trial differs from this sweep's base only in settings that either sweep varies."""
    base, theirs = ready.spec.base.canonical(), record.config.canonical()
    varied = {*ready.spec.space.keys, *settings}
    return all(theirs[key] == base[key] for key in theirs.keys() & base.keys() - varied)
