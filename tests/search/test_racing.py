"""Racing stops what cannot win, lets go on what might, and finds the best with about a third of the folds."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from gemma_nli.search.rules.asha import Halving
from gemma_nli.search.rules.fold_racing import RaceTable
from gemma_nli.search.rules.median import Median
from tests.growth import growth

ROOT = Path(__file__).parents[2]
ROWS, POSTS, FOLDS = 500, 110, 5


def benchmark():
    there = importlib.util.spec_from_file_location("racing_benchmark", ROOT / "benchmarks/racing.py")
    module = importlib.util.module_from_spec(there)
    sys.modules["racing_benchmark"] = module
    there.loader.exec_module(module)
    return module


def fold_of(quality: float, seed: int, fold: int):
    """(rows, probabilities, labels, posts): pairs are shared by all trials, errors are the trial's own."""
    shared, own = np.random.default_rng(fold), np.random.default_rng([seed, fold])
    labels = shared.random(ROWS) < 0.5
    posts = np.sort(shared.integers(POSTS, size=ROWS))
    score = quality * np.where(labels, 1, -1) + 0.8 * shared.standard_normal(ROWS) + 0.6 * own.standard_normal(ROWS)
    return fold * ROWS + np.arange(ROWS), 1 / (1 + np.exp(-score)), labels, posts + fold * POSTS


def run(race: RaceTable, key: str, quality: float, folds: int, seed: int = 0):
    for fold in range(1, folds + 1):
        race.record(key, fold, *fold_of(quality, seed, fold), 0.5)


def test_nothing_is_stopped_before_a_trial_has_run_every_fold():
    race = RaceTable(FOLDS, keep_last=1)
    for index in range(6):
        run(race, f"t{index}", 1.0 - index / 5, folds=4, seed=index)
    assert not any(race.decide(f"t{index}").stop for index in range(6))


def test_a_hopeless_trial_is_stopped_after_its_first_fold_and_says_why():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "leader", 1.0, folds=5, seed=1)
    run(race, "bad", 0.3, folds=1, seed=2)
    decision = race.decide("bad")
    assert decision.stop
    assert decision.probability < 0.01
    assert decision.estimate == pytest.approx(race.running_mean("bad"))
    assert "after 1 of 5 folds" in decision.reason


def test_a_trial_that_would_have_won_is_hardly_ever_stopped():
    winners, stopped = 0, 0
    for seed in range(80):
        race = RaceTable(FOLDS, keep_last=1)
        run(race, "leader", 1.0, folds=5, seed=2 * seed)
        stops = []
        for fold in range(1, FOLDS + 1):
            race.record("twin", fold, *fold_of(1.0, 2 * seed + 1, fold), 0.5)
            stops.append(race.decide("twin").stop)
        if race.leader() == "twin":
            winners += 1
            stopped += any(stops)
    assert winners > 25
    assert stopped <= 0.05 * winners


def test_a_copy_of_the_leader_goes_on():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "leader", 1.0, folds=5, seed=1)
    run(race, "copy", 1.0, folds=3, seed=1)
    assert not race.decide("copy").stop


def test_folds_done_are_certain_so_the_same_gap_says_more_late_than_early():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "leader", 1.0, folds=5, seed=1)
    chances = []
    for folds in (1, 4):
        run(race, f"behind{folds}", 0.93, folds=folds, seed=3)
        chances.append(race.decide(f"behind{folds}").probability)
    assert chances[1] < chances[0]


def test_the_few_best_are_never_stopped_nor_the_grace_folds():
    race = RaceTable(FOLDS, keep_last=2)
    run(race, "leader", 1.2, folds=5, seed=1)
    run(race, "second", 0.4, folds=1, seed=2)
    assert not race.decide("second").stop
    run(race, "third", 0.3, folds=1, seed=3)
    assert race.decide("third").stop
    patient = RaceTable(FOLDS, keep_last=1, grace_folds=2)
    run(patient, "leader", 1.2, folds=5, seed=1)
    run(patient, "bad", 0.3, folds=1, seed=3)
    assert not patient.decide("bad").stop


