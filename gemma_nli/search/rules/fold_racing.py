"""Racing folds: stop a trial as soon as its out-of-fold predictions make it unlikely to beat the leader.

All trials run their folds in one order and are measured on the same validation pairs, so after each fold a trial can be
compared with the leader (the best trial that has run every fold) pair by pair. Posts are resampled together with all
their pairs, for both trials at once; that gives the spread of the difference of their F1 in one fold. What the folds
done have shown is certain; the folds to come are drawn around the mean difference seen so far, with that spread.

Letters: R rows of a fold, P posts of a fold, S bootstrap draws, F folds done.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemma_nli.base.metrics import Counts
from gemma_nli.base.metrics.f1 import f1_of
from gemma_nli.base.random_streams import RACED_FUTURE, RACED_POSTS
from gemma_nli.search.rules.stopping_rule import Decision, Folds, StoppingRule, rule

Floats = NDArray[np.float64]
_TRAINING_NOISE, _ITS_WEIGHT = 0.015, 8.0
"""A first guess of the standard deviation of a fold's F1 difference that comes of training (seeds, batches), which no
bootstrap of posts sees; and how many folds' worth of evidence the guess weighs against what the race shows."""


@dataclass
class _Fold:
    """What all trials share in a fold: its rows in order, and the bootstrap's post weights."""

    rows_R: NDArray[np.int64]
    post_R: NDArray[np.int64]
    weights_SP: Floats


@dataclass
class _Trial:
    f1: dict[int, float] = field(default_factory=dict)
    counts_P4: dict[int, NDArray[np.int32]] = field(default_factory=dict)


