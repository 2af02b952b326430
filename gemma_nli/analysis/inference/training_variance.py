"""How far other training seeds and other drawings of the folds move a score, and differences that count them in.

Components of variance by the method of moments: between seeds within a fold (each fold has weights and batches of its
own), between folds (each is trained on other posts), and between the means of drawings. A part of each is the pairs'
own noise, which the bootstrap over posts shows too; the bootstrap's share of each component is taken off, so that
nothing counts twice. What is left is the luck that all pairs of a fold share. What differs between folds or drawings
contains the seeds' luck, so of the three estimates of what is left in the mean of all trainings the largest counts.
Chosen by simulation (`benchmarks/simulated_confirmations.py`; the table is in docs/LOG.md).

Letters: A values, D drawings, R seeds per drawing, K folds, S draws of posts.
Source: Searle, Casella and McCulloch 1992, "Variance Components", chapter 3; Bouthillier et al. 2021, "Accounting for
Variance in Machine Learning Benchmarks", on which sources count.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.analysis.inference.simultaneous import Family
from gemma_nli.base.random_streams import TRAININGS_LUCK

Floats = NDArray[np.float64]
FEWEST = 3
"""Degrees of freedom below which a spread says too little of luck to be counted."""
_ENOUGH = 100
"""Degrees of freedom that are drawn at most: more change nothing."""


@dataclass(frozen=True)
class Trainings:
    """The trainings of A values: D drawings of the folds, R seeds on each, the same for every value.

    Attributes:
        score_ADRK: each fold's score; K is 1 where a score is no mean over folds.
        noise_SADRK: how far each draw of posts moves it, the same posts for all.
    """

    score_ADRK: Floats
    noise_SADRK: Floats

    @property
    def mean_A(self) -> Floats:
        return np.asarray(self.score_ADRK.mean((1, 2, 3)))

    @property
    def noise_SA(self) -> Floats:
        """How far each draw of posts moves the means."""
        return np.asarray(self.noise_SADRK.mean((2, 3, 4)))

    @property
    def count(self) -> int:
        """Trainings per value."""
        return int(self.score_ADRK.shape[1] * self.score_ADRK.shape[2])

    def components(self) -> list[Component]:
        """Seeds where a drawing has several, folds where a score is their mean, drawings where there are several."""
        score, noise, found = self.score_ADRK, self.noise_SADRK, []
        _, drawings, seeds, folds = score.shape
        if seeds > 1:
            left = score - score.mean(2, keepdims=True), noise - noise.mean(3, keepdims=True)
            found.append(Component.of("seeds", *left, drawings * folds * (seeds - 1), folds, self.count))
        score, noise = score.mean(2), noise.mean(3)
        if folds > 1:
            left = score - score.mean((1, 2), keepdims=True), noise - noise.mean((2, 3), keepdims=True)
            found.append(Component.of("folds", *left, drawings * folds - 1, folds, drawings))
        score, noise = score.mean(2), noise.mean(3)
        if drawings > 1:
            left = score - score.mean(1, keepdims=True), noise - noise.mean(2, keepdims=True)
            found.append(Component.of("drawings", *left, drawings - 1, 1, drawings))
        return found


@dataclass(frozen=True)
class Component:
    """Covariances of the values' scores, (A, A): `seen` among trainings, `own` the part that is the pairs' own noise.

    `count`: of how many such scores the mean is made.
    """

    name: str
    seen: Floats
    own: Floats
    freedom: int
    count: int

    @classmethod
    def of(cls, name: str, score_AX: Floats, noise_SAX: Floats, freedom: int, folds: int, count: int) -> Component:
        """Of what is left of scores and of their noise, each of one of `folds` whose mean is a training's score."""
        flat_AX = score_AX.reshape(len(score_AX), -1)
        flat_SAX = noise_SAX.reshape(*noise_SAX.shape[:2], -1)
        own = np.einsum("sax,sbx->ab", flat_SAX, flat_SAX, optimize=True) / len(flat_SAX)
        return cls(name, flat_AX @ flat_AX.T / (freedom * folds), own / (freedom * folds), freedom, count)

    def seen_of(self, contrast_A: Floats) -> float:
        return float(contrast_A @ self.seen @ contrast_A)

    def own_of(self, contrast_A: Floats) -> float:
        return float(contrast_A @ self.own @ contrast_A)

    def luck_of(self, contrast_A: Floats) -> float:
        return max(0.0, self.seen_of(contrast_A) - self.own_of(contrast_A))


