"""Recall: of the matched pairs, the share that is called so."""

from __future__ import annotations

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


@metric("recall")
class Recall(CountedMetric):
    """0 where no pair is matched."""

    order = 30
    in_fold_summaries = False

    def of_counts(self, counts: Counts) -> Floats:
        return ratio(counts.hit, counts.real)
