"""The best trial of each compared value trained again, on fresh fold drawings and training seeds (`finalize.confirm`).

Which values these are, the report's own rule says (`analysis/compared_values.py`), so that its headline can count
trainings in. Confirming trials are trials of the same sweep, with journals, runs and keys of their own. Their pairs are
drawn again, so they are compared among themselves, never with the sweep's, and are not candidates for the best. The
seeds of one configuration on one drawing train in one computation where its encoder is frozen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ray.exceptions import RayError

from gemma_nli.analysis.compared_values import compared_values
from gemma_nli.analysis.effects import main_effects
from gemma_nli.analysis.from_journals import gather
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.base.errors import ReportError
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.spec.space import Cell
from gemma_nli.spec.sweep_sections import MOST, SchedulerSettings
from gemma_nli.sweep.cluster.ray_session import ray_failed
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.interrupts import Interrupts
from gemma_nli.sweep.prepare import Prepared, feature_requests
from gemma_nli.sweep.ray.callback import TrialChanged
from gemma_nli.sweep.ray.encode_corpus import encode_on_nodes
from gemma_nli.sweep.ray.tuner import Tuning
from gemma_nli.sweep.records.outcome import Outcome, outcome_of
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import read_trials

STRIDE = 1000
"""Between fold seeds: a drawing uses the few seeds above its own for the inner splits."""


def leaders_of(ready: Prepared) -> list[Cell]:
    """The best trial of each value that the report's headline compares, from the journals; none before any finished."""
    cells = {key: cell.settings for key, cell in ready.trials.items()}
    try:
        evidence = gather(ready.spec, ready.corpus, ready.pairs, ready.storage, cells, ready.sweep_id)
    except ReportError:
        return []
    compared = compared_values(evidence, lambda: main_effects(evidence, Draws.of(evidence)))
    keys = [evidence.complete[place].key for place in compared.leaders(evidence).values()]
    return [ready.trials[key] for key in dict.fromkeys(keys)]


def confirming_rounds(ready: Prepared, leaders: Sequence[Cell]) -> list[Prepared]:
    """The leaders' trainings: one sweep per fold drawing; empty if none is requested."""
    confirm = ready.spec.finalize.confirm
    if confirm is None or not leaders:
        return []
    return [_round(ready, leaders, drawing) for drawing in range(1, confirm.fold_drawings + 1)]


def _round(ready: Prepared, leaders: Sequence[Cell], drawing: int) -> Prepared:
    """Every leader on one fresh drawing of the folds, with training seeds that no leader and no other drawing has."""
    assert ready.spec.finalize.confirm is not None
    seeds = ready.spec.finalize.confirm.seeds
    fold_seed = ready.spec.base.data.fold_seed + drawing * STRIDE
    base = ready.spec.base.with_settings({"data.fold_seed": fold_seed})
    search = ready.spec.search.model_copy(update={"time_budget": None})
    spec = ready.spec.model_copy(update={"base": base, "scheduler": SchedulerSettings(), "search": search})
    pairs = build_pairs(ready.corpus, base.data)
    again = Prepared(spec, ready.corpus, pairs, ready.sweep_id, ready.folder, {}, seeds_together=True)
    first = max(leader.config.training.seed for leader in leaders) + drawing
    for leader in leaders:
        for number in range(seeds):  # so that more seeds or drawings later keep those that ran
            fresh = {"data.fold_seed": fold_seed, "training.seed": (first + MOST * number) % 2**32}
            config = leader.config.with_settings(fresh)
            again.cells[again.key_of(config)] = Cell({**leader.settings, **fresh}, config)
    again.records = read_trials(ready.storage, again.cells)
    return again


def confirmed(rounds: Sequence[Prepared]) -> Outcome:
    """How the confirming trials of all drawings have ended."""
    return Outcome(tuple(trial for ready in rounds for trial in outcome_of(ready).trials))


def run_rounds(
    rounds: Sequence[Prepared],
    folder: SweepFolder,
    trial_changed: TrialChanged,
    interrupts: Interrupts,
    resources: TrialResources,
    notes: list[str],
) -> None:
    """Run those still waiting, one drawing after the other, until done or interrupted.

    What a process that trained several seeds left undone runs once more, each seed alone.
    """
    for ready in rounds:
        folder.add_cells({key: cell.settings for key, cell in ready.cells.items()})
        run = _Drawing(folder, trial_changed, interrupts, resources, notes)
        run.start(ready)
        endless = {trial.key for trial in outcome_of(ready).trials if trial.state == "waiting"}
        run.start(_only(ready, endless))


def _only(ready: Prepared, keys: Collection[str]) -> Prepared:
    """Some trials of a drawing, each alone, as their journals are now."""
    cells = {key: cell for key, cell in ready.cells.items() if key in keys}
    return dataclasses.replace(ready, cells=cells, records=read_trials(ready.storage, cells), seeds_together=False)


@dataclass
class _Drawing:
    """Runs confirming trials on one drawing of the folds."""

    folder: SweepFolder
    trial_changed: TrialChanged
    interrupts: Interrupts
    resources: TrialResources
    notes: list[str]

    def start(self, ready: Prepared) -> None:
        """Run what waits, unless the user has interrupted the sweep."""
        if self.interrupts.count or not ready.waiting:
            return
        progress = ProgressState(ready.spec.metric, ready.spec.mode, len(ready.cells), ready.spec.base.data.measured_at)
        for key, cell in ready.waiting.items():
            progress.add(key, cell.settings)
        try:
            blocks, _ = encode_on_nodes(feature_requests(ready), ready.storage, ready.spec.base.features)
        except RayError as error:
            raise ray_failed(error) from None
        Tuning(ready, self.folder, progress, self.trial_changed, self.interrupts, self.resources, self.notes).run(
            blocks
        )
