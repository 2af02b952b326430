"""What the best of some trials scores: chosen on nine tenths of the posts, measured on the tenth left out.

The posts of each fold are cut into ten parts. Each part is measured by the trial that is best on the other nine, so
every post is measured once, by a choice that has not seen it; then they are cut anew. A bootstrap draw chooses by 63%
of the posts, and so chooses worse than the sweep did where trials differ in skill; a choice by 90% hardly does.

Letters: T trials, K folds, R repeats, J parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.base.metrics import METRICS, CountedMetric, Counts

Floats = NDArray[np.float64]
REPEATS, PARTS = 10, 10


class HeldOut:
    """Every trial on the posts inside and outside of each part, ready for any group of trials."""

    def __init__(self, bootstrap: PostBootstrap, values_NT: NDArray[Any], metric: str, seed: int = 0) -> None:
        self.metric = METRICS[metric]
        self.cut = bootstrap.cut(REPEATS, PARTS, seed)
        chosen_by_ST = self.cut.many(values_NT, metric)
        self.chosen_by_ST = np.where(np.isnan(chosen_by_ST), -np.inf, chosen_by_ST)
        if isinstance(self.metric, CountedMetric):
            self.counts = self.cut.counts(values_NT, left_out=True)
        else:
            self.measured_ST = self.cut.many(values_NT, metric, left_out=True)

    def score_of_best(self, places: Sequence[int]) -> float:
        """The score of the best of `places`, without the bias of choosing it; for a single trial, its own score.

        A metric of decisions is of counts over all posts of a fold, each from the part that measured it. A
        ranking is made within a part, as scores of two trials have no common scale, and averaged over parts.
        """
        columns = np.asarray(places)
        winner_S = columns[self.chosen_by_ST[:, columns].argmax(1)]
        draws_S = np.arange(len(winner_S))
        if not isinstance(self.metric, CountedMetric):
            return float(np.nanmean(self.measured_ST[draws_S, winner_S]))
        scores = []
        for counts in self.counts:
            of_ST = (counts.hit, counts.named, counts.real, counts.every)
            of_R = (each_ST[draws_S, winner_S].reshape(REPEATS, PARTS).sum(1) for each_ST in of_ST)
            scores.append(self.metric.of_counts(Counts(*of_R)))
        return float(np.mean(scores))
