"""Which searcher a sweep's spec asks for, and what it learns of trials that are already done."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from gemma_nli.config import check_value
from gemma_nli.search.carry_trials import EarlierTrial, carry
from gemma_nli.search.studies_per_value import StudyPerVariant
from gemma_nli.search.study import Proposal, SweepStudy, study_url
from gemma_nli.spec.space import Cell
from gemma_nli.sweep.earlier_spaces import how_many_fit
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.ray.searchers import CellSearcher, StudySearcher
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.tracking.read.queries import finished_runs
from gemma_nli.training.frozen.seeds_together import without_seed
from gemma_nli.trial import TrialRecord, read_trial


def build_searcher(
    ready: Prepared,
    folder: SweepFolder,
    progress: ProgressState,
    trial_changed: Callable[[str], None],
    stopped: Callable[[str], str | None],
    notes: list[str],
) -> CellSearcher | StudySearcher:
    """A fixed list for grid and random; for Optuna a study that knows the finished trials of any sweep on this storage.

    Args:
        stopped: why a scheduler stopped the trial of a key, or None.
        notes: gains a line if finished trials go into a new study: the space changed, or the study was lost.
    """
    if ready.cells or ready.spec.search.algorithm != "optuna":
        return CellSearcher(_given(ready))
    known = _Known(ready, folder, progress, trial_changed)
    study, note = _open_studies(ready, known, folder.owner())
    if note:
        notes.append(note)

    def config_of(proposal: Proposal) -> dict[str, Any]:
        key = ready.key_of(proposal.config)
        folder.add_cells({key: proposal.settings})
        ready.proposed.setdefault(key, Cell(proposal.settings, proposal.config))
        return {"key": key, "settings": proposal.settings}

    return StudySearcher(study, ready.pairs.num_folds, config_of, stopped)


def _given(ready: Prepared) -> list[dict[str, Any]]:
    """The waiting cells as Ray is given them; `beside` are those that train in the computation of another."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, cell in ready.waiting.items():
        together = ready.seeds_together and cell.config.model.freeze_encoder
        group = json.dumps(without_seed(cell.config), sort_keys=True) if together else key
        groups.setdefault(group, []).append({"key": key, "settings": cell.settings})
    return [{**first, "beside": others} if others else first for first, *others in groups.values()]


def _open_studies(ready: Prepared, known: _Known, owner: str) -> tuple[SweepStudy | StudyPerVariant, str | None]:
    """The sweep's study (one per compared value, named after it, if settings are compared), and a note."""
    url, warm = study_url(ready.spec, ready.folder), list(_earlier(ready))
    variants: list[tuple[dict[str, Any], SweepStudy]] = []
    new = False
    for fixed, variant in ready.spec.variants():
        name = f"{ready.sweep_id} {json.dumps(fixed, sort_keys=True)}" if fixed else ready.sweep_id
        study = SweepStudy(variant, name, url, partial(_known_of_variant, known, fixed), owner)
        new = new or not study.counted
        carry(study, _of_journals(ready, fixed))
        study.add_earlier([(settings, values) for settings, values in warm if fixed.items() <= settings.items()])
        variants.append((fixed, study))
    found = how_many_fit(ready) if new else None
    note = f"this search space has a new study: {found}, and count in it" if found else None
    return (StudyPerVariant(variants) if ready.spec.compare else variants[0][1]), note


def _of_journals(ready: Prepared, fixed: dict[str, Any]) -> Iterator[EarlierTrial]:
    """The sweep's earlier trials, as a compared value's study gets them."""
    for key, cell in ready.proposed.items():
        if not fixed.items() <= cell.settings.items():
            continue
        settings = {name: value for name, value in cell.settings.items() if name not in fixed}
        record = ready.records.get(key)
        if record is None or record.state in ("running", "failed"):
            yield EarlierTrial(settings)
        elif record.state == "finished":
            yield EarlierTrial(settings, record.metrics())
        else:
            yield EarlierTrial(settings, means=_running_means(record))


def _running_means(record: TrialRecord) -> dict[int, float]:
    scores = [record.folds[fold].metrics.get("f1", math.nan) for fold in sorted(record.folds)]
    return {count: statistics.fmean(scores[:count]) for count in range(1, len(scores) + 1)}


def _known_of_variant(known: _Known, fixed: dict[str, Any], settings: dict[str, Any]) -> dict[str, float] | None:
    return known({**fixed, **settings})


class _Known:
    """Answers the study from the journals, and shows the answers on the board and in MLflow."""

    def __init__(
        self, ready: Prepared, folder: SweepFolder, progress: ProgressState, trial_changed: Callable[[str], None]
    ) -> None:
        self.ready, self.folder, self.progress, self.trial_changed = ready, folder, progress, trial_changed

    def __call__(self, settings: dict[str, Any]) -> dict[str, float] | None:
        config = self.ready.spec.base.with_settings(settings)
        key = self.ready.key_of(config)
        record = read_trial(self.ready.storage, key)
        if record is None or record.state != "finished":
            return None
        self.folder.add_cells({key: settings})
        self.ready.proposed.setdefault(key, Cell(settings, config))
        self.ready.records.setdefault(key, record)
        self.progress.add(key, settings, reused=True)
        self.progress.update(key, "finished", record.metrics(), len(record.folds))
        self.trial_changed(key)
        return record.metrics()


def _earlier(ready: Prepared) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Finished runs of `search.warm_start.experiment` as (settings of this space, objective values).

    Only runs measured on the same folds count: scores from other validation sets would mislead the sampler.
    """
    experiment = ready.spec.search.warm_start.experiment
    if experiment is None:
        return
    objectives = [objective.metric for objective in ready.spec.objectives]
    for params, metrics in finished_runs(experiment, ready.spec.base.mlflow, ready.pairs.fingerprint):
        if all(name in metrics for name in objectives):
            settings = {key: check_value(key, params[key]) for key in ready.spec.space.keys if key in params}
            yield settings, [metrics[name] for name in objectives]
