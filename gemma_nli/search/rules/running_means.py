"""What rules have in common that look at the running mean F1 of each trial, and at nothing else."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable

from gemma_nli.search.rules.stopping_rule import Decision, Folds, StoppingRule


class RunningMeans(StoppingRule):
    """The mean F1 of each trial after each of its folds."""

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3) -> None:
        super().__init__(num_folds, grace_folds, keep_last)
        self.means: dict[Hashable, dict[int, float]] = {}

    def record_mean(self, trial_key: Hashable, folds_done: int, mean_f1: float) -> None:
        """Record a trial's mean F1 over its first `folds_done` folds; NaN is ignored."""
        if math.isfinite(mean_f1):
            self.means.setdefault(trial_key, {})[folds_done] = mean_f1

    def fold_ended(self, trial_key: Hashable, folds_done: int, mean_f1: float, folds: Folds) -> None:
        self.record_mean(trial_key, folds_done, mean_f1)

    def decide(self, trial_key: Hashable) -> Decision:
        done, estimate, settled = self._undecided(trial_key)
        return self.judge(trial_key, done, estimate) if settled is None else settled

    @abstractmethod
    def judge(self, trial_key: Hashable, folds_done: int, mean_f1: float) -> Decision:
        """The decision about a trial that is neither whole, nor in its grace folds, nor among the best few."""

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
