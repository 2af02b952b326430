"""`gemma-nli restore` killed at random moments, half of them within the exchange: a whole store is found."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from benchmarks.chaos.stage import Driver, Stage, orphans
from benchmarks.chaos.verdict import Verdict

_OTHERS = (".lock", "-wal", "-shm")


def kill_restores(stage: Stage, kills: int, rng: random.Random) -> tuple[int, Verdict, int]:
    """Restore a sweep's store over a later state of itself and kill that, again and again from the same start.

    Lost is a store that is neither the old nor the new one, or a new one without the old beside it; wrong is a command
    after the kill that fails, and what the killed one leaves lying about.

    Returns:
        Kills that hit a running restore, the verdict, processes that outlived their driver.
    """
    verdict, done = Verdict(), 0
    if not stage.drivers:
        stage.finish()
    folder, archive = stage.folder / "restored", stage.folder / "archive.tar.gz"
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    _run(stage, "backup", str(archive), "--tracking-uri", f"sqlite:///{stage.database}")
    _run(stage, "restore", str(archive), "--tracking-uri", uri)
    new = _digest(folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET name = name || ' later'")
    old, kept = _digest(folder), stage.folder / "kept"
    shutil.copytree(folder, kept)
    words = ("restore", str(archive), "--replace", "--tracking-uri", uri)
    whole = _seconds(stage, *words)
    for turn in range(3 * kills):
        if done == kills:
            break
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        driver = stage.start(*words)
        if turn % 2:
            driver.until(lambda: _is_exchanging(folder), 60)
            moment = time.monotonic() + rng.uniform(0.0, 0.01)
        else:
            moment = driver.began + rng.uniform(0.0, whole)
        while driver.status is None and time.monotonic() < moment:
            time.sleep(0.0005)
        driver.kill()
        if driver.status == 0:
            continue
        done += 1
        after = stage.start("runs", "--tracking-uri", uri)
        verdict.add("wrong", int(after.wait() != 0), f"runs after a kill: {after.text()[-300:]}")
        found = _digest(folder)
        verdict.add("lost", int(found not in (old, new)), f"kill {done}: neither the old store nor the new one")
        aside = list(folder.glob("mlflow.db.before-restore-*"))
        verdict.add("lost", int(found == new and not aside), f"kill {done}: the old store is gone")
        leftovers = [path.name for path in folder.glob(".mlflow*")]
        verdict.add("wrong", len(leftovers), f"kill {done}: left {leftovers}")
    return done, verdict, orphans(stage.drivers)


def _run(stage: Stage, *words: str) -> Driver:
    driver = stage.start(*words)
    if driver.wait() != 0:
        raise RuntimeError(f"{' '.join(words[:1])} does not end well:\n{driver.text()[-2000:]}")
    return driver


def _seconds(stage: Stage, *words: str) -> float:
    began = time.monotonic()
    _run(stage, *words)
    return time.monotonic() - began


def _is_exchanging(folder: Path) -> bool:
    with suppress(OSError):
        return '"into"' in (folder / ".mlflow.db.restore.json").read_text()
    return False


def _digest(folder: Path) -> str:
    """Every row of the database and every file of its artifacts; what was moved aside is no part of the store."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        for line in database.iterdump():
            found.update(line.encode())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and ".before-restore-" not in name and not name.endswith((*_OTHERS, "mlflow.db")):
            found.update(name.encode() + path.read_bytes())
    return found.hexdigest()
