"""The name of a place to keep things: a folder of the file system, or a prefix of a bucket."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.config import home
from gemma_nli.storage.bucket import Bucket, open_bucket

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KEY = re.compile(r"[\w.()!*'-]+")


@dataclass(frozen=True)
class Prefix:
    """`s3://name/key`: as much of a path as we need, small enough to travel; opens nothing before it is used."""

    name: str
    key: str = ""

    def __truediv__(self, part: str) -> Prefix:
        return Prefix(self.name, f"{self.key}/{part}" if self.key else part)

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.key}".rstrip("/")

    @property
    def bucket(self) -> Bucket:
        return open_bucket(self.name)

    def exists(self) -> bool:
        return self.bucket.head(self.key) is not None

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError where there is no such object."""
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


Place = Path | Prefix


def parse_address(text: str) -> Prefix:
    """`s3://bucket/prefix`.

    Raises:
        ValueError: another scheme, or no name of a bucket or prefix.
    """
    scheme, _, rest = text.partition("://")
    if scheme != "s3":
        raise ValueError(
            f"{scheme}:// is not known; name a folder that all nodes mount (NFS 4, EFS, Filestore, Lustre), or "
            "s3://bucket/prefix of a store that honours conditional writes"
        )
    name, _, key = rest.partition("/")
    parts = [part for part in key.split("/") if part]
    if not _BUCKET.fullmatch(name):
        raise ValueError("s3:// must be followed by a bucket's name, and credentials belong in the environment")
    if any(part in (".", "..") or not _KEY.fullmatch(part) for part in parts):
        raise ValueError("the prefix after the bucket may hold letters, digits and -_.!*'() between slashes")
    return Prefix(name, "/".join(parts))


def place_of(storage: str | Path | Prefix) -> Place:
    """The place that an address names."""
    if isinstance(storage, str):
        return parse_address(storage) if "://" in storage else Path(storage)
    return storage


def folder_of(place: Place) -> Path:
    """The folder itself; of a prefix, this machine's mirror of it, which may be deleted while nothing runs."""
    if isinstance(place, Path):
        return place
    store = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    mirror = hashlib.sha256(f"{store} {place.name}".encode()).hexdigest()[:16]
    return home() / "mirror" / mirror / place.key


def store_folder(place: Place) -> None:
    """Put there what a prefix's mirror on this machine holds; a folder is there already."""
    if isinstance(place, Prefix):
        folder = folder_of(place)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                place.bucket.store((place / path.relative_to(folder).as_posix()).key, path)


def fetch_folder(place: Place) -> Path:
    """Bring all that a prefix holds to its mirror on this machine, and name that; a folder is itself."""
    folder = folder_of(place)
    if isinstance(place, Prefix):
        for name, key in place.under().items():
            place.bucket.fetch(key, folder / name)
    return folder
