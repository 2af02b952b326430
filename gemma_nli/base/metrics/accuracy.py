"""Accuracy: the share of decisions that are right."""

from __future__ import annotations

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


@metric("accuracy")
class Accuracy(CountedMetric):
    """At a ratio of many negatives, calling nothing matched has a high one."""

    order = 40
    headline = ()
    in_fold_summaries = False
    per_criterion = False
    needs_positives = False

    def of_counts(self, counts: Counts) -> Floats:
        return ratio(counts.every - counts.real - counts.named + 2 * counts.hit, counts.every)
