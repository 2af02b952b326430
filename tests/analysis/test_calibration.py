"""Calibration where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from gemma_nli.analysis.calibration import calibrate, calibration_error, fit_temperature


def test_the_temperature_that_spoiled_probabilities_is_found_and_mended() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=6000)
    labels = (rng.random(6000) < expit(logits)).astype(int)
    overconfident = expit(3 * logits)
    assert fit_temperature(overconfident, labels) == pytest.approx(3, rel=0.1)
    found = calibrate(overconfident, labels, np.arange(6000) % 5)
    assert found.error > 0.1
    assert found.scaled_error < 0.03
    assert found.scaled_brier < found.brier
    assert len(found.temperatures) == 5


def test_a_fold_is_scaled_by_the_other_folds_alone() -> None:
    """Turning one fold's labels round changes the other folds' temperatures, and not its own."""
    rng = np.random.default_rng(1)
    p = rng.random(900)
    labels = (rng.random(900) < p).astype(int)
    fold = np.arange(900) % 3
    turned = np.where(fold == 0, 1 - labels, labels)
    before, after = calibrate(p, labels, fold).temperatures, calibrate(p, turned, fold).temperatures
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_calibration_error_of_a_known_case() -> None:
    """Ten pairs said to be 0.95, of which six are matched: 0.35 off."""
    assert calibration_error(np.full(10, 0.95), np.array([1] * 6 + [0] * 4)) == pytest.approx(0.35)
    with pytest.raises(ValueError, match="labels"):
        calibration_error(np.zeros(0), np.zeros(0, dtype=int))


def test_labels_of_one_class_have_no_temperature() -> None:
    assert fit_temperature(np.array([0.1, 0.9]), np.array([1, 1])) == 1
