"""Ensembles of trials from their out-of-fold predictions: chosen greedily, judged on folds that did not choose them.

An ensemble averages its members' probabilities, and in each fold their thresholds, which they chose on inner splits.
Members are added one at a time, each the one that helps most; a trial may come again, which gives it weight.

Chosen and measured on the same pairs it looks better than it is. So a choice is made on all folds but one, and measured
on that one, for every fold; the single best trial, to which it is compared, is chosen and measured the same way.

Letters: T trials, N pairs, K folds, C criteria, S draws.
Source: Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble Selection from Libraries of Models".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.inference.observed import ScoredPairs
from gemma_nli.base.metrics import measured_by

Floats = NDArray[np.float64]
LIBRARY = 50
"""So many of the best trials are candidates: with hundreds, the last ones only bring noise (Caruana et al. 2006)."""


@dataclass(frozen=True)
class Predictions:
    """(T, N) of each pair what each trial predicted in its fold: the probability, and how far it lies above the trial's
    threshold of that fold. An average of margins is above zero where the average of probabilities is above that of
    thresholds.
    """

    probability_TN: Floats
    margin_TN: Floats
    label_N: NDArray[np.int8]
    fold_N: NDArray[Any]
    criterion_N: NDArray[Any]
    metric: str

    @classmethod
    def of(
        cls,
        probability_TN: NDArray[Any],
        threshold_TN: Floats,
        label_N: NDArray[np.int8],
        fold_N: NDArray[Any],
        criterion_N: NDArray[Any],
        metric: str,
    ) -> Predictions:
        """Of probabilities and the threshold that decides each pair."""
        wide_TN = probability_TN.astype(np.float64)
        return cls(wide_TN, wide_TN - threshold_TN, label_N, fold_N, criterion_N, metric)

    def values(self, probability_EN: Floats, margin_EN: Floats) -> NDArray[Any]:
        """(E, N) what the metric takes."""
        return np.asarray(measured_by(self.metric).takes(margin_EN >= 0, probability_EN))

    def weighted(self, weights_T: Floats) -> NDArray[Any]:
        """(N,) the same of an ensemble of these weights."""
        both = [(weights_T @ each_TN)[None] for each_TN in (self.probability_TN, self.margin_TN)]
        return np.asarray(self.values(*both)[0])

    def at(self, rows: NDArray[np.int64]) -> Predictions:
        """Some of the pairs."""
        both = (self.probability_TN[:, rows], self.margin_TN[:, rows])
        return Predictions(*both, self.label_N[rows], self.fold_N[rows], self.criterion_N[rows], self.metric)

    def scores(self, values_EN: NDArray[Any]) -> Floats:
        """(E,) as a trial's aggregates are; -inf where there is no score."""
        found_E = ScoredPairs(self.label_N, self.fold_N, self.criterion_N).scores(values_EN, self.metric)
        return np.nan_to_num(found_E, nan=-np.inf)


def greedy(predictions: Predictions, size: int) -> Floats:
    """(T,) the weights of an ensemble of `size` members, some of them perhaps the same trial.

    The first is the best trial. Ties go to the one that is better alone, then to the one that comes first.
    """
    alone_T = predictions.scores(predictions.values(predictions.probability_TN, predictions.margin_TN))
    library = np.argsort(-alone_T, kind="stable")[:LIBRARY]
    each = predictions.probability_TN[library], predictions.margin_TN[library]
    first = int(alone_T.argmax())
    count_T = np.zeros(len(alone_T))
    count_T[first] = 1
    sums = [predictions.probability_TN[first].copy(), predictions.margin_TN[first].copy()]
    for members in range(2, size + 1):
        grown = [(sum_N + each_LN) / members for sum_N, each_LN in zip(sums, each, strict=True)]
        best = int(predictions.scores(predictions.values(*grown)).argmax())
        count_T[library[best]] += 1
        sums = [sum_N + each_LN[best] for sum_N, each_LN in zip(sums, each, strict=True)]
    return np.asarray(count_T / size)


def greedy_per_criterion(predictions: Predictions, size: int, criteria: Sequence[int]) -> dict[int, Floats]:
    """An ensemble for each criterion, by its own pairs; where these lack a class, the one of all pairs."""
    shared = greedy(predictions, size)
    found = {}
    for criterion in criteria:
        rows = np.flatnonzero(predictions.criterion_N == criterion)
        labels = predictions.label_N[rows]
        both = bool(labels.any()) and not bool(labels.all())
        found[criterion] = greedy(_pooled(predictions.at(rows)), size) if both else shared
    return found


def _pooled(part: Predictions) -> Predictions:
    """One criterion's few pairs, measured over all folds at once: many folds lack a class of it."""
    together = np.zeros_like(part.fold_N)
    return dataclasses.replace(part, fold_N=together, metric=part.metric.removeprefix("macro_"))


Choose = Callable[[Predictions], Callable[[Predictions], NDArray[Any]]]
"""Predictions of some folds to a choice, which gives (N,) values of others."""


def single(predictions: Predictions) -> Callable[[Predictions], NDArray[Any]]:
    """The best trial alone."""
    weights_T = greedy(predictions, 1)
    return lambda other: other.weighted(weights_T)


def ensemble(size: int) -> Choose:
    """One ensemble for all pairs."""

    def choose(predictions: Predictions) -> Callable[[Predictions], NDArray[Any]]:
        weights_T = greedy(predictions, size)
        return lambda other: other.weighted(weights_T)

    return choose


def ensemble_per_criterion(size: int, criteria: Sequence[int]) -> Choose:
    """An ensemble for each criterion."""

    def choose(predictions: Predictions) -> Callable[[Predictions], NDArray[Any]]:
        weights = greedy_per_criterion(predictions, size, criteria)

        def values(other: Predictions) -> NDArray[Any]:
            every_CN = np.stack([other.weighted(weights[criterion]) for criterion in criteria])
            place_N = np.searchsorted(np.asarray(criteria), other.criterion_N)
            return np.asarray(every_CN[place_N, np.arange(len(place_N))])

        return values

    return choose


def held_out(predictions: Predictions, choose: Choose) -> NDArray[Any]:
    """(N,) values of each fold by what the other folds chose."""
    found: NDArray[Any] | None = None
    for fold in np.unique(predictions.fold_N):
        here = np.flatnonzero(predictions.fold_N == fold)
        chosen = choose(predictions.at(np.flatnonzero(predictions.fold_N != fold)))
        values = chosen(predictions.at(here))
        if found is None:
            found = np.zeros(len(predictions.fold_N), dtype=values.dtype)
        found[here] = values
    assert found is not None, "there are folds"
    return found
