"""What a bucket of any provider must offer: whole objects, conditional writes, and errors that say what to fix.

The store, the credentials and the number of retries come from the environment of the process, as the store's own
library (`s3.py`, `gcs.py`) reads it. None of it is ever pickled or logged.
"""

from __future__ import annotations

import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gemma_nli.base.errors import StorageError
from gemma_nli.base.files import put_in_place, unfinished
from gemma_nli.base.part_registry import Registry


class Changed(Exception):
    """A conditional write was refused: the object is not the one that the writer last saw."""


@dataclass(frozen=True)
class Seen:
    """An object as the store returned it.

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

    A kind of store is a subclass under `@backend(SCHEME)` in a file of this folder.

    endpoints: variables that name a store other than the scheme's own; the first that is set counts.
    names: the form of a bucket's name.
    terms: what the store must be able to do, after its address in a sentence.

    Raises:
        StorageError: from every method, with what to fix.
    """

    scheme: ClassVar[str]
    endpoints: ClassVar[tuple[str, ...]] = ()
    names: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]")
    terms: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"

    @classmethod
    def endpoint(cls) -> str:
        """The store that the environment names, or nothing: the scheme's own."""
        return next((value for each in cls.endpoints if (value := os.environ.get(each))), "")

    @abstractmethod
    def get(self, key: str) -> Seen | None:
        """The whole object, None if there is none."""

    @abstractmethod
    def head(self, key: str) -> Seen | None:
        """The object without its data, None if there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes, if_match: str | None = None, if_absent: bool = False) -> str:
        """Write a small object; its new version.

        Args:
            if_match: only over the object with this version.
            if_absent: only if there is none.
        Raises:
            Changed: the condition does not hold, and the change was not made by an earlier attempt of this same write.
        """

    @abstractmethod
    def store(self, key: str, source: bytes | Path) -> None:
        """Write an object of any size, over whatever is there: for names that promise their bytes."""

    def fetch(self, key: str, target: Path) -> bool:
        """Download an object of any size to a file, completely or not at all; False if there is none."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target.parent, ".pull-") as temporary:
            if not self._download(key, temporary):
                return False
            put_in_place(temporary, target)
            return True

    @abstractmethod
    def _download(self, key: str, target: Path) -> bool: ...

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """All keys with this prefix."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Does nothing if there is none."""

    @abstractmethod
    def check(self) -> None:
        """Check that the bucket exists and these credentials may use it."""

    def check_conditions(self, key: str) -> None:
        """Check that the store can be written to and honours write conditions, which keep writers apart.

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


BACKENDS: Registry[type[Bucket]] = Registry("storage")
"""Every kind of bucket by the scheme of its addresses."""


def backend(scheme: str) -> Callable[[type[Bucket]], type[Bucket]]:
    """Register a kind of bucket: `SCHEME://bucket/prefix` is then a place like any other.

    Raises:
        TypeError: two kinds have one scheme, or it cannot stand in an address.
    """

    def register(kind: type[Bucket]) -> type[Bucket]:
        if not re.fullmatch(r"[a-z][a-z0-9]*", scheme):
            raise TypeError(f"{kind.__name__}: '{scheme}' is not a scheme; use lower-case letters and digits")
        kind.scheme = scheme
        return BACKENDS.part(scheme, reads=())(kind)

    return register


def address_forms(with_terms: bool = False) -> list[str]:
    """`s3://bucket/prefix` of each kind.

    Args:
        with_terms: with what the store must be able to do.
    """
    return [f"{name}://bucket/prefix{BACKENDS[name].terms if with_terms else ''}" for name in sorted(BACKENDS)[::-1]]
