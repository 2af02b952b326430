from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from gemma_nli.base.metrics import METRICS
from gemma_nli.base.metrics.auc import roc_auc
from gemma_nli.base.metrics.average_precision import average_precision
from gemma_nli.training.metrics import best_threshold, curves, fold_metrics, log_loss, sigmoid

properties = settings(deadline=None, max_examples=25)


@st.composite
def scored(draw, both_classes: bool = False):
    """Logits of a few epochs, rich in ties, and labels of any mixture."""
    rows, epochs = draw(st.integers(2, 30)), draw(st.integers(1, 3))
    values = draw(st.sampled_from([st.integers(-3, 3).map(float), st.floats(-12, 12, width=32)]))
    logits = draw(st.lists(st.lists(values, min_size=rows, max_size=rows), min_size=epochs, max_size=epochs))
    labels = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    if both_classes:
        labels[0], labels[1] = 0, 1
    return np.array(logits), np.array(labels, dtype=np.int8)


@properties
@given(scored(both_classes=True))
def test_every_curve_equals_scikit_learns_epoch_by_epoch(drawn):
    logits_EN, labels_N = drawn
    ours = curves(logits_EN, labels_N)
    assert list(ours) == ["val_loss", *(f"val_{name}" for name in METRICS), "val_f1_at_half"]
    for epoch, logits_N in enumerate(logits_EN):
        kept_N = sigmoid(logits_N).astype(np.float32)  # as a journal keeps them
        chosen_N = kept_N >= 0.5
        theirs = {
            "val_loss": sk.log_loss(labels_N, sigmoid(logits_N), labels=[0, 1]),
            "val_f1": sk.f1_score(labels_N, chosen_N, zero_division=0),
            "val_auc": sk.roc_auc_score(labels_N, kept_N),
            "val_accuracy": sk.accuracy_score(labels_N, chosen_N),
            "val_precision": sk.precision_score(labels_N, chosen_N, zero_division=0),
            "val_recall": sk.recall_score(labels_N, chosen_N, zero_division=0),
            "val_ap": sk.average_precision_score(labels_N, kept_N),
        }
        for name, value in theirs.items():
            assert ours[name][epoch] == pytest.approx(value, rel=1e-7, abs=1e-9), name


@properties
@given(scored())
def test_labels_of_one_class_give_nan_where_a_metric_is_undefined_and_crash_nothing(drawn):
    logits_EN, labels_N = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = curves(logits_EN, labels_N)
    assert np.isnan(ours["val_auc"]).all() == (labels_N.min() == labels_N.max())
    assert np.isnan(ours["val_ap"]).all() == (not labels_N.any())
    for name in ("val_f1", "val_precision", "val_recall", "val_accuracy"):
        assert ((ours[name] >= 0) & (ours[name] <= 1)).all(), name


def test_no_epochs_give_empty_curves():
    assert {len(values) for values in curves(np.zeros((0, 5)), np.array([0, 1, 1, 0, 1], dtype=np.int8)).values()} == {
        0
    }


def test_log_loss_of_a_saturated_logit_is_that_logit_and_not_infinite():
    labels_N = np.array([1, 0], dtype=np.int8)
    assert log_loss(np.array([[-900.0, 0.0]]), labels_N)[0] == pytest.approx((900 + np.log(2)) / 2)


def test_sigmoid_is_exact_far_out_and_at_zero():
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


@properties
@given(scored())
def test_no_threshold_beats_the_chosen_one(drawn):
    logits_EN, labels_N = drawn
    probabilities_N = sigmoid(logits_EN[0])
    threshold, f1 = best_threshold(probabilities_N, labels_N)
    reached = fold_metrics(probabilities_N, labels_N, threshold)["f1"]
    tried = [fold_metrics(probabilities_N, labels_N, t)["f1"] for t in [*np.unique(probabilities_N), 2.0]]
    assert f1 == pytest.approx(max(tried) if labels_N.any() else 0.0)
    assert reached == pytest.approx(f1) or not labels_N.any()


def test_a_threshold_lies_midway_between_neighbours_and_the_highest_of_equals_wins():
    labels_N = np.array([1, 0, 0, 1, 0], dtype=np.int8)
    # F1 is 2/3 both at 0.7 (one of one right) and at 0.3 (two of four right)
    assert best_threshold(np.array([0.8, 0.6, 0.5, 0.4, 0.2]), labels_N) == (pytest.approx(0.7), pytest.approx(2 / 3))


def test_tied_scores_are_never_split_by_a_threshold():
    threshold, f1 = best_threshold(np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, 0, 0, 0], dtype=np.int8))
    assert (threshold, f1) == (pytest.approx(0.3), pytest.approx(0.5))


def test_without_a_positive_the_threshold_is_a_half():
    assert best_threshold(np.array([0.9, 0.2]), np.array([0, 0], dtype=np.int8)) == (0.5, 0.0)


@pytest.mark.parametrize("shift", [0.0, -5.0, 5.0])
def test_a_threshold_of_scores_below_zero_keeps_every_pair_that_it_should(shift):
    """The best F1 calls the lowest score matched too, wherever zero lies."""
    scores, labels = np.array([2.0, 1.0, -1.0]) + shift, np.array([1, 0, 1], dtype=np.int8)
    threshold, f1 = best_threshold(scores, labels)
    assert f1 == pytest.approx(sk.f1_score(labels, scores >= threshold)) == pytest.approx(0.8)


@properties
@given(scored(both_classes=True), st.floats(0, 1))
def test_fold_metrics_equal_scikit_learns_at_any_threshold(drawn, threshold):
    logits_EN, labels_N = drawn
    probabilities_N = sigmoid(logits_EN[0]).astype(np.float32)
    ours = fold_metrics(probabilities_N, labels_N, threshold)
    chosen_N = probabilities_N.astype(np.float64) >= threshold
    assert ours["f1"] == pytest.approx(sk.f1_score(labels_N, chosen_N, zero_division=0))
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(labels_N, probabilities_N))
    assert ours["ap"] == pytest.approx(sk.average_precision_score(labels_N, probabilities_N))


def test_curves_of_many_epochs_are_those_of_each_epoch_alone():
    draws = np.random.default_rng(0)
    logits_EN, labels_N = draws.normal(size=(4, 50)).round(1), draws.integers(0, 2, 50).astype(np.int8)
    for metric in (roc_auc, average_precision, log_loss):
        alone = [metric(logits_N[None], labels_N)[0] for logits_N in logits_EN]
        assert metric(logits_EN, labels_N).tolist() == alone
