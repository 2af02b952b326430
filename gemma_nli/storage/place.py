"""The name of a place for storage: a folder of the file system, or a prefix of a bucket."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.config import home
from gemma_nli.storage.bucket import BACKENDS, Bucket, address_forms

_KEY = re.compile(r"[\w.()!*'-]+")


@dataclass(frozen=True)
class Prefix:
    """`s3://name/key` or `gs://name/key`: the part of a path's interface that we need; can be pickled, and opens
    nothing before it is used.
    """

    scheme: str
    name: str
    key: str = ""

    def __truediv__(self, part: str) -> Prefix:
        return Prefix(self.scheme, self.name, f"{self.key}/{part}" if self.key else part)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}/{self.key}".rstrip("/")

    @property
    def bucket(self) -> Bucket:
        """This process's client of the bucket, from the present environment."""
        return _open_bucket(self.scheme, self.name)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Variables that name the store."""
        return BACKENDS[self.scheme].endpoints

    def exists(self) -> bool:
        return self.bucket.head(self.key) is not None

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError if there is no such object."""
        found = self.bucket.get(self.key)
        if found is None:
            raise FileNotFoundError(str(self))
        return found.data

    def write_bytes(self, data: bytes) -> None:
        self.bucket.put(self.key, data)

    def unlink(self, missing_ok: bool = True) -> None:
        self.bucket.delete(self.key)

    def under(self) -> dict[str, str]:
        """Names below this prefix to their keys; a name deeper down has slashes."""
        start = f"{self.key}/" if self.key else ""
        return {key.removeprefix(start): key for key in self.bucket.keys(start)}


_open: dict[tuple[object, ...], Bucket] = {}
_opening = threading.Lock()


def _open_bucket(scheme: str, name: str) -> Bucket:
    where = (os.getpid(), scheme, name, BACKENDS[scheme].endpoint())
    with _opening:
        if where not in _open:
            _open[where] = BACKENDS[scheme](name)
        return _open[where]


Place = Path | Prefix


def parse_address(text: str) -> Prefix:
    """`s3://bucket/prefix` or `gs://bucket/prefix`.

    Raises:
        ValueError: another scheme, or not a valid name of a bucket or prefix.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in BACKENDS:
        *others, last = address_forms(with_terms=True)
        raise ValueError(
            f"{scheme}:// is not supported; name a folder that all nodes mount (NFS 4, EFS, Filestore, Lustre), "
            f"{', '.join(others)}, or {last}"
        )
    name, _, key = rest.partition("/")
    parts = [part for part in key.split("/") if part]
    if not BACKENDS[scheme].names.fullmatch(name):
        raise ValueError(f"{scheme}:// must be followed by a bucket's name, and credentials belong in the environment")
    if any(part in (".", "..") or not _KEY.fullmatch(part) for part in parts):
        raise ValueError("the prefix after the bucket may hold letters, digits and -_.!*'() between slashes")
    return Prefix(scheme, name, "/".join(parts))


def place_of(storage: str | Path | Prefix) -> Place:
    """The place that an address names."""
    if isinstance(storage, str):
        return parse_address(storage) if "://" in storage else Path(storage)
    return storage


def folder_of(place: Place) -> Path:
    """The folder itself; of a prefix, this machine's mirror of it, which may be deleted while nothing runs."""
    if isinstance(place, Path):
        return place
    store = f"{BACKENDS[place.scheme].endpoint()} {place.scheme} {place.name}"
    mirror = hashlib.sha256(store.encode()).hexdigest()[:16]
    return home() / "mirror" / mirror / place.key


def store_folder(place: Place) -> None:
    """Upload what a prefix's mirror on this machine holds; a folder needs no upload."""
    if isinstance(place, Prefix):
        folder = folder_of(place)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                place.bucket.store((place / path.relative_to(folder).as_posix()).key, path)


def fetch_folder(place: Place) -> Path:
    """Download everything under a prefix to its mirror on this machine, and give that; a folder is returned as it
    is.
    """
    folder = folder_of(place)
    if isinstance(place, Prefix):
        for name, key in place.under().items():
            place.bucket.fetch(key, folder / name)
    return folder
