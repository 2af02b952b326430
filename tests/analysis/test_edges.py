"""Edges of the analysis: a probability of exactly 1, a fold without a prediction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.calibration import reliability
from gemma_nli.analysis.from_journals import _whole
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.make_report import report_sweeps
from gemma_nli.training.results import FINISHED


def test_a_probability_of_1_stands_in_the_last_bin_with_those_just_below_it() -> None:
    together = reliability(np.array([1.0, 1.0 - 1e-9]), np.array([1, 0]))
    assert len(together) == 1


@pytest.mark.parametrize(("status", "whole"), [(FINISHED, True), ("diverged", False)])
def test_a_trial_with_a_fold_that_diverged_has_no_row_to_be_ranked_by(status: str, whole: bool) -> None:
    fold = SimpleNamespace(status=FINISHED, rows=np.array([0, 2]), probabilities=np.array([0.1, 0.9]))
    other = SimpleNamespace(status=status, rows=np.array([1, 3]), probabilities=np.array([0.2, 0.8]))
    record: Any = SimpleNamespace(folds={1: fold, 2: other})
    pairs: Any = range(4)
    found = _whole(record, pairs, np.array([0, 2, 1, 3]))
    assert (found is not None) == whole
    if found is not None:
        np.testing.assert_allclose(found, [0.1, 0.9, 0.2, 0.8])


def test_folds_that_could_choose_no_threshold_are_named_in_the_warnings_and_beside_the_thresholds(tmp_path, tiny_bert):
    write_synthetic(tmp_path / "data", num_posts=8, seed=3)
    tree = {
        "name": "few",
        "base": {
            "data": {"data_dir": str(tmp_path / "data"), "num_folds": 2},
            "model": {"name": str(tiny_bert), "max_length": 24},
            "mlflow": {"enabled": False},
        },
        "space": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "storage": str(tmp_path / "storage"),
    }
    simulate_sweep(SweepSpec.from_mapping(tree, "few"), lambda _settings: 1.0)
    text = report_sweeps(["few"]).markdown.read_text(encoding="utf-8")
    assert "The best trial could not choose everything on the inner split in every fold (fold" in text
    assert "lack a class: measured at the last epoch, threshold 0.5)" in text.split("thresholds, chosen on")[1]
