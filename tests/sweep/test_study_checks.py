"""What a study needs is looked at before anything is encoded, also by a plan."""

from __future__ import annotations

import importlib.util

import pytest

from gemma_nli.errors import SweepError
from gemma_nli.sweep.plan import plan_sweep
from tests.sweep.conftest import spec_of


def test_a_sampler_whose_package_is_missing_is_refused_by_the_plan(sweep_tree, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cmaes" else found(name, *rest)
    )
    space = {"training.learning_rate": {"loguniform": ["1e-4", "1e-1"]}}
    search = {"algorithm": "optuna", "sampler": "cmaes", "num_trials": 3}
    with pytest.raises(SweepError, match="sampler cmaes lacks a package: .*cmaes"):
        plan_sweep(spec_of(sweep_tree, space=space, search=search))
