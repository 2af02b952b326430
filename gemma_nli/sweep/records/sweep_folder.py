"""A sweep's folder: who holds it, the spec it was started with, the cells it has, its result.

storage/sweeps/<sweep_id>/spec.yaml      the spec, credentials masked: what `resume` goes on with
                          cells.jsonl    one checksummed line per cell: trial key and settings; the sweep's trials
                          result.json    what the last run of the command ended with
                          test.jsonl     which posts are sealed, and the looks at them (sealed_looks.py)
                          pending.jsonl  trials whose updates MLflow does not have yet
                          pairs.safetensors  ids, labels and folds of its pairs: a report needs no posts
                          owner          names the folder among the drivers that share an Optuna study
                          shared/        files that many trials show in MLflow
                          stopping       exists from the first Ctrl-C until the sweep is run again
$GEMMA_NLI_HOME/sweeps/<sweep_id>.json   where that storage is, so that `resume NAME` works from anywhere
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gemma_nli.base.checked_lines import checked_line, read_line
from gemma_nli.base.errors import SweepBusyError, SweepError, did_you_mean
from gemma_nli.base.files import write_whole
from gemma_nli.config import home
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.stored_pairs import pairs_from_bytes, pairs_to_bytes
from gemma_nli.storage import Changed, Lease, Place, Prefix, folder_of, place_of

PAIRS, TEST = "pairs.safetensors", "test.jsonl"
KEPT = ("spec.yaml", "cells.jsonl", "result.json", "owner", PAIRS, "report.html", "report.md", "report.json", TEST)
"""What a bucket holds of a sweep besides its claim; everything for MLflow is rebuilt from these and the journals."""


class SweepFolder:
    """Reads and writes one sweep's folder: of a prefix its mirror, brought up to date by `held` and `pull`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.path = path = folder_of(place)
        self.shared = path / "shared"
        self.pending = path / "pending.jsonl"
        self.stopping = place / "stopping"
        self._lease: Lease | None = None
        self._versions: dict[str, str | None] = {}

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold the sweep for this process, which releases it when it dies (in a bucket, when its lease has run out).

        Raises:
            SweepBusyError: another process runs this sweep; names it.
            SweepError: the folder cannot be created.
            StorageError: the bucket cannot be written to, or not safely.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SweepError(
                f"{self.path}: cannot be created: {error.strerror}; set storage= to a folder you own."
            ) from None
        lock = FileLock(self.path / ".lock", timeout=0)
        holder = self.path / "holder.json"
        try:
            lock.acquire()
        except Timeout:
            raise SweepBusyError(
                f"sweep '{name}' is being run by {_described(holder)}; wait for it, or stop it."
            ) from None
        try:
            write_whole(holder, json.dumps({"pid": os.getpid(), "host": os.uname().nodename}).encode())
            with self._leased(name):
                yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def _leased(self, name: str) -> Iterator[None]:
        """Among machines that share a bucket: hold the sweep there, and take over what it holds."""
        if not isinstance(self.place, Prefix):
            yield
            return
        self.place.bucket.check_conditions((self.place / "probe").key)
        lease = Lease(self.place / "holder.json")
        if not lease.acquire(patient=False):
            raise SweepBusyError(f"sweep '{name}' is being run by {lease.holder()}; wait for it, or stop it.")
        try:
            self.pull()
            self._lease = lease
            yield
        finally:
            self._lease = None
            lease.release()

    def pull(self) -> None:
        """Make a prefix's mirror hold what the prefix does; a folder is what it is."""
        if not isinstance(self.place, Prefix):
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            found = self.place.bucket.get((self.place / name).key)
            self._versions[name] = found.version if found is not None else None
            if found is not None and found.data:
                write_whole(self.path / name, found.data)
            else:
                (self.path / name).unlink(missing_ok=True)

    def push(self, *names: str) -> None:
        """Upload files that have changed (empty if deleted) for the prefix's other readers.

        The holder overwrites only versions it has seen: one that was taken over meanwhile is refused.

        Raises:
            SweepError: another process has taken the sweep over.
        """
        if not isinstance(self.place, Prefix):
            return
        for name in names:
            path, key = self.path / name, (self.place / name).key
            data = path.read_bytes() if path.exists() else b""
            if self._lease is None:
                self.place.bucket.put(key, data)
                continue
            try:
                if self._lease.lost:
                    raise Changed(key)
                before = self._versions[name]
                self._versions[name] = self.place.bucket.put(key, data, if_match=before, if_absent=before is None)
            except Changed:
                raise SweepError(
                    f"{self.place}: another process has taken over this sweep, because this one lost its connection "
                    "to the store."
                ) from None

    def begin(self, sweep_id: str, name: str, spec_yaml: str, storage: Place) -> None:
        """Note what is run and where, here and under $GEMMA_NLI_HOME."""
        write_whole(self.path / "spec.yaml", spec_yaml.encode())
        (self.path / "result.json").unlink(missing_ok=True)  # of the run before: this one has not ended yet
        self.push("spec.yaml", "result.json")
        index = home() / "sweeps"
        index.mkdir(parents=True, exist_ok=True)
        write_whole(index / f"{sweep_id}.json", json.dumps({"name": name, "storage": str(storage)}).encode())

    def keep_pairs(self, pairs: PairTable) -> None:
        """Note the sweep's pairs, which never change."""
        if not (self.path / PAIRS).exists():
            write_whole(self.path / PAIRS, pairs_to_bytes(pairs))
            self.push(PAIRS)

    def pairs(self) -> PairTable | None:
        """The pairs as noted; None in the folder of a sweep of an earlier version."""
        path = self.path / PAIRS
        return pairs_from_bytes(path.read_bytes()) if path.exists() else None

    def owner(self) -> str:
        """Names this folder among the drivers of one Optuna study: whoever holds the folder continues as the same
        driver.
        """
        path = self.path / "owner"
        if not path.exists():
            write_whole(path, uuid.uuid4().hex.encode())
            self.push("owner")
        return path.read_text(encoding="utf-8")

    def add_cells(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        """Append cells that are not noted yet."""
        known = self.cells()
        lines = [
            checked_line({"key": key, "settings": dict(settings)})
            for key, settings in cells.items()
            if key not in known
        ]
        if lines:
            with (self.path / "cells.jsonl").open("ab") as file:
                file.write(b"\n".join([b"", *lines]) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self.push("cells.jsonl")

    def cells(self) -> dict[str, dict[str, Any]]:
        """Trial key to settings, in the order in which they came; a torn or damaged line is skipped."""
        cells: dict[str, dict[str, Any]] = {}
        try:
            lines = (self.path / "cells.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return cells
        for line in lines:
            entry = read_line(line)
            if entry is not None:
                cells[str(entry["key"])] = dict(entry["settings"])
        return cells

    def end(self, result: Mapping[str, Any]) -> None:
        write_whole(self.path / "result.json", json.dumps(result, indent=1).encode())
        self.push("result.json")

    def result(self) -> dict[str, Any]:
        """The result of the last run of the command; empty if it was interrupted or the file is damaged."""
        try:
            found = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and {"interrupted", "trials", "best"} <= found.keys() else {}

    def ask_to_stop(self) -> None:
        """Make trials that wait in Ray's queue end as soon as they start, on any node; the running ones finish."""
        self.stopping.write_bytes(b"")

    def go_on(self) -> None:
        self.stopping.unlink(missing_ok=True)

    def clear_ray(self) -> None:
        """Ray's own record of the trials: never read, the journals are."""
        shutil.rmtree(self.path / "ray", ignore_errors=True)


def _described(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def find_sweep(name: str) -> tuple[str, Place]:
    """The id and storage of a sweep started before, by its name or id (the newest where several share a name).

    Raises:
        SweepError: none of that name, with the nearest one.
    """
    entries = _started()
    found = [(at, sweep_id, entry) for at, sweep_id, entry in entries if name in (sweep_id, entry.get("name"))]
    if not found:
        known = sorted({str(entry.get("name")) for _, _, entry in entries})
        hint = did_you_mean(name, known) or "; no sweep has been started yet."
        raise SweepError(f"no sweep is called '{name}'{hint}")
    _, sweep_id, entry = max(found, key=lambda item: item[0])
    return sweep_id, place_of(entry["storage"])


def sweeps_called(name: str, storage: Place) -> list[str]:
    """The ids of all sweeps of that name that were started from here with this storage."""
    return [
        sweep_id
        for _, sweep_id, entry in _started()
        if entry.get("name") == name and entry.get("storage") == str(storage)
    ]


def _started() -> list[tuple[float, str, dict[str, Any]]]:
    """(when, id, name and storage) of each sweep started from here."""
    entries: list[tuple[float, str, dict[str, Any]]] = []
    for path in sorted((home() / "sweeps").glob("*.json")):
        try:
            entries.append((path.stat().st_mtime, path.stem, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return entries
