"""Scores of predictions as they are: fold by fold, and as a trial's aggregates have them.

Letters: E rows of predictions (trials), N pairs, K folds, C criteria.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import MacroMetric, Metric, measured_by
from gemma_nli.base.metrics.macro import mean_of_known, supported, within_criteria

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredPairs:
    """What the predictions of pairs are measured against: labels, folds, and criteria where they are known."""

    label_N: NDArray[np.int8]
    fold_N: NDArray[Any]
    criterion_N: NDArray[Any] | None = None

    @cached_property
    def averaged(self) -> list[int]:
        """The criteria that macro means are over, by number.

        Raises:
            ValueError: the pairs' criteria are not known.
        """
        if self.criterion_N is None:
            raise ValueError("a mean over criteria needs the criterion of each pair")
        return supported(self.label_N, self.criterion_N)

    def scores(self, values_EN: NDArray[Any], metric: str) -> Floats:
        """(E,) means over folds (a fold of one class has no AUC and is left out), or over criteria."""
        measured = measured_by(metric)
        if isinstance(measured, MacroMetric):
            return mean_of_known(self.within(values_EN, measured.part), axis=1)
        return np.asarray(np.nanmean(self.fold_scores(values_EN, metric), axis=1))

    def fold_scores(self, values_EN: NDArray[Any], metric: str) -> Floats:
        """(E, K) of each fold; of a macro metric the mean over those of its criteria that have both classes there."""
        measured = measured_by(metric)
        scores_EK = [self._of_fold(values_EN, measured, np.flatnonzero(self.fold_N == k)) for k in self._folds]
        return np.stack(scores_EK, axis=1)

    def within(self, values_EN: NDArray[Any], metric: Metric) -> Floats:
        """(E, C) the score within each criterion that is averaged."""
        criteria = self.averaged
        assert self.criterion_N is not None
        return within_criteria(metric, values_EN, self.label_N, self.criterion_N, self.fold_N, criteria)

    @cached_property
    def _folds(self) -> NDArray[Any]:
        return np.unique(self.fold_N)

    def _of_fold(self, values_EN: NDArray[Any], measured: Metric | MacroMetric, at: NDArray[np.int64]) -> Floats:
        if isinstance(measured, Metric):
            return measured.of_rows(values_EN[:, at], self.label_N[at])
        criteria = self.averaged
        assert self.criterion_N is not None
        here = (self.label_N[at], self.criterion_N[at], self.fold_N[at])
        return mean_of_known(within_criteria(measured.part, values_EN[:, at], *here, criteria), axis=1)
