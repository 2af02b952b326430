"""The table of planted faults: every room is in it, and a fault whose text is gone is said to be so."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mutations.__main__ import FAULTS, stale
from benchmarks.mutations.fault import Fault

ROOT = Path(__file__).parents[1]


def test_every_room_has_three_faults_at_least_and_no_fault_stands_there_twice():
    rooms = {path.parent.name for path in (ROOT / "gemma_nli").glob("*/__init__.py")}
    counts = Counter(fault.room for fault in FAULTS)
    assert set(counts) == rooms
    assert min(counts.values()) >= 3
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)
    assert all(fault.old != fault.new for fault in FAULTS)


def test_every_test_that_the_table_names_is_there():
    named = {word for fault in FAULTS for word in fault.tests.split() if word.startswith("tests/")}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_a_fault_is_planted_once_or_said_to_be_gone(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "x.py").write_text("a = 1\nb = 1\nc = 2\n")
    planted, twice, gone = (Fault("?", "base/x.py", old, "d = 3", "tests") for old in ("c = 2", "= 1", "e = 5"))
    lost = Fault("?", "base/y.py", "c = 2", "d = 3", "tests")
    assert [line.partition(": ")[2][:13] for line in stale([planted, twice, gone], tmp_path)] == [
        "found 2 times",
        "found 0 times",
    ]
    assert len(stale([lost], tmp_path)) == 1
    before = planted.plant(tmp_path)
    assert (tmp_path / "base" / "x.py").read_text() == "a = 1\nb = 1\nd = 3\n"
    assert before == "a = 1\nb = 1\nc = 2\n"


@pytest.mark.slow
def test_a_planted_fault_is_caught_in_a_copy_and_the_package_itself_stays():
    before = (ROOT / "gemma_nli" / "training" / "losses.py").read_bytes()
    command = [sys.executable, "-m", "benchmarks.mutations", "training", "--match", "smoothed labels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults caught (100.0%; mark: 95%)" in done.stdout
    assert (ROOT / "gemma_nli" / "training" / "losses.py").read_bytes() == before
