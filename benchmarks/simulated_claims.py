"""How often a report's claims and intervals hold, over simulated sweeps whose truth is known.

`python -m benchmarks.simulated_claims REPETITIONS` prints the table that docs/LOG.md keeps. A rate near .05 has a
standard error of sqrt(.05 * .95 / REPETITIONS): .013 at 300.

Letters: T trials, R repetitions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated_scores import BALANCED, F1_PER_SKILL, RARE, SKILL, Corpus, simulate
from gemma_nli.analysis.inference.adjusted_means import adjusted_means
from gemma_nli.analysis.inference.honest_score import honest_score
from gemma_nli.analysis.inference.significance import paired_bootstrap
from gemma_nli.analysis.inference.simultaneous import Family

LEVEL = 0.05


@dataclass(frozen=True)
class Tuned:
    """Rates: `beats` a difference is claimed between two values, `lead_holds` and `honest_holds` their intervals.

    `raw` and `bias`: by how much the winner's own and its honest score lie above its true one; `error`: root mean
    square of the error of the stated lead.
    """

    beats: float
    lead_holds: float
    honest_holds: float
    raw: float
    bias: float
    error: float


def tuned(
    corpus: Corpus,
    budgets: Sequence[int],
    repetitions: int,
    metric: str = "f1",
    ahead: float = 0.0,
    seed_sd: float = 0.0,
    draws: int = 400,
    behind: float = 0.0,
) -> Tuned:
    """Values with so many equally good trials each.

    Args:
        ahead: the first value is better by so much F1.
        behind: all trials of the last value but one are worse by so much F1: its best is as good as the others'.
    """
    arm_T = np.repeat(np.arange(len(budgets)), budgets)
    groups = [np.flatnonzero(arm_T == arm).tolist() for arm in range(len(budgets))]
    skill_T = SKILL + np.where(arm_T == 0, ahead / F1_PER_SKILL, 0.0)
    skill_T[groups[-1][1:]] -= behind / F1_PER_SKILL
    found = []
    for repetition in range(repetitions):
        sample = simulate(np.random.default_rng(repetition), corpus, skill_T, arm_T, seed_sd).draws(metric, draws)
        honest, pairs = honest_score(sample, groups=groups), sample.pairs_of_tuned(groups)
        order = np.argsort([-value for value in pairs.values])
        leads = [(int(order[0]), int(other), pairs.difference(int(order[0]), int(other))) for other in order[1:]]
        found.append((sample.score_T, honest, leads))
    score_RT = np.stack([score_T for score_T, _, _ in found])
    true_T = np.array([score_RT[:, skill_T == skill].mean() for skill in skill_T])
    best_T = skill_T == skill_T.max()
    common_R = (score_RT - true_T)[:, best_T].mean(1)  # what these posts do to all: taken off, to see the bias sooner
    winner_R = true_T[score_RT.argmax(1)]
    true_A = np.array([true_T[places[0]] for places in groups])
    leads_R = [[(lead, true_A[a] - true_A[b]) for a, b, lead in leads] for _, _, leads in found]
    errors = [lead.value - true for leads in leads_R for lead, true in leads]
    return Tuned(
        float(np.mean([any(lead.p_value < LEVEL for lead, _ in leads) for leads in leads_R])),
        float(np.mean([all(lead.low <= true <= lead.high for lead, true in leads) for leads in leads_R])),
        float(np.mean([h.low <= true <= h.high for (_, h, _), true in zip(found, winner_R, strict=True)])),
        float(np.mean(score_RT.max(1) - winner_R - common_R)),
        float(np.mean([h.value for _, h, _ in found] - winner_R - common_R)),
        float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0,
    )


def effects(
    corpus: Corpus, trials: int, values: int, repetitions: int, seed_sd: float = 0.0, grid: bool = False
) -> float:
    """How often an inert setting is declared significant beside a rate that matters and a head that matters a little.

    Args:
        grid: a full grid of `values` x 3 x 2 in place of random trials.
    """
    claimed = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        if grid:
            cells_TQ = np.stack(np.meshgrid(range(values), [0.0, 0.5, 1.0], [0, 1]), -1).reshape(-1, 3)
            inert_T, rate_T, head_T = cells_TQ[:, 0].astype(np.int64), cells_TQ[:, 1], cells_TQ[:, 2]
        else:
            inert_T, rate_T = np.unique(rng.integers(0, values, trials), return_inverse=True)[1], rng.random(trials)
            head_T = rng.integers(0, 2, trials).astype(np.float64)
        skill_T = SKILL - 0.8 * (rate_T - 0.3) ** 2 + 0.1 * head_T
        draws = simulate(rng, corpus, skill_T, inert_T, seed_sd).draws(repetitions=400)
        others_TQ = np.stack([rate_T - rate_T.mean(), head_T, (rate_T - rate_T.mean()) ** 2], axis=1)
        family = Family(len(draws.inside_ST))
        model = adjusted_means(inert_T, others_TQ, draws.score_T, draws.noise_ST, grid)
        model.add_to(family, draws.noise_ST)
        means_L, error_LL = model.means(draws.score_T), model.errors(draws.noise_ST)
        top, bottom = int(means_L.argmax()), int(means_L.argmin())
        difference = family.difference(float(means_L[top]), float(means_L[bottom]), float(error_LL[top, bottom]), "")
        claimed += difference.p_value < LEVEL
    return claimed / repetitions


def promotions(corpus: Corpus, trials: int, repetitions: int, corrected: bool = True) -> float:
    """How often the best of equal trials replaces an equal champion of another sweep at a two-sided level of .05."""
    moved = 0
    arm_T: NDArray[np.int64] = np.r_[np.zeros(trials, dtype=np.int64), 1]
    for repetition in range(repetitions):
        sample = simulate(np.random.default_rng(repetition), corpus, np.full(trials + 1, SKILL), arm_T)
        draws = sample.draws(repetitions=400)
        best = int(draws.score_T[:trials].argmax())
        luck = honest_score(draws, range(trials)).optimism if corrected else 0.0
        a, b = sample.decision_TN[best], sample.decision_TN[trials]
        posts, labels, folds = sample.post_N, sample.label_N, sample.fold_N
        found = paired_bootstrap(posts, labels, a, b, "f1", 400, folds=folds, luck=luck)
        moved += found.value > 0 and found.p_value < LEVEL
    return moved / repetitions


def main(repetitions: int) -> None:
    print("corpus, trials, metric | beats, lead holds, honest holds, raw bias, honest bias, error of the lead")
    for name, corpora in (("balanced", BALANCED), ("3%", RARE)):
        for posts, corpus in corpora.items():
            for budgets in ((1, 1), (12, 12), (1, 12), (12,) * 5):
                if name == "balanced" or (posts == 300 and len(budgets) == 2):
                    _line(f"{name} {posts} {'x'.join(map(str, budgets))} f1", tuned(corpus, budgets, repetitions))
    for metric in ("auc", "ap"):
        for name, corpus in (("balanced 30", BALANCED[30]), ("balanced 300", BALANCED[300]), ("3% 300", RARE[300])):
            _line(f"{name} 12 {metric}", tuned(corpus, (12,), max(repetitions // 6, 1), metric, draws=200))
    for metric in ("macro_f1", "macro_auc", "macro_ap"):
        for name, corpus in (("balanced 300", BALANCED[300]), ("3% 1000", RARE[1000])):
            _line(f"{name} 12 {metric}", tuned(corpus, (12,), max(repetitions // 6, 1), metric, draws=200))
    for posts, ahead in ((300, 0.02), (300, 0.05), (1000, 0.02)):
        for budgets in ((1, 1), (12, 12)):
            said = tuned(BALANCED[posts], budgets, repetitions, ahead=ahead)
            _line(f"balanced {posts} {'x'.join(map(str, budgets))} ahead {ahead}", said)
    for posts in (300, 1000):
        for behind in (0.015, 0.03, 0.06):
            said = tuned(BALANCED[posts], (12, 12), repetitions, behind=behind)
            _line(f"balanced {posts} 12x12, eleven of one value behind by {behind}", said)
    for seed_sd in (0.02, 0.04):
        _line(f"balanced 300 1x1 seeds {seed_sd}", tuned(BALANCED[300], (1, 1), repetitions, seed_sd=seed_sd))
    for seed_sd in (0.0, 0.02, 0.04):
        for values in (2, 4):
            rates = [effects(BALANCED[300], t, values, repetitions, seed_sd, t == 0) for t in (0, 12, 40)]
            print(f"inert, {values} values, seeds {seed_sd}: grid, 12 random, 40 random:", rates, flush=True)
    for trials in (12, 40):
        rates = [promotions(BALANCED[300], trials, repetitions, corrected) for corrected in (True, False)]
        print(f"promotion of the best of {trials}: corrected, as it was:", rates, flush=True)


def _line(name: str, said: Tuned) -> None:
    numbers = (said.beats, said.lead_holds, said.honest_holds, said.raw, said.bias, said.error)
    print(name, "|", "  ".join(f"{value:.4f}" for value in numbers), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
