"""Asynchronous successive halving on the running mean F1."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np

from gemma_nli.search.rules.running_means import RunningMeans
from gemma_nli.search.rules.stopping_rule import Decision, rule


@rule("asha", reads=("scheduler.reduction",))
class Halving(RunningMeans):
    """Asynchronous successive halving: at each rung only the best one in `reduction` continues.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA), stopping variant.
    """

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3, reduction: float = 3.0) -> None:
        super().__init__(num_folds, grace_folds, keep_last)
        self.reduction = reduction
        count = int(math.log(num_folds / grace_folds, reduction) + 1e-9) + 1
        self.rungs = {math.ceil(grace_folds * reduction**power - 1e-9) for power in range(count)}

    def judge(self, trial_key: Hashable, folds_done: int, mean_f1: float) -> Decision:
        if folds_done not in self.rungs:
            return Decision(False, None, mean_f1, f"fold {folds_done} is not a rung")
        here = [other[folds_done] for key, other in self.means.items() if folds_done in other and key != trial_key]
        bound = float(np.quantile(here, 1 - 1 / self.reduction)) if here else -math.inf
        why = f"mean F1 {mean_f1:.4f}, the rung at fold {folds_done} requires {bound:.4f}"
        return Decision(mean_f1 < bound, None, mean_f1, why)
