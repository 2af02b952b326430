"""Metrics within criteria: each criterion measured alone, then the mean over those with enough support.

Pooled over criteria, a model that has only learned which criteria are frequent has an AUC well above 0.5. Within one
criterion that knowledge ranks nothing.

- A metric of decisions counts a criterion's pairs of all folds at once: each fold has its own threshold, so decisions
  of two folds are alike, and a fold has few positives of a criterion.
- A metric of ranks is the mean over those folds in which the criterion has both classes: scores of two folds' models
  have no common scale.
- Enough support is LEAST positive and LEAST other evaluation pairs over all folds. It is asked of the pairs that a
  sweep evaluates, not of a trial nor of a bootstrap draw, so all trials are measured by the same criteria.

Shapes: E or T rows of predictions, N pairs, C criteria.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics.table import METRICS, CountedMetric, Floats, Metric

_Values = TypeVar("_Values")
MACRO = "macro"
LEAST = 5
SUPPORT = f"at least {LEAST} positive and {LEAST} other evaluation pairs"


@dataclass(frozen=True)
class MacroMetric:
    """The mean over criteria of a metric of the table; every one of them has it."""

    part: Metric

    @property
    def name(self) -> str:
        return f"{MACRO}_{self.part.name}"

    @property
    def label(self) -> str:
        return f"{MACRO} {self.part.label}"

    def takes(self, decisions: _Values, scores: _Values) -> _Values:
        return self.part.takes(decisions, scores)


def measured_by(name: str) -> Metric | MacroMetric:
    """The metric `f1`, or `macro_f1`, its mean over criteria.

    Raises:
        KeyError: no such metric.
    """
    return METRICS[name] if name in METRICS else MacroMetric(METRICS[name.removeprefix(f"{MACRO}_")])


def measure_names() -> tuple[str, ...]:
    return (*METRICS, *(f"{MACRO}_{name}" for name in METRICS))


def supported(labels_N: NDArray[Any], criterion_N: NDArray[Any]) -> list[int]:
    """The criteria with enough support, by number."""
    positive_N = np.asarray(labels_N).astype(bool)
    names, place_N = np.unique(criterion_N, return_inverse=True)
    classes = [np.bincount(place_N[of_class], minlength=len(names)) for of_class in (positive_N, ~positive_N)]
    return [int(name) for name in names[np.minimum(*classes) >= LEAST]]


def within_criteria(
    metric: Metric,
    values_EN: NDArray[Any],
    labels_N: NDArray[np.int8],
    criterion_N: NDArray[Any],
    fold_N: NDArray[Any],
    criteria: Sequence[int],
) -> Floats:
    """(E, C) the score within each of `criteria`; NaN where it lacks a class (in every fold, for a metric of ranks).

    Args:
        values_EN: what the metric takes.
    """
    scores_EC = np.full((len(values_EN), len(criteria)), np.nan)
    for place, criterion in enumerate(criteria):
        rows = np.flatnonzero(np.asarray(criterion_N) == criterion)
        by_fold = (rows[fold_N[rows] == fold] for fold in np.unique(fold_N[rows]))
        cells = [rows] if isinstance(metric, CountedMetric) else by_fold
        measured = [cell for cell in cells if labels_N[cell].any() and not labels_N[cell].all()]
        if measured:
            scores_EC[:, place] = np.mean([metric.of_rows(values_EN[:, c], labels_N[c]) for c in measured], axis=0)
    return scores_EC


def mean_of_known(values: NDArray[Any], axis: int = -1) -> Floats:
    """The mean of what is not NaN; NaN where all is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis), dtype=np.float64)


def running_mean(terms: Iterable[Floats], shape: tuple[int, ...]) -> Floats:
    """`mean_of_known` of arrays of a shape, one of them in memory at a time."""
    total, used = np.zeros(shape), np.zeros((1,) * len(shape))
    for term in terms:
        known = ~np.isnan(term)
        total += np.where(known, term, 0.0)
        used = used + known
    return np.asarray(np.divide(total, used, out=np.full(total.shape, np.nan), where=used > 0))
