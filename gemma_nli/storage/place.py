"""The name of a place for storage: a folder of the file system, or a prefix of a bucket."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.config import home
from gemma_nli.storage.bucket import Bucket
from gemma_nli.storage.gcs import GcsBucket
from gemma_nli.storage.s3 import S3Bucket

_KINDS: dict[str, type[Bucket]] = {"s3": S3Bucket, "gs": GcsBucket}
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
"""Variables that name a store other than the scheme's own, the first that is set."""
_NAMES = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
}
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
    where = (os.getpid(), scheme, name, _endpoint(scheme))
    with _opening:
        if where not in _open:
            _open[where] = _KINDS[scheme](name)
        return _open[where]


def _endpoint(scheme: str) -> str:
    return next((value for each in _ENDPOINTS[scheme] if (value := os.environ.get(each))), "")


Place = Path | Prefix


def parse_address(text: str) -> Prefix:
    """`s3://bucket/prefix` or `gs://bucket/prefix`.

    Raises:
        ValueError: another scheme, or not a valid name of a bucket or prefix.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in _KINDS:
        raise ValueError(
            f"{scheme}:// is not supported; name a folder that all nodes mount (NFS 4, EFS, Filestore, Lustre), "
            "s3://bucket/prefix of a store that honours conditional writes, or gs://bucket/prefix"
        )
    name, _, key = rest.partition("/")
    parts = [part for part in key.split("/") if part]
    if not _NAMES[scheme].fullmatch(name):
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
    store = f"{_endpoint(place.scheme)} {place.scheme} {place.name}"
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
