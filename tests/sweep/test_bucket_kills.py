"""A driver killed while its sweep is kept in a bucket: another machine goes on, and nothing is lost or twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.chaos.verdict import judge, snapshot
from gemma_nli.storage import Place
from gemma_nli.trial import TrialRecord, read_trials

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def start(tree: dict[str, Any], folder: Path, environment: dict[str, str], home: str) -> subprocess.Popen[bytes]:
    """The command typed on a machine whose home is empty, unless it is one that was used before."""
    (folder / "x.yaml").write_text(yaml.safe_dump(tree))
    reported = {**os.environ, **environment, "GEMMA_NLI_HOME": str(folder / home)}
    with (folder / f"{home}.log").open("ab") as log:
        words = [sys.executable, "-m", "gemma_nli", "sweep", "x.yaml"]
        return subprocess.Popen(words, cwd=folder, env=reported, stdout=log, stderr=log, start_new_session=True)


def finished(place: Place, keys: set[str]) -> dict[str, TrialRecord]:
    found = read_trials(place, sorted(keys))
    assert found.keys() == keys
    assert {record.state for record in found.values()} == {"finished"}
    return found


def test_a_driver_killed_twice_costs_its_heirs_half_a_minute_and_no_trial(store, sweep_tree, tmp_path):
    tree = {**sweep_tree, "storage": str(store.place("kept"))}
    tree["base"]["training"] = {"num_epochs": 300, "patience": None, "batch_size": 32}

    def keys() -> set[str]:
        return {name.split("/")[-2] for name in store.names() if name.endswith("/journal.jsonl")}

    for home, trials in (("one", 1), ("two", 3)):
        driver = start(tree, tmp_path, store.environment(), home)
        until = time.monotonic() + 200
        while len(keys()) < trials:
            assert driver.poll() is None, (tmp_path / f"{home}.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    states = [record.state for record in read_trials(store.place("kept"), sorted(keys())).values()]
    assert "running" in states, "both were killed in the middle of a trial"

    last = start(tree, tmp_path, store.environment(), "three")
    assert last.wait(400) == 0, (tmp_path / "three.log").read_text()
    assert len(keys()) == 4
    alone = {**tree, "storage": str(tmp_path / "folder")}
    alone["base"] = {**tree["base"], "mlflow": {"tracking_uri": f"sqlite:///{tmp_path / 'alone.db'}"}}
    undisturbed = start(alone, tmp_path, {}, "four")
    assert undisturbed.wait(200) == 0, (tmp_path / "four.log").read_text()

    in_bucket, in_folder = finished(store.place("kept"), keys()), finished(tmp_path / "folder", keys())
    for key, record in in_bucket.items():
        assert record.metrics() == in_folder[key].metrics()
        assert sorted(record.folds) == [1, 2, 3]
    wanted = {run.key: run.points for run in snapshot(tmp_path / "alone.db").runs}
    verdict = judge(wanted, snapshot(tmp_path / "mlflow" / "mlflow.db"))
    assert verdict.details == []
    assert verdict.clean
