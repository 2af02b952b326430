"""Past one driver's limit: two commands at once, each with a storage and a Ray of its own, on one Optuna study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from gemma_nli.corpus.synthetic import write_synthetic
from tests.cluster.local_cluster import ROOT

TRIALS = 10


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_two_drivers_share_a_study_and_its_number_of_trials(tmp_path: Path, tiny_bert: Path) -> None:
    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    study = f"sqlite:///{tmp_path / 'study.db'}"
    tree = {
        "name": "shared",
        "base": {
            "data": {"data_dir": str(tmp_path / "data"), "num_folds": 2},
            "model": {"name": str(tiny_bert), "max_length": 48, "freeze_encoder": False},
            "training": {"num_epochs": 4},
            "mlflow": {"enabled": False},
        },
        "space": {"training.learning_rate": {"loguniform": ["1e-4", "1e-2"]}, "model.dropout": {"uniform": [0, 0.5]}},
        "search": {"algorithm": "optuna", "num_trials": TRIALS, "storage": study},
        "resources": {"max_concurrent": 1},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    drivers = []
    for name in ("a", "b"):
        environment = {**os.environ, "RAY_ADDRESS": "local", "GEMMA_NLI_HOME": str(tmp_path / name)}
        words = [sys.executable, "-m", "gemma_nli", "sweep", str(tmp_path / "x.yaml"), "--json"]
        drivers.append(
            subprocess.Popen(
                [*words, f"storage={tmp_path / name / 'storage'}"],
                **{"env": environment, "cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            )
        )
    ends = [driver.communicate(timeout=360) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], ends
    results = [json.loads(out) for out, _ in ends]
    assert sum(result["ran"] for result in results) == TRIALS
    assert all(result["ran"] >= 2 for result in results), "both worked"

    trials = optuna.load_study(study_name=results[0]["sweep_id"], storage=study).get_trials()
    counted = [trial for trial in trials if trial.user_attrs.get("kind", "asked") == "asked"]
    assert len(counted) == TRIALS
    assert {trial.state.name for trial in counted} == {"COMPLETE"}
    assert len({json.dumps(trial.params, sort_keys=True) for trial in counted}) == TRIALS
    assert len({trial.user_attrs["owner"] for trial in counted}) == 2
