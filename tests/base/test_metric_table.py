"""The table of metrics: what holds for each of them, and the one form of F1 that all rooms share."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.analysis.inference.bootstrap import PostBootstrap
from gemma_nli.base.metrics import METRICS, CountedMetric, Counts, RankedMetric, deciding_names, headline_names, metric
from gemma_nli.search.rules.fold_racing import RaceTable
from gemma_nli.spec.sweep_sections import Objective
from gemma_nli.training.metrics import best_threshold, curves, fold_metrics

properties = settings(deadline=None, max_examples=25)
EVERY = pytest.mark.parametrize("name", METRICS)


def _pairs(seed: int, pairs: int = 40, matched: float = 0.4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, decisions, labels."""
    rng = np.random.default_rng(seed)
    scores = rng.random(pairs).round(1)
    return scores, scores >= 0.5, (rng.random(pairs) < matched).astype(np.int8)


@EVERY
@properties
@given(seed=st.integers(0, 10_000))
def test_a_pair_that_is_drawn_twice_counts_as_two_pairs(name: str, seed: int) -> None:
    """The bootstrap's form of a metric is the metric of the pairs drawn."""
    scores, chosen, labels = _pairs(seed)
    posts = np.arange(len(labels)) // 2
    values = METRICS[name].takes(chosen, scores)
    bootstrap = PostBootstrap(posts, labels, repetitions=5, seed=seed)
    drawn_S = bootstrap.draws(values, name)
    for draw, score in enumerate(drawn_S):
        rows = np.repeat(np.arange(len(labels)), bootstrap.folds[0].weights_SP[draw][posts].astype(int))
        assert score == pytest.approx(METRICS[name].of_rows(values[rows][None], labels[rows])[0], nan_ok=True)


@EVERY
@pytest.mark.parametrize("matched", [0.0, 1.0])
def test_labels_of_one_class_give_a_number_or_nan_and_no_warning(name: str, matched: float) -> None:
    scores, chosen, labels = _pairs(1, matched=matched)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (score,) = METRICS[name].of_rows(METRICS[name].takes(chosen, scores)[None], labels)
    assert np.isnan(score) or -1 <= score <= 1


@EVERY
def test_every_room_knows_each_metric(name: str) -> None:
    scores, _, labels = _pairs(2)
    assert f"val_{name}" in curves(scores[None] - 0.5, labels)
    assert name in fold_metrics(scores, labels, 0.5)
    for way in ("mean", "std", "median"):
        assert f"cv_aggregate/{way}_{name}" in deciding_names()
        assert Objective(metric=f"cv_aggregate/{way}_{name}", mode="max")
    shown = {f"cv_aggregate/{way}_{name}" for way in METRICS[name].headline}
    assert shown <= set(headline_names())
    assert METRICS[name].label


def _f1(labels: np.ndarray, chosen: np.ndarray) -> float:
    """As four rooms used to compute it, each for itself."""
    hit, wrong, missed = (chosen & (labels == 1)).sum(), (chosen & (labels == 0)).sum(), (~chosen & (labels == 1)).sum()
    below = 2 * hit + wrong + missed
    return float(2 * hit / below) if below else 0.0


@pytest.mark.parametrize("seed", range(20))
def test_folds_thresholds_races_and_bootstraps_have_the_same_f1_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, _, labels = _pairs(seed, 60)
    posts = np.arange(60) // 3
    threshold, chosen_by = best_threshold(scores, labels)
    expected = _f1(labels, scores >= threshold)
    assert chosen_by == expected
    assert fold_metrics(scores, labels, threshold)["f1"] == expected
    race = RaceTable(num_folds=2, draws=20, seed=seed)
    race.record("trial", 1, rng.permutation(60), scores, labels, posts, threshold)
    assert race.running_mean("trial") == expected
    bootstrap = PostBootstrap(posts, labels, repetitions=20, seed=seed)
    assert bootstrap.observed(scores >= threshold, "f1") == expected
    for draw, score in enumerate(bootstrap.draws(scores >= threshold, "f1")):
        rows = np.repeat(np.arange(60), bootstrap.folds[0].weights_SP[draw][posts].astype(int))
        assert score == _f1(labels[rows], scores[rows] >= threshold)


@pytest.mark.parametrize("name", ["f1", "best_f1", "threshold", "Loss", "two words"])
def test_a_name_that_is_taken_or_cannot_be_one_is_refused(name: str) -> None:
    known = dict(METRICS)
    with pytest.raises(ValueError, match=name):

        @metric(name)
        class _Another(CountedMetric):
            def of_counts(self, counts: Counts) -> np.ndarray:
                return counts.hit

    assert known == METRICS


def test_a_metric_of_ranks_is_told_of_weights_alone() -> None:
    """What `of_rows` gives by itself: the metric of each pair once."""

    class HighestIsMatched(RankedMetric):
        def of_weights(self, positive_SG: np.ndarray, negative_SG: np.ndarray) -> np.ndarray:
            return positive_SG[:, -1] / (positive_SG[:, -1] + negative_SG[:, -1])

    scores, labels = np.array([[0.1, 0.9, 0.9, 0.4]]), np.array([0, 1, 0, 1], dtype=np.int8)
    assert HighestIsMatched().of_rows(scores, labels).tolist() == [0.5]
