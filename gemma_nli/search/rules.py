"""Stopping rules that look at the running mean F1 alone: successive halving and the median rule."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np

from gemma_nli.search.racing import Decision


class _RunningMeans:
    """The mean F1 of each trial after each of its folds."""

    def __init__(self, num_folds: int, grace_folds: int, keep_last: int) -> None:
        self.num_folds, self.grace_folds, self.keep_last = num_folds, grace_folds, keep_last
        self.means: dict[Hashable, dict[int, float]] = {}

    def record_mean(self, trial_key: Hashable, folds_done: int, mean_f1: float) -> None:
        """Record a trial's mean F1 over its first `folds_done` folds; NaN is ignored."""
        if math.isfinite(mean_f1):
            self.means.setdefault(trial_key, {})[folds_done] = mean_f1

    def _undecided(self, trial_key: Hashable) -> tuple[int, float, Decision | None]:
        """(folds done, running mean, the decision if there is nothing to judge)."""
        mine = self.means.get(trial_key, {})
        done = max(mine, default=0)
        estimate = mine.get(done, math.nan)
        if done == 0:
            return done, estimate, Decision(False, None, estimate, "no fold is done")
        if done >= self.num_folds:
            return done, estimate, Decision(False, None, estimate, "all folds are done")
        if done < self.grace_folds:
            return done, estimate, Decision(False, None, estimate, f"the first {self.grace_folds} folds are not judged")
        if sum(other.get(done, -1.0) > estimate for other in self.means.values()) < self.keep_last:
            return done, estimate, Decision(False, None, estimate, f"among the best {self.keep_last}")
        return done, estimate, None


class Halving(_RunningMeans):
    """Asynchronous successive halving: at each rung only the best one in `reduction` continues.

    Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA), stopping variant.
    """

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3, reduction: float = 3.0) -> None:
        super().__init__(num_folds, grace_folds, keep_last)
        self.reduction = reduction
        count = int(math.log(num_folds / grace_folds, reduction) + 1e-9) + 1
        self.rungs = {math.ceil(grace_folds * reduction**power - 1e-9) for power in range(count)}

    def decide(self, trial_key: Hashable) -> Decision:
        done, estimate, settled = self._undecided(trial_key)
        if settled is not None:
            return settled
        if done not in self.rungs:
            return Decision(False, None, estimate, f"fold {done} is not a rung")
        here = [other[done] for key, other in self.means.items() if done in other and key != trial_key]
        bound = float(np.quantile(here, 1 - 1 / self.reduction)) if here else -math.inf
        beaten = estimate < bound
        return Decision(beaten, None, estimate, f"mean F1 {estimate:.4f}, the rung at fold {done} requires {bound:.4f}")


class Median(_RunningMeans):
    """Stop a trial whose mean F1 is below the median of the finished trials over the same folds.

    Source: Golovin et al. 2017, "Google Vizier", section 3.2.
    """

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3, min_trials: int = 5) -> None:
        super().__init__(num_folds, grace_folds, keep_last)
        self.min_trials = min_trials

    def decide(self, trial_key: Hashable) -> Decision:
        done, estimate, settled = self._undecided(trial_key)
        if settled is not None:
            return settled
        whole = [other for key, other in self.means.items() if key != trial_key and self.num_folds in other]
        here = [other[done] for other in whole if done in other]
        if len(here) < self.min_trials:
            return Decision(False, None, estimate, f"{len(here)} finished trials, fewer than {self.min_trials}")
        bound = float(np.median(here))
        beaten = estimate < bound
        return Decision(beaten, None, estimate, f"mean F1 {estimate:.4f}, the median at fold {done} is {bound:.4f}")
