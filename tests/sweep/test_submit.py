"""`gemma-nli submit`: what it queues on a cluster, and the secrets that it does not let travel there."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import ray
import yaml

from tests.commands import run_command


class JobServer(BaseHTTPRequestHandler):
    """Answers Ray's job client as a dashboard does; what was queued is kept, and nothing runs."""

    queued: list[dict[str, Any]]

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "x"}
        self._answer(version)  # and of a package: it is there already

    def do_POST(self) -> None:
        self.queued.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer({"submission_id": self.queued[-1]["submission_id"], "job_id": None})

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the test's stderr."""


@pytest.fixture
def dashboard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and the jobs queued there."""
    queued: list[dict[str, Any]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Queue", (JobServer,), {"queued": queued}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", queued
    server.shutdown()
    server.server_close()


@pytest.fixture
def submit(sweep_tree, tmp_path, monkeypatch, dashboard):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "little.yaml").write_text(yaml.safe_dump(sweep_tree))
    monkeypatch.chdir(tmp_path / "job")
    return lambda *words: run_command("submit", "little.yaml", "--no-check", *words, "--address", dashboard[0])


def test_a_variable_of_the_job_leaves_its_command_alone(submit, dashboard, capsys):
    assert submit("training.num_epochs=1", "--env", "HF_HOME=/models", "--env", "NCCL_DEBUG=INFO") == 0
    assert "queued little-" in capsys.readouterr().out
    (job,) = dashboard[1]
    assert shlex.split(job["entrypoint"]) == ["gemma-nli", "sweep", "little.yaml", "training.num_epochs=1"]
    assert job["runtime_env"]["env_vars"].items() >= {"HF_HOME": "/models", "NCCL_DEBUG": "INFO"}.items()


@pytest.mark.parametrize("word", ["SECRET=Qx9vLm2", "HF_TOKEN=Qx9vLm2", "WANDB_API_KEY='Qx9vLm2", "MYSQL_PWD=Qx9vLm2",
                                  "AWS_SECRET_ACCESS_KEY=Qx9vLm2", "AZURE_STORAGE_KEY=Qx9vLm2", "PGPASSWORD=Qx9vLm2",
                                  "DJANGO_SECRET_KEY=Qx9vLm2", "STORE=postgresql://ann:Qx9vLm2@db/x", "MY_TOKEN",
                                  "HOOK=https://hooks.slack.com/services/Qx9vLm2"])  # fmt: skip
def test_a_secret_variable_does_not_travel_with_the_job(word, submit, dashboard, capsys, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "Qx9vLm2")
    assert submit("--env", word) == 2
    reported = capsys.readouterr()
    assert f"--env {word.partition('=')[0]}: contains a secret" in reported.err
    assert "Qx9vLm2" not in reported.out + reported.err
    assert dashboard[1] == []


@pytest.mark.parametrize("word", ["mlflow.tracking_uri=http://me:Qx9vLm2@mlflow:5000",
                                  "mlflow.tracking_uri=postgresql://db/x?password=Qx9vLm2"])  # fmt: skip
def test_a_password_never_stands_in_a_jobs_command(word, submit, dashboard, capsys):
    assert submit(word) == 2
    reported = capsys.readouterr()
    assert "mlflow.tracking_uri: contains a password" in reported.err
    assert "Qx9vLm2" not in reported.out + reported.err
    assert dashboard[1] == []


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999", "http://127.0.0.1:port", "http://[::1", "127.0.0.1:8265"]
)
def test_an_address_that_is_no_dashboards_is_one_sentence(address, capsys):
    assert run_command("jobs", "--address", address) == 2
    assert capsys.readouterr().err == (
        f"--address: must be a dashboard's address, such as http://127.0.0.1:8265, got '{address}'.\n"
    )
