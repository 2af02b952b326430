"""Average precision: the area under the curve of precision by recall."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics.table import Floats, RankedMetric, metric


@metric("ap")
class AveragePrecision(RankedMetric):
    """Mean precision at the rank of each matched pair, equal scores taken as one step."""

    label = "average precision"
    order = 50
    headline = ()
    in_fold_summaries = False
    in_slices = False

    def of_rows(self, values_EN: NDArray[Any], labels_N: NDArray[np.int8]) -> Floats:
        return average_precision(values_EN.astype(np.float64), labels_N)

    def of_weights(self, positive_SG: NDArray[np.float32], negative_SG: NDArray[np.float32]) -> Floats:
        hits_SG = positive_SG[:, ::-1].cumsum(1, dtype=np.float64)
        named_SG = hits_SG + negative_SG[:, ::-1].cumsum(1, dtype=np.float64)
        precision_SG = np.divide(hits_SG, named_SG, out=np.zeros_like(hits_SG), where=named_SG > 0)
        total_S = hits_SG[:, -1]
        sum_S = (precision_SG * positive_SG[:, ::-1]).sum(1)
        return np.asarray(np.divide(sum_S, total_S, out=np.full(len(total_S), np.nan), where=total_S > 0))


def average_precision(scores_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) average precision, equal scores treated as one step; NaN without a positive."""
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
