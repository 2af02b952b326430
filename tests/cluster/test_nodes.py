"""Nodes that go and nodes that come: a trial goes on elsewhere; a cluster without workers is waited for."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
import yaml

from gemma_nli.corpus.synthetic import write_synthetic
from tests.cluster.local_cluster import ROOT, local_cluster
from tests.cluster.test_jobs import sweep_tree

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_trial_goes_on_from_its_last_fold_when_its_node_is_lost(tmp_path, tiny_bert):
    """Its own process: a Ray of two nodes, the one with the trial removed after the first fold."""
    write_synthetic(tmp_path / "data", num_posts=120, seed=3)
    script = ROOT / "tests" / "cluster" / "lose_a_node.py"
    words = [sys.executable, str(script), str(tmp_path), str(tiny_bert)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=380, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    reported = json.loads(ended.stdout.strip().splitlines()[-1])
    assert reported["trials"] == {"finished": 1, "pruned": 0, "failed": 0}
    assert reported["folds_computed"] == [1, 2, 3, 4, 5]
    assert reported["attempts"] >= 2


def test_a_cluster_without_workers_is_waited_for_and_gpus_are_never_shared_out_twice(tmp_path, tiny_bert):
    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    with local_cluster(apart=False) as hosts:
        hosts.extra = {"GEMMA_NLI_WAIT_FOR_NODES": "3"}
        hosts.head(cpus=0)
        tree = sweep_tree(hosts, tiny_bert, name="waits", resources={"gpu": 0.5})
        tree["base"]["data"]["data_dir"] = str(tmp_path / "data")
        tree["base"]["mlflow"] = {"enabled": False}
        tree["space"]["training.seed"] = {"grid": [1, 2, 3]}
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
        came = threading.Timer(20, lambda: hosts.worker(cpus=4, gpus=1))
        came.start()
        began = time.monotonic()
        words = ["submit", "x.yaml", "--no-check", "--follow", "--address", hosts.address]
        ended = hosts.run("python", "-m", "gemma_nli", *words, cwd=tmp_path, seconds=300)
        came.join()
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        assert "waiting for a node that can hold a trial" in ended.stdout
        assert "waits: 6 best of 6" in ended.stdout
        assert time.monotonic() - began > 20

        blind = hosts.run(
            *["python", "-m", "gemma_nli", "submit", "x.yaml", "name=blind", "resources.gpu=auto", "--no-check"],
            *["training.num_epochs=3", "--follow", "--address", hosts.address],
            cwd=tmp_path,
        )
        assert blind.returncode == 2
        assert "PyTorch sees none there" in blind.stdout
