"""How often the claims and intervals of confirmed values hold, over simulated sweeps whose truth is known.

`python -m benchmarks.simulated_confirmations REPETITIONS` prints the table that docs/LOG.md keeps: how often one of
equally good values is said to beat another with `finalize.confirm`, how often by posts alone, and how often the
intervals hold. A rate near .05 has a standard error of .013 at 300 repetitions.

Letters: A values, D drawings, R seeds per drawing, K folds, S draws.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.simulated_scores import BALANCED, F1_PER_SKILL, FOLDS, RARE, SKILL, Corpus, Simulated, simulate
from gemma_nli.analysis.inference.best_of_trials import carried_luck
from gemma_nli.analysis.inference.bootstrap import DrawnPosts, PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.inference.training_variance import CountedLuck, Trainings
from gemma_nli.base.metrics import measured_by

LEVEL = 0.05


@dataclass(frozen=True)
class Confirmed:
    """Rates: `beats` a difference is claimed between two values, `over_posts` it would be by one training per trial;
    `lead_holds` and `score_holds` the intervals of leads and of values contain the truth.
    """

    beats: float
    over_posts: float
    lead_holds: float
    score_holds: float


@dataclass(frozen=True)
class Training:
    """What differs between trainings: the standard deviation of F1 in a fold by seed and by the posts trained on, and
    the share of a trial's own variance per pair that is drawn anew.
    """

    seed_sd: float = 0.0
    fold_sd: float = 0.0
    fresh: float = 0.5


def confirmed(
    corpus: Corpus,
    budgets: Sequence[int],
    repetitions: int,
    training: Training,
    seeds: int = 3,
    drawings: int = 2,
    ahead: float = 0.0,
    metric: str = "f1",
    draws: int = 400,
) -> Confirmed:
    """Values with so many equally good trials each, the best of each trained again; the first value is `ahead`."""
    arm_T = np.repeat(np.arange(len(budgets)), budgets)
    groups = [np.flatnonzero(arm_T == arm).tolist() for arm in range(len(budgets))]
    skill_T = SKILL + np.where(arm_T == 0, ahead / F1_PER_SKILL, 0.0)
    means, found = [], []
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        luck = np.hypot(training.seed_sd, training.fold_sd)
        sample = simulate(rng, corpus, skill_T, arm_T, luck, training.fresh)
        swept = sample.draws(metric, draws)
        drawn = DrawnPosts.of(sample.post_N, draws)
        best = [max(places, key=lambda place: swept.score_T[place]) for places in groups]
        trainings = _trained_again(rng, sample, drawn, best, training, seeds, drawings, metric)
        counted = _counted(sample, swept, drawn, groups, best, trainings)
        over_posts = swept.pairs_of_tuned(groups)
        leads = [
            (i, j, counted.difference(i, j), over_posts.difference(i, j)) for i in range(len(groups)) for j in range(i)
        ]
        means.append(trainings.mean_A)
        found.append((leads, [counted.interval(arm) for arm in range(len(groups))]))
    true_A = np.mean(means, axis=0)
    true_A[1:] = true_A[1:].mean() if ahead else true_A.mean()
    true_A[0] = true_A[0] if ahead else true_A[-1]
    holds = [[lead.low <= true_A[i] - true_A[j] <= lead.high for i, j, lead, _ in leads] for leads, _ in found]
    scores = [low <= true <= high for _, own in found for (low, high), true in zip(own, true_A, strict=True)]
    return Confirmed(
        float(np.mean([any(lead.p_value < LEVEL for _, _, lead, _ in leads) for leads, _ in found])),
        float(np.mean([any(lead.p_value < LEVEL for _, _, _, lead in leads) for leads, _ in found])),
        float(np.mean([all(each) for each in holds])),
        float(np.mean(scores)),
    )


def _trained_again(
    rng: np.random.Generator,
    sample: Simulated,
    drawn: DrawnPosts,
    best: Sequence[int],
    training: Training,
    seeds: int,
    drawings: int,
    metric: str,
) -> Trainings:
    scores, noise = [], []
    for _ in range(drawings):
        fold_N = rng.permutation(sample.corpus.posts)[sample.post_N] % FOLDS
        luck_ARK = rng.normal(0, training.fold_sd, (len(best), 1, FOLDS))
        luck_ARK = luck_ARK + rng.normal(0, training.seed_sd, (len(best), seeds, FOLDS))
        latent_XN = np.concatenate(
            [
                sample.trained_again(rng, trial, fold_N, luck_RK, training.fresh)
                for trial, luck_RK in zip(best, luck_ARK, strict=True)
            ]
        )
        values_XN = measured_by(metric).takes(latent_XN > sample.corpus.threshold, latent_XN)
        kinds = {"folds": fold_N, "criteria": sample.criterion_N, "drawn": drawn}
        bootstrap = PostBootstrap(sample.post_N, sample.label_N, **kinds)
        moved_SXK = bootstrap.noise(bootstrap.by_fold(values_XN.T, metric))
        if (folds := moved_SXK.shape[2]) > 1:
            score_XK = bootstrap.scored.fold_scores(values_XN, metric)
        else:
            score_XK = bootstrap.scored.scores(values_XN, metric)[:, None]
        scores.append(score_XK.reshape(len(best), seeds, folds))
        noise.append(moved_SXK.reshape(len(moved_SXK), len(best), seeds, folds))
    return Trainings(np.stack(scores, axis=1), np.stack(noise, axis=2))


def _counted(
    sample: Simulated,
    swept: Draws,
    drawn: DrawnPosts,
    groups: Sequence[Sequence[int]],
    best: Sequence[int],
    trainings: Trainings,
) -> CountedLuck:
    kinds = {"folds": sample.fold_N, "criteria": sample.criterion_N, "drawn": drawn}
    own = PostBootstrap(sample.post_N, sample.label_N, **kinds)
    values_TN = measured_by(swept.metric).takes(sample.decision_TN, sample.latent_TN)
    values_A, noise_SA = trainings.mean_A, trainings.noise_SA
    for arm, (places, chosen) in enumerate(zip(groups, best, strict=True)):
        worth = swept.worth(places)
        rivals = [places[place] for place in worth.rivals]
        moved_SR = own.noise(own.many(values_TN[rivals].T, swept.metric))
        luck = float(swept.score_T[chosen]) - worth.value
        values_A[arm] -= carried_luck(luck, moved_SR, rivals.index(chosen), noise_SA[:, arm])
    return CountedLuck(trainings, values_A.tolist(), noise_SA)


def main(repetitions: int) -> None:
    print("corpus, trials | beats, by posts alone, lead holds, score holds")
    for name, corpora in (("balanced", BALANCED), ("3%", RARE)):
        for posts, corpus in corpora.items():
            for budgets in ((1, 1), (12, 12), (1, 12), (12,) * 5):
                for seed_sd in (0.0, 0.02, 0.04):
                    if (name == "balanced" and posts > 30) or (len(budgets) == 2 and seed_sd == 0.02 and posts < 1000):
                        said = confirmed(corpus, budgets, repetitions, Training(seed_sd))
                        _line(f"{name} {posts} {'x'.join(map(str, budgets))} seeds {seed_sd}", said)
    corpus = BALANCED[1000]
    for fresh in (0.0, 1.0):
        for budgets in ((12, 12), (1, 12)):
            said = confirmed(BALANCED[300], budgets, repetitions, Training(0.02, fresh=fresh))
            _line(f"balanced 300 {'x'.join(map(str, budgets))} seeds 0.02 fresh {fresh}", said)
    for seeds, drawings in ((3, 2), (2, 3), (5, 1), (1, 4)):
        for fold_sd in (0.0, 0.02):
            said = confirmed(corpus, (1, 1), repetitions, Training(0.02, fold_sd), seeds, drawings)
            _line(f"balanced 1000 1x1 seeds 0.02 folds {fold_sd}, {seeds} seeds on {drawings} drawings", said)
    for ahead in (0.02, 0.04):
        for seed_sd in (0.0, 0.02, 0.04):
            said = confirmed(corpus, (1, 1), repetitions, Training(seed_sd), ahead=ahead)
            _line(f"balanced 1000 1x1 seeds {seed_sd} ahead {ahead}", said)
    for metric in ("auc", "ap", "macro_f1", "macro_auc"):
        said = confirmed(BALANCED[300], (1, 1), max(repetitions // 4, 1), Training(0.02), metric=metric, draws=200)
        _line(f"balanced 300 1x1 seeds 0.02 {metric}", said)


def _line(name: str, said: Confirmed) -> None:
    numbers = (said.beats, said.over_posts, said.lead_holds, said.score_holds)
    print(name, "|", "  ".join(f"{value:.3f}" for value in numbers), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
