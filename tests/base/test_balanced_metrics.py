"""Metrics that the share of matched pairs does not flatter are scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from gemma_nli.base.metrics import METRICS


@pytest.mark.parametrize("seed", range(10))
def test_mcc_and_balanced_accuracy_equal_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, chosen = (rng.random(50) < 0.3).astype(np.int8), rng.random(50) < 0.5
    theirs = {"mcc": sk.matthews_corrcoef, "balanced_accuracy": sk.balanced_accuracy_score}
    for name, score in theirs.items():
        assert METRICS[name].of_rows(chosen[None], labels)[0] == pytest.approx(score(labels, chosen))


def test_calling_all_pairs_alike_is_worth_nothing_and_one_class_measures_nothing() -> None:
    labels, alike = np.array([1, 0, 0, 0], dtype=np.int8), np.ones((1, 4), dtype=bool)
    assert METRICS["mcc"].of_rows(alike, labels)[0] == 0.0
    assert METRICS["balanced_accuracy"].of_rows(alike, labels)[0] == 0.5
    assert math.isnan(METRICS["balanced_accuracy"].of_rows(alike, np.ones(4, dtype=np.int8))[0])
