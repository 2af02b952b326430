"""An archive of a store, read as untrusted: nothing in it is believed, and it names no files.

    manifest.json      format, versions, the store's folders, a checksum of each file
    mlflow.db          a snapshot by SQLite's own online backup
    artifacts/N/...    the files of artifact root N; identical files once (format 2)

Members are unpacked under our own numbers, checked against the free space, and get their places only after every one
is listed, every listed one is present, and every checksum matches.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import validation_lines

FORMAT = 2
READABLE = (1, 2)
DATABASE = "mlflow.db"
MANIFEST = "manifest.json"
MANIFEST_BYTES = 64 * 2**20
_MOST_COMPRESSED, _SLACK_BYTES = 200, 64 * 2**20
_LONGEST_READ = 2**20  # longer names are not ours
_CHUNK = 2**20
_NAME = re.compile(r"artifacts/(0|[1-9][0-9]{0,4})/.+", re.DOTALL)


class LeftOut(BaseModel):
    """What a backup was asked to leave out."""

    files: int = Field(ge=0)
    megabytes: float = Field(ge=0)


class Manifest(BaseModel):
    """What an archive says about itself, checked."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    format: int
    database: str
    roots: list[str] = Field(max_length=10_000)
    sha256: dict[str, str]
    runs: int = 0
    left_out: dict[str, LeftOut] = {}

    @field_validator("format")
    @classmethod
    def _known(cls, value: int) -> int:
        if value not in READABLE:
            raise ValueError(f"{value}, but this version reads {' and '.join(map(str, READABLE))}")
        return value

    @model_validator(mode="after")
    def _safe(self) -> Manifest:
        for path in (self.database, *self.roots):
            if unsafe_path(path):
                raise ValueError(f"names an unsafe path: {shown(path)}")
        if PurePosixPath(self.database) in map(PurePosixPath, self.roots):
            raise ValueError("names its database as an artifact folder")
        if DATABASE not in self.sha256:
            raise ValueError("lists no database")
        for name, digest in self.sha256.items():
            if name != DATABASE and (unsafe_name(name) or int(name.split("/")[1]) >= len(self.roots)):
                raise ValueError(f"lists an unsafe name: {shown(name)}")
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"has no checksum of {shown(name)}")
        return self


