"""The files of one trial's record: a journal that grows by lines, and arrays that its lines name with their checksums.

In a folder a line is appended and a lock held. A bucket can do neither: there the journal is written anew, whole, over
exactly the version its writer has last seen, arrays are named by their checksums, and a lease is held.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from filelock import FileLock, Timeout

from gemma_nli.base.errors import JournalError, StorageError
from gemma_nli.base.files import write_whole
from gemma_nli.storage.bucket import Changed
from gemma_nli.storage.lease import LEASE_SECONDS, Lease
from gemma_nli.storage.place import Place, Prefix, folder_of

JOURNAL, CLAIM = "journal.jsonl", "claim.json"
_APPENDS = 10


class Record(Protocol):
    """What a journal needs from its storage. Every method may raise JournalError."""

    def claim(self, wait_seconds: float = -1) -> AbstractContextManager[None]:
        """Hold the record; -1 waits as long as it takes."""

    def lines(self) -> list[bytes]:
        """The journal's lines as they are now, the empty ones too."""

    def append(self, line: bytes) -> None:
        """Append a line, which is durable when this returns."""

    def write(self, name: str, data: bytes) -> None:
        """Store an array file."""

    def read(self, name: str, sha256: str) -> bytes:
        """An array file's bytes, if they exist and have that checksum, else no bytes."""

    def file(self, name: str, sha256: str) -> Path | None:
        """Where an array file is on this machine, downloaded if need be; None if it is missing or damaged."""

    def drop_others(self, pattern: str, name: str, sha256: str) -> None:
        """Delete the array files that match the pattern, except one."""


def _last_byte(file: BinaryIO) -> bytes:
    """Of a file that is not empty; what is written next goes to its end, as the file is open to append."""
    file.seek(-1, os.SEEK_END)
    return file.read(1)


class FolderRecord:
    """A record in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL

    @contextmanager
    def claim(self, wait_seconds: float = -1) -> Iterator[None]:
        self._make_folder()
        lock = FileLock(self.folder / ".lock", timeout=wait_seconds)
        try:
            lock.acquire()
        except Timeout:
            raise JournalError(f"{self.folder}: another process is running this trial.") from None
        except OSError as error:
            raise JournalError(
                f"{self.folder}: cannot be locked: {error.strerror}; set storage= to a folder you own."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be read: {error.strerror}.") from error

    def append(self, line: bytes) -> None:
        self._make_folder()
        try:
            with self.path.open("a+b") as file:
                whole = file.tell() == 0 or _last_byte(file) == b"\n"
                file.write((b"" if whole else b"\n") + line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written: {error.strerror}; free space or set storage=."
            ) from error

    def write(self, name: str, data: bytes) -> None:
        self._make_folder()
        try:
            write_whole(self.folder / name, data)
        except OSError as error:
            raise JournalError(
                f"{self.folder / name}: cannot be written: {error.strerror}; free space or set storage=."
            ) from error

    def read(self, name: str, sha256: str) -> bytes:
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return b""
        return data if hashlib.sha256(data).hexdigest() == sha256 else b""

    def file(self, name: str, sha256: str) -> Path | None:
        try:
            with (self.folder / name).open("rb") as stream:
                whole = hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        except OSError:
            return None
        return self.folder / name if whole else None

    def drop_others(self, pattern: str, name: str, sha256: str) -> None:
        for other in self.folder.glob(pattern):
            if other.name != name:
                other.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                f"{self.folder}: cannot be created: {error.strerror}; set storage= to a folder you own."
            ) from error


class BucketRecord:
    """A record under a prefix. Its arrays, once read, stay in this machine's mirror; the journal never does.

    Args:
        lease_seconds: after which a holder that has stopped writing has lost the trial.
    """

    def __init__(self, place: Prefix, lease_seconds: float = LEASE_SECONDS) -> None:
        self.place, self.lease_seconds = place, lease_seconds
        self._journal = place / JOURNAL
        self._seen: tuple[bytes, str | None] | None = None  # the journal's bytes and version as last read or written
        self._lease: Lease | None = None

    @contextmanager
    def claim(self, wait_seconds: float = -1) -> Iterator[None]:
        lease = Lease(self.place / CLAIM, self.lease_seconds)
        with self._as_journal():
            if not lease.acquire(patient=wait_seconds < 0):
                raise JournalError(f"{self.place}: {lease.holder()} is running this trial.")
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            lease.release()

    def lines(self) -> list[bytes]:
        return self._fetch()[0].split(b"\n")

    def append(self, line: bytes) -> None:
        """A holder that has been taken over is refused; a writer without a claim appends to whatever is there."""
        for _ in range(_APPENDS):
            if self._lease is not None and self._lease.lost:
                break
            data, version = self._seen or self._fetch()
            fresh = data + (b"" if not data or data.endswith(b"\n") else b"\n") + line + b"\n"
            try:
                with self._as_journal():
                    version = self._journal.bucket.put(
                        self._journal.key, fresh, if_match=version, if_absent=version is None
                    )
            except Changed:
                self._seen = None
                if self._lease is not None:
                    break
                continue
            self._seen = (fresh, version)
            return
        raise JournalError(
            f"{self.place}: another process is writing this trial's journal, which is left as it is; if this process "
            f"lost its connection to the store for more than {self.lease_seconds:g} seconds, its trial was taken over. "
            "Run the sweep again."
        )

    def write(self, name: str, data: bytes) -> None:
        with self._as_journal():
            self.place.bucket.store((self.place / _addressed(name, hashlib.sha256(data).hexdigest())).key, data)

    def read(self, name: str, sha256: str) -> bytes:
        place = self.place / _addressed(name, sha256)
        near = FolderRecord(folder_of(self.place))
        data = near.read(_addressed(name, sha256), sha256)
        if data:
            return data
        with self._as_journal():
            found = place.bucket.get(place.key)
        if found is None or hashlib.sha256(found.data).hexdigest() != sha256:
            return b""
        near.write(_addressed(name, sha256), found.data)
        return found.data

    def file(self, name: str, sha256: str) -> Path | None:
        there = _addressed(name, sha256)
        return folder_of(self.place) / there if self.read(name, sha256) else None

    def drop_others(self, pattern: str, name: str, sha256: str) -> None:
        with self._as_journal():
            for found, key in self.place.under().items():
                if Path(found).match(pattern) and found != _addressed(name, sha256):
                    self.place.bucket.delete(key)

    def _fetch(self) -> tuple[bytes, str | None]:
        with self._as_journal():
            found = self._journal.bucket.get(self._journal.key)
        self._seen = (found.data, found.version) if found is not None else (b"", None)
        return self._seen

    @contextmanager
    def _as_journal(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            raise JournalError(f"{self.place}: {error}") from None


def record_of(place: Place) -> Record:
    return FolderRecord(place) if isinstance(place, Path) else BucketRecord(place)


def _addressed(name: str, sha256: str) -> str:
    """A name that contains the checksum: a writer that was taken over cannot change another's arrays."""
    path = Path(name)
    return f"{path.stem}-{sha256[:16]}{path.suffix}"
