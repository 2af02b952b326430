"""What a cross-validation gives: one FoldResult per fold, and the CvResult with its aggregates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gemma_nli.base.metrics import (
    AT_HALF,
    BEST_F1,
    BEST_F1_AT_HALF,
    MACRO_CRITERIA,
    MEAN_F1,
    METRICS,
    OPTIMISM_F1,
    PREFIX,
    TRAINED_PARAMETERS,
    CountedMetric,
    Counts,
    Metric,
    aggregate_name,
)
from gemma_nli.base.metrics.earlier_names import INNER_CURVE
from gemma_nli.base.metrics.macro import MACRO, mean_of_known, supported, within_criteria
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.model.scaling import UNSCALED, Scaling

FINISHED = "finished"
DIVERGED = "diverged"


@dataclass
class FoldResult:
    """One fold: its history, the epoch it is measured at, and its out-of-fold probabilities.

    history: metric name to one value per epoch, decisions at that epoch's own threshold (`val_f1_at_half`: at 0.5), so
    that `val_f1` of `selected_epoch` is `metrics["f1"]`. Epochs count from 1. best_epoch: the one of the highest
    `val_f1`; 0 where the journal is older than that curve (`earlier_names.py`). `rows` are rows of the PairTable;
    `probabilities` and `labels` stand in their order, measured at `selected_epoch`; `metrics` at `threshold`. `state`
    holds the weights of the selected epoch (head and learned pooling; adapters or encoder where those were trained).
    `thresholds`: by criterion id, of those with one of their own; all others have `threshold`. `row_thresholds`: each
    row's where any has one of its own. `scaling`: what calibrated the logits before they became `probabilities`.
    """

    fold: int
    status: str
    history: dict[str, list[float]]
    selected_epoch: int
    best_epoch: int
    threshold: float
    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int8]
    metrics: dict[str, float]
    state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    detail: str = ""
    trained_parameters: int = 0
    thresholds: dict[str, float] = field(default_factory=dict)
    scaling: Scaling = UNSCALED
    row_thresholds: NDArray[np.float64] | None = None

    @property
    def epochs(self) -> int:
        return len(self.history["train_loss"])

    @property
    def decided_at(self) -> float | NDArray[np.float64]:
        """From which probability on a pair is matched: one for all rows, or each row's."""
        return self.threshold if self.row_thresholds is None else self.row_thresholds

    @property
    def decisions(self) -> NDArray[np.bool_]:
        """Which pairs it calls matched."""
        return np.asarray(self.probabilities.astype(np.float64) >= self.decided_at)

    def at(self, metric: str, epoch: int) -> float:
        """A history value by epoch, counted from 1."""
        return self.history[metric][epoch - 1]

    @property
    def best_f1_at_half(self) -> float | None:
        """The highest F1 of its epochs at threshold 0.5; None without that curve."""
        curve = self.history.get(f"val_f1{AT_HALF}")
        return max(curve) if curve else None

    @property
    def lacks_inner_split(self) -> bool:
        """Whether it was to be chosen by an inner split that lacks a class: last epoch, threshold 0.5 (`detail`)."""
        return self.status == FINISHED and bool(self.detail) and INNER_CURVE not in self.history

    def summary(self) -> dict[str, float]:
        """`cv_summary/fold_K_*`: what the guide's users look for, including the best epoch with peeking.

        best: at the epoch with the highest `val_f1`, chosen on the fold itself; its threshold was not. best_f1_at_half:
        the highest `val_f1_at_half`. peeked: epoch and threshold chosen on the fold itself. A metric that was added
        after the fold was journalled is left out.
        """
        name = f"cv_summary/fold_{self.fold}"
        if not self.epochs:
            return {}
        summarized = [m for m, each in METRICS.items() if each.in_fold_summaries and f"val_{m}" in self.history]
        measured = [metric for metric, each in METRICS.items() if each.in_fold_summaries and metric in self.metrics]
        best = {f"{name}_best_{metric}": self.at(f"val_{metric}", self.best_epoch) for metric in summarized}
        best |= {f"{name}_best_epoch": float(self.best_epoch)}
        halved, peeked = self.best_f1_at_half, self.metrics.get("peeked_f1")
        return {
            **(best if self.best_epoch else {}),
            **({f"{name}_best_f1{AT_HALF}": halved} if halved is not None else {}),
            **({f"{name}_peeked_f1": peeked} if peeked is not None else {}),
            **{f"{name}_last_{metric}": self.at(f"val_{metric}", self.epochs) for metric in summarized},
            f"{name}_selected_epoch": float(self.selected_epoch),
            **{f"{name}_selected_{metric}": self.metrics[metric] for metric in measured},
            f"{name}_threshold": self.threshold,
        }


