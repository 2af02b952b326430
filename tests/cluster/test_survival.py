"""A sweep over real hosts, with everything done to it that a cluster does, has the numbers of one machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from mlflow.tracking import MlflowClient

from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import TrialRecord, read_trial
from tests.cluster.local_cluster import Host, LocalCluster, local_cluster
from tests.cluster.tracking_server import mlflow_on_postgres

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
CELLS, FOLDS = 24, 3


def sweep_tree(encoder: Path) -> dict[str, Any]:
    """Half the cells train the encoder, fold by fold; half train heads on its vectors."""
    return {
        "name": "survivor",
        "base": {
            "data": {"data_dir": "data", "num_folds": FOLDS},
            "model": {"name": str(encoder), "max_length": 48},
            "training": {"num_epochs": 36, "batch_size": 16},
            "output": {"experiment_name": "survivor"},
        },
        "space": {
            "model.freeze_encoder": {"grid": [False, True]},
            "model.pooling_strategy": {"grid": ["mean", "cls"]},
            "training.learning_rate": {"grid": ["1e-3", "3e-3"]},
            "training.seed": {"grid": [1, 2, 3]},
        },
        "resources": {"max_failures": 5},
    }


def until(holds: Callable[[], bool], what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


def records(storage: Path) -> dict[str, TrialRecord]:
    """Every trial of the one sweep in a storage that has begun."""
    folders = list((storage / "sweeps").glob("*/cells.jsonl")) if storage.exists() else []
    keys = [key for path in folders for key in SweepFolder(path.parent).cells()]
    return {key: record for key in keys if (record := read_trial(storage, key)) is not None}


def runs_a_trial(host: Host) -> bool:
    assert host.process is not None
    reported = []
    for each in psutil.Process(host.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            reported += each.cmdline()
    return any("Trainable.train" in title for title in reported)  # as Ray calls a worker's process while a step lasts


def stop(hosts: LocalCluster, job: str) -> None:
    """What `gemma-nli stop` asks, without a command's start: half the sweep would have run meanwhile."""
    headers = {"Authorization": f"Bearer {hosts.token.read_text()}"}
    where = f"{hosts.address}/api/jobs/{job}"
    assert requests.post(f"{where}/stop", headers=headers, timeout=30).ok
    until(lambda: requests.get(where, headers=headers, timeout=30).json()["status"] == "STOPPED", "a stopped job")


def ours(hosts: LocalCluster, *words: str, cwd: Path) -> str:
    ended = hosts.run("python", "-m", "gemma_nli", *words, "--address", hosts.address, cwd=cwd, seconds=600)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout


def on_one_machine(hosts: LocalCluster, folder: Path) -> dict[str, TrialRecord]:
    """The sweep undisturbed, in one process's own Ray."""
    hosts.extra = {"RAY_ADDRESS": "local"}
    words = ["sweep", "x.yaml", "mlflow.enabled=false", f"storage={hosts.scratch}/alone", "resources.max_concurrent=2"]
    ended = hosts.run("python", "-m", "gemma_nli", *words, cwd=folder, seconds=600)
    hosts.extra = {}
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return records(hosts.scratch / "alone")


def test_a_lost_worker_a_new_one_and_a_stopped_driver_change_no_number_and_no_run(tmp_path, tiny_bert):
    write_synthetic(tmp_path / "data", num_posts=80, seed=3)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(sweep_tree(tiny_bert)))
    with local_cluster() as hosts, mlflow_on_postgres(hosts) as tracking:
        alone = on_one_machine(hosts, tmp_path)
        hosts.head(cpus=0)
        first, second = hosts.worker(cpus=1), hosts.worker(cpus=1)
        storage = hosts.scratch / "shared"
        words = ["submit", "x.yaml", f"storage={storage}", f"mlflow.tracking_uri={tracking}"]

        job = ours(hosts, *words, cwd=tmp_path).split()[1]
        until(lambda: any(r.state == "running" and r.folds for r in records(storage).values()), "a trial in its middle")
        until(lambda: runs_a_trial(first), "a trial on the first worker")
        first.kill()
        third = hosts.worker(cpus=1)
        until(lambda: runs_a_trial(third), "a trial on the worker that joined")
        until(lambda: runs_a_trial(second), "a trial on the worker that stayed")
        done = sum(r.state == "finished" for r in records(storage).values())
        assert done < CELLS, "the sweep had ended before anything was done to it"
        stop(hosts, job)
        stopped = sum(r.state == "finished" for r in records(storage).values())
        assert stopped < CELLS, "the sweep had ended before its driver was stopped"
        ours(hosts, *words, "--follow", "--no-check", cwd=tmp_path)

        found = records(storage)
        assert sum(record.attempts for record in found.values()) > CELLS, "nothing was lost: the test has shown nothing"
        same_numbers(found, alone)
        every_run_once(tracking, found)
        result = json.loads(next((storage / "sweeps").glob("*/result.json")).read_text())
        assert result["trials"] == {"finished": CELLS, "pruned": 0, "failed": 0}
        assert result["ran"] == CELLS - stopped
        assert result["registered"]["version"] == 1


def same_numbers(found: dict[str, TrialRecord], alone: dict[str, TrialRecord]) -> None:
    """The same leaderboard: each trial's every metric and every probability, to the last bit."""
    assert len(alone) == CELLS
    assert found.keys() == alone.keys()
    for key, record in found.items():
        assert record.state == "finished"
        assert record.metrics() == alone[key].metrics()
        for number, fold in record.folds.items():
            assert (fold.probabilities == alone[key].folds[number].probabilities).all()
            assert fold.history == alone[key].folds[number].history


def every_run_once(tracking: str, found: dict[str, TrialRecord]) -> None:
    """In MLflow: one sweep run, one run a trial, each epoch of each metric once, none left running."""
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("survivor")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    trials = [run for run in runs if run.data.tags["gemma_nli.kind"] == "trial"]
    assert len(runs) == len(trials) + 1
    assert sorted(run.data.tags["gemma_nli.trial_key"] for run in trials) == sorted(found)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in trials:
        record = found[run.data.tags["gemma_nli.trial_key"]]
        for number, fold in record.folds.items():
            history = client.get_metric_history(run.info.run_id, f"fold_{number}/val_f1")
            assert [(m.step, m.value) for m in history] == list(enumerate(fold.history["val_f1"], start=1))
