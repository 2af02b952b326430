"""Models and baselines on the sealed pairs, beside what cross-validation foretold of the models.

Letters: N sealed pairs, S draws, C criteria.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.baselines import decided_alike, fit_words
from gemma_nli.analysis.compared_values import compared_groups
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import LEVEL, worth_of_best
from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws, honest_score
from gemma_nli.analysis.sealed_posts import Interval, SealedScore
from gemma_nli.base.metrics import measured_by
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.training.criterion_only import Scorer, known_frequencies, mean_thresholds, shares_of_criteria
from gemma_nli.training.fold import FoldPlan

Floats = NDArray[np.float64]
BESIDE = ("f1", "auc", "macro_auc")
SEED = 1
"""Of the sealed posts' draws: apart from those of the cross-validated ones, whose seed is 0."""


@dataclass(frozen=True)
class Foretold:
    """The honest cross-validated score of a trial: `value`, and (S,) how far other posts would move it."""

    value: float
    noise_S: Floats

    @property
    def interval(self) -> Interval:
        return _interval(self.value, self.value + self.noise_S)


@dataclass(frozen=True)
class Contestant:
    """Predictions of the sealed pairs by a model or a baseline; thresholds are applied already."""

    name: str
    about: str
    decision_N: NDArray[np.bool_]
    score_N: Floats
    foretold: Foretold | None = None


def foretell(evidence: Evidence, draws: Draws, key: str) -> Foretold:
    """What the cross-validation says that a trial scores on other posts, the luck of its choice taken off."""
    place = next(place for place, trial in enumerate(evidence.complete) if trial.key == key)
    if place == evidence.winner:
        worth = honest_score(draws, groups=compared_groups(evidence)).worth
    else:
        worth = worth_of_best(draws.score_T, draws.noise_ST, place, draws.bootstrap.student)
    return Foretold(worth.value, draws.noise_ST[:, place])


def baselines_on(evidence: Evidence, sealed: Corpus, pairs: PairTable, rows: NDArray[np.int64]) -> list[Contestant]:
    """The baselines that need no encoder, fitted on the whole training part; thresholds, by the winner's rule, are the
    mean over folds.
    """
    config, known = decided_alike(evidence), evidence.pairs
    every = known.all_rows(config.data.negative_ratio)

    def of_criterion(table: PairTable, plan_rows: NDArray[np.int64]) -> Callable[[PairTable], Scorer]:
        share_C = shares_of_criteria(table, plan_rows)
        return lambda other: lambda at: np.asarray(share_C[other.criterion_N[at]])

    share_scorer = of_criterion(known, known.all_rows(known.eval_negative_ratio))(pairs)
    share_at_C = mean_thresholds(known, config, lambda plan: of_criterion(known, known_frequencies(known, plan))(known))
    texts = [evidence.corpus.posts[post] for post in known.post_ids]

    def words(plan: FoldPlan) -> Scorer:
        return fit_words(texts, known, plan.fit).scorer(texts, known)

    word_scorer = fit_words(texts, known, every).scorer([sealed.posts[post] for post in pairs.post_ids], pairs)
    word_at_C = mean_thresholds(known, config, words)
    always = np.full(len(rows), 0.5)
    found = [
        ("criterion only", "the criterion's share of positives; never reads the post", share_scorer, share_at_C),
        ("TF-IDF", "words of the post, a logistic regression per criterion", word_scorer, word_at_C),
    ]
    contestants = []
    for name, about, of, at_C in found:
        score_N = of(rows)
        contestants.append(Contestant(name, about, score_N >= at_C[pairs.criterion_N[rows]], score_N))
    contestants.insert(1, Contestant("always positive", "calls every pair matched", always >= 0, always))
    return contestants


def score_sealed(
    pairs: PairTable,
    rows: NDArray[np.int64],
    metric: str,
    models: Sequence[Contestant],
    baselines: Sequence[Contestant],
) -> list[SealedScore]:
    """Everyone's score with its interval; the same draws of posts for all, so that leads are paired."""
    label_N, criterion_N = pairs.label_N[rows], pairs.criterion_N[rows]
    bootstrap = PostBootstrap(pairs.group_N[rows], label_N, seed=SEED, criteria=criterion_N)
    measured = measured_by(metric)

    def drawn(one: Contestant) -> tuple[float, Floats]:
        values_N = measured.takes(one.decision_N, one.score_N)
        value = bootstrap.observed(values_N, metric)
        return value, bootstrap.widened(bootstrap.draws(values_N, metric), value)

    def others(one: Contestant) -> dict[str, float]:
        return {
            name: bootstrap.observed(measured_by(name).takes(one.decision_N, one.score_N), name)
            for name in BESIDE
            if name != metric
        }

    first, first_S = drawn(models[0])
    scores = []
    for one in [*models, *baselines]:
        value, draw_S = drawn(one)
        scores.append(
            SealedScore(
                name=one.name,
                about=one.about,
                kind="model" if one in models else "baseline",
                score=_within(_interval(value, draw_S), measured.part.lowest),
                others=others(one),
                foretold=_within(one.foretold.interval, measured.part.lowest) if one.foretold else None,
                apart=_apart(value, draw_S, one.foretold) if one.foretold else None,
                ahead=None if one is models[0] else _interval(first - value, first_S - draw_S),
            )
        )
    return scores


def _apart(value: float, draw_S: Floats, foretold: Foretold) -> Interval:
    """Sealed less foretold: two samples of posts that have nothing in common."""
    count = min(len(draw_S), len(foretold.noise_S))
    return _interval(value - foretold.value, draw_S[:count] - foretold.value - foretold.noise_S[:count])


def _interval(value: float, draw_S: Floats) -> Interval:
    real_S = draw_S[~np.isnan(draw_S)]
    if not len(real_S):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(real_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def _within(found: Interval, lowest: float) -> Interval:
    return Interval(found.value, max(found.low, lowest), min(found.high, 1.0))
