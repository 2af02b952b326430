"""What a cross-validation gives: one FoldResult a fold, and the CvResult with its aggregates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.training.metrics import decisions

FINISHED = "finished"
DIVERGED = "diverged"
AVERAGED = ("f1", "auc", "ap", "accuracy", "precision", "recall")


@dataclass
class FoldResult:
    """One fold: its history, the epoch it is measured at, and its out-of-fold probabilities.

    history: metric name to one value an epoch. Epochs count from 1. `rows` are rows of the PairTable; `probabilities`
    and `labels` stand in their order, measured at `selected_epoch`; `metrics` at `threshold`. `state` holds the
    weights of the selected epoch (head and learned pooling; adapters or encoder where those were trained).
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

    @property
    def epochs(self) -> int:
        return len(self.history["train_loss"])

    def at(self, metric: str, epoch: int) -> float:
        """A history value by epoch, counted from 1."""
        return self.history[metric][epoch - 1]

    def summary(self) -> dict[str, float]:
        """`cv_summary/fold_K_*`: what the guide's users look for, the peeking best epoch among it."""
        name = f"cv_summary/fold_{self.fold}"
        if not self.epochs:
            return {}
        return {
            f"{name}_best_f1": self.at("val_f1", self.best_epoch),
            f"{name}_best_auc": self.at("val_auc", self.best_epoch),
            f"{name}_best_epoch": float(self.best_epoch),
            f"{name}_last_f1": self.at("val_f1", self.epochs),
            f"{name}_last_auc": self.at("val_auc", self.epochs),
            f"{name}_selected_epoch": float(self.selected_epoch),
            f"{name}_selected_f1": self.metrics["f1"],
            f"{name}_selected_auc": self.metrics["auc"],
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
    """The CvResult of the folds that are done, be it all of them or the first few."""
    finished = [fold for fold in folds if fold.status == FINISHED]
    criteria = criterion_scores(finished, pairs)
    return CvResult(folds, aggregate(finished, criteria), criteria, seconds)


def aggregate(finished: list[FoldResult], criteria: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`cv_aggregate/*` over finished folds.

    std is the sample standard deviation over folds (n - 1), 0 for one fold: the spread of folds, not an error bar.
    A fold with one class of labels has no AUC; the mean is then over the others, and NaN when there are none.
    optimism_f1 is what choosing each fold's epoch (and threshold, where one is chosen) on the fold itself would have
    added to mean_f1. mean_best_f1 is the guide's number: the best epoch on the fold itself, at threshold 0.5.
    """
    if not finished:
        return {}
    values: dict[str, float] = {}
    for name in AVERAGED:
        column = np.array([fold.metrics[name] for fold in finished])
        real = column[~np.isnan(column)]
        values[f"mean_{name}"] = float(real.mean()) if len(real) else math.nan
        values[f"std_{name}"] = float(real.std(ddof=1)) if len(real) > 1 else 0.0
        values[f"median_{name}"] = float(np.median(real)) if len(real) else math.nan
    if any(math.isnan(fold.metrics["auc"]) for fold in finished):
        one_class = [fold.fold for fold in finished if math.isnan(fold.metrics["auc"])]
        warnings.warn(f"folds {one_class} have validation labels of one class only: their AUC is NaN", stacklevel=3)
    peeked = float(np.mean([fold.metrics["peeked_f1"] for fold in finished]))
    supported = [scores["f1"] for scores in criteria.values() if scores["support"] > 0]
    values["macro_f1"] = float(np.mean(supported)) if supported else math.nan
    values["mean_best_f1"] = float(np.mean([fold.at("val_f1", fold.best_epoch) for fold in finished]))
    values["optimism_f1"] = peeked - values["mean_f1"]
    values["mean_threshold"] = float(np.mean([fold.threshold for fold in finished]))
    values["mean_selected_epoch"] = float(np.mean([fold.selected_epoch for fold in finished]))
    values["folds_finished"] = float(len(finished))
    trained = float(max(fold.trained_parameters for fold in finished))
    return {**{f"cv_aggregate/{name}": value for name, value in values.items()}, "model/trained_parameters": trained}


def criterion_scores(folds: list[FoldResult], pairs: PairTable) -> dict[str, dict[str, float]]:
    """Each criterion's F1, precision, recall and support over the out-of-fold decisions of all folds."""
    if not folds:
        return {}
    rows = np.concatenate([fold.rows for fold in folds])
    labels = np.concatenate([fold.labels for fold in folds])
    chosen = np.concatenate([fold.probabilities.astype(np.float64) >= fold.threshold for fold in folds])
    of_row = pairs.criterion_N[rows]
    scores: dict[str, dict[str, float]] = {}
    for index, criterion in enumerate(pairs.criterion_ids):
        mine = of_row == index
        at: dict[str, Any] = decisions(chosen[mine], labels[mine]) if mine.any() else {}
        scores[criterion] = {
            "f1": float(at["f1"]) if at else math.nan,
            "precision": float(at["precision"]) if at else math.nan,
            "recall": float(at["recall"]) if at else math.nan,
            "support": float(labels[mine].sum()),
        }
    return scores
