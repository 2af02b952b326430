"""From which probability on a pair is matched (`training.threshold`), chosen on a fold's inner split alone.

Letters: R pairs that the thresholds are chosen on, C criteria.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.part_registry import Registry
from gemma_nli.training.calibrations import fit_platt
from gemma_nli.training.metrics import best_threshold, log_odds, sigmoid

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
Numbers = NDArray[np.integer]
OFFSET_PRECISION = 2.0
"""Of the prior of a criterion's log-odds beside those of all: a standard deviation of 0.7."""
EVEN_SUPPORT = 5.0
"""Positive pairs at which a criterion's own threshold and the shared one count alike."""


@dataclass(frozen=True)
class Thresholds:
    """Probabilities from which on a pair is matched: `own` of criteria, by number, `shared` of all others."""

    shared: float
    own: Mapping[int, float] = field(default_factory=dict)

    def of(self, criterion_N: Numbers) -> Floats:
        """(N,) each pair's."""
        at_N = np.full(len(criterion_N), self.shared)
        for criterion, threshold in self.own.items():
            at_N[criterion_N == criterion] = threshold
        return at_N


AT_HALF = Thresholds(0.5)
"""Of a fold without a useful inner split."""
ThresholdRule = Callable[[Floats, Labels, Numbers], Thresholds]
"""(R,) probabilities, labels and criteria to thresholds."""
THRESHOLD_RULES: Registry[ThresholdRule] = Registry("training.threshold")
threshold_rule = THRESHOLD_RULES.part


@threshold_rule("shared", reads=())
def shared(probability_R: Floats, label_R: Labels, criterion_R: Numbers) -> Thresholds:
    """The one with the best F1 over all pairs."""
    return Thresholds(best_threshold(probability_R, label_R)[0])


@threshold_rule("per_criterion", reads=())
def per_criterion(probability_R: Floats, label_R: Labels, criterion_R: Numbers) -> Thresholds:
    """One per criterion, where the F1 that is expected of the criterion's pairs is best, drawn towards the shared one.

    1. Platt scaling over all pairs, and for each criterion an offset of its log-odds with a normal prior around 0
       (precision OFFSET_PRECISION), make the probabilities fit the labels. A criterion with few pairs has hardly any.
    2. Under these probabilities the criterion's expected F1 is best at some threshold: no few labels decide it alone.
    3. Its log-odds and those of the shared threshold are averaged with weights n / (n + EVEN_SUPPORT) and
       EVEN_SUPPORT / (n + EVEN_SUPPORT), n being the criterion's positive pairs.

    A criterion without a positive pair here, and every one where the scores do not rise with the labels, has the
    shared threshold. Chosen by simulation (`benchmarks/thresholds.py`): thresholds of the best F1 on a criterion's own
    few pairs, drawn towards the shared one in the same way, gained half as much.
    """
    middle = shared(probability_R, label_R, criterion_R)
    logit_R = log_odds(probability_R)
    scaling = fit_platt(logit_R, label_R)
    if scaling is None:
        return middle
    criteria, place_R = np.unique(criterion_R, return_inverse=True)
    scaled_R = scaling.of(logit_R)
    offset_C = _offsets(scaled_R, label_R, place_R, len(criteria))
    likely_R = sigmoid(scaled_R + offset_C[place_R])
    own: dict[int, float] = {}
    for place, criterion in enumerate(criteria.tolist()):
        mine_R = place_R == place
        positives = int(label_R[mine_R].sum())
        if not positives:
            continue
        best = float(log_odds(np.array(_best_expected(likely_R[mine_R]))))
        at = scaling.back(best - float(offset_C[place]))
        weight = positives / (positives + EVEN_SUPPORT)
        even = weight * at + (1 - weight) * float(log_odds(np.array(middle.shared)))
        own[criterion] = float(sigmoid(np.array(even)))
    return Thresholds(middle.shared, own)


def _offsets(logit_R: Floats, label_R: Labels, place_R: NDArray[np.intp], criteria: int) -> Floats:
    """(C,) most likely offsets of the criteria's log-odds, by Newton's method, all at once."""
    offset_C = np.zeros(criteria)
    for _ in range(50):
        likely_R = sigmoid(logit_R + offset_C[place_R])
        slope_C = np.bincount(place_R, likely_R - label_R, criteria) + OFFSET_PRECISION * offset_C
        bend_C = np.bincount(place_R, likely_R * (1 - likely_R), criteria) + OFFSET_PRECISION
        step_C = np.clip(slope_C / bend_C, -1, 1)
        offset_C -= step_C
        if np.abs(step_C).max() < 1e-9:
            break
    return offset_C


def _best_expected(likely_R: Floats) -> float:
    """The threshold with the best expected F1, taken as twice the expected hits by the expected size of both sets."""
    sorted_R = np.sort(likely_R)[::-1]
    hit_R = sorted_R.cumsum()
    f1_R = 2 * hit_R / (np.arange(1, len(sorted_R) + 1) + hit_R[-1])
    f1_R[:-1][sorted_R[:-1] == sorted_R[1:]] = -1.0  # equal probabilities are not divided
    best = int(f1_R.argmax())
    below = sorted_R[best + 1] if best + 1 < len(sorted_R) else 0.0
    return float((sorted_R[best] + below) / 2)
