"""What ensembles of a sweep's trials would bring, beside its winner: chosen and measured on different folds.

Letters: T trials, N evaluation pairs, S draws.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
from gemma_nli.training.results import OutOfFold

SIZE = 5
FOR_ALL, PER_CRITERION = "one for all criteria", "one per criterion"
METHOD = "chosen on the other folds, bootstrap over posts"


@dataclass(frozen=True)
class EnsembleFinding:
    """`raw`: chosen and measured on the same pairs. `value`: each fold measured by what the others chose.

    gain: over the single best trial, chosen and measured alike; None of that one. Intervals hold for all gains at once.
    weights_T: of the trials; of several ensembles, those of all criteria together. `criterion_weights`: (T,) of each
        criterion, by its place in the table; empty for one ensemble.
    noise_S: how far other posts would move the value.
    """

    name: str
    raw: float
    value: float
    gain: Difference | None
    weights_T: Floats
    criterion_weights: Mapping[int, Floats]
    noise_S: Floats

    @property
    def members(self) -> tuple[tuple[int, float], ...]:
        """(row of the trial, weight), the heaviest first."""
        chosen = [(place, float(weight)) for place, weight in enumerate(self.weights_T) if weight > 0]
        return tuple(sorted(chosen, key=lambda member: (-member[1], member[0])))


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
    def better(self) -> str | None:
        """The kind that is shown to beat the single best trial by most."""
        gains = {each.name: each.gain for each in self.found if each.gain is not None and each.gain.low > 0}
        return max(gains, key=lambda name: gains[name].value) if gains else None

    @property
    def sentence(self) -> str:
        """Who wins, by how much, how sure, and what to do."""
        kinds = [each for each in self.found if each.gain is not None]
        gains = {each.name: each.gain for each in kinds if each.gain is not None}
        worse = [name for name, gain in gains.items() if gain.high < 0]
        name = self.better or max(gains, key=lambda each: gains[each].value)
        gain = gains[name]
        by = f"{abs(gain.value):.3f} {self.label} (95% interval {gain.low:.3f} to {gain.high:.3f})"
        if self.better:
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


def find_ensembles(evidence: Evidence, draws: Draws) -> Ensembles | None:
    """The three of them on the evidence's pairs, of as many members as `finalize.ensemble` says; None of a single
    trial, and where pairs cannot be measured."""
    asked = evidence.spec.finalize.ensemble
    size = SIZE if asked is None else asked.size
    if len(evidence.complete) < 2:
        return None
    predictions = predictions_of(evidence, draws.metric)
    criteria = np.unique(predictions.criterion_N).tolist()
    alone, shared = greedy(predictions, 1), greedy(predictions, size)
    each = greedy_per_criterion(predictions, size, criteria)
    kinds: list[tuple[str, Choose, Floats, Mapping[int, Floats]]] = [
        ("the single best trial", single, alone, {}),
        (FOR_ALL, ensemble(size), shared, {}),
    ]
    if len(criteria) > 1:
        mean_T = np.mean([each[criterion] for criterion in criteria], axis=0)
        kinds.append((PER_CRITERION, ensemble_per_criterion(size, criteria), mean_T, each))
    values_NE = np.stack([held_out(predictions, choose) for _, choose, *_ in kinds], axis=1)
    score_E = draws.bootstrap.scored.scores(values_NE.T, draws.metric)
    if np.isnan(score_E).any():
        return None
    noise_SE = Draws.from_values(draws.bootstrap, values_NE, draws.metric, score_E).noise_ST
    pairs = AllPairs(score_E.tolist(), noise_SE, LEVEL, METHOD)
    found = []
    for place, (name, choose, weights_T, own) in enumerate(kinds):
        raw = draws.bootstrap.observed(choose(predictions)(predictions), draws.metric)
        gain = pairs.difference(place, 0) if place else None
        noise_S = noise_SE[:, place]
        found.append(EnsembleFinding(name, raw, float(score_E[place]), gain, weights_T, own, noise_S))
    return Ensembles(size, draws.metric, tuple(found))


@dataclass(frozen=True)
class ChosenEnsemble:
    """What a sweep registers under `finalize.ensemble`.

    weights: by trial key, the heaviest first, 1 together; `criterion_weights`: by criterion id, of criteria with an
        ensemble of their own.
    out_of_fold: what its members predict together of the evaluation pairs; they were chosen on these same pairs.
    """

    finding: EnsembleFinding
    candidates: int
    metric: str
    weights: dict[str, float]
    criterion_weights: dict[str, dict[str, float]]
    out_of_fold: OutOfFold

    @property
    def key(self) -> str:
        """Of its members and their weights: what its version is found by."""
        told = json.dumps([self.weights, self.criterion_weights], sort_keys=True)
        return f"ensemble-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    @property
    def interval(self) -> tuple[float, float]:
        """95%, of the held-out score."""
        low, high = np.quantile(self.finding.noise_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(self.finding.value + low), float(self.finding.value + high)

    @property
    def about(self) -> str:
        kind = ", one for each criterion" if self.criterion_weights else ""
        return f"an ensemble of {len(self.weights)} trials{kind}"


def choose_ensemble(evidence: Evidence, ensembles: Ensembles | None) -> ChosenEnsemble | None:
    """The one that `finalize.ensemble` asks for; None if it asks for none, or if one trial alone would be all of it."""
    asked = evidence.spec.finalize.ensemble
    if asked is None or ensembles is None:
        return None
    finding = ensembles.found[2 if asked.per_criterion and len(ensembles.found) > 2 else 1]
    if len(finding.members) < 2:
        return None
    keys = [trial.key for trial in evidence.complete]
    weights = {keys[place]: weight for place, weight in finding.members}
    own = {
        evidence.pairs.criterion_ids[criterion]: {key: float(weights_T[keys.index(key)]) for key in weights}
        for criterion, weights_T in finding.criterion_weights.items()
    }
    own = {name: {key: weight for key, weight in each.items() if weight > 0} for name, each in own.items()}
    predictions = predictions_of(evidence, ensembles.metric)
    weights_TN = np.repeat(finding.weights_T[:, None], len(evidence.rows_N), axis=1)
    for criterion, weights_T in finding.criterion_weights.items():
        weights_TN[:, predictions.criterion_N == criterion] = weights_T[:, None]
    margin_N = (weights_TN * predictions.margin_TN).sum(0)
    probability_N = (weights_TN * predictions.probability_TN).sum(0)
    folds_N = evidence.fold_N.astype(np.int64)
    predicted = OutOfFold(evidence.rows_N, evidence.label_N, folds_N, margin_N >= 0, probability_N)
    return ChosenEnsemble(finding, len(keys), ensembles.metric, weights, own, predicted)


def predictions_of(evidence: Evidence, metric: str) -> Predictions:
    """Every complete trial's."""
    criterion_N = evidence.pairs.criterion_N[evidence.rows_N]
    known = (evidence.label_N, evidence.fold_N, criterion_N, metric)
    return Predictions.of(evidence.probability_TN, evidence.threshold_TN, *known)