@dataclass
class CvResult:
    """All folds of one configuration. Aggregates are over the folds that finished, at their selected epochs."""

    folds: list[FoldResult]
    aggregates: dict[str, float]
    criteria: dict[str, dict[str, float]]
    seconds: float = 0.0

    @property
    def diverged(self) -> list[FoldResult]:
        return [fold for fold in self.folds if fold.status == DIVERGED]

    def metrics(self) -> dict[str, float]:
        """`cv_summary/*` and `cv_aggregate/*` together."""
        return {**{k: v for fold in self.folds for k, v in fold.summary().items()}, **self.aggregates}


def summarize(folds: list[FoldResult], pairs: PairTable, seconds: float = 0.0) -> CvResult:
    """The CvResult of the finished folds, whether all or the first few."""
    finished = [fold for fold in folds if fold.status == FINISHED]
    criteria = criterion_scores(finished, pairs)
    return CvResult(folds, aggregate(finished, macro_scores(finished, pairs)), criteria, seconds)


def aggregate(finished: list[FoldResult], over_criteria: Mapping[str, float]) -> dict[str, float]:
    """`cv_aggregate/*` over finished folds, with those over criteria (`macro_scores`).

    std is the sample standard deviation over folds (n - 1), 0 for one fold: the spread of folds, not an error bar.
    A fold with one class of labels has no AUC; the mean is then over the others, and NaN if there are none.
    A metric that some fold's journal lacks (it was added to the table later) is left out: its mean would be over
    other folds than the rest.
    mean_best_f1 is of each fold's best epoch on the fold itself, at that epoch's threshold; mean_best_f1_at_half, the
    guide's number, the same at threshold 0.5. optimism_f1 is what choosing both epoch and threshold (where one is
    chosen) on the fold itself would have added to mean_f1: the mean of peeked_f1, minus mean_f1.
    """
    if not finished:
        return {}
    values: dict[str, float] = {}
    for name in METRICS:
        if not all(name in fold.metrics for fold in finished):
            continue
        column = np.array([fold.metrics[name] for fold in finished])
        real = column[~np.isnan(column)]
        values[aggregate_name("mean", name)] = float(real.mean()) if len(real) else math.nan
        values[aggregate_name("std", name)] = float(real.std(ddof=1)) if len(real) > 1 else 0.0
        values[aggregate_name("median", name)] = float(np.median(real)) if len(real) else math.nan
    one_class = [fold.fold for fold in finished if math.isnan(fold.metrics["auc"])]
    if one_class:
        warnings.warn(f"folds {one_class} have validation labels of one class only: their AUC is NaN", stacklevel=3)
    peeked = float(np.mean([fold.metrics["peeked_f1"] for fold in finished]))
    if all(fold.best_epoch for fold in finished):
        values[BEST_F1] = float(np.mean([fold.at("val_f1", fold.best_epoch) for fold in finished]))
    halves = [half for half in (fold.best_f1_at_half for fold in finished) if half is not None]
    if len(halves) == len(finished):
        values[BEST_F1_AT_HALF] = float(np.mean(halves))
    values[OPTIMISM_F1] = peeked - values[MEAN_F1]
    values[f"{PREFIX}mean_threshold"] = float(np.mean([fold.threshold for fold in finished]))
    values[f"{PREFIX}mean_selected_epoch"] = float(np.mean([fold.selected_epoch for fold in finished]))
    values[f"{PREFIX}folds_finished"] = float(len(finished))
    return {**values, **over_criteria, TRAINED_PARAMETERS: float(max(fold.trained_parameters for fold in finished))}


