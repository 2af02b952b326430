"""The best of many is too good; the corrected score is not. Simulated, where the truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws, expected_best, honest_score

FOLDS, POSTS, PAIRS = 5, 250, 3


def _draws(decision_TN: np.ndarray, y: np.ndarray, posts: np.ndarray, folds: np.ndarray, seed: int) -> Draws:
    bootstrap = PostBootstrap(posts, y, 300, seed, folds)
    scores = np.array([bootstrap.observed(row, "f1") for row in decision_TN])
    return Draws.from_values(bootstrap, decision_TN.T, "f1", scores)


def _sweep(rng: np.random.Generator, trials: int, rate: float) -> tuple[np.ndarray, ...]:
    """Trials that call a pair rightly with one chance: all are equally good, and the best of them is luck."""
    posts = np.repeat(np.arange(POSTS), PAIRS)
    y = rng.integers(0, 2, len(posts))
    right = rng.random((trials, len(y))) < rate
    return np.where(right, y, 1 - y), y, posts, posts % FOLDS


def test_the_best_of_many_equal_trials_is_too_good_and_the_corrected_score_is_not() -> None:
    """Over 20 sweeps of 60 trials: the corrected bias is under a fifth of the raw one, and the intervals hold."""
    rng = np.random.default_rng(0)
    raw, corrected, held = [], [], 0
    for seed in range(20):
        found = honest_score(_draws(*_sweep(rng, 60, 0.7), seed=seed))
        raw.append(found.raw - 0.7)
        corrected.append(found.value - 0.7)
        held += found.low <= 0.7 <= found.high
    assert np.mean(raw) > 0.03
    assert abs(np.mean(corrected)) < np.mean(raw) / 5, (np.mean(raw), np.mean(corrected))
    assert held >= 18  # 95% intervals


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("trials", "spread"), [(200, 0.0), (200, 0.03), (10, 0.03), (1, 0.0)])
def test_the_correction_holds_for_few_and_many_and_unequal_trials(trials: int, spread: float) -> None:
    """Against the winner's true score: trials of different skill too, where the winner is partly deserved."""
    rng = np.random.default_rng(trials)
    raw, corrected, held, runs = [], [], 0, 150
    for seed in range(runs):
        rates = np.clip(0.7 + spread * rng.normal(size=trials), 0, 1)
        posts = np.repeat(np.arange(POSTS), PAIRS)
        y = rng.integers(0, 2, len(posts))
        decided = np.where(rng.random((trials, len(y))) < rates[:, None], y, 1 - y)
        draws = _draws(decided, y, posts, posts % FOLDS, seed)
        found = honest_score(draws)
        truth = rates[draws.score_T.argmax()]
        raw.append(found.raw - truth)
        corrected.append(found.value - truth)
        held += found.low <= truth <= found.high
    bias, left = float(np.mean(raw)), float(np.mean(corrected))
    print(trials, spread, f"raw {bias:+.4f} corrected {left:+.4f} held {held / runs:.3f}")
    assert held / runs > 0.93
    assert abs(left) < max(bias / 5, 0.004)


def test_the_best_of_one_trial_has_nothing_to_correct() -> None:
    found = honest_score(_draws(*_sweep(np.random.default_rng(1), 1, 0.7), seed=0))
    assert found.optimism == pytest.approx(0, abs=1e-12)
    assert found.stability == 1


def test_more_trials_alone_win_nothing() -> None:
    """Forty equal trials against one: the raw bests differ, the tuned difference does not."""
    rng = np.random.default_rng(2)
    raw, honest = [], []
    for seed in range(20):
        draws = _draws(*_sweep(rng, 41, 0.7), seed=seed)
        raw.append(draws.score_T[:40].max() - draws.score_T[40])
        honest.append(draws.pairs_of_tuned([range(40), [40]]).difference(0, 1).value)
    assert np.mean(raw) > 0.02
    assert abs(np.mean(honest)) < np.mean(raw) / 3


def test_a_deserved_win_is_found() -> None:
    rng = np.random.default_rng(3)
    decided, y, posts, folds = _sweep(rng, 10, 0.7)
    decided[:5] = np.where(rng.random((5, len(y))) < 0.85, y, 1 - y)
    found = _draws(decided, y, posts, folds, 0).pairs_of_tuned([range(5), range(5, 10)]).difference(0, 1)
    assert found.low > 0.05
    assert found.low < 0.15 < found.high
    assert found.p_value < 0.01


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    scores = [0.3, 0.5, 0.5, 0.9, 0.7]
    curve = expected_best(scores)
    for n in range(1, 6):
        by_hand = [max(chosen) for chosen in itertools.combinations(scores, n)]
        assert curve.expected[n - 1] == pytest.approx(np.mean(by_hand))
        assert curve.low[n - 1] <= curve.expected[n - 1] <= curve.high[n - 1]
    assert curve.expected[-1] == curve.low[-1] == curve.high[-1] == 0.9
