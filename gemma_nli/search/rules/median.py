"""The median rule on the running mean F1."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from gemma_nli.search.rules.running_means import RunningMeans
from gemma_nli.search.rules.stopping_rule import Decision, rule


@rule("median", reads=("scheduler.min_trials",))
class Median(RunningMeans):
    """Stop a trial whose mean F1 is below the median of the finished trials over the same folds.

    Source: Golovin et al. 2017, "Google Vizier", section 3.2.
    """

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3, min_trials: int = 5) -> None:
        super().__init__(num_folds, grace_folds, keep_last)
        self.min_trials = min_trials

    def judge(self, trial_key: Hashable, folds_done: int, mean_f1: float) -> Decision:
        whole = [other for key, other in self.means.items() if key != trial_key and self.num_folds in other]
        here = [other[folds_done] for other in whole if folds_done in other]
        if len(here) < self.min_trials:
            return Decision(False, None, mean_f1, f"{len(here)} finished trials, fewer than {self.min_trials}")
        bound = float(np.median(here))
        why = f"mean F1 {mean_f1:.4f}, the median at fold {folds_done} is {bound:.4f}"
        return Decision(mean_f1 < bound, None, mean_f1, why)
