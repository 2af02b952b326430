"""A plan's time is that of the sweep itself, within a factor of 1.5, whatever kind of sweep it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.forecast.forecast import Forecast, _span, forecast
from gemma_nli.sweep.forecast.measure import TrialCost, cost_class
from tests.commands import run_command


def tree(folder: Path, encoder: Path, posts: int) -> dict[str, Any]:
    write_synthetic(folder / "data", num_posts=posts, seed=3)
    return {
        "name": "planned",
        "base": {
            "data": {"data_dir": str(folder / "data"), "num_folds": 3},
            "model": {"name": str(encoder), "max_length": 128},
            "training": {"num_epochs": 10, "batch_size": 32},
            "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
        },
        "storage": str(folder / "storage"),
    }


def poolings(sweep: dict[str, Any]) -> None:
    """Attention reads token states in every epoch, mean a vector."""
    grid = {"model.pooling_strategy": {"grid": ["mean", "attention"]}}
    sweep["space"] = {**grid, "training.learning_rate": {"grid": [1e-3, 3e-3, 1e-2]}}


def trained(sweep: dict[str, Any]) -> None:
    sweep["base"]["model"]["freeze_encoder"] = False
    sweep["space"] = {"training.num_epochs": {"grid": [2, 4]}, "training.seed": {"grid": [1, 2, 3]}}


def searched(sweep: dict[str, Any]) -> None:
    sweep["space"] = {
        "training.learning_rate": {"loguniform": ["1e-4", "1e-2"]},
        "model.dropout": {"uniform": [0, 0.5]},
    }
    sweep["base"]["training"]["num_epochs"] = 40
    sweep["search"] = {"algorithm": "optuna", "num_trials": 12}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "posts"), [(poolings, 200), (trained, 120), (searched, 200)])
def test_the_time_is_within_a_factor_of_one_and_a_half(kind, posts, tmp_path, minilm, tiny_bert, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    sweep = tree(tmp_path, tiny_bert if kind is trained else minilm, posts)
    kind(sweep)
    spec = SweepSpec.from_mapping(sweep)
    reported = forecast(spec)
    assert sorted(path.name for path in Path(spec.storage).iterdir()) == [], "a plan leaves nothing behind"
    real = run_sweep(spec)
    print(json.dumps({"kind": kind.__name__, "told": reported.to_json(), "real": real.seconds}))
    assert real.trials["failed"] == 0
    assert reported.trials == real.ran
    assert 1 / 1.5 <= reported.total / real.seconds["total"] <= 1.5
    assert forecast(spec).trials == 0


def test_settings_that_cost_nothing_make_no_class_of_their_own(sweep_tree):
    base = SweepSpec.from_mapping(sweep_tree).base
    assert cost_class(base.with_settings({"training.learning_rate": 0.5, "training.seed": 7})) == cost_class(base)
    assert cost_class(base.with_settings({"training.num_epochs": 77})) == cost_class(base)
    for key, value in [
        ("model.pooling_strategy", "attention"),
        ("training.batch_size", 8),
        ("data.negative_ratio", 3.0),
    ]:
        assert cost_class(base.with_settings({key: value})) != cost_class(base)
    assert TrialCost(2.0, 0.5).of(base) == 2.0 + 0.5 * base.training.num_epochs


def test_trials_fill_the_slots_and_all_gpus_held_are_paid():
    assert _span([3, 1, 1, 1], 2) == 3
    assert _span([1, 1, 1], 8) == 1
    reported = Forecast(100, 200, 3000, 300, 60, 2.0, 5.0, gpus=4, trials=10)
    assert reported.cost(2.0) == pytest.approx(2.0 * 4 * 1.0)
    assert Forecast(0, 0, 3600, 0, 1, 0, 1, gpus=0, trials=1).cost(0.5) == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_command_tells_time_work_and_cost(sweep_tree, tmp_path, capsys):
    import yaml

    (tmp_path / "x.yaml").write_text(yaml.safe_dump(sweep_tree))
    assert run_command("plan", str(tmp_path / "x.yaml"), "--price", "1.2") == 0
    out = capsys.readouterr().out
    for part in ("cells", "time", "a trial", "GPU-hours", "cost", "at 1.2 per hour for one machine"):
        assert part in out
