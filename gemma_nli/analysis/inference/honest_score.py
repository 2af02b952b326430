"""The winner's curse: what the best of many trials really scores, and what more trials bring.

Letters: T trials, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import LEVEL, Worth, worth_of_best
from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.significance import Difference, difference_of_draws
from gemma_nli.analysis.inference.simultaneous import AllPairs, Family
from gemma_nli.base.metrics import RankedMetric, measured_by

Floats = NDArray[np.float64]
REPETITIONS = 2000
METHOD = "corrected for the choice, bootstrap over posts"


@dataclass(frozen=True)
class HonestScore:
    """`raw` is the winner's own score, `value` what it is worth when the luck of being chosen is taken off.

    `low` and `high` hold the winner's true score on other posts; all lie within the metric's range.

    `stability`: the share of draws in which the same trial won.
    """

    metric: str
    raw: float
    value: float
    low: float
    high: float
    level: float
    candidates: int
    stability: float
    worth: Worth

    @property
    def optimism(self) -> float:
        return self.raw - self.value


@dataclass(frozen=True)
class Draws:
    """(S, T) every trial's score on the posts drawn, the same posts for all trials."""

    metric: str
    inside_ST: Floats
    score_T: Floats
    bootstrap: PostBootstrap

    @classmethod
    def of(cls, evidence: Evidence, repetitions: int = REPETITIONS, seed: int = 0) -> Draws:
        """Fewer draws where a ranking metric over very many trials would take minutes."""
        metric = evidence.ranked_by
        if isinstance(measured_by(metric).part, RankedMetric):
            cells = evidence.probability_TN.size
            repetitions = int(np.clip(repetitions * 3e5 / max(cells, 1), 200, repetitions))
        bootstrap = evidence.bootstrap(repetitions, seed)
        return cls.from_values(bootstrap, evidence.values(metric).T, metric, evidence.scores(metric))

    @classmethod
    def from_values(cls, bootstrap: PostBootstrap, values_NT: NDArray[Any], metric: str, score_T: Floats) -> Draws:
        """Of decisions (N, T) for a counted metric, of scores for a ranking one."""
        return cls(metric, bootstrap.many(values_NT, metric), score_T, bootstrap)

    @cached_property
    def noise_ST(self) -> Floats:
        """How far each draw moves a score from its mean over draws; 0 where a draw has no score."""
        return self.bootstrap.noise(self.inside_ST)

    def winners(self, places: Sequence[int] | None = None) -> NDArray[np.int64]:
        """(S,) which of `places` (all trials) is best on the posts drawn; ties go to the first."""
        columns = np.arange(self.inside_ST.shape[1]) if places is None else np.asarray(places)
        inside_ST = np.where(np.isnan(self.inside_ST[:, columns]), -np.inf, self.inside_ST[:, columns])
        return np.asarray(columns[inside_ST.argmax(1)])

    def worth(self, places: Sequence[int]) -> Worth:
        """What the best of `places` is worth when the luck of the choice is taken off."""
        columns = list(places)
        return worth_of_best(self.score_T[columns], self.noise_ST[:, columns], student=self.bootstrap.student)

    def worth_in_groups(self, groups: Sequence[Sequence[int]]) -> Worth:
        """The same of the best of all groups: its luck within its own, and its group's among the groups."""
        raw_G = [self.score_T[list(places)].max() for places in groups]
        return worth_of_best(*self._each_worth(groups), int(np.argmax(raw_G)), self.bootstrap.student)

    def _each_worth(self, groups: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """(G,) what each group's best is worth, and (S, G) how far other posts would move it."""
        worths = [self.worth(places) for places in groups]
        return np.array([worth.value for worth in worths]), np.stack([worth.noise_S for worth in worths], axis=1)

    def difference(self, place_a: int, place_b: int, level: float = LEVEL) -> Difference:
        """Of two given trials: a paired bootstrap over posts."""
        a, b = float(self.score_T[place_a]), float(self.score_T[place_b])
        d_S = self.bootstrap.widened(self.inside_ST[:, place_a] - self.inside_ST[:, place_b], a - b)
        return difference_of_draws(d_S, a, b, level, "paired bootstrap over posts")

    def leads_over(
        self, worth: Worth, others: Sequence[tuple[NDArray[Any], float]], level: float = LEVEL
    ) -> list[tuple[Difference, float]]:
        """The best of some trials less each of what was not chosen (baselines), on the same posts.

        Intervals and p-values hold for all of them at once: which of them is named is known only after the fact.

        Args:
            others: of each its decisions, or scores where the metric takes them, and its score as it is.
        Returns:
            Of each the difference, and the true difference that would be found in 80% of cases.
        """
        noises = [worth.noise_S - self.bootstrap.noise(self.bootstrap.draws(n, self.metric)) for n, _ in others]
        family, errors = Family(len(worth.noise_S), level), [float(noise_S.std()) for noise_S in noises]
        for noise_S, error in zip(noises, errors, strict=True):
            if error > 0:
                family.add(noise_S / error)
        return [
            (family.difference(worth.value, score, error, METHOD), family.smallest_found(error))
            for (_, score), error in zip(others, errors, strict=True)
        ]

    def pairs_of_tuned(self, groups: Sequence[Sequence[int]], level: float = LEVEL) -> AllPairs:
        """The best of each group against the best of each other, the luck of many trials taken off.

        Intervals and p-values hold for all pairs of groups at once, as the leader is known only after the fact.
        """
        value_G, noise_SG = self._each_worth(groups)
        return AllPairs(value_G.tolist(), noise_SG, level, METHOD)


def honest_score(
    draws: Draws,
    places: Sequence[int] | None = None,
    level: float = LEVEL,
    groups: Sequence[Sequence[int]] | None = None,
) -> HonestScore:
    """Corrected score of the best among `places` (all trials): `best_of_trials.py`.

    Args:
        groups: the trials of each compared value; given, the winner's luck within its own value is taken off first.
    """
    columns = list(range(len(draws.score_T))) if places is None else list(places)
    worth = draws.worth(columns) if groups is None or len(groups) < 2 else draws.worth_in_groups(groups)
    raw = float(draws.score_T[columns].max())
    winner = columns[int(draws.score_T[columns].argmax())]
    low, high = np.quantile(worth.value + worth.noise_S, [(1 - level) / 2, (1 + level) / 2])
    stability = float((draws.winners(columns) == winner).mean())
    bounds = max(float(low), measured_by(draws.metric).part.lowest), min(float(high), 1.0)
    return HonestScore(draws.metric, raw, worth.value, *bounds, level, len(columns), stability, worth)


@dataclass(frozen=True)
class BudgetCurve:
    """Expected best score after 1..n trials, with the range that holds four in five random orders of the trials."""

    expected: Floats
    low: Floats
    high: Floats


def expected_best(scores: Sequence[float] | Floats) -> BudgetCurve:
    """What the best of n of these trials is on average, for n from 1 to all of them.

    Source: Dodge et al. 2019, "Show Your Work", section 3, with the trials drawn without replacement, which leaves the
    estimate without bias: Tang et al. 2020, "Showing Your Work Doesn't Always Work", equation 5.
    """
    sorted_B = np.sort(np.asarray(scores, dtype=np.float64))
    total = len(sorted_B)
    if not total:
        raise ValueError("no scores")
    rows = [(e, lo, hi) for e, lo, hi in (_best_of(sorted_B, n) for n in range(1, total + 1))]
    expected, low, high = (np.array(column) for column in zip(*rows, strict=True))
    return BudgetCurve(expected, low, high)


def _best_of(sorted_B: Floats, n: int) -> tuple[float, float, float]:
    """(mean, 10% and 90% quantile) of the best of n; P(best is the i-th smallest or below) = C(i, n) / C(B, n)."""
    total = len(sorted_B)
    below_B = np.zeros(total)
    below_B[total - 1] = 1.0
    for i in range(total - 1, 0, -1):  # C(i, n) / C(i + 1, n) = (i + 1 - n) / (i + 1)
        below_B[i - 1] = below_B[i] * max(i + 1 - n, 0) / (i + 1)
    at_B = np.diff(below_B, prepend=0.0)
    low, high = (sorted_B[min(int(np.searchsorted(below_B, q - 1e-12)), total - 1)] for q in (0.1, 0.9))
    return float(at_B @ sorted_B), float(low), float(high)
