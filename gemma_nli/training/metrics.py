"""Binary metrics of whole training curves at once, thresholds, and a trial's aggregates.

Shapes: E epochs, N rows. scikit-learn has each metric for one vector of scores; a trial of 5 folds x 20 epochs needs a
hundred of each, which would cost more than training its heads, so these take all epochs in one call. The tests hold
them equal to scikit-learn's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CURVES = ("val_loss", "val_f1", "val_auc", "val_accuracy", "val_precision", "val_recall", "val_ap")


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)


def decisions(chosen: NDArray[np.bool_], labels_N: NDArray[np.int8]) -> dict[str, Floats]:
    """F1, precision, recall and accuracy of (..., N) decisions; 0 where a ratio has nothing to divide by."""
    positive_N = labels_N.astype(bool)
    hit = (chosen & positive_N).sum(-1).astype(np.float64)
    named, real = chosen.sum(-1).astype(np.float64), np.full(hit.shape, float(positive_N.sum()))
    return {
        "f1": _ratio(2 * hit, named + real),
        "precision": _ratio(hit, named),
        "recall": _ratio(hit, real),
        "accuracy": (chosen == positive_N).mean(-1),
    }


def roc_auc(scores_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) area under the ROC curve, ties counted half; NaN where the labels are all of one class.

    The share of (positive, negative) pairs in which the positive scores higher. Written with numpy alone: importing
    scipy.stats would cost each of a sweep's processes a second.
    """
    positives = int(labels_N.sum())
    negatives = len(labels_N) - positives
    if positives == 0 or negatives == 0:
        return np.full(len(scores_EN), np.nan)
    is_positive_N = labels_N.astype(bool)
    lower_E = np.empty(len(scores_EN))
    for epoch, scores_N in enumerate(scores_EN):
        sorted_negatives, above = np.sort(scores_N[~is_positive_N]), scores_N[is_positive_N]
        strictly = np.searchsorted(sorted_negatives, above, side="left").sum()
        lower_E[epoch] = (strictly + np.searchsorted(sorted_negatives, above, side="right").sum()) / 2
    return lower_E / (positives * negatives)


def average_precision(scores_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) average precision, equal scores taken as one step; NaN without a positive."""
    positives = int(labels_N.sum())
    if positives == 0:
        return np.full(len(scores_EN), np.nan)
    order_EN = np.argsort(-scores_EN, axis=1, kind="stable")
    sorted_EN = np.take_along_axis(scores_EN, order_EN, axis=1)
    hits_EN = labels_N[order_EN].astype(np.float64)
    rows = scores_EN.shape[1]
    step_ends_EN = np.ones(sorted_EN.shape, dtype=bool)
    step_ends_EN[:, :-1] = sorted_EN[:, :-1] != sorted_EN[:, 1:]
    end_EN = np.where(step_ends_EN, np.arange(rows), rows)
    end_EN = np.minimum.accumulate(end_EN[:, ::-1], axis=1)[:, ::-1]
    precision_EN = np.take_along_axis(hits_EN.cumsum(1), end_EN, axis=1) / (end_EN + 1)
    return np.asarray((precision_EN * hits_EN).sum(1) / positives, dtype=np.float64)


def log_loss(logits_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) mean cross-entropy of logits, in nats."""
    return np.asarray((np.logaddexp(0, logits_EN) - logits_EN * labels_N).mean(1), dtype=np.float64)


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))))


def curves(logits_EN: NDArray[np.floating], labels_N: NDArray[np.int8]) -> dict[str, Floats]:
    """Every validation metric of every epoch at threshold 0.5, by the names of `CURVES`."""
    exact_EN = np.asarray(logits_EN, dtype=np.float64)
    at_half = decisions(exact_EN >= 0, labels_N)
    return {
        "val_loss": log_loss(exact_EN, labels_N),
        "val_f1": at_half["f1"],
        "val_auc": roc_auc(exact_EN, labels_N),
        "val_accuracy": at_half["accuracy"],
        "val_precision": at_half["precision"],
        "val_recall": at_half["recall"],
        "val_ap": average_precision(exact_EN, labels_N),
    }


def best_threshold(probabilities_N: NDArray[np.floating], labels_N: NDArray[np.int8]) -> tuple[float, float]:
    """The probability above which calling a pair matched gives the best F1, and that F1.

    The threshold lies midway between two neighbouring scores; among equal F1s the highest threshold wins. Without a
    positive label it is 0.5 and the F1 is 0.
    """
    if not labels_N.any():
        return 0.5, 0.0
    order_N = np.argsort(-probabilities_N, kind="stable")
    scores_N = np.asarray(probabilities_N, dtype=np.float64)[order_N]
    f1_N = 2 * labels_N[order_N].cumsum() / (np.arange(1, len(order_N) + 1) + labels_N.sum())
    f1_N[:-1][scores_N[:-1] == scores_N[1:]] = -1.0
    best = int(f1_N.argmax())
    below = scores_N[best + 1] if best + 1 < len(scores_N) else 0.0
    return float((scores_N[best] + below) / 2), float(f1_N[best])


def fold_metrics(
    probabilities_N: NDArray[np.floating], labels_N: NDArray[np.int8], threshold: float
) -> dict[str, float]:
    """One fold's F1, precision, recall, accuracy at `threshold`, and its threshold-free AUC and average precision."""
    exact_N = np.asarray(probabilities_N, dtype=np.float64)
    at = decisions(exact_N >= threshold, labels_N)
    return {
        **{name: float(value) for name, value in at.items()},
        "auc": float(roc_auc(exact_N[None], labels_N)[0]),
        "ap": float(average_precision(exact_N[None], labels_N)[0]),
    }
