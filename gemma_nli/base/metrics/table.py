"""The table of metrics: a metric is one class in one file of this folder, and every room reads it from here.

Shapes: E or T rows of predictions (epochs, trials), N pairs, S bootstrap draws, G distinct scores.
Adding one: CONTRIBUTING.md, "Add a metric".
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Values = TypeVar("_Values")
WAYS = ("mean", "std", "median")
"""How the folds of a trial are summed up: `cv_aggregate/mean_f1`."""
HEADLINES = (*WAYS, "macro")
"""And how its criteria are: `cv_aggregate/macro_f1`."""
AT_HALF = "_at_half"
"""Ends the name of a figure at threshold 0.5: `val_f1_at_half` beside `val_f1`, which is at the fold's own."""
_TAKEN = re.compile(r"(best|last|selected|peeked|macro)_.*|.*_at_half|loss|epoch|threshold")
"""Names that a trial's journal has for other figures (`val_loss`, `mean_best_f1`, `fold_1_selected_epoch`)."""


@dataclass(frozen=True)
class Counts:
    """Pairs, each as often as it was drawn; whole numbers in float64, of shapes that broadcast.

    Attributes:
        hit: called matched, rightly.
        named: called matched.
        real: matched by their labels.
        every: all of them.
    """

    hit: Floats
    named: Floats
    real: Floats
    every: Floats

    @classmethod
    def of_rows(cls, chosen_EN: NDArray[np.bool_], labels_N: NDArray[np.int8]) -> Counts:
        """(E,) of decisions (E, N), each pair once."""
        positive_N = labels_N.astype(bool)
        hit = (chosen_EN & positive_N).sum(-1).astype(np.float64)
        named, real = chosen_EN.sum(-1).astype(np.float64), np.full(hit.shape, float(positive_N.sum()))
        return cls(hit, named, real, np.full(hit.shape, float(len(labels_N))))


def ratio(top: Floats, bottom: Floats) -> Floats:
    """0 where there is nothing to divide by."""
    top, bottom = np.broadcast_arrays(np.asarray(top, dtype=np.float64), bottom)
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0)


class Metric(ABC):
    """What one fold's predictions are worth; more is better.

    name: as in `cv_aggregate/mean_NAME` and `fold_K/val_NAME`, given to the decorator.
    label: what people read.
    order: its place in tables; equals stand by name.
    headline: the ways of HEADLINES that a terminal shows unasked; with none it has no column there either.
    in_fold_summaries: whether MLflow gets `cv_summary/fold_K_best_NAME`, `_last_NAME` and `_selected_NAME`.
    in_slices: whether the report's tables by criterion, post length and so on have a column for it.
    per_criterion: whether MLflow gets `criterion/CRITERION_NAME`, the score within the criterion (`macro.py`).
    needs_positives: whether it says nothing of pairs that are all unmatched.
    lowest: the worst that it can be; the best is 1.
    """

    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    order: ClassVar[int] = 100
    headline: ClassVar[tuple[str, ...]] = ("mean",)
    in_fold_summaries: ClassVar[bool] = True
    in_slices: ClassVar[bool] = True
    per_criterion: ClassVar[bool] = True
    needs_positives: ClassVar[bool] = True
    lowest: ClassVar[float] = 0.0

    @property
    def part(self) -> Metric:
        """What a part of the pairs is measured by, of which the whole is a mean: itself (`MacroMetric.part`)."""
        return self

    @abstractmethod
    def takes(self, decisions: _Values, scores: _Values) -> _Values:
        """Which of the two it is measured on."""

    @abstractmethod
    def of_rows(self, values_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> Floats:
        """(E,) the score of each row of what it `takes`."""


class CountedMetric(Metric):
    """A metric of decisions (at a threshold): any function of how many were right."""

    def takes(self, decisions: _Values, scores: _Values) -> _Values:
        return decisions

    @abstractmethod
    def of_counts(self, counts: Counts) -> Floats:
        """The score of counts of any shape: of a fold, of bootstrap draws, of thresholds."""

    def of_rows(self, values_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> Floats:
        return self.of_counts(Counts.of_rows(values_EN.astype(bool), labels_N))


class RankedMetric(Metric):
    """A metric of the order that scores give, whatever their scale; no threshold enters."""

    def takes(self, decisions: _Values, scores: _Values) -> _Values:
        return scores

    @abstractmethod
    def of_weights(self, positive_SG: NDArray[np.float32], negative_SG: NDArray[np.float32]) -> Floats:
        """(S,) from the weights of matched and of other pairs at each distinct score, the lowest score first.

        NaN in a draw that has nothing to measure (one class of labels, for most).
        """

    def of_rows(self, values_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> Floats:
        positive_N = labels_N.astype(bool)
        once_1N = np.ones((1, len(labels_N)), dtype=np.float32)
        rows = [self.of_weights(*by_score(values_N, positive_N, once_1N))[0] for values_N in values_EN]
        return np.array(rows, dtype=np.float64)


def by_score(
    scores_N: NDArray[Any], positive_N: NDArray[np.bool_], weights_SN: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(S, G) weights of positives and of negatives at each of the G distinct scores, lowest first."""
    order_N = np.argsort(scores_N, kind="stable")
    sorted_N, real_N = scores_N[order_N], positive_N[order_N]
    sorted_SN = weights_SN[:, order_N]
    if len(sorted_N) == len(np.unique(sorted_N)):
        return sorted_SN * real_N, sorted_SN * ~real_N
    starts_G = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]])
    positive_SG = np.add.reduceat(sorted_SN * real_N, starts_G, axis=1)
    return positive_SG, np.add.reduceat(sorted_SN * ~real_N, starts_G, axis=1)


METRICS: dict[str, Metric] = {}
"""Every metric by its name, in the order in which tables show them."""
_Kind = TypeVar("_Kind", bound=type[Metric])


def metric(name: str) -> Callable[[_Kind], _Kind]:
    """Enter a metric into the table."""

    def register(kind: _Kind) -> _Kind:
        if name in METRICS:
            raise ValueError(f"metric {name!r} is there twice: {type(METRICS[name]).__module__}, {kind.__module__}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or _TAKEN.fullmatch(name):
            raise ValueError(f"a metric cannot be called {name!r}: lower-case letters, digits and _, no name of others")
        if not issubclass(kind, (CountedMetric, RankedMetric)) or not set(kind.headline) <= set(HEADLINES):
            names = ", ".join(HEADLINES)
            raise TypeError(f"{kind.__name__}: derive it from CountedMetric or RankedMetric; headline is of {names}")
        kind.name, kind.label = name, kind.label or name.replace("_", " ")
        entries = [*METRICS.values(), kind()]
        METRICS.clear()
        METRICS.update({each.name: each for each in sorted(entries, key=lambda each: (each.order, each.name))})
        return kind

    return register


def scores_of(chosen_EN: NDArray[np.bool_], scores_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> dict[str, Floats]:
    """Every metric's (E,) scores of decisions (E, N) and of the scores (E, N) behind them."""
    counts = Counts.of_rows(chosen_EN, labels_N)
    return {
        name: each.of_counts(counts) if isinstance(each, CountedMetric) else each.of_rows(scores_EN, labels_N)
        for name, each in METRICS.items()
    }
