"""`gemma-nli ui`: whose port it is, who waits for it, and the make targets beside it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store import ui
from gemma_nli.tracking.store.mlflow_store import resolve_store
from gemma_nli.tracking.store.ui import claim_port
from tests.commands import run_command
from tests.tracking.conftest import free_port

ROOT = Path(__file__).parent.parent.parent


def test_a_port_in_use_is_told_with_the_next_free_one(sqlite_uri, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run_command("ui", "--port", str(port), "--tracking-uri", sqlite_uri) == 2
        reported = capsys.readouterr().err
        found = re.search(rf"port {port} is in use; the next free one: \S*gemma-nli ui --port (\d+)", reported)
        assert found is not None, reported
        os.close(claim_port(int(found[1]), "127.0.0.1", resolve_store(MlflowConfig())))


def test_a_second_ui_is_told_while_the_first_is_still_starting(sqlite_uri, capsys, monkeypatch):
    """The first has become MLflow's server and does not listen yet; MLflow's own second one ends in a traceback."""
    claims: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ui.os, "execve", lambda *words: claims.append(words))
    port = free_port()
    assert run_command("ui", "--port", str(port), "--tracking-uri", sqlite_uri) == 0
    assert run_command("ui", "--port", str(port), "--tracking-uri", sqlite_uri) == 2
    assert f"port {port} is in use; the next free one" in capsys.readouterr().err
    assert len(claims) == 1


@pytest.mark.parametrize(("words", "reported"), [(["--host", "no such host"], "is not an address of this machine"),
                                            (["--host", "192.0.2.1"], "not an address of this machine")])  # fmt: skip
def test_a_host_that_is_not_here_is_told(words, reported, sqlite_uri, capsys):
    assert run_command("ui", *words, "--tracking-uri", sqlite_uri) == 2
    assert reported in capsys.readouterr().err


@pytest.mark.parametrize(("target", "reported"), [("mlflow-ui-custom", "PORT=5001"), ("mlflow-restore", "FILE=")])
def test_a_make_target_that_lacks_its_word_says_which(target, reported):
    command = ["make", "-o", ".venv/.ready", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert reported in done.stderr
    assert "gemma-nli" not in done.stdout


def test_the_ui_of_a_server_is_the_server(capsys):
    assert run_command("ui", "--tracking-uri", "http://127.0.0.1:5999") == 0
    assert "open http://127.0.0.1:5999" in capsys.readouterr().out