@rule("fold_racing", reads=("scheduler.level", "search.seed"))
class RaceTable(StoppingRule):
    """Every trial's finished folds, and the decision about a trial after each of its folds."""

    def __init__(
        self,
        num_folds: int,
        level: float = 0.05,
        keep_last: int = 3,
        grace_folds: int = 1,
        draws: int = 1000,
        seed: int = 0,
    ) -> None:
        """
        Args:
            num_folds: folds of a whole trial.
            level: the chance, over all looks at a trial together, of stopping one that would have beaten the leader.
            keep_last: the best few trials by running mean F1 are never stopped.
            grace_folds: folds a trial runs before it is judged.
            draws: bootstrap samples of posts.
        """
        super().__init__(num_folds, grace_folds, keep_last)
        self.level, self.draws, self.seed = level, draws, seed
        self._folds: dict[int, _Fold] = {}
        self._trials: dict[Hashable, _Trial] = {}
        self._not_comparable: set[Hashable] = set()
        self._leaders_S: dict[tuple[Hashable, int], Floats] = {}
        self._excess: dict[Hashable, tuple[int, float]] = {}

    def fold_ended(self, trial_key: Hashable, folds_done: int, mean_f1: float, folds: Folds) -> None:
        for ended in folds():
            measured = (ended.rows, ended.probabilities, ended.labels, ended.post_ids)
            self.record(trial_key, ended.fold, *measured, ended.threshold)

    def record(
        self,
        trial_key: Hashable,
        fold: int,
        rows: ArrayLike,
        probabilities: ArrayLike,
        labels: ArrayLike,
        post_ids: Sequence[Any] | NDArray[Any],
        threshold: float | NDArray[Any],
    ) -> None:
        """Record a trial's out-of-fold predictions in one fold; a second record of the same fold replaces the first.

        Args:
            rows: (R,) the pairs' row numbers, in any order.
            probabilities: (R,) of `matched`; a pair counts as matched from `threshold` on, one of all or (R,) of each.
            post_ids: (R,) the post each pair belongs to.
        """
        rows_R = np.asarray(rows, dtype=np.int64)
        order_R = np.argsort(rows_R, kind="stable")
        rows_R = rows_R[order_R]
        shared = self._folds.get(fold) or self._open_fold(fold, rows_R, np.asarray(post_ids)[order_R])
        if not np.array_equal(shared.rows_R, rows_R):
            self._not_comparable.add(trial_key)
            return
        named_R = (np.asarray(probabilities, dtype=np.float64) >= threshold)[order_R]
        real_R = np.asarray(labels).astype(bool)[order_R]
        of_row_R4 = np.stack([named_R & real_R, named_R, real_R, np.ones_like(real_R)], axis=1)
        counts_P4 = np.zeros((shared.weights_SP.shape[1], 4), dtype=np.int32)
        np.add.at(counts_P4, shared.post_R, of_row_R4)
        trial = self._trials.setdefault(trial_key, _Trial())
        trial.counts_P4[fold] = counts_P4
        trial.f1[fold] = float(_f1(counts_P4.sum(0).astype(np.float64)))
        self._leaders_S.pop((trial_key, fold), None)

    def running_mean(self, trial_key: Hashable) -> float:
        """Mean F1 of the trial's folds so far; NaN before the first."""
        f1 = self._trials[trial_key].f1 if trial_key in self._trials else {}
        return float(np.mean(list(f1.values()))) if f1 else float("nan")

    def leader(self, excluding: Hashable | None = None) -> Hashable | None:
        """The trial with the best mean F1 of those that have run every fold."""
        whole = [k for k, t in self._trials.items() if len(t.f1) >= self.num_folds and k != excluding]
        return max(whole, key=self.running_mean, default=None)

    def decide(self, trial_key: Hashable) -> Decision:
        """Whether the trial should continue, from the folds recorded so far."""
        estimate = self.running_mean(trial_key)
        leader = self.leader(excluding=trial_key)
        if trial_key in self._not_comparable or trial_key not in self._trials:
            return Decision(False, None, estimate, "not measured on the pairs of the other trials")
        done = sorted(self._trials[trial_key].f1)
        if leader is None:
            return Decision(False, None, estimate, "no trial has run all folds yet")
        seen_F, noise_SF = self._differences(trial_key, leader, done)
        self._learn(trial_key, seen_F, noise_SF)
        if len(done) >= self.num_folds:
            return Decision(False, None, estimate, "all folds are done")
        if len(done) < self.grace_folds:
            return Decision(False, None, estimate, f"the first {self.grace_folds} folds are not judged")
        chance = self._chance_to_win(seen_F, noise_SF)
        bound = self.level / (self.num_folds - 1)
        said = f"{chance:.4f} to end at least level with the leader after {len(done)} of {self.num_folds} folds"
        if chance > bound:
            return Decision(False, chance, estimate, f"chance {said}")
        if self._rank(trial_key, done) < self.keep_last:
            return Decision(False, chance, estimate, f"chance {said}, but among the best {self.keep_last}")
        return Decision(True, chance, estimate, f"chance {said}, stops below {bound:.4f}")

    def _differences(self, trial_key: Hashable, leader: Hashable, done: list[int]) -> tuple[Floats, Floats]:
        """(F,) the trial's F1 minus the leader's, and (S, F) its variation around 0 when posts are resampled."""
        trial, best = self._trials[trial_key], self._trials[leader]
        seen_F = np.array([trial.f1[fold] - best.f1[fold] for fold in done])
        noise_SF = np.stack([self._drawn(trial, fold) - self._leaders(leader, fold) for fold in done], axis=1)
        return seen_F, noise_SF - noise_SF.mean(0)

    def _learn(self, trial_key: Hashable, seen_F: Floats, noise_SF: Floats) -> None:
        """Note how much more a trial's folds differ among themselves than resampled posts explain."""
        if len(seen_F) > 1:
            self._excess[trial_key] = (len(seen_F) - 1, float(seen_F.var(ddof=1) - noise_SF.var(0).mean()))

    @property
    def training_noise(self) -> float:
        """Standard deviation of a fold's difference that resampling posts does not explain, learned from the race."""
        weight = _ITS_WEIGHT + sum(count for count, _ in self._excess.values())
        total = _ITS_WEIGHT * _TRAINING_NOISE**2 + sum(count * excess for count, excess in self._excess.values())
        return float(np.sqrt(max(total / weight, (_TRAINING_NOISE / 3) ** 2)))

    def _chance_to_win(self, seen_F: Floats, noise_SF: Floats) -> float:
        """P(mean F1 over all folds >= the leader's), given the folds done.

        The mean difference of the remaining folds is uncertain for two reasons: the few folds it is estimated from, and
        those folds themselves.
        """
        done, left = len(seen_F), self.num_folds - len(seen_F)
        rng = RACED_FUTURE.generator(self.seed)
        known_S = seen_F.mean() + noise_SF.mean(1)
        coming_SF = noise_SF[rng.integers(self.draws, size=(self.draws, left)), rng.integers(done, size=left)]
        training_S = self.training_noise * np.sqrt(1 / done + 1 / left) * rng.standard_normal(self.draws)
        coming_S = known_S + coming_SF.mean(1) + training_S
        final_S = (seen_F.sum() + left * coming_S) / self.num_folds
        return float((np.sum(final_S >= 0) + 1) / (self.draws + 1))

    def _rank(self, trial_key: Hashable, done: list[int]) -> int:
        """How many trials are better over the folds that this one has done."""
        mine = self.running_mean(trial_key)
        rivals = (t for k, t in self._trials.items() if k != trial_key and all(fold in t.f1 for fold in done))
        return sum(float(np.mean([rival.f1[fold] for fold in done])) > mine for rival in rivals)

    def _drawn(self, trial: _Trial, fold: int) -> Floats:
        """(S,) the trial's F1 in each resample of the fold's posts."""
        return _f1(self._folds[fold].weights_SP @ trial.counts_P4[fold])

    def _leaders(self, leader: Hashable, fold: int) -> Floats:
        """The same for the leader, computed once while it leads."""
        if (leader, fold) not in self._leaders_S:
            self._leaders_S = {key: drawn for key, drawn in self._leaders_S.items() if key[0] == leader}
            self._leaders_S[leader, fold] = self._drawn(self._trials[leader], fold)
        return self._leaders_S[leader, fold]

    def _open_fold(self, fold: int, rows_R: NDArray[np.int64], posts_R: NDArray[Any]) -> _Fold:
        names, post_R = np.unique(posts_R, return_inverse=True)
        rng = RACED_POSTS.generator(self.seed, fold)
        weights_SP = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=self.draws)
        self._folds[fold] = _Fold(rows_R, post_R, weights_SP.astype(np.float64))
        return self._folds[fold]


def _f1(counts: Floats) -> Floats:
    """F1 of (..., 4): called matched rightly, called matched, matched, all."""
    return f1_of(Counts(*np.moveaxis(counts, -1, 0)))
