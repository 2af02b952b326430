"""Sweeps as jobs on real hosts: as Ray's own command submits them, and as ours checks, follows and stops them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gemma_nli.corpus.synthetic import write_synthetic
from tests.cluster.local_cluster import LocalCluster, can_make_hosts, local_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def sweep_tree(hosts: LocalCluster, encoder: Path, **changes: Any) -> dict[str, Any]:
    """Two cells; the data lie on the head's own disk, the storage on the one folder that all hosts share."""
    return {
        "name": "job",
        "base": {
            "data": {"data_dir": str(hosts.private / "data"), "num_folds": 2},
            "model": {"name": str(encoder), "max_length": 48},
            "training": {"num_epochs": 2},
            "mlflow": {"tracking_uri": f"sqlite:///{hosts.private}/mlflow.db"},
        },
        "space": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "storage": str(hosts.scratch / "shared"),
        **changes,
    }


@pytest.fixture(scope="module")
def hosts(tiny_bert: Path) -> Iterator[LocalCluster]:
    """A head that runs no trial and one worker; the head alone has the data."""
    with local_cluster() as made:
        write_synthetic(made.scratch / "data", num_posts=60, seed=3)
        made.head(cpus=0, prepare=f"cp -r {made.scratch / 'data'} {made.private}/data")
        made.worker(cpus=1)
        yield made


@pytest.fixture
def job_folder(hosts: LocalCluster, tiny_bert: Path, tmp_path: Path) -> Path:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "x.yaml").write_text(yaml.safe_dump(sweep_tree(hosts, tiny_bert)))
    return tmp_path


def ours(hosts: LocalCluster, *words: str, cwd: Path) -> Any:
    return hosts.run("python", "-m", "gemma_nli", *words, "--address", hosts.address, cwd=cwd)


def test_rays_own_job_submit_works_as_typed(hosts, job_folder):
    hosts.extra = {"RAY_API_SERVER_ADDRESS": hosts.address}
    command = "ray job submit --working-dir . -- gemma-nli sweep sweeps/x.yaml"
    ended = hosts.run(*command.split(), cwd=job_folder)
    hosts.extra = {}
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = json.loads(next((hosts.scratch / "shared" / "sweeps").glob("*/result.json")).read_text())
    assert result["trials"] == {"finished": 2, "pruned": 0, "failed": 0}
    log = ended.stdout + ended.stderr
    assert f"Ray dashboard: http://{hosts.hosts[0].address}:{hosts.dashboard_port}" in log
    assert "MLflow run: " in log
    assert "running trials" in log
    assert "best of 2" in log


def test_submit_checks_queues_follows_and_lists(hosts, job_folder):
    ended = ours(hosts, "submit", "sweeps/x.yaml", "name=followed", "--follow", cwd=job_folder)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    job = ended.stdout.split()[1]
    assert job.startswith("followed-")
    assert "followed: 2 best of 2" in ended.stdout
    assert f"{job} succeeded" in ended.stderr
    listed = ours(hosts, "jobs", cwd=job_folder)
    row = next(line for line in listed.stdout.splitlines() if line.startswith(job))
    assert row.split()[1:3] == ["followed", "succeeded"]
    assert "check-" not in listed.stdout, "the check leaves no job behind"
    again = ours(hosts, "logs", job, cwd=job_folder)
    assert "followed: 2 best of 2" in again.stdout


def test_what_the_cluster_lacks_is_told_a_sentence_each_and_nothing_is_queued(hosts, job_folder, tmp_path):
    before = ours(hosts, "jobs", "--json", cwd=job_folder).stdout
    words = ["mlflow.tracking_uri=http://127.0.0.1:9", "data.data_dir=/nowhere/data", "model.name=/nowhere/model"]
    words += ["storage=kept/here"]
    ended = ours(hosts, "submit", "sweeps/x.yaml", *words, cwd=job_folder)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    reported = ended.stderr.splitlines()
    assert reported[0] == "nothing was queued; the cluster (2 nodes) lacks:"
    for part in (
        "MLflow from the head",
        "data on the head",
        "model on the head",
        "storage: kept/here is inside the job's",
    ):
        assert sum(part in line for line in reported) == 1, ended.stderr
    assert ours(hosts, "jobs", "--json", cwd=job_folder).stdout == before


