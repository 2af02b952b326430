"""A Ray cluster: cluster.yaml checked offline, a job submitted to a real head node, a node lost in mid-trial."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from gemma_nli.corpus.synthetic import write_synthetic

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent


def test_cluster_yaml_is_one_that_ray_up_takes():
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head node of its own with a dashboard on loopback, ended by the pids of its processes."""
    folder = Path("/tmp") / f"ray_head_{os.getpid()}"
    dashboard = free_port()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    before = {process.pid for process in psutil.process_iter()}
    words = ["start", "--head", f"--port={free_port()}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    words += ["--num-cpus=2", f"--temp-dir={folder}", "--include-dashboard=true", "--disable-usage-stats"]
    words += ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    started = subprocess.run(
        [str(BIN / "ray"), *words], check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert started.returncode == 0, started.stderr[-3000:]
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for process in psutil.process_iter():
            if process.pid in before:
                continue
            try:
                mine = str(folder) in " ".join(process.cmdline()) or process.name().startswith("ray::")
                if mine:
                    os.kill(process.pid, signal.SIGKILL)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_sweep_runs_as_a_job(head_node, tmp_path, tiny_bert):
    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    (tmp_path / "job").mkdir()
    sweep = {
        "name": "job",
        "base": {
            "data": {"data_dir": str(tmp_path / "data"), "num_folds": 2},
            "model": {"name": str(tiny_bert), "max_length": 48},
            "training": {"num_epochs": 2},
            "mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"},
        },
        "space": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "storage": str(tmp_path / "storage"),
    }
    (tmp_path / "job" / "job.yaml").write_text(yaml.safe_dump(sweep))
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    job = ["job", "submit", "--address", head_node, "--working-dir", str(tmp_path / "job"), "--"]
    command = [str(BIN / "gemma-nli"), "sweep", "job.yaml", "--json"]
    ended = subprocess.run(
        [str(BIN / "ray"), *job, *command], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = json.loads(next((tmp_path / "storage" / "sweeps").glob("*/result.json")).read_text())
    assert result["trials"] == {"finished": 2, "pruned": 0, "failed": 0}


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_trial_goes_on_from_its_last_fold_when_its_node_is_lost(tmp_path, tiny_bert):
    """Its own process: a Ray of two nodes, the one with the trial removed after the first fold."""
    write_synthetic(tmp_path / "data", num_posts=120, seed=3)
    script = ROOT / "tests" / "cluster" / "lose_a_node.py"
    words = [sys.executable, str(script), str(tmp_path), str(tiny_bert)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    assert told["trials"] == {"finished": 1, "pruned": 0, "failed": 0}
    assert told["folds_computed"] == [1, 2, 3, 4, 5]
    assert told["attempts"] >= 2
    time.sleep(1)
