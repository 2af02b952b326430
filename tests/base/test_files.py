from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gemma_nli.base.checked_lines import read_line
from gemma_nli.base.files import put_folder_in_place, sync_folder, write_whole
from gemma_nli.config import RunConfig
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.trial import TrialJournal


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced_and_nothing_else_is_left(tmp_path):
    for data in (b"first", b"", b"second" * 1000):
        write_whole(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
        assert names(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_a_part(tmp_path):
    path, done = tmp_path / "file", threading.Event()
    versions = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_whole(path, versions[0])
    seen = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        write_whole(path, versions[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(versions)


def run_limited(folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Replace `file` by 100,000 bytes in a process whose files may not grow past `limit`: a disk that is full."""
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        from gemma_nli.base.files import write_whole
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            write_whole(Path({str(folder)!r}) / "file", b"n" * 100_000)
        except OSError as error:
            sys.exit("refused: " + error.strerror)
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path):
    write_whole(tmp_path / "file", b"old")
    ended = run_limited(tmp_path, 50_000)
    assert "refused: File too large" in ended.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    script = f"""
        from pathlib import Path
        from gemma_nli.base.files import write_whole
        path = Path({str(tmp_path)!r}) / "file"
        write_whole(path, b"a" * 300_000)
        print("go", flush=True)
        while True:
            for letter in (b"b", b"a"):
                write_whole(path, letter * 300_000)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
    data = (tmp_path / "file").read_bytes()
    assert len(data) == 300_000
    assert len(set(data)) == 1


def test_a_folder_that_is_not_there_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "file", b"x")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "no")
    assert names(tmp_path) == []


@pytest.fixture
def synced(monkeypatch):
    """What each call of the real fsync found in the file, or the names in the folder, that it was called for."""
    seen: list[tuple[str, object]] = []
    real = os.fsync

    def fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append((path.name, names(path) if path.is_dir() else path.read_bytes()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked up in /proc")
class TestAMachineThatLosesPower:
    """A write that has returned is on the disk: the bytes first, then, where a name is new, the folder."""

    def test_a_whole_file_and_then_its_name(self, tmp_path, synced):
        write_whole(tmp_path / "file", b"data")
        (temporary, data), (folder, there) = synced
        assert (data, folder, there) == (b"data", tmp_path.name, ["file"])
        assert temporary.endswith(".tmp")

    def test_each_line_of_a_journal(self, tmp_path, synced):
        journal = TrialJournal(tmp_path, "a" * 64)
        for attempt in (1, 2):
            journal.start(RunConfig(), "folds", "encoder", 5)
            assert synced[-1] == ("journal.jsonl", Path(str(journal.path)).read_bytes())
            assert len(list(journal.events())) == attempt

    def test_the_cells_of_a_sweep(self, tmp_path, synced):
        folder = SweepFolder(tmp_path)
        folder.add_cells({"k": {"model.dropout": 0.1}})
        name, data = synced[-1]
        assert (name, read_line(data.strip())) == ("cells.jsonl", {"key": "k", "settings": {"model.dropout": 0.1}})


def test_a_folder_put_in_place_takes_the_whole_of_an_older_ones_name(tmp_path):
    """What the older one held is gone, and nothing else is left beside it."""
    target, work = tmp_path / "made", tmp_path / "work"
    for folder, names in ((target, ["old", "both"]), (work, ["both", "new"])):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"{name} of {folder.name}")
    put_folder_in_place(work, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"both": "both of work", "new": "new of work"}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
