"""Holding something in a bucket: an object that its holder keeps writing, and that others may take when it stops.

The system releases a lock file when its holder dies; a bucket cannot see that. So a holder writes its claim again
every third of the lease, each time only over its own last one, and whoever sees a claim that is older than the lease,
by the store's clock, may write over exactly that one. A holder that was taken over learns of it at its next write; what
it writes to a journal meanwhile is refused by the journal's own condition (`BucketRecord`).
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from typing import Any

from gemma_nli.base.errors import StorageError
from gemma_nli.storage.bucket import Changed, Seen
from gemma_nli.storage.place import Prefix

log = logging.getLogger(__name__)
LEASE_SECONDS = 30.0
_CLOCK_SECONDS = 1.0
"""What the store's times are rounded to."""


class Lease:
    """One holder's claim to one object. Not reentrant; taken by one thread, renewed by one of its own."""

    def __init__(self, place: Prefix, seconds: float = LEASE_SECONDS) -> None:
        self.place, self.seconds = place, seconds
        self.lost = False
        self._token = uuid.uuid4().hex
        self._version = ""
        self._writes = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, patient: bool) -> bool:
        """Take it; False if it is held.

        Args:
            patient: wait as long as it takes; otherwise only until the holder is seen to be alive.
        """
        first: Seen | None = None
        while True:
            seen = self.place.bucket.get(self.place.key)
            if seen is None or _is_free(seen) or seen.age_seconds > self.seconds + _CLOCK_SECONDS:
                try:
                    self._write(seen.version if seen is not None else None)
                    break
                except Changed:
                    continue  # another was faster, or the holder is alive after all: look again
            first = first or seen
            if not patient and seen.version != first.version:
                return False
            time.sleep(min(1.0, self.seconds / 10))
        self.lost = False
        self._ended.clear()
        self._thread = threading.Thread(target=self._renew, name="gemma_nli-lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Release it for others at once; if the store is unreachable they wait for the lease to run out."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if not self.lost:
                self._write(self._version, free=True)
        except Changed:
            self.lost = True
        except StorageError as error:
            log.warning("%s: not released; it will be free in %g seconds (%s)", self.place, self.seconds, error)

    def holder(self) -> str:
        """Who holds it, for messages."""
        seen = self.place.bucket.get(self.place.key)
        facts = _facts(seen) if seen is not None else {}
        return f"process {facts['pid']} on {facts['host']}" if {"pid", "host"} <= facts.keys() else "another process"

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / 3):
            try:
                self._write(self._version)
            except Changed:
                self.lost = True
                return
            except StorageError as error:
                log.warning("%s: not renewed (%s)", self.place, error)

    def _write(self, over: str | None, free: bool = False) -> None:
        self._writes += 1  # no two claims have the same bytes, so no two have the same version
        facts = {"holder": self._token, "writes": self._writes, "free": free}
        facts |= {"pid": os.getpid(), "host": os.uname().nodename}
        data = json.dumps(facts).encode()
        self._version = self.place.bucket.put(self.place.key, data, if_match=over, if_absent=over is None)


def _facts(seen: Seen) -> dict[str, Any]:
    try:
        facts = json.loads(seen.data)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_free(seen: Seen) -> bool:
    return bool(_facts(seen).get("free"))
