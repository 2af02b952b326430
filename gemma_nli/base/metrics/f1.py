"""F1, the metric that thresholds, epochs and early stopping go by."""

from __future__ import annotations

from gemma_nli.base.metrics.table import CountedMetric, Counts, Floats, metric, ratio


def f1_of(counts: Counts) -> Floats:
    """Harmonic mean of precision and recall; 0 where no pair is matched and none is called so."""
    return ratio(2 * counts.hit, counts.named + counts.real)


@metric("f1")
class F1(CountedMetric):
    """`f1_of`, which is also what races, thresholds and epochs are decided by."""

    label = "F1"
    order = 0
    headline = ("mean", "std", "median", "macro")

    def of_counts(self, counts: Counts) -> Floats:
        return f1_of(counts)
