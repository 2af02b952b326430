"""Each entry of docs/tracking.md's Trouble: made to go wrong, and the message that says how to mend it."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.local.reproduce import reproduce
from gemma_nli.tracking.registry.registered_models import registered_versions
from tests.commands import run_command
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]
ROOT = Path(__file__).parent.parent


def test_mlflow_missing(tmp_path):
    """A process in which nothing named mlflow can be imported."""
    code = "import sys; sys.modules['mlflow'] = None; from gemma_nli.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "runs"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("mlflow is not installed in ")
    assert "pip install mlflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_in_use(sqlite_uri, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run_command("ui", "--port", str(taken.getsockname()[1]), "--tracking-uri", sqlite_uri) == 2
    assert re.search(r"the next free one: \S*gemma-nli ui --port \d+ --tracking-uri sqlite", capsys.readouterr().err)


@pytest.mark.parametrize("words", [["runs"], ["experiments"], ["models"], ["best", "--experiment", "x"]])
def test_server_unreachable(words, capsys):
    assert run_command(*words, "--tracking-uri", "http://ann:secret@127.0.0.1:9") == 2
    message = capsys.readouterr().err
    assert "http://***@127.0.0.1:9" in message
    assert "the server does not answer" in message
    assert "mlflow.enabled=false" in message
    assert "secret" not in message
    for raw in ("HTTPConnectionPool", "Max retries", "Errno", "object at 0x", "api/2.0"):
        assert raw not in message


class _NoRegistry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return None


class _Hub(BaseHTTPRequestHandler):
    """The hub's answers to who may not have a model, by its name."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(403 if gated else 401)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("X-Error-Message", "no")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("listening", [_NoRegistry], indirect=True)
def test_registry_missing(listening):
    with pytest.raises(TrackingError, match="the server has no model registry"):
        registered_versions(listening)


def test_empty_artifacts(sqlite_uri):
    run = MlflowClient(sqlite_uri, sqlite_uri).create_run("0", tags={"gemma_nli.kind": "trial"})
    with pytest.raises(TrackingError, match=r"no config\.yaml among its artifacts at .*gemma-nli flush"):
        reproduce(run.info.run_id, sqlite_uri)


def test_metrics_not_there(sqlite_uri, capsys):
    client = MlflowClient(sqlite_uri, sqlite_uri)
    client.create_run("0", tags={"gemma_nli.kind": "trial", "gemma_nli.state": "running"})
    assert run_command("runs", "--tracking-uri", sqlite_uri) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "N/A: 1 runs without aggregates (running); they appear when the last fold has ended." in out


@pytest.fixture
def train_with_hub(corpus, tmp_path, monkeypatch, capsys) -> Callable[[str, str], str]:
    """Trains by a model's name with a hub of ours; what is told on stderr."""

    def train(name: str, endpoint: str) -> str:
        for constant, value in (("ENDPOINT", endpoint), ("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path))):
            monkeypatch.setattr(f"huggingface_hub.constants.{constant}", value)
        assert run_command("train", f"model.name={name}", f"data.data_dir={corpus}") == 2
        return capsys.readouterr().err

    return train


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    from gemma_nli.corpus.synthetic import write_synthetic

    write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    return tmp_path / "data"


@pytest.mark.parametrize("listening", [_Hub], indirect=True)
def test_a_gated_or_absent_model_on_the_hub(listening, train_with_hub):
    message = train_with_hub("google/gated-2b", listening)
    assert "is gated: accept its terms at https://huggingface.co/google/gated-2b" in message
    assert "HF_TOKEN" in message
    assert "model.name=/path/to/folder" in message
    message = train_with_hub("google/absent-2b", listening)
    assert "the hub has no model google/absent-2b, or HF_TOKEN has no access to it" in message


def test_no_network(train_with_hub):
    message = train_with_hub("google/gemma-2-2b", "http://127.0.0.1:9")
    assert "the hub cannot be reached from here" in message
    assert "hf download google/gemma-2-2b --local-dir DIR" in message
    assert "model.name=DIR" in message


def test_a_folder_mlruns_is_met_with_two_lines_that_migrate_it(tmp_path, capsys):
    """The lines are run as they are printed; the old runs are then listed by our command, artifacts included."""
    old = tmp_path / "my old" / "mlruns"
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": old.as_uri()}
    code = "import mlflow; mlflow.set_experiment('old'); mlflow.log_metric('a', 1); mlflow.log_text('x', 'x.txt')"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert run_command("runs", "--tracking-uri", str(old)) == 2
    first, second = [line.strip() for line in capsys.readouterr().err.splitlines()[1:]]
    subprocess.run(first, shell=True, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    uri = shlex.split(second)[1].partition("=")[2]
    assert run_command("runs", "--tracking-uri", uri, "--kind", "all", "--csv") == 0
    assert "metrics.a" in capsys.readouterr().out
    client = MlflowClient(uri, uri)
    (run,) = client.search_runs([client.get_experiment_by_name("old").experiment_id])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["x.txt"]


def test_a_database_driver_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(TrackingError, match=r"gemma-nli\[postgres\]") as caught:
        registered_versions("postgresql://ann:secret@127.0.0.1:9/mlflow")
    assert "secret" not in str(caught.value)


def test_every_entry_of_the_page_has_its_test():
    page = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8").partition("## Trouble")[2]
    tests = Path(__file__).read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(.+?)\*\*.*?`(test_\w+)`", page, flags=re.M | re.S)
    assert len(entries) >= 10
    for entry, name in entries:
        assert f"def {name}(" in tests, entry
