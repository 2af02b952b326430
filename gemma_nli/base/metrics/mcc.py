"""Matthews correlation coefficient: how far decisions and labels go together, whatever the share of matched pairs."""

from __future__ import annotations

import numpy as np

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


@metric("mcc")
class Mcc(CountedMetric):
    """-1 to 1; 0 for chance, and where labels or decisions are all of one kind.

    Source: Matthews 1975, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme".
    """

    label = "MCC"
    order = 60
    lowest = -1.0
    headline = ()
    in_fold_summaries = False
    in_slices = False
    per_criterion = False

    def of_counts(self, counts: Counts) -> Floats:
        together = counts.every * counts.hit - counts.named * counts.real
        spread = counts.named * (counts.every - counts.named) * counts.real * (counts.every - counts.real)
        return ratio(together, np.sqrt(spread))
