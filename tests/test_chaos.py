"""Nothing lost, nothing twice: the short form of `make chaos`, and what else can go wrong with a disk or a command."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.all_faults import everything_at_once
from benchmarks.chaos.stage import Server, build_source, warm_process
from benchmarks.chaos.verdict import Run, Snapshot, judge
from gemma_nli.base.errors import JournalError
from gemma_nli.config import RunConfig
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import TrialJournal


@pytest.mark.chaos
@pytest.mark.timeout(900)  # a minute and a half on a quiet machine
def test_killed_drivers_workers_and_servers_and_damaged_files_lose_nothing(tmp_path: Path) -> None:
    with warm_process() as warm:
        source, server = build_source(tmp_path / "source"), Server(tmp_path / "server")
        done, verdict, orphans = everything_at_once(source, tmp_path, warm, server, random.Random(7))
    assert verdict.details == []
    assert verdict.clean
    assert done == {"drivers": 5, "files": 5, "workers": 2, "outages": 1}
    assert orphans == 0


def test_the_verdict_sees_every_kind_of_loss() -> None:
    points = {("score", 1): [0.5]}
    good = Run("r1", "a", "FINISHED", "parent", {("score", 1): [0.5]})
    parent = [("parent", "FINISHED")]
    assert judge({"a": points}, Snapshot([good], parent, 1)).clean
    assert judge({"a": points, "b": points}, Snapshot([good], parent, 1)).lost == 1
    assert judge({"a": points}, Snapshot([good, good], parent, 1)).duplicated == 1
    assert judge({"a": points}, Snapshot([good], parent, 2)).duplicated == 1
    assert judge({"a": points}, Snapshot([good], [*parent, ("other", "RUNNING")], 1)).running == 1
    for status, count in (("RUNNING", "running"), ("FAILED", "wrong")):
        assert getattr(judge({"a": points}, Snapshot([Run("r", "a", status, "parent", points)], parent, 1)), count) == 1
    twice = Run("r1", "a", "FINISHED", "parent", {("score", 1): [0.5, 0.5]})
    assert judge({"a": points}, Snapshot([twice], parent, 1)).duplicated == 1
    other = Run("r1", "a", "FINISHED", "parent", {("score", 1): [0.6]})
    assert judge({"a": points}, Snapshot([other], parent, 1)).wrong == 1


def test_a_full_disk_is_a_clear_error_and_leaves_the_journal_whole(tmp_path: Path) -> None:
    journal = TrialJournal(tmp_path, "ab" * 16)
    journal.start(RunConfig(), "folds", "encoder", 3)
    size = journal.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        with pytest.raises(JournalError, match="free space"):
            journal.stop("failed", error="x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    record = journal.read()
    assert record is not None
    assert record.state == "running"
    journal.stop("failed", error="later there is room")
    record = journal.read()
    assert record is not None
    assert (record.state, record.error) == ("failed", "later there is room")


def test_a_clock_set_back_changes_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = TrialJournal(tmp_path, "cd" * 16)
    monkeypatch.setattr("time.time_ns", lambda: 2_000_000_000_000_000_000)
    journal.start(RunConfig(), "folds", "encoder", 3)
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000_000_000_000)
    journal.stop("pruned", reason="slow")
    record = journal.read()
    assert record is not None
    assert (record.state, record.attempts) == ("pruned", 1)


def test_a_damaged_cell_is_no_cell_and_is_noted_again(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    cells = {"a" * 32: {"training.learning_rate": 0.001}, "b" * 32: {"training.learning_rate": 0.002}}
    folder.add_cells(cells)
    file = tmp_path / "cells.jsonl"
    file.write_text(file.read_text().replace("0.001", "0.003"))
    assert list(folder.cells()) == ["b" * 32]
    folder.add_cells(cells)
    assert folder.cells() == {"b" * 32: cells["b" * 32], "a" * 32: cells["a" * 32]}


def test_a_damaged_result_is_no_result(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    for content in ("", "[]", "{", json.dumps({"trials": {}})):
        (tmp_path / "result.json").write_text(content)
        assert folder.result() == {}


def test_the_holder_of_a_sweep_dies_and_the_next_command_gets_it(tmp_path: Path) -> None:
    code = "from gemma_nli.sweep.records.sweep_folder import SweepFolder; from pathlib import Path; import os, signal\n"
    code += f"with SweepFolder(Path({str(tmp_path)!r})).held('x'): os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / "holder.json").exists()
    with SweepFolder(tmp_path).held("x"):
        pass
