"""What ensembles of a sweep's trials would bring, beside its winner: chosen and measured on different folds.

Letters: T trials, N evaluation pairs, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import LEVEL
from gemma_nli.analysis.inference.ensemble_selection import (
    Choose,
    Floats,
    Predictions,
    ensemble,
    ensemble_per_criterion,
    greedy,
    greedy_per_criterion,
    held_out,
    single,
)
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.inference.simultaneous import AllPairs
from gemma_nli.base.metrics import measured_by

SIZE = 5
METHOD = "chosen on the other folds, bootstrap over posts"


@dataclass(frozen=True)
class EnsembleFinding:
    """`raw`: chosen and measured on the same pairs. `value`: each fold measured by what the others chose.

    gain: over the single best trial, chosen and measured alike; None of that one. Intervals hold for all gains at once.
    members: (row of the trial, weight), the heaviest first; of several ensembles, those of all criteria together.
    noise_S: how far other posts would move the value.
    """

    name: str
    raw: float
    value: float
    gain: Difference | None
    members: tuple[tuple[int, float], ...]
    noise_S: Floats


@dataclass(frozen=True)
class Ensembles:
    """The single best trial first, then an ensemble for all criteria, then one per criterion."""

    size: int
    metric: str
    found: tuple[EnsembleFinding, ...]

    @property
    def label(self) -> str:
        return measured_by(self.metric).label

    @property
    def sentence(self) -> str:
        """Who wins, by how much, how sure, and what to do."""
        kinds = [each for each in self.found if each.gain is not None]
        gains = {each.name: each.gain for each in kinds if each.gain is not None}
        better = [name for name, gain in gains.items() if gain.low > 0]
        worse = [name for name, gain in gains.items() if gain.high < 0]
        name = max(better or gains, key=lambda each: gains[each].value)
        gain = gains[name]
        by = f"{abs(gain.value):.3f} {self.label} (95% interval {gain.low:.3f} to {gain.high:.3f})"
        if better:
            return f"An ensemble of {self.size} trials, {name}, beats the single best trial by {by}."
        if len(worse) == len(gains):
            return f"The single best trial beats every ensemble of {self.size}; the nearest, {name}, differs by {by}."
        most = max(each.high for each in gains.values())
        lead = "leads it" if gain.value > 0 else "is behind it"
        return (
            f"No ensemble of {self.size} trials is shown to beat the single best trial: {name} {lead} by {by}; "
            f"up to {most:.3f} is possible. Serve the single trial."
        )

    def to_json(self) -> dict[str, Any]:
        """For report.json and `--json`."""
        kinds = [
            {
                "name": each.name,
                "held_out": each.value,
                "raw": each.raw,
                **({"gain": [each.gain.value, each.gain.low, each.gain.high]} if each.gain is not None else {}),
            }
            for each in self.found
        ]
        return {"size": self.size, "sentence": self.sentence, "kinds": kinds}


def find_ensembles(evidence: Evidence, draws: Draws, size: int = SIZE) -> Ensembles | None:
    """The three of them on the evidence's pairs; None of a single trial, and where pairs cannot be measured."""
    if len(evidence.complete) < 2:
        return None
    predictions = predictions_of(evidence, draws.metric)
    criteria = np.unique(predictions.criterion_N).tolist()
    alone, shared = greedy(predictions, 1), greedy(predictions, size)
    each = greedy_per_criterion(predictions, size, criteria)
    kinds: list[tuple[str, Choose, Floats]] = [
        ("the single best trial", single, alone),
        ("one for all criteria", ensemble(size), shared),
    ]
    if len(criteria) > 1:
        mean_T = np.mean([each[criterion] for criterion in criteria], axis=0)
        kinds.append(("one per criterion", ensemble_per_criterion(size, criteria), mean_T))
    values_NE = np.stack([held_out(predictions, choose) for _, choose, _ in kinds], axis=1)
    score_E = draws.bootstrap.scored.scores(values_NE.T, draws.metric)
    if np.isnan(score_E).any():
        return None
    noise_SE = Draws.from_values(draws.bootstrap, values_NE, draws.metric, score_E).noise_ST
    pairs = AllPairs(score_E.tolist(), noise_SE, LEVEL, METHOD)
    found = []
    for place, (name, choose, weights_T) in enumerate(kinds):
        raw = draws.bootstrap.observed(choose(predictions)(predictions), draws.metric)
        gain = pairs.difference(place, 0) if place else None
        members, noise_S = _members(weights_T), noise_SE[:, place]
        found.append(EnsembleFinding(name, raw, float(score_E[place]), gain, members, noise_S))
    return Ensembles(size, draws.metric, tuple(found))


def predictions_of(evidence: Evidence, metric: str) -> Predictions:
    """Every complete trial's."""
    criterion_N = evidence.pairs.criterion_N[evidence.rows_N]
    known = (evidence.label_N, evidence.fold_N, criterion_N, metric)
    return Predictions.of(evidence.probability_TN, evidence.threshold_TN, *known)


def _members(weights_T: Sequence[float] | Floats) -> tuple[tuple[int, float], ...]:
    chosen = [(place, float(weight)) for place, weight in enumerate(weights_T) if weight > 0]
    return tuple(sorted(chosen, key=lambda member: (-member[1], member[0])))
