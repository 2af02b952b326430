"""Whether the leaders kept their order on fresh fold drawings and training seeds (`finalize.confirm`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.analysis.inference.significance import Difference, corrected_resampled_t
from gemma_nli.base.metrics import measured_by
from gemma_nli.training.results import OutOfFold
from gemma_nli.trial import TrialRecord

Floats = NDArray[np.float64]
FRESH = ("data.fold_seed", "training.seed")
"""What a confirming trial changes; everything else is its leader's."""


@dataclass(frozen=True)
class Confirmed:
    """A leader: its score in the sweep, and its mean in each repeat, (R,)."""

    key: str
    settings: dict[str, object]
    swept: float
    repeat_R: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.repeat_R.mean())


@dataclass(frozen=True)
class Confirmation:
    """Leaders in the sweep's order. `first_ahead`: the first minus the second over all folds of all repeats."""

    leaders: tuple[Confirmed, ...]
    repeats: int
    first_ahead: Difference | None

    @property
    def order_held(self) -> bool:
        means = [leader.mean for leader in self.leaders]
        return means == sorted(means, reverse=True)

    @property
    def summary(self) -> str:
        return ", ".join(f"{leader.swept:.3f} became {leader.mean:.3f}" for leader in self.leaders)


def confirm(evidence: Evidence) -> Confirmation | None:
    """The confirming trials that have ended, grouped by leader; None where there are none (or none is whole yet)."""
    metric, scores_T = evidence.ranked_by, evidence.scores()
    part = measured_by(metric).part.name
    leaders: dict[str, tuple[int, dict[tuple[int, int], tuple[float, Floats]]]] = {}
    by_settings = {_same(evidence, trial.settings): place for place, trial in enumerate(evidence.complete)}
    for settings, record in evidence.confirmations:
        place = by_settings.get(_same(evidence, settings))
        whole = record.state == "finished" and all(part in fold.metrics for fold in record.folds.values())
        if place is None or not whole:
            continue
        _, repeats = leaders.setdefault(evidence.complete[place].key, (place, {}))
        drawn = (record.config.data.fold_seed, record.config.training.seed)
        repeats[drawn] = _again(record, metric, evidence.pairs.criterion_N)
    if not leaders:
        return None
    ordered = sorted(leaders.items(), key=lambda item: -scores_T[item[1][0]])
    shared = set.intersection(*(set(repeats) for _, (_, repeats) in ordered))
    if not shared:
        return None
    found = tuple(
        Confirmed(
            key,
            evidence.complete[place].settings,
            float(scores_T[place]),
            np.array([repeats[drawn][0] for drawn in sorted(shared)]),
        )
        for key, (place, repeats) in ordered
    )
    ahead = None
    if len(ordered) > 1:
        folds = [np.concatenate([repeats[drawn][1] for drawn in sorted(shared)]) for _, (_, repeats) in ordered[:2]]
        ahead = corrected_resampled_t(folds[0], folds[1], 1 / (evidence.pairs.num_folds - 1))
    return Confirmation(found, len(shared), ahead)


def _again(record: TrialRecord, metric: str, criterion_N: NDArray[np.int32]) -> tuple[float, Floats]:
    """A confirming trial's score, and (K,) those of its folds. Other folds, but rows are of the same pairs."""
    found = OutOfFold.of([fold for _, fold in sorted(record.folds.items())])
    scored = ScoredPairs(found.labels, found.folds, criterion_N[found.rows])
    values_1N = np.asarray(measured_by(metric).takes(found.decisions, found.probabilities))[None]
    return float(scored.scores(values_1N, metric)[0]), scored.fold_scores(values_1N, metric)[0]


def _same(evidence: Evidence, settings: Mapping[str, Any]) -> str:
    """What a leader and its confirming trials have in common."""
    kept = {key: settings.get(key) for key in evidence.spec.space.keys if key not in FRESH}
    return json.dumps({key: value for key, value in kept.items() if value is not None}, sort_keys=True)
