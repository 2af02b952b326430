"""`make mutations`: plant each fault of the table in a private copy and see whether the tests of its part fail.

python -m benchmarks.mutations [ROOM ...]   those of some rooms; without a room all of them: 25 minutes on 2 cores
python -m benchmarks.mutations --list       plant nothing; whether each fault's text is still there

Exit status 0: 95% of the faults that change behaviour are caught; 1: fewer; 2: the table is out of date (a text is gone
from the code, a fault cannot be imported, an equivalent one is seen), or the tests fail without a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutations import (
    lower_rooms,
    running_rooms,
    telling_rooms,
    terminal_rooms,
    text_rooms,
    training_rooms,
)
from benchmarks.mutations.fault import Fault
from benchmarks.workplace import ROOT

TABLE = (lower_rooms, text_rooms, training_rooms, telling_rooms, running_rooms, terminal_rooms)
FAULTS = tuple(fault for rooms in TABLE for fault in rooms.FAULTS)
MARK = 0.95
COPIED = ("gemma_nli", "tests", "benchmarks", "sweeps", "search_spaces", "docs", "deploy")
CAUGHT, UNSEEN = 1, 0  # exit statuses of pytest: a test failed, all passed


def main() -> int:
    asked = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copy goes with us
    chosen = [
        fault
        for fault in FAULTS
        if (not asked.rooms or fault.room in asked.rooms) and re.search(asked.match, f"{fault.file} {fault.what}")
    ]
    gone = stale(chosen)
    for line in gone:
        print(f"GONE   {line}")
    if gone or asked.list:
        print(f"{len(chosen) - len(gone)} of {len(chosen)} faults can be planted")
        return 2 if gone else 0
    folder = Path(tempfile.mkdtemp(prefix="gemma_nli_mutations_"))
    try:
        _copy(folder)
        with _Tests(folder) as tests:
            words = list(dict.fromkeys(word for fault in chosen for word in fault.tests.split()))
            if not asked.trust and tests.run(" ".join(words)) != UNSEEN:
                print("the tests fail without a fault; mend them first")
                return 2
            return _judge(chosen, [_try(tests, fault) for fault in chosen])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse() -> argparse.Namespace:
    rooms = sorted({fault.room for fault in FAULTS})
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", choices=[*rooms, []], help=", ".join(rooms))
    parser.add_argument("--match", default="", metavar="REGEX", help="those whose file or words match")
    parser.add_argument("--list", action="store_true", help="plant nothing; look whether each fault's text is there")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a fault first")
    return parser.parse_args()


def stale(faults: Sequence[Fault], package: Path = ROOT / "gemma_nli") -> list[str]:
    """Faults whose file or text is not in the package any more, in words."""
    lines = []
    for fault in faults:
        try:
            fault.planted((package / fault.file).read_text(encoding="utf-8"))
        except (LookupError, FileNotFoundError) as error:
            lines.append(str(error))
    return lines


def _copy(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.suffix in (".toml", ".md", ".yaml", ".txt") or path.name in ("Makefile", "LICENSE"):
            shutil.copy(path, folder)


class _Tests:
    """Pytest in the copy, whose package every process that is started from it imports."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "benchmarks.mutations.forked_tests"]
        self.folder = folder
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, words: str) -> int:
        """Its exit status; the first test that fails ends it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"-q -x -p no:cacheprovider {words}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __enter__(self) -> _Tests:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and whatever its tests have started, also where we are ended ourselves."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _try(tests: _Tests, fault: Fault) -> int:
    began, package = time.monotonic(), tests.folder / "gemma_nli"
    before = fault.plant(package)
    try:
        status = tests.run(fault.tests)
    finally:
        (package / fault.file).write_text(before, encoding="utf-8")
    word = {CAUGHT: "caught", UNSEEN: "equal" if fault.equivalent else "UNSEEN"}.get(status, "BROKEN")
    print(f"{word:7s}{fault.file:42s}{fault.what} ({time.monotonic() - began:.0f} s)", flush=True)
    return status


def _judge(faults: Sequence[Fault], statuses: Sequence[int]) -> int:
    """The share that is caught of those that change behaviour, and the exit status."""
    told = list(zip(faults, statuses, strict=True))
    wrong = [
        fault for fault, status in told if status not in (CAUGHT, UNSEEN) or (fault.equivalent and status == CAUGHT)
    ]
    real = [status for fault, status in told if not fault.equivalent]
    caught = sum(status == CAUGHT for status in real)
    print(f"{caught} of {len(real)} faults caught ({caught / max(len(real), 1):.1%}; mark: {MARK:.0%}); ", end="")
    print(f"{len(told) - len(real)} change no behaviour; {len(wrong)} are not what the table says")
    return 2 if wrong else int(caught < MARK * len(real))


if __name__ == "__main__":
    sys.exit(main())
