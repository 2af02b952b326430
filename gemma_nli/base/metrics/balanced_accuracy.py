"""Balanced accuracy: the mean of the shares of matched and of other pairs that are decided rightly."""

from __future__ import annotations

import numpy as np

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


@metric("balanced_accuracy")
class BalancedAccuracy(CountedMetric):
    """0.5 for a classifier that calls all pairs alike; NaN where the labels are of one class."""

    order = 70
    headline = ()
    in_fold_summaries = False
    in_slices = False
    per_criterion = False

    def of_counts(self, counts: Counts) -> Floats:
        others = counts.every - counts.real
        rejected = others - (counts.named - counts.hit)
        both = (ratio(counts.hit, counts.real) + ratio(rejected, others)) / 2
        return np.where((counts.real > 0) & (others > 0), both, np.nan)