class CountedLuck:
    """Means of trainings, with posts, seeds and drawings in every error.

    `difference(i, j)` is the i-th value less the j-th; intervals and p-values hold for all pairs of values at once.
    """

    def __init__(
        self,
        trainings: Trainings,
        values: Sequence[float],
        noise_SA: Floats,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        """
        Args:
            values: the means, less what they owe to the choice of their configurations.
            noise_SA: how far each draw of posts moves those.
        """
        self.values, self.noise_SA, self.level = list(values), noise_SA, level
        self.components = trainings.components()
        self.trainings = trainings.count
        draws, arms = noise_SA.shape
        rng = TRAININGS_LUCK.generator(seed)
        self._luck_SA = rng.standard_normal((draws, arms))
        self._spread = [
            rng.standard_normal((draws, min(part.freedom, _ENOUGH), arms), dtype=np.float32) for part in self.components
        ]
        self.family = Family(draws, level)
        for i, j in itertools.combinations(range(arms), 2):
            self.family.add(self._standardized(self._pair(i, j)))

    @property
    def counted(self) -> bool:
        """Whether there are trainings enough to say anything of their luck."""
        return any(part.freedom >= FEWEST for part in self.components)

    def difference(self, i: int, j: int) -> Difference:
        return self.family.difference(self.values[i], self.values[j], self.error(self._pair(i, j)), self.method)

    def smallest_found(self, i: int, j: int) -> float:
        return self.family.smallest_found(self.error(self._pair(i, j)))

    def interval(self, i: int) -> tuple[float, float]:
        """Of one value's score, on other posts and with other trainings."""
        alone = Family(len(self.noise_SA), self.level)
        alone.add(self._standardized(self.one(i)))
        reach = alone.critical * self.error(self.one(i))
        return self.values[i] - reach, self.values[i] + reach

    @property
    def method(self) -> str:
        return "posts by the bootstrap, training seeds and fold drawings by components of variance"

    def one(self, i: int) -> Floats:
        return np.asarray(np.eye(len(self.values))[i])

    def _pair(self, i: int, j: int) -> Floats:
        return self.one(i) - self.one(j)

    def error(self, contrast_A: Floats) -> float:
        """Standard error of a sum of the means with these weights."""
        return float(np.sqrt(self.posts(contrast_A) + self.luck(contrast_A)))

    def posts(self, contrast_A: Floats) -> float:
        return float((self.noise_SA @ contrast_A).var())

    def luck(self, contrast_A: Floats) -> float:
        """Variance that seeds and drawings leave in the mean of all trainings."""
        return max((part.luck_of(contrast_A) / part.count for part in self.components), default=0.0)

    def of_seeds(self, contrast_A: Floats) -> float:
        """Standard deviation of one training's score over training seeds, on the same folds."""
        return float(np.sqrt(sum(part.seen_of(contrast_A) for part in self.components if part.name == "seeds")))

    def of_folds(self, contrast_A: Floats) -> float:
        """That of the mean on one drawing over drawings, beyond what seeds and the evaluation pairs explain."""
        seeds = sum(part.luck_of(contrast_A) / part.count for part in self.components if part.name == "seeds")
        others = [(part.luck_of(contrast_A), part.count) for part in self.components if part.name != "seeds"]
        return float(np.sqrt(max((max(0.0, luck - count * seeds) for luck, count in others), default=np.nan)))

    def _standardized(self, contrast_A: Floats) -> Floats:
        """(S,) draws of the sum's error over its estimated standard error."""
        luck, length = self.luck(contrast_A), float(contrast_A @ contrast_A)
        drawn_S = self.noise_SA @ contrast_A + np.sqrt(luck / length) * (self._luck_SA @ contrast_A)
        estimated_S, used = np.zeros(len(drawn_S)), np.flatnonzero(contrast_A)
        for part, spread_SFA in zip(self.components, self._spread, strict=True):
            scale_S = ((spread_SFA[:, :, used] @ contrast_A[used]) ** 2).mean(1) / length
            own = part.own_of(contrast_A)
            np.maximum(estimated_S, ((luck * part.count + own) * scale_S - own) / part.count, out=estimated_S)
        error_S = np.sqrt(self.posts(contrast_A) + estimated_S)
        return np.asarray(np.divide(drawn_S, error_S, out=np.zeros(len(drawn_S)), where=error_S > 0))