def macro_scores(folds: list[FoldResult], pairs: PairTable) -> dict[str, float]:
    """`cv_aggregate/macro_*` of finished folds, means over the criteria with enough support, and how many these are.

    Which these are depends on the evaluation pairs of all folds, finished or not. NaN without any.
    """
    if not folds:
        return {}
    evaluated = np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])
    criteria = supported(pairs.label_N[evaluated], pairs.criterion_N[evaluated])
    measured = [name for name in METRICS if all(name in fold.metrics for fold in folds)]
    means = {
        aggregate_name(MACRO, name): float(mean_of_known(_within(METRICS[name], folds, pairs, criteria)))
        for name in measured
    }
    return {**means, MACRO_CRITERIA: float(len(criteria))}


def criterion_scores(folds: list[FoldResult], pairs: PairTable) -> dict[str, dict[str, float]]:
    """Each criterion's scores alone, and its support: positive pairs of all folds; its mean threshold, if of its own.

    Decisions are counted over all folds at once, whatever their classes; ranks are a mean over the folds in which the
    criterion has both classes.
    """
    if not folds:
        return {}
    found, criteria = OutOfFold.of(folds), range(len(pairs.criterion_ids))
    of_row = pairs.criterion_N[found.rows]
    shown = [each for name, each in METRICS.items() if each.per_criterion and all(name in f.metrics for f in folds)]
    ranked = {each.name: _within(each, folds, pairs, criteria) for each in shown if not isinstance(each, CountedMetric)}
    scores: dict[str, dict[str, float]] = {}
    for index, criterion in enumerate(pairs.criterion_ids):
        mine = of_row == index
        counts = Counts.of_rows(found.decisions[mine], found.labels[mine]) if mine.any() else None
        counted = [each for each in shown if isinstance(each, CountedMetric)]
        scores[criterion] = {
            **{each.name: float(each.of_counts(counts)) if counts else math.nan for each in counted},
            **{name: float(of_C[index]) for name, of_C in ranked.items()},
            "support": float(found.labels[mine].sum()),
        }
        if any(fold.thresholds for fold in folds):
            at = [fold.thresholds.get(criterion, fold.threshold) for fold in folds]
            scores[criterion]["threshold"] = float(np.mean(at))
    return scores


@dataclass(frozen=True)
class OutOfFold:
    """(N,) of the pairs of some folds, fold by fold; `probabilities` are float64."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    folds: NDArray[np.int64]
    decisions: NDArray[np.bool_]
    probabilities: NDArray[np.float64]

    @classmethod
    def of(cls, folds: Sequence[FoldResult]) -> OutOfFold:
        return cls(
            rows=np.concatenate([fold.rows for fold in folds]),
            labels=np.concatenate([fold.labels for fold in folds]),
            folds=np.concatenate([np.full(len(fold.rows), fold.fold, dtype=np.int64) for fold in folds]),
            decisions=np.concatenate([fold.decisions for fold in folds]),
            probabilities=np.concatenate([fold.probabilities.astype(np.float64) for fold in folds]),
        )


def _within(metric: Metric, folds: list[FoldResult], pairs: PairTable, criteria: Sequence[int]) -> NDArray[np.float64]:
    """(C,) a metric within each of `criteria`."""
    found = OutOfFold.of(folds)
    values_1N = np.asarray(metric.takes(found.decisions, found.probabilities))[None]
    criterion_N = pairs.criterion_N[found.rows]
    return np.asarray(within_criteria(metric, values_1N, found.labels, criterion_N, found.folds, criteria)[0])
