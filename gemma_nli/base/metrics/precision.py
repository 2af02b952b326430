"""Precision: of the pairs that are called matched, the share that is."""

from __future__ import annotations

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


@metric("precision")
class Precision(CountedMetric):
    """0 where no pair is called matched."""

    order = 20
    in_fold_summaries = False

    def of_counts(self, counts: Counts) -> Floats:
        return ratio(counts.hit, counts.named)
