"""Out-of-fold predictions of trials whose true skill is known, for simulations of what a report claims.

A pair's latent score is skill * (2y - 1) + what all trials share (the post, the pair) + what trials of one arm share +
the trial's own. A decision is right about as often, and agrees with another trial's about as often, as in real sweeps
(correlation of correctness .73 within an arm, .64 across). With `seed_sd` each trial has a luck of its own in each
fold, as another training seed would give it another.

Letters: T trials, N pairs, P posts, K folds, S draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.base.metrics import measured_by

FOLDS = 5
POST, SHARED, ARM, OWN = 0.25, 0.57, 0.08, 0.10
"""Variances of a latent score: of the post, and of the pair for all trials, for an arm and for one trial."""
FLIPPED = 0.05
SKILL = 0.55
F1_PER_SKILL = 0.3
"""What a step of skill adds to F1 near `SKILL` on balanced pairs: turns a spread of F1 over seeds into one of skill."""


@dataclass(frozen=True)
class Corpus:
    """How many posts, pairs per post (each with another criterion), and which share of pairs is positive."""

    posts: int
    pairs_per_post: int = 3
    positive: float = 0.5

    @property
    def threshold(self) -> float:
        """Of the latent score: about the one with the best F1."""
        return 0.0 if self.positive > 0.2 else 0.9


BALANCED = {posts: Corpus(posts) for posts in (30, 300, 1000)}
RARE = {posts: Corpus(posts, 9, 0.03) for posts in (30, 300, 1000)}


@dataclass(frozen=True)
class Simulated:
    """One data set: (N,) posts, folds, labels; (T, N) latent scores and decisions.

    `kept_TN`: the latent scores without what another training draws anew; `way_N`: 1 where a pair is matched, else -1.
    """

    corpus: Corpus
    post_N: NDArray[np.int64]
    fold_N: NDArray[np.int64]
    label_N: NDArray[np.int8]
    latent_TN: NDArray[np.float32]
    kept_TN: NDArray[np.float32]
    way_N: NDArray[np.float64]

    @property
    def criterion_N(self) -> NDArray[np.int64]:
        return np.tile(np.arange(self.corpus.pairs_per_post), self.corpus.posts)

    @property
    def decision_TN(self) -> NDArray[np.bool_]:
        return self.latent_TN > self.corpus.threshold

    def trained_again(
        self,
        rng: np.random.Generator,
        trial: int,
        fold_N: NDArray[np.int64],
        luck_RK: NDArray[np.float64],
        fresh: float,
    ) -> NDArray[np.float32]:
        """(R, N) latent scores of other trainings of a trial, on these folds and with this luck in F1."""
        own_RN = np.sqrt(OWN * fresh) * rng.standard_normal((len(luck_RK), len(fold_N)), dtype=np.float32)
        latent_RN = self.kept_TN[trial] + own_RN + luck_RK[:, fold_N] / F1_PER_SKILL * self.way_N
        return latent_RN.astype(np.float32)

    def draws(self, metric: str = "f1", repetitions: int = 500, seed: int = 0) -> Draws:
        values_TN: NDArray[Any] = measured_by(metric).takes(self.decision_TN, self.latent_TN)
        bootstrap = PostBootstrap(self.post_N, self.label_N, repetitions, seed, self.fold_N, self.criterion_N)
        scores_T = np.array([bootstrap.observed(row, metric) for row in values_TN])
        return Draws.from_values(bootstrap, values_TN.T, metric, scores_T)


def simulate(
    rng: np.random.Generator,
    corpus: Corpus,
    skill_T: ArrayLike,
    arm_T: ArrayLike,
    seed_sd: float = 0.0,
    fresh: float = 0.0,
) -> Simulated:
    """Draw posts, labels and every trial's scores.

    Args:
        skill_T: (T,) of each trial; `SKILL` gives an F1 of about .71 on balanced pairs.
        arm_T: (T,) the compared value that each trial has.
        seed_sd: standard deviation of a trial's F1 in a fold over training seeds.
        fresh: the share of a trial's own variance per pair that another training draws anew.
    """
    skills_T, arms_T = np.asarray(skill_T, dtype=np.float64), np.asarray(arm_T)
    post_N = np.repeat(np.arange(corpus.posts), corpus.pairs_per_post)
    fold_N = post_N % FOLDS
    truth_N = rng.random(len(post_N)) < corpus.positive
    label_N = truth_N ^ (rng.random(len(post_N)) < (FLIPPED if corpus.positive > 0.2 else 0.0))
    for fold in range(FOLDS):  # folds are stratified: none is without a class
        at = np.flatnonzero(fold_N == fold)
        if not label_N[at].any():
            label_N[at[0]] = truth_N[at[0]] = True
    luck_TK = rng.normal(0, seed_sd / F1_PER_SKILL, (len(skills_T), FOLDS)) if seed_sd else np.zeros((1, FOLDS))
    common_N = np.sqrt(POST) * rng.normal(size=corpus.posts)[post_N] + np.sqrt(SHARED) * rng.normal(size=len(post_N))
    of_arm_AN = np.sqrt(ARM) * rng.standard_normal((int(arms_T.max()) + 1, len(post_N)), dtype=np.float32)
    own_TN = np.sqrt(OWN) * rng.standard_normal((len(skills_T), len(post_N)), dtype=np.float32)
    way_N = np.where(truth_N, 1.0, -1.0)
    kept_TN = np.sqrt(1 - fresh) * own_TN + of_arm_AN[arms_T] + common_N + skills_T[:, None] * way_N
    latent_TN = kept_TN + luck_TK[:, fold_N] * way_N
    if fresh:
        latent_TN += np.sqrt(OWN * fresh) * rng.standard_normal(own_TN.shape, dtype=np.float32)
    latents = latent_TN.astype(np.float32), kept_TN.astype(np.float32)
    return Simulated(corpus, post_N, fold_N, label_N.astype(np.int8), *latents, way_N)