def test_a_complete_trial_is_never_stopped_and_a_better_one_leads():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "first", 0.5, folds=5, seed=1)
    run(race, "better", 1.0, folds=5, seed=2)
    assert race.leader() == "better"
    assert not race.decide("first").stop


def test_the_order_of_rows_does_not_matter_and_other_pairs_are_not_compared():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "leader", 1.0, folds=5, seed=1)
    rows, probabilities, labels, posts = fold_of(0.4, 2, 1)
    mixed = np.random.default_rng(0).permutation(ROWS)
    race.record("plain", 1, rows, probabilities, labels, posts, 0.5)
    race.record("mixed", 1, rows[mixed], probabilities[mixed], labels[mixed], posts[mixed], 0.5)
    assert race.decide("plain") == race.decide("mixed")
    race.record("other", 1, rows[:-1], probabilities[:-1], labels[:-1], posts[:-1], 0.5)
    assert not race.decide("other").stop
    assert "not measured on the pairs" in race.decide("other").reason


def test_a_trial_that_strays_to_other_pairs_in_a_later_fold_is_judged_no_more():
    race = RaceTable(FOLDS, keep_last=1)
    run(race, "leader", 1.0, folds=5, seed=1)
    run(race, "bad", 0.3, folds=1, seed=2)
    assert race.decide("bad").stop
    rows, *measured, posts = fold_of(0.3, 2, 2)
    race.record("bad", 2, rows + 1, *measured, posts, 0.5)
    assert not race.decide("bad").stop
    assert "not measured on the pairs" in race.decide("bad").reason


def test_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    race = RaceTable(FOLDS)
    rows, probabilities, labels, posts = fold_of(0.7, 3, 1)
    race.record("t", 1, rows, probabilities, labels, posts, 0.4)
    assert race.running_mean("t") == pytest.approx(f1_score(labels, probabilities >= 0.4))


def test_training_noise_is_learned_from_folds_that_differ_more_than_posts_explain():
    calm, wild = RaceTable(FOLDS, keep_last=1), RaceTable(FOLDS, keep_last=1)
    for race, noise in ((calm, 0.0), (wild, 0.4)):
        run(race, "leader", 1.0, folds=5, seed=1)
        for index in range(8):
            for fold in range(1, 6):
                jump = noise * np.random.default_rng([index, fold, 7]).standard_normal()
                race.record(index, fold, *fold_of(0.9 + jump, index + 10, fold), 0.5)
            race.decide(index)
        run(race, "behind", 0.8, folds=1, seed=99)
    assert wild.training_noise > 2 * calm.training_noise
    assert wild.decide("behind").probability > calm.decide("behind").probability


def test_a_decision_costs_the_same_however_many_trials_have_run():
    races = {}
    for trials in (2, 32):
        race = races[trials] = RaceTable(FOLDS, keep_last=1)
        for index in range(trials):
            run(race, f"t{index}", 1.0, folds=5, seed=index)
        run(race, "mine", 0.9, folds=4, seed=99)
    assert growth(lambda trials: [races[trials].decide("mine") for _ in range(10)], 2, 32) < 2.5


def test_racing_finds_the_best_of_200_configurations_with_at_most_55_percent_of_the_folds():
    bench = benchmark()
    rules = {name: bench.RULES[name] for name in ("fold_racing", "wilcoxon")}
    found = bench.measure(seeds=8, rules=rules)
    assert found["fold_racing"]["table_within_half_se"] >= 0.95
    assert found["fold_racing"]["folds_run"] <= 0.55
    assert found["fold_racing"]["folds_run"] < found["wilcoxon"]["folds_run"]


def test_halving_keeps_a_third_at_each_rung_and_never_stops_between():
    rule = Halving(FOLDS, keep_last=1)
    assert rule.rungs == {1, 3}
    for index in range(9):
        rule.record_mean(index, 1, index / 10)
    assert [index for index in range(9) if not rule.decide(index).stop] == [6, 7, 8]
    rule.record_mean(0, 2, 0.0)
    assert not rule.decide(0).stop
    rule.record_mean(0, 5, 0.0)
    assert not rule.decide(0).stop


