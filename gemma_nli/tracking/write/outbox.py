"""Deliveries to MLflow off the sweep's path: one thread, retries while the store is unreachable, a list on disk of what
is waiting.

The list holds keys only, since everything else is rebuilt from the journals. Its file is append-only checked lines
(`{"key": ..., "waits": true}`); the last line of a key wins, a torn line is ignored, and the file is deleted when
nothing is waiting.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemma_nli.base.checked_lines import checked_line, read_line
from gemma_nli.base.files import write_whole
from gemma_nli.base.outgoing import shown

PENDING_FILE = "pending.jsonl"


def undelivered(pending_file: Path) -> list[str]:
    """Keys that are still waiting for `gemma-nli flush`, in the order in which they came."""
    waiting: dict[str, None] = {}
    try:
        lines = pending_file.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        entry = read_line(line) or _unchecked(line)
        if entry is None:
            continue
        key, waits = str(entry["key"]), bool(entry["waits"])
        if waits:
            waiting.setdefault(key)
        else:
            waiting.pop(key, None)
    return list(waiting)


def _unchecked(line: bytes) -> dict[str, Any] | None:
    """A line as earlier versions wrote them, without a checksum."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and entry.keys() == {"key", "waits"} else None


class Outbox:
    """Delivers jobs in the background; nothing here raises into the caller.

    A job is a key and a callable that builds a projection and sends it. A newer job of a key replaces a waiting one.
    A failed job goes behind the others and all wait: 1 second, then twice as long each time, up to a maximum.
    """

    def __init__(self, pending_file: Path, first_wait_seconds: float = 1.0, longest_wait_seconds: float = 60.0) -> None:
        self.last_error: str | None = None  # of the newest failure, credentials masked; None after a delivery
        self.delivered = 0
        self._file = pending_file
        self._first_wait, self._longest_wait = first_wait_seconds, longest_wait_seconds
        self._jobs: dict[str, Callable[[], object]] = {}  # in order of delivery
        self._changed = threading.Condition()
        self._wait_until = 0.0  # on the monotonic clock
        self._wait = first_wait_seconds
        self._closed = False
        self._on_disk: set[str] = set()
        self._take_over()
        self._thread = threading.Thread(target=self._work, name="gemma_nli-outbox", daemon=True)
        self._thread.start()

    def submit(self, key: str, deliver: Callable[[], object]) -> None:
        """Queues a delivery; returns at once. After `close` it is only noted as pending."""
        with self._changed:
            self._jobs[key] = deliver
            self._note(key, waits=True)
            self._changed.notify_all()

    @property
    def pending(self) -> int:
        """Jobs not delivered yet, including the one in progress."""
        with self._changed:
            return len(self._jobs)

    def drain(self, timeout_seconds: float) -> bool:
        """Waits until everything is delivered, trying at once regardless of the back-off; False when time runs out."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._wait_until, self._wait = 0.0, self._first_wait
            self._changed.notify_all()
            while self._jobs and self._thread.is_alive():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return not self._jobs

    def close(self, timeout_seconds: float = 0.0) -> bool:
        """Drains for a while, then stops; what is left stays on disk. True if nothing is left."""
        done = self.drain(timeout_seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(max(timeout_seconds, 0.1))
        return done

    # --- the thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._jobs or time.monotonic() < self._wait_until):
                    self._changed.wait(max(self._wait_until - time.monotonic(), 0.0) if self._jobs else None)
                if self._closed:
                    return
                key, deliver = next(iter(self._jobs.items()))
            try:
                deliver()
            except Exception as error:  # noqa: BLE001 - whatever a store, a disk or a builder raises, the sweep goes on
                self._failed(key, deliver, error)
            else:
                self._succeeded(key, deliver)

    def _failed(self, key: str, deliver: Callable[[], object], error: Exception) -> None:
        with self._changed:
            self.last_error = shown(str(error)) or type(error).__name__
            newest = self._jobs.pop(key, deliver)
            self._jobs[key] = newest
            self._wait_until = time.monotonic() + self._wait
            self._wait = min(self._wait * 2, self._longest_wait)
            self._changed.notify_all()

    def _succeeded(self, key: str, deliver: Callable[[], object]) -> None:
        with self._changed:
            self.last_error, self._wait, self._wait_until = None, self._first_wait, 0.0
            self.delivered += 1
            if self._jobs.get(key) is deliver:  # else a newer one came in meanwhile
                del self._jobs[key]
                self._note(key, waits=False)
            self._changed.notify_all()

    # --- the list on disk

    def _note(self, key: str, waits: bool) -> None:
        if waits == (key in self._on_disk):
            return
        try:
            if not waits and self._on_disk == {key}:
                self._file.unlink(missing_ok=True)
            else:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("ab") as lines:
                    lines.write(checked_line({"key": key, "waits": waits}) + b"\n")
        except OSError as error:
            self.last_error = f"{self._file}: cannot record what is waiting: {error}"
            return
        (self._on_disk.add if waits else self._on_disk.discard)(key)

    def _take_over(self) -> None:
        """Starts from what an earlier process left: those keys wait until they are submitted again."""
        try:
            keys = undelivered(self._file)
            self._on_disk = set(keys)
            if not keys:
                self._file.unlink(missing_ok=True)
                return
            write_whole(self._file, b"".join(checked_line({"key": key, "waits": True}) + b"\n" for key in keys))
        except OSError as error:
            self.last_error = f"{self._file}: cannot be read: {error}"
