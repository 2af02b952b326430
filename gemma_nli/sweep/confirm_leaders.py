"""The leaders again, on new folds and training seeds: was their order luck? (`finalize.confirm`)

Confirming trials are trials of the same sweep, with journals, runs and keys of their own. Their pairs are drawn again,
so they are compared among themselves, never with the sweep's, and are not candidates for the best.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray.exceptions import RayError

from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.spec.space import Cell
from gemma_nli.spec.sweep_sections import SchedulerSettings
from gemma_nli.sweep.cluster.ray_session import ray_failed
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.interrupts import Interrupts
from gemma_nli.sweep.prepare import Prepared, feature_requests
from gemma_nli.sweep.ray.callback import TrialChanged
from gemma_nli.sweep.ray.encode_corpus import encode_on_nodes
from gemma_nli.sweep.ray.tuner import Tuning
from gemma_nli.sweep.records.outcome import Outcome, TrialOutcome, outcome_of
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import read_trials

_STRIDE = 1000
"""Between fold seeds: a drawing uses the few seeds above its own for the inner splits."""


def confirming_rounds(ready: Prepared, ranked: Sequence[TrialOutcome]) -> list[Prepared]:
    """The leaders' repeats: one sweep per repeat, its cells the leaders; empty if none is requested."""
    confirm = ready.spec.finalize.confirm
    if confirm is None or not ranked:
        return []
    leaders = [trial.settings for trial in ranked[: confirm.top]]
    return [_round(ready, leaders, repeat) for repeat in range(1, confirm.repeats + 1)]


def _round(ready: Prepared, leaders: list[dict[str, object]], repeat: int) -> Prepared:
    """Every leader on one fresh drawing of the folds, with one fresh training seed each."""
    fold_seed = ready.spec.base.data.fold_seed + repeat * _STRIDE
    base = ready.spec.base.with_settings({"data.fold_seed": fold_seed})
    search = ready.spec.search.model_copy(update={"time_budget": None})
    spec = ready.spec.model_copy(update={"base": base, "scheduler": SchedulerSettings(), "search": search})
    pairs = build_pairs(ready.corpus, base.data)
    again = Prepared(spec, ready.corpus, pairs, ready.sweep_id, ready.folder, {})
    for settings in leaders:
        own = ready.spec.space.configure(ready.spec.base, settings)
        fresh = {"data.fold_seed": fold_seed, "training.seed": (own.training.seed + repeat) % 2**32}
        config = own.with_settings(fresh)
        again.cells[again.key_of(config)] = Cell({**settings, **fresh}, config)
    again.records = read_trials(ready.storage, again.cells)
    return again


def confirmed(rounds: Sequence[Prepared]) -> Outcome:
    """How the confirming trials of all repeats have ended."""
    return Outcome(tuple(trial for ready in rounds for trial in outcome_of(ready).trials))


def run_rounds(
    rounds: Sequence[Prepared],
    folder: SweepFolder,
    trial_changed: TrialChanged,
    interrupts: Interrupts,
    resources: TrialResources,
    notes: list[str],
) -> None:
    """Run those still waiting, one after the other, until done or interrupted."""
    for ready in rounds:
        if interrupts.count:
            return
        folder.add_cells({key: cell.settings for key, cell in ready.cells.items()})
        if not ready.waiting:
            continue
        progress = ProgressState(ready.spec.metric, ready.spec.mode, len(ready.cells), ready.spec.base.data.measured_at)
        for key, cell in ready.waiting.items():
            progress.add(key, cell.settings)
        try:
            blocks, _ = encode_on_nodes(feature_requests(ready), ready.storage, ready.spec.base.features)
        except RayError as error:
            raise ray_failed(error) from None
        Tuning(ready, folder, progress, trial_changed, interrupts, resources, notes).run(blocks)
