"""Which Ray a sweep joins: a running one, and not one whose note has outlived it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gemma_nli.sweep.ray.address import chosen_address


def test_a_note_of_a_cluster_counts_while_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert chosen_address() == "local"
    (tmp_path / "ray").mkdir()
    note = tmp_path / "ray" / "ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as server:
        note.write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert chosen_address() == "auto"
    assert chosen_address() == "local"
    note.write_text("nonsense")
    assert chosen_address() == "local"
