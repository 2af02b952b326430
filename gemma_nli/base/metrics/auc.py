"""The area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics.table import Floats, RankedMetric, metric


@metric("auc")
class Auc(RankedMetric):
    """The share of (positive, negative) pairs in which the positive scores higher, ties counted half."""

    label = "AUC"
    order = 10
    headline = ("mean", "std", "macro")

    def of_rows(self, values_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> Floats:
        return roc_auc(values_EN.astype(np.float64), labels_N)

    def of_weights(self, positive_SG: NDArray[np.float32], negative_SG: NDArray[np.float32]) -> Floats:
        negatives_SG = negative_SG.cumsum(1, dtype=np.float64)
        below_SG = negatives_SG - negative_SG / 2
        area_S, pairs_S = (positive_SG * below_SG).sum(1), positive_SG.sum(1) * negatives_SG[:, -1]
        return np.asarray(np.divide(area_S, pairs_S, out=np.full(len(area_S), np.nan), where=pairs_S > 0))


def roc_auc(scores_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) area under the ROC curve, ties counted half; NaN if the labels are all of one class.

    Written with numpy alone: importing scipy.stats would cost each of a sweep's processes a second.
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
