"""A webhook hears how a sweep ended; one that does not answer costs seconds and a sentence."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gemma_nli.base.errors import SweepError, TrackingError
from gemma_nli.sweep.records.progress_state import CellStatus
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.sweep.records.webhook import Notifier

NAN = float("nan")


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], dict[str, Any]]]]]:
    """A real webhook on loopback and what it has heard: headers and body."""
    heard: list[tuple[dict[str, str], dict[str, Any]]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((dict(self.headers), body))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", heard
    server.shutdown()
    server.server_close()


def result(**changes: Any) -> SweepResult:
    best = CellStatus("k", {"a": 1}, "finished", 0.7123, {"cv_aggregate/mean_f1": 0.7123, "cv_aggregate/mean_auc": NAN})
    facts = {"sweep_id": "s", "sweep_run_id": "r", "name": "x", "experiment": "e", "ran": 3, "best_run_id": "b"}
    facts |= {"trials": {"finished": 2, "pruned": 0, "failed": 1}, "best": best, "registered": None}
    return SweepResult(**{**facts, "seconds": {"total": 1.0}, "texts": {}, **changes})


def test_the_end_is_told_with_the_result(hook):
    address, heard = hook
    assert Notifier(f"http://{address}/hook", "x").ended(result()) is None
    body = heard[0][1]
    assert body["text"] == "Sweep x ended: 2 finished, 1 failed; best mean_f1 0.7123."
    assert (body["event"], body["trials"]["failed"], body["best"]["key"]) == ("ended", 1, "k")
    assert Notifier(f"http://{address}/hook", "x").ended(result(interrupted=True)) is None
    assert heard[1][1]["event"] == "interrupted"


def test_why_trials_failed_is_counted_and_not_quoted(hook):
    address, heard = hook
    failures = [{"error": "ValueError: 'i have not slept for weeks'", "trials": 1, "settings": {}}]
    assert Notifier(f"http://{address}/hook", "x").ended(result(failures=failures)) is None
    assert heard[0][1]["trials"]["failed"] == 1
    assert "slept" not in json.dumps(heard[0][1])


def test_a_failure_is_told_without_credentials_and_without_what_may_be_a_post(hook):
    address, heard = hook
    notifier = Notifier(f"http://me:pass%20word@{address}/hook", "x")
    assert notifier.failed(TrackingError("http://u:secret@mlflow: cannot open")) is None
    assert notifier.failed(ValueError("I cannot sleep at night")) is None
    reported = json.dumps([body for _, body in heard])
    assert "secret" not in reported
    assert "sleep" not in reported
    assert "mlflow: cannot open" in heard[0][1]["error"]
    assert heard[1][1]["error"] == "ValueError"
    assert heard[0][0]["Authorization"] == "Basic bWU6cGFzcyB3b3Jk"


def test_a_webhook_that_refuses_or_is_not_there_is_told_of_by_its_host_only(hook):
    address, _ = hook
    reported = Notifier(f"http://{address}/broken", "x").ended(result())
    assert reported == "http://127.0.0.1 could not be notified: it answered 500"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{probe.getsockname()[1]}"
    reported = Notifier(f"http://u:pw@{dead}/T0/secret", "x").ended(result())
    assert reported is not None
    assert "refused" in reported
    assert "secret" not in reported
    assert "pw" not in reported


def test_a_webhook_that_drips_costs_no_more_than_its_time():
    drained, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100:
                peer.send(bytes([byte]))
                if over.wait(0.2):  # 24 seconds in all, each byte well within a socket's timeout
                    return
            drained.set()

        threading.Thread(target=drip, daemon=True).start()
        reported = Notifier(f"http://127.0.0.1:{server.getsockname()[1]}/", "x", seconds=1.0).ended(result())
        assert not drained.is_set()
        over.set()
    assert reported == "http://127.0.0.1 could not be notified: no answer within 1 seconds"


@pytest.mark.parametrize("url", ["ftp://x/y", "chat.example.org/hook", "http://", "file:///etc/passwd"])
def test_no_other_address_is_taken(url):
    with pytest.raises(SweepError, match="--notify"):
        Notifier(url, "x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_told_as_a_failure(hook, status):
    address, heard = hook

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", f"http://{address}/hook")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        reported = Notifier(f"http://ann:hunter2@127.0.0.1:{server.server_port}/x", "x").ended(result())
    finally:
        server.shutdown()
        server.server_close()
    assert reported is not None
    assert f"it answered {status}, and redirects are not followed" in reported
    assert "hunter2" not in reported
    assert heard == []


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2@host:99999/x", "http://ann:hunter2@[::1/x", "http://ann:hun/ter2@host/x", "http://",
        "http://ann:hunter2@", "https://ann:hunter2@ho st/x", "http://ann:hunter2@host/a\nb", "http:host/hunter2",
        "http://u:8080/hunter2@host", "ftp://ann:hunter2@host/x", "ann:hunter2@host", "http://a..b/hunter2",
        "http://ann:hunter2@host:port/x", "http://host:0/hunter2", "//host/hunter2", "http:\\\\host\\hunter2",
    ],
)  # fmt: skip
def test_a_malformed_address_is_refused_before_anything_runs_and_never_shown(url, capsys, tmp_path, monkeypatch):
    from tests.commands import run_command

    with pytest.raises(SweepError, match="--notify") as refused:
        Notifier(url, "x")
    assert "hun" not in str(refused.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text("name: s\nspace: {training.seed: {grid: [1, 2]}}\n")
    assert run_command("sweep", "s.yaml", "--notify", url) == 2
    reported = "".join(capsys.readouterr())
    assert "--notify" in reported
    assert "hun" not in reported
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_an_address_with_letters_of_its_own_is_sent_percent_encoded(hook):
    address, heard = hook
    assert Notifier(f"http://{address}/caf\u00e9 x?a=\u00e9".replace(" ", "%20"), "x").ended(result()) is None
    assert len(heard) == 1
