"""Which Ray a sweep joins: a running one, and not one whose note has outlived it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gemma_nli.sweep.cluster import _runs_here


def test_a_note_of_a_cluster_counts_while_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not _runs_here()
    (tmp_path / "ray").mkdir()
    note = tmp_path / "ray" / "ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as server:
        note.write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert _runs_here()
    assert not _runs_here()
    note.write_text("nonsense")
    assert not _runs_here()
