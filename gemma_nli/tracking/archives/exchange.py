"""One store put in another's place: completely or not at all, even if the process is killed.

`.NAME.restore.json` beside the database is the exchange's journal. While a restore unpacks, it names the working
folder, which a later command removes; once it lists moves, the next command that opens the store completes them, or
undoes them if that is impossible. Moves are renames within one file system.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.files import sync_folder, write_whole

Moves = list[tuple[Path, Path]]
_WORK = ".mlflow_restore_"
_LOCK_SECONDS = 60


def store_lock(database: Path) -> FileLock:
    """Held while the store is created, opened or exchanged."""
    return FileLock(f"{database}.lock", timeout=_LOCK_SECONDS)


@contextmanager
def working_folder(database: Path) -> Iterator[Path]:
    """A folder beside the database for what will take its place; deleted afterwards, even after a kill.

    Raises:
        TrackingError: another restore to this place is running.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    alive = FileLock(f"{database}.restore.lock", timeout=0)
    try:
        alive.acquire()
    except Timeout:
        raise TrackingError(f"{database}: another restore to it is running; wait until it ends.") from None
    try:
        with store_lock(database):
            settle_exchange(database, alone=True)
        work = database.parent / f"{_WORK}{os.getpid()}"
        write_whole(_journal(database), json.dumps({"work": work.name}).encode())
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            if not _moves(_read(_journal(database)), "into"):
                _forget(database, work)
    finally:
        alive.release()


def exchange(database: Path, work: Path, aside: Moves, into: Moves) -> None:
    """Move what is in the way aside and the new files in; called within `working_folder`.

    Raises:
        TrackingError: a move failed; everything is back where it was.
    """
    for path in work.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    with store_lock(database):
        moves = {name: [[str(a), str(b)] for a, b in part] for name, part in (("aside", aside), ("into", into))}
        facts = {"work": work.name, **moves}
        write_whole(_journal(database), json.dumps(facts).encode())
        _end(database, facts)


def settle_exchange(database: Path, alone: bool = False) -> None:
    """Complete or undo what a killed restore left; called with the store's lock held.

    Args:
        alone: whether the caller is the only restore to this place.
    Raises:
        TrackingError: it can be neither completed nor undone; says what is where.
    """
    if not _journal(database).exists():
        return
    facts = _read(_journal(database))
    if _moves(facts, "into"):  # the process that listed them held the store's lock until they were done, or died
        _end(database, facts)
        sys.stderr.write(f"{database}: an interrupted restore has been completed.\n")
        return
    if alone:
        _forget(database, _work(database, facts))
        return
    try:
        with FileLock(f"{database}.restore.lock", timeout=0):
            _forget(database, _work(database, facts))
    except Timeout:
        return  # it is still unpacking


def is_unsettled(database: Path) -> bool:
    """Whether a restore to this place was interrupted, or is running."""
    return _journal(database).exists()


def _end(database: Path, facts: dict[str, Any]) -> None:
    work = _work(database, facts)
    done: Moves = []
    try:
        for source, target in _moves(facts, "aside"):
            if _exists(source) and not _exists(
                target
            ):  # its name is unique to this restore: if it exists, the move is done
                os.rename(source, target)
            done.append((source, target))
        for source, target in _moves(facts, "into"):
            if _exists(source):
                if _exists(target) and not (target.is_dir() and not any(target.iterdir())):
                    raise FileExistsError(17, "was created by another process meanwhile", str(target))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(source, target)
            done.append((source, target))
        sync_folder(database.parent)
    except OSError as error:
        _take_back(database, done, error)
        _forget(database, work)
        raise TrackingError(
            f"{database}: cannot be replaced: {error.strerror or error}; the old store is back in its place."
        ) from None
    _forget(database, work)


def _take_back(database: Path, done: Moves, why: OSError) -> None:
    try:
        for source, target in reversed(done):
            if _exists(target) and not _exists(source):
                os.rename(target, source)
        sync_folder(database.parent)
    except OSError as error:
        left = "; ".join(f"{target} belongs at {source}" for source, target in done)
        raise TrackingError(
            f"{database}: a restore stopped half-way ({why}) and cannot be undone ({error}): {left}; "
            "free space or fix permissions, and run any command again."
        ) from None


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _journal(database: Path) -> Path:
    return database.with_name(f".{database.name}.restore.json")


def _read(journal: Path) -> dict[str, Any]:
    try:
        facts = json.loads(journal.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrackingError(f"{journal}: cannot be read: {error}; it records how far a restore had come.") from None
    return facts if isinstance(facts, dict) else {}


def _moves(facts: dict[str, Any], part: str) -> Moves:
    return [(Path(source), Path(target)) for source, target in facts.get(part, [])]


def _work(database: Path, facts: dict[str, Any]) -> Path | None:
    name = str(facts.get("work", ""))
    return database.parent / name if name.startswith(_WORK) and "/" not in name else None


def _forget(database: Path, work: Path | None) -> None:
    """The working folder goes after the journal: a kill in between leaves temporary files, never a half exchange."""
    if work is None:
        _journal(database).unlink(missing_ok=True)
        return
    work_note = json.dumps({"work": work.name}).encode()
    if _journal(database).exists():
        write_whole(_journal(database), work_note)  # the moves are done; only tidying up is left
    shutil.rmtree(work, ignore_errors=True)
    _journal(database).unlink(missing_ok=True)