@dataclass(frozen=True)
class Unpacked:
    """A checked archive whose content is stored under numbers; `content`: checksum to file."""

    manifest: Manifest
    content: dict[str, Path]

    def place(self, folder: Path) -> None:
        """Give each listed file its name under `folder`: `mlflow.db` and `artifacts/N/...`.

        Raises:
            OSError: no space, or names that are identical on this file system.
        """
        last = {digest: name for name, digest in self.manifest.sha256.items()}
        needed = sum(
            self.content[digest].stat().st_size for name, digest in self.manifest.sha256.items() if last[digest] != name
        )
        if needed > shutil.disk_usage(folder).free:
            raise OSError(28, "No space left on device")
        for name, digest in self.manifest.sha256.items():
            target = folder / PurePosixPath(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise OSError(17, "two names are identical on this file system", shown(name))
            if last[digest] == name:
                self.content[digest].rename(target)
            else:
                shutil.copyfile(self.content[digest], target)


def unsafe_name(name: str) -> bool:
    """Whether a name in an archive could mean anything but a file below `artifacts/N/`."""
    return not _NAME.fullmatch(name) or unsafe_text(name) or _unsafe_parts(name.split("/"))


def unsafe_path(path: str) -> bool:
    """Whether a folder that an archive says it was taken from is not a plain absolute path.

    It is looked for in addresses and never opened, so the letters of its name do not matter.
    """
    return not path.startswith("/") or len(path) > 4096 or "\0" in path or _unsafe_parts(path.split("/")[1:])


def unsafe_text(text: str) -> bool:
    """Whether a name contains what a terminal or another system would interpret."""
    return any(ord(letter) < 32 or ord(letter) == 127 or letter == "\\" for letter in text)


def _unsafe_parts(parts: list[str]) -> bool:
    return any(
        part in ("", ".", "..") or re.fullmatch("[A-Za-z]:", part) or len(part.encode(errors="surrogateescape")) > 255
        for part in parts
    )


def shown(text: str) -> str:
    """A name from an archive for a message: shortened, without control characters."""
    return ascii(text if len(text) <= 80 else f"{text[:77]}...")


class _Header:
    """The unpacked stream with short reads only: a header that claims to be long would be read into memory
    completely.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.stream.read(size)


def unpack(source: Path, work: Path) -> Unpacked:
    """An archive's content, unpacked into the empty folder `work` and checked.

    Raises:
        TrackingError: not one of our archives, a damaged or an unsafe one, or no space; nothing outside `work` is
        touched.
    """
    try:
        return _unpack(source, work)
    except FileNotFoundError:
        raise TrackingError(f"{source}: no such file.") from None
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, RecursionError, MemoryError) as error:
        raise TrackingError(f"{source}: not a backup of gemma-nli, or damaged ({type(error).__name__}).") from None
    except (ValueError, UnicodeError, OverflowError, KeyError, TypeError) as error:
        raise TrackingError(f"{source}: not a backup of gemma-nli, or damaged ({type(error).__name__}).") from None
    except OSError as error:
        raise TrackingError(f"{source}: cannot be unpacked: {error.strerror or error}; nothing was restored.") from None


def most_unpacked(packed: int) -> int:
    """Bytes that an archive of `packed` bytes may unpack to: more would be meant to fill the disk."""
    return packed * _MOST_COMPRESSED + _SLACK_BYTES


def _unpack(source: Path, work: Path) -> Unpacked:
    packed, room = source.stat().st_size, shutil.disk_usage(work).free
    bound = most_unpacked(packed)
    found: dict[str, str] = {}
    content: dict[str, Path] = {}
    text, total = None, 0
    with gzip.open(source) as stream, tarfile.open(fileobj=cast(Any, _Header(stream)), mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            name = member.name.removeprefix("./")
            total += tarfile.BLOCKSIZE + max(member.size, 0)
            if member.isdir():
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or member.size < 0:
                raise TrackingError(
                    f"{source}: contains {shown(name)}, which is not a plain file; nothing was restored."
                )
            if name not in (DATABASE, MANIFEST) and unsafe_name(name):
                raise TrackingError(f"{source}: contains an unsafe name: {shown(name)}; nothing was restored.")
            if name in found or (name == MANIFEST and text is not None):
                raise TrackingError(f"{source}: contains {shown(name)} twice; nothing was restored.")
            _check_size(source, name, member.size, total, min(bound, room), bound)
            reader = archive.extractfile(member)
            assert reader is not None, "a plain file has content"
            if name == MANIFEST:
                text = _read_all(reader, member.size)
                continue
            path = work / f"{len(found):08d}"
            found[name] = _copy(reader, member.size, path)
            content.setdefault(found[name], path)
    if text is None:
        raise TrackingError(f"{source}: not a backup of gemma-nli, or damaged (it has no {MANIFEST}).")
    manifest = _manifest(source, text)
    _compare(source, manifest, found)
    return Unpacked(manifest, content)


def _check_size(source: Path, name: str, size: int, total: int, most: int, bound: int) -> None:
    if name == MANIFEST and size > MANIFEST_BYTES:
        raise TrackingError(f"{source}: its manifest has {size:,} bytes, the maximum is {MANIFEST_BYTES:,}.")
    if total > most:
        what = "more than any backup would hold" if most == bound else "more than the disk has room for"
        raise TrackingError(f"{source}: unpacks to {total:,} bytes or more, {what}; nothing was restored.")


def _read_all(reader: Any, size: int) -> bytes:
    parts = []
    while size > 0 and (part := reader.read(min(_CHUNK, size))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _copy(reader: Any, size: int, path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as target:
        while size > 0:
            part = reader.read(min(_CHUNK, size))
            if not part:
                raise EOFError
            digest.update(part)
            target.write(part)
            size -= len(part)
    return digest.hexdigest()


def _manifest(source: Path, text: bytes) -> Manifest:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name twice")
        return dict(pairs)

    tree = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        where, what = validation_lines(error)[0]
        raise TrackingError(f"{source}: {MANIFEST}: {f'{where}: ' if where else ''}{what}") from None


def _compare(source: Path, manifest: Manifest, found: dict[str, str]) -> None:
    """Every file is listed, every listed one is present and is what was packed."""
    there = set(found.values())
    for name, digest in found.items():
        if name not in manifest.sha256:
            raise TrackingError(f"{source}: contains {shown(name)}, which is not in its list; nothing was restored.")
        if manifest.sha256[name] != digest:
            raise TrackingError(f"{source}: damaged: {name} is not what was packed; nothing was restored.")
    for name, digest in manifest.sha256.items():
        if digest not in there or (manifest.format == 1 and name not in found):
            raise TrackingError(f"{source}: damaged: {name} is missing; nothing was restored.")
