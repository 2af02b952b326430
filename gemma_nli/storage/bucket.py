"""What a bucket must do for us, whoever's it is: whole objects, conditional writes, and errors that say what to mend.

Which store, who we are and how patient we are come from the environment of the process, as the store's own library
(`s3.py`, `gcs.py`) reads it. None of it is ever pickled or logged.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import StorageError


class Changed(Exception):
    """A conditional write was refused: the object is not what the writer had last seen."""


@dataclass(frozen=True)
class Seen:
    """An object as it was answered.

    Args:
        version: changes with each write: the ETag of S3, the generation of Google Cloud Storage.
        age_seconds: since it was written, by the store's own clock, to the second.
        writer: names the one write that made it.
    """

    version: str
    age_seconds: float
    writer: str
    data: bytes = b""


class Bucket(ABC):
    """Objects by key. Threads may share one; each process opens its own (`Prefix.bucket`).

    Raises:
        StorageError: from every method, with what to mend.
    """

    scheme: str

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"

    @abstractmethod
    def get(self, key: str) -> Seen | None:
        """The whole object, None where there is none."""

    @abstractmethod
    def head(self, key: str) -> Seen | None:
        """The object without its data, None where there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes, if_match: str | None = None, if_absent: bool = False) -> str:
        """Write a small object; its new version.

        Args:
            if_match: only over the object of this version.
            if_absent: only where none is.
        Raises:
            Changed: the condition does not hold, and it was not an earlier try of this very write that changed it.
        """

    @abstractmethod
    def store(self, key: str, source: bytes | Path) -> None:
        """Write an object of any size, over whatever is there: for names that promise their bytes."""

    def fetch(self, key: str, target: Path) -> bool:
        """Bring an object of any size to a file, whole or not at all; False where there is none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".pull-{uuid.uuid4().hex}")
        try:
            if not self._download(key, temporary):
                return False
            temporary.replace(target)
            return True
        finally:
            temporary.unlink(missing_ok=True)

    @abstractmethod
    def _download(self, key: str, target: Path) -> bool: ...

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Where there is none, nothing happens."""

    @abstractmethod
    def check(self) -> None:
        """That the bucket is there and these credentials may use it."""

    def check_conditions(self, key: str) -> None:
        """That the store can be written to and refuses what a condition forbids: all that keeps writers apart.

        Args:
            key: of an object that is written and deleted again.
        """
        probe = f"{key}-{uuid.uuid4().hex}"
        try:
            first = self.put(probe, b"1", if_absent=True)
            self.put(probe, b"2", if_match=first)
            forbidden: list[dict[str, Any]] = [{"if_absent": True}, {"if_match": first}]
            for conditions in forbidden:
                try:
                    self.put(probe, b"3", **conditions)
                except Changed:
                    continue
                raise StorageError(
                    f"{self}: this store ignores the conditions of a write, so two drivers could overwrite each other; "
                    "use one that honours them (AWS S3, MinIO, Ceph, Google Cloud Storage), or a shared folder."
                )
        finally:
            self.delete(probe)