@pytest.mark.skipif(not can_make_hosts(), reason="needs root: hosts with disks of their own")
def test_a_storage_that_is_not_shared_and_a_model_that_is_not_everywhere_are_found(hosts, job_folder, tiny_bert):
    model = hosts.private / "model"
    on_head = ["ip", "netns", "exec", hosts.hosts[0].name, "true"]
    assert hosts.run(*on_head).returncode == 0
    pid = str(hosts.hosts[0].process.pid)
    copied = hosts.run("nsenter", "-t", pid, "-m", "cp", "-r", str(tiny_bert), str(model))
    assert copied.returncode == 0, copied.stderr
    words = [f"model.name={model}", f"storage={hosts.private}/storage"]
    ended = ours(hosts, "submit", "sweeps/x.yaml", *words, cwd=job_folder)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    worker = hosts.hosts[1].address
    about = [line for line in ended.stderr.splitlines() if f"({worker})" in line]
    assert len(about) == 2, ended.stderr
    assert "is not the head's folder of that name; mount the same shared folder" in ended.stderr
    assert "model.name: " in ended.stderr
    assert "no such folder" in ended.stderr


def test_a_job_that_is_stopped_ends_quietly_and_goes_on_when_submitted_again(hosts, tiny_bert, job_folder):
    longer = sweep_tree(hosts, tiny_bert, name="stopped")
    longer["base"]["model"]["freeze_encoder"] = False
    longer["base"]["training"]["num_epochs"] = 15
    longer["space"]["training.seed"] = {"grid": list(range(6))}
    (job_folder / "sweeps" / "x.yaml").write_text(yaml.safe_dump(longer))
    queued = ours(hosts, "submit", "sweeps/x.yaml", "--no-check", cwd=job_folder)
    job = queued.stdout.split()[1]
    follow = hosts.run(
        "bash", "-c", f"python -m gemma_nli logs -f {job} --address {hosts.address} | grep -m1 'running trials'"
    )
    assert "running trials" in follow.stdout
    ended = ours(hosts, "stop", job, cwd=job_folder)
    assert ended.stdout.strip() == f"{job} stopped"
    folder = next(
        path.parent
        for path in (hosts.scratch / "shared" / "sweeps").glob("*/spec.yaml")
        if "name: stopped" in path.read_text()
    )
    quiet = json.loads((folder / "result.json").read_text())
    assert quiet["interrupted"]
    assert 0 < quiet["trials"]["finished"] < 12
    again = ours(hosts, "submit", "sweeps/x.yaml", "--no-check", "--follow", cwd=job_folder)
    assert again.returncode == 0, again.stdout + again.stderr
    whole = json.loads((folder / "result.json").read_text())
    assert whole["trials"]["finished"] == 12
    assert whole["ran"] == 12 - quiet["trials"]["finished"]


def test_an_address_or_a_job_that_is_not_there_is_one_sentence(hosts, job_folder):
    ended = hosts.run("python", "-m", "gemma_nli", "jobs", "--address", "http://127.0.0.1:9")
    assert ended.returncode == 2
    assert ended.stderr.startswith("http://127.0.0.1:9: nothing answers (Connection refused); is the head up")
    ended = ours(hosts, "logs", "nothing-like-it", cwd=job_folder)
    assert ended.returncode == 2
    assert "has no job 'nothing-like-it'" in ended.stderr
    hosts.extra = {"RAY_AUTH_TOKEN_PATH": "/nowhere/token", "RAY_AUTH_MODE": "disabled"}
    ended = ours(hosts, "jobs", cwd=job_folder)
    hosts.extra = {}
    assert ended.returncode == 2
    assert "asks for a token: set RAY_AUTH_MODE=token" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