def test_the_median_rule_waits_for_finished_trials():
    rule = Median(FOLDS, keep_last=1, min_trials=3)
    for index in range(3):
        rule.record_mean("late", 1, 0.1)
        assert not rule.decide("late").stop
        for fold in range(1, 6):
            rule.record_mean(index, fold, 0.5 + index / 10)
    assert rule.decide("late").stop
    rule.record_mean("good", 1, 0.65)
    assert not rule.decide("good").stop
    rule.record_mean("nan", 1, float("nan"))
    assert not rule.decide("nan").stop


def test_the_level_is_shared_out_over_the_looks_at_a_trial():
    """A chance to win between level / 4 and level stops nothing at any one of four looks."""
    between = 0
    for quality in np.linspace(0.80, 0.95, 16):
        race = RaceTable(FOLDS, level=0.2, keep_last=1)
        run(race, "leader", 1.0, folds=5, seed=1)
        run(race, "behind", quality, folds=2, seed=2)
        decision = race.decide("behind")
        assert decision.stop == (decision.probability <= 0.2 / (FOLDS - 1))
        between += 0.2 / (FOLDS - 1) < decision.probability < 0.2
    assert between >= 2


def test_a_pair_at_the_threshold_counts_as_matched():
    race = RaceTable(FOLDS)
    race.record("t", 1, [0, 1, 2], [0.5, 0.5, 0.4999], [1, 0, 1], ["a", "b", "c"], 0.5)
    assert race.running_mean("t") == pytest.approx(0.5)  # one hit, one false alarm, one missed


def test_posts_are_resampled_with_all_their_pairs():
    """The more pairs a post has, the fewer posts there are to judge by: the same gap then says less."""
    rows, probabilities, labels, posts = fold_of(1.0, 1, 1)
    other = fold_of(0.7, 2, 1)[1]
    chances = []
    for of_post in (posts, posts // 20):
        race = RaceTable(FOLDS, keep_last=1)
        for fold in range(1, FOLDS + 1):
            race.record("leader", fold, rows, probabilities, labels, of_post, 0.5)
        race.record("behind", 1, rows, other, labels, of_post, 0.5)
        chances.append(race.decide("behind").probability)
    assert chances[1] > chances[0]


def means(rule: Halving | Median, key: str, f1: list[float]) -> None:
    for done, mean in enumerate(f1, start=1):
        rule.record_mean(key, done, mean)


def test_the_median_is_of_trials_that_ran_every_fold_and_not_of_those_still_running():
    rule = Median(FOLDS, keep_last=1, min_trials=3)
    for key in "abc":
        means(rule, key, [0.5] * FOLDS)
    for key in "defghij":
        means(rule, key, [0.9])
    means(rule, "mine", [0.6])
    assert not rule.decide("mine").stop
    means(rule, "low", [0.4])
    assert rule.decide("low").stop


@pytest.mark.parametrize("kind", [Halving, Median])
@pytest.mark.parametrize("keep_last", [1, 3])
def test_the_best_few_over_the_same_folds_are_never_stopped(kind, keep_last):
    rule = kind(FOLDS, keep_last=keep_last)
    for index in range(9):
        means(rule, f"whole{index}", [0.8 + index / 100] * FOLDS if index < keep_last - 1 else [0.9, *[0.1] * 4])
    rule.means = {key: found for key, found in rule.means.items() if key < f"whole{keep_last - 1}"}
    means(rule, "mine", [0.1])
    assert not rule.decide("mine").stop, "fewer than `keep_last` are better"


@pytest.mark.parametrize("reduction", [2.0, 4.0, 8.0])
def test_halving_lets_about_one_in_reduction_go_on(reduction):
    """Each of 17 equally spaced trials is judged against the 16 others: those at or above the quantile go on."""
    rule = Halving(FOLDS, keep_last=1, reduction=reduction)
    for index in range(17):
        rule.record_mean(index, 1, index / 20)
    assert [index for index in range(17) if not rule.decide(index).stop] == list(range(16 - int(16 / reduction), 17))
