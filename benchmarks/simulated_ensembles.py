"""What an ensemble's stated scores are off by, over simulated sweeps whose trials are equally good.

`python -m benchmarks.simulated_ensembles REPETITIONS` prints the table that docs/LOG.md keeps.

Letters: T trials, N pairs, R repetitions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated_scores import BALANCED, RARE, SKILL, Corpus, Simulated, simulate
from gemma_nli.analysis.inference.ensemble_selection import (
    Choose,
    Predictions,
    ensemble,
    ensemble_per_criterion,
    held_out,
    single,
)

FRESH = 4000
"""Posts that the truth is measured on, per fold of 60 of them: F1 depends a little on how many pairs it is of."""


@dataclass(frozen=True)
class Stated:
    """Means over repetitions of a score less the true one of the ensemble that all folds choose.

    gain: by how much that ensemble truly is better than the trial that all folds choose.
    """

    raw: float
    honest: float
    gain: float


def ensembles(
    corpus: Corpus, trials: int, repetitions: int, metric: str = "f1", size: int = 5, per_criterion: bool = False
) -> Stated:
    """Trials of one skill that differ in what they get wrong."""
    skill_T, arm_T = np.full(trials, SKILL), np.zeros(trials, dtype=np.int64)
    criteria = list(range(corpus.pairs_per_post))
    choose = ensemble_per_criterion(size, criteria) if per_criterion else ensemble(size)
    fresh = _predictions(simulate(np.random.default_rng(10**6), _many(corpus), skill_T, arm_T), corpus, metric)
    found = []
    for repetition in range(repetitions):
        sample = _predictions(simulate(np.random.default_rng(repetition), corpus, skill_T, arm_T), corpus, metric)
        true, alone = _true(sample, fresh, choose), _true(sample, fresh, single)
        common = float((_scores(sample) - _scores(fresh)).mean())  # what these posts do to every trial
        raw = sample.scores(choose(sample)(sample)[None])[0] - common
        honest = sample.scores(held_out(sample, choose)[None])[0] - common
        found.append((raw - true, honest - true, true - alone))
    return Stated(*np.mean(found, axis=0).tolist())


def _many(corpus: Corpus) -> Corpus:
    return Corpus(FRESH, corpus.pairs_per_post, corpus.positive)


def _predictions(sample: Simulated, corpus: Corpus, metric: str) -> Predictions:
    criterion_N: NDArray[np.int64] = np.tile(
        np.arange(corpus.pairs_per_post), len(sample.label_N) // corpus.pairs_per_post
    )
    probability_TN = 1 / (1 + np.exp(-(sample.latent_TN - corpus.threshold)))
    threshold_TN = np.full(probability_TN.shape, 0.5)
    return Predictions.of(probability_TN, threshold_TN, sample.label_N, sample.fold_N, criterion_N, metric)


def _scores(sample: Predictions) -> NDArray[np.float64]:
    return sample.scores(sample.values(sample.probability_TN, sample.margin_TN))


def _true(sample: Predictions, fresh: Predictions, choose: Choose) -> float:
    return float(fresh.scores(choose(sample)(fresh)[None])[0])


def main(repetitions: int) -> None:
    print("corpus, trials, metric, kind | raw bias, honest bias, true gain over the single best")
    for name, corpus in (
        ("balanced 30", BALANCED[30]),
        ("balanced 300", BALANCED[300]),
        ("balanced 1000", BALANCED[1000]),
        ("3% 300", RARE[300]),
    ):
        for trials in (12, 40):
            for metric in ("f1", "auc"):
                for per_criterion in (False, True):
                    said = ensembles(corpus, trials, repetitions, metric, per_criterion=per_criterion)
                    kind = "per criterion" if per_criterion else "one"
                    numbers = "  ".join(f"{value:+.4f}" for value in (said.raw, said.honest, said.gain))
                    print(f"{name}, {trials}, {metric}, {kind} | {numbers}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
