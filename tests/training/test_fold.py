"""A fold is measured at the epoch that was chosen, with that epoch's own threshold, and a tie with it is a yes."""

from __future__ import annotations

import numpy as np
import pytest

from gemma_nli.training.fold import FoldPlan, epoch_score, measure, positive_weight
from gemma_nli.training.metrics import fold_metrics
from tests.training.small_trials import pairs_for, trial


def logit(probabilities):
    exact = np.asarray(probabilities, dtype=np.float64)
    return np.log(exact / (1 - exact))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pairs_for(trial(tmp_path_factory.mktemp("none")).data)


def plan(pairs, chosen_by):
    """Selection and evaluation rows of two positives and two negatives each, positives first."""
    positive, negative = np.flatnonzero(pairs.label_N == 1), np.flatnonzero(pairs.label_N == 0)
    selection, evaluation = (np.concatenate([positive[i : i + 2], negative[i : i + 2]]) for i in (0, 2))
    return FoldPlan(1, evaluation, selection, evaluation, chosen_by)


@pytest.mark.parametrize(("chosen", "threshold"), [(1, 0.75), (2, 0.25), (3, 0.5)])
def test_the_threshold_is_that_of_the_chosen_epoch(pairs, chosen, threshold):
    """Three epochs whose inner splits are divided perfectly, each at a place of its own."""
    inner_EV = logit([[0.9, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.1], [0.9, 0.6, 0.4, 0.1]])
    logits_EV = logit([[0.8, 0.7, 0.7, 0.1], [0.3, 0.2, 0.2, 0.1], [0.6, 0.4, 0.4, 0.1]])
    history = {"train_loss": [1.0, 0.9, 0.8], "val_f1": [0.1, 0.2, 0.3]}
    found = measure(pairs, plan(pairs, "inner"), history, logits_EV, inner_EV, chosen, "finished")
    assert (found.selected_epoch, found.threshold) == (chosen, pytest.approx(threshold))
    assert found.metrics["recall"] == 0.5  # of the two positives of that epoch one lies above its threshold
    np.testing.assert_allclose(
        found.probabilities, [[0.8, 0.7, 0.7, 0.1], [0.3, 0.2, 0.2, 0.1], [0.6, 0.4, 0.4, 0.1]][chosen - 1], rtol=1e-6
    )


@pytest.mark.parametrize(("chosen_by", "epoch"), [("last", 3), ("best", 2)])
def test_without_an_inner_split_the_threshold_is_a_half_and_the_last_epoch_or_the_best_counts(pairs, chosen_by, epoch):
    logits_EV = logit([[0.9, 0.8, 0.7, 0.6]] * 3)
    history = {"train_loss": [1.0, 0.9, 0.8], "val_f1": [0.1, 0.9, 0.3]}
    found = measure(pairs, plan(pairs, chosen_by), history, logits_EV, logits_EV, 2, "finished")
    assert (found.selected_epoch, found.threshold) == (epoch, 0.5)


def test_a_probability_equal_to_the_threshold_is_a_match():
    labels = np.array([1, 0], dtype=np.int8)
    assert fold_metrics(np.array([0.25, 0.125]), labels, 0.25)["recall"] == 1.0


def test_positives_weigh_as_many_times_as_there_are_negatives_per_positive(pairs):
    positive, negative = np.flatnonzero(pairs.label_N == 1), np.flatnonzero(pairs.label_N == 0)
    assert positive_weight(pairs, np.concatenate([positive[:4], negative[:12]])) == 3.0
    assert positive_weight(pairs, np.concatenate([positive[:8], negative[:2]])) == 0.25
    assert positive_weight(pairs, negative[:5]) == 5.0, "without a positive nothing is divided by zero"


@pytest.mark.parametrize("chosen_by", ["inner", "best"])
def test_an_epoch_is_scored_on_its_own_pairs_by_the_rule_that_chooses(pairs, chosen_by):
    """Perfect on the selection pairs and wrong on the evaluation pairs: each rule looks at its own."""
    right, wrong = logit([0.9, 0.8, 0.2, 0.1]), logit([0.1, 0.2, 0.8, 0.9])
    score = epoch_score(pairs, plan(pairs, chosen_by), 1, wrong, right)
    assert score == (1.0 if chosen_by == "inner" else 0.0)
    assert epoch_score(pairs, plan(pairs, "last"), 7, wrong, right) > epoch_score(
        pairs, plan(pairs, "last"), 6, right, right
    )
