"""A fold that did not learn is known by its AUC and its answers."""

from __future__ import annotations

import numpy as np
import pytest

from gemma_nli.base.metrics.auc import roc_auc
from gemma_nli.config import RunConfig
from gemma_nli.training.learned import chance_auc, learning_warning, why_chance
from gemma_nli.training.metrics import fold_metrics
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult


def fold_of(probabilities: np.ndarray, labels: np.ndarray, threshold: float = 0.5, number: int = 1) -> FoldResult:
    metrics = fold_metrics(probabilities, labels, threshold)
    rows, at = np.arange(len(labels)), probabilities.astype(np.float32)
    return FoldResult(number, FINISHED, {"train_loss": [1.0]}, 1, 1, threshold, rows, at, labels, metrics)


@pytest.mark.parametrize(("positives", "negatives"), [(20, 20), (100, 100), (30, 300)])
def test_random_scores_pass_the_limit_once_in_forty_times(positives, negatives):
    lots = np.random.default_rng(0)
    labels = np.repeat([1, 0], [positives, negatives]).astype(np.int8)
    found = roc_auc(lots.random((4000, positives + negatives)), labels)
    assert 0.015 < (found > chance_auc(positives, negatives)).mean() < 0.035


def test_a_fold_of_chance_is_warned_of_and_one_that_learned_is_not():
    lots, labels = np.random.default_rng(1), np.repeat([1, 0], 100).astype(np.int8)
    noise = lots.random(200)
    learned = fold_of(np.clip(0.4 * labels + 0.6 * noise, 0, 1), labels, number=2)
    dull = fold_of(noise, labels, number=1)
    config = RunConfig().with_settings({"training.learning_rate": 2e-5})
    assert learning_warning([learned], config) == ""
    reported = learning_warning([dull, learned], config)
    assert reported.startswith("fold 1 did not learn (AUC 0.")
    assert "training.learning_rate (it was 2e-05)" in reported
    upside_down = fold_of(1 - learned.probabilities, labels)
    assert "did not learn" in learning_warning([upside_down], config)


@pytest.mark.parametrize(
    ("threshold", "reported"), [(0.0, "calls every pair matched"), (1.1, "calls every pair not matched")]
)
def test_one_answer_for_all_pairs_is_warned_of_whatever_the_auc(threshold, reported):
    labels = np.repeat([1, 0], 50).astype(np.int8)
    assert reported in learning_warning([fold_of(labels * 0.9, labels, threshold)], RunConfig())


def test_a_perfect_order_of_a_few_pairs_is_not_called_chance():
    labels = np.array([1, 0, 0, 0], dtype=np.int8)
    assert chance_auc(1, 3) > 1
    assert why_chance(labels, labels.astype(bool), 1.0) == ""
    assert "chance alone reaches 1.000" in why_chance(labels, labels.astype(bool), 0.667)


def test_nothing_is_said_of_a_diverged_fold_or_of_labels_of_one_class():
    labels = np.ones(10, dtype=np.int8)
    assert why_chance(labels, labels.astype(bool), float("nan")) == ""
    none = np.zeros(0)
    bad = FoldResult(1, DIVERGED, {"train_loss": []}, 0, 0, 0.5, none, none, none, {})
    assert learning_warning([bad], RunConfig()) == ""
