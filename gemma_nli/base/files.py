"""Files that are written completely or not at all: the one place that gives a finished file its name."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma_nli.base.errors import ConfigError


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically: readers, and a machine after a crash, see the old file or the new one.

    Raises:
        OSError: disk full, folder read-only; nothing is left behind.
    """
    with unfinished(path.parent, f".{path.name}.") as temporary:
        temporary.write_bytes(data)
        put_in_place(temporary, path)


def check_target(target: Path, replace: bool, option: str) -> None:
    """Create the folder of an output file, if it does not exist.

    Args:
        option: which of the command's names the file.
    Raises:
        ConfigError: the file exists and may not be replaced, is a folder, or cannot be written there.
    """
    if target.is_dir():
        raise ConfigError(f"{option}: {target} is a folder; name a file.")
    if target.exists() and not replace:
        raise ConfigError(f"{option}: {target} already exists; name another file, or --replace it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option}: the folder {target.parent} cannot be created: {error.strerror}.") from None
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"{option}: the folder {target.parent} cannot be written to.")


@contextmanager
def unfinished(folder: Path, prefix: str) -> Iterator[Path]:
    """A name in `folder` for a file while it is written; deleted at the end, unless `put_in_place` has renamed it.

    Args:
        prefix: of the name, by which files that a killed process has left are recognized.
    """
    temporary = folder / f"{prefix}{secrets.token_hex(6)}.tmp"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a closed file its name, over an older file: its bytes are on the disk before the name is, and the name when
    this returns.
    """
    _sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)


def put_folder_in_place(work: Path, target: Path) -> None:
    """Give a finished folder its name, over an older folder, which is removed: its files are on the disk before."""
    for path in sorted(work.rglob("*")):
        if path.is_file():
            _sync_file(path)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old / "replaced")
        work.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(target)
    sync_folder(target.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make names that were created or replaced in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
