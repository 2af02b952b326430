"""With `finalize.confirm` a claim counts posts, seeds and folds, and is false as seldom as it says: simulated sweeps.

At 300 repetitions a rate of .05 has a standard error of .013: bounds leave two of them.
"""

from __future__ import annotations

import pytest

from benchmarks.simulated_confirmations import Training, confirmed
from benchmarks.simulated_scores import BALANCED, RARE

REPETITIONS = 300
ERROR = 2 * 0.013
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def check(said):
    print(said)
    assert said.beats <= 0.07 + ERROR
    assert said.lead_holds >= 0.93 - ERROR
    assert 0.93 - ERROR <= said.score_holds <= 0.98 + ERROR


@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.04])
@pytest.mark.parametrize(("posts", "budgets"), [(1000, (1, 1)), (1000, (12, 12)), (300, (1, 12)), (300, (12,) * 5)])
def test_equal_values_are_called_different_no_more_often_than_the_level_says(posts, budgets, seed_sd):
    check(confirmed(BALANCED[posts], budgets, REPETITIONS, Training(seed_sd)))


@pytest.mark.parametrize("fresh", [0.0, 1.0])
@pytest.mark.parametrize("budgets", [(12, 12), (1, 12)])
def test_it_holds_whether_another_training_decides_pairs_alike_or_anew(budgets, fresh):
    check(confirmed(BALANCED[300], budgets, REPETITIONS, Training(0.02, fresh=fresh)))


@pytest.mark.parametrize(("seeds", "drawings"), [(3, 2), (2, 3), (5, 1), (1, 4)])
def test_any_number_of_seeds_and_drawings_keeps_the_level(seeds, drawings):
    check(confirmed(BALANCED[1000], (1, 1), REPETITIONS, Training(0.02), seeds, drawings))


def test_it_holds_where_three_pairs_in_a_hundred_are_positive():
    check(confirmed(RARE[300], (12, 12), REPETITIONS, Training(0.02)))


def test_a_true_difference_is_found():
    """At 1,000 posts, .02 F1 ahead."""
    assert confirmed(BALANCED[1000], (1, 1), 100, Training(0.0), ahead=0.02).beats > 0.8
    assert confirmed(BALANCED[1000], (1, 1), 100, Training(0.02), ahead=0.02).beats > 0.6
