"""A store and its artifacts as one archive (see archive.py), taken while it is in use.

The database is copied first: what it names was uploaded before, so the artifacts copied after it are complete.
Identical files, such as the encoder of each registered version, are packed once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import gemma_nli
from gemma_nli.base.errors import TrackingError, did_you_mean
from gemma_nli.base.files import put_in_place, unfinished
from gemma_nli.config import MlflowConfig, read_sqlite
from gemma_nli.tracking.archives.archive import (
    DATABASE,
    FORMAT,
    MANIFEST,
    MANIFEST_BYTES,
    most_unpacked,
    shown,
    unsafe_name,
    unsafe_path,
)
from gemma_nli.tracking.archives.archived_database import addresses
from gemma_nli.tracking.archives.exchange import is_unsettled, settle_exchange, store_lock
from gemma_nli.tracking.archives.restore import restore as restore
from gemma_nli.tracking.store.artifact_uris import is_elsewhere, local_folder
from gemma_nli.tracking.store.mlflow_store import Store, resolve_store

PARTS = {
    "weights": "weights of each fold (fold_K_best.safetensors): running the trial again trains them again",
    "exports": "pt2 programs of models: only for mlflow.pytorch; exported again when the model is registered again",
    "models": "all files of models, exports included: their versions cannot be loaded from the restored store",
}
"""What `--without` leaves out on request."""
_WEIGHTS = re.compile(r"(fold_\d+_)?best\.safetensors")


@dataclass(frozen=True)
class Archive:
    path: Path
    runs: int
    files: int
    megabytes: float
    left_out: dict[str, dict[str, float]] = field(default_factory=dict)


def backup(target: Path | None = None, tracking_uri: str | None = None, without: Collection[str] = ()) -> Archive:
    """Write an archive of a live SQLite store and all its artifacts.

    Args:
        without: names of PARTS to leave out.
    Raises:
        TrackingError: not a SQLite store (with what to use instead), artifacts that are elsewhere, an existing file.
    """
    for name in without:
        if name not in PARTS:
            raise TrackingError(f"--without: unknown part '{name}'{did_you_mean(name, PARTS)}")
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    database = _database_of(store)
    if target is None:
        target = Path(f"mlflow-backup-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    if target.exists():
        raise TrackingError(f"{target}: already exists; name another file.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            unfinished(target.parent, f".{target.name}.") as part,
            tempfile.TemporaryDirectory(prefix=".mlflow_backup_", dir=target.parent) as folder,
        ):
            copy = Path(folder) / DATABASE
            _snapshot(database, copy)
            manifest, unpacked = _pack(store, database, copy, part, without)
            if unpacked > most_unpacked(part.stat().st_size):  # gigabytes of zeros: our own restore would refuse it
                manifest, _ = _pack(store, database, copy, part, without, compressed=False)
            put_in_place(part, target)
    except OSError as error:
        raise TrackingError(f"{target}: cannot be written: {error.strerror or error}; no backup was made.") from None
    size = target.stat().st_size / 1e6
    return Archive(target, manifest["runs"], len(manifest["sha256"]), size, manifest["left_out"])


def _database_of(store: Store) -> Path:
    if store.uri.startswith("postgresql"):
        raise TrackingError(
            f"{store.shown}: back up PostgreSQL with its own "
            "tools: pg_dump --format=custom --file=mlflow.dump, then copy the artifact folder; gemma-nli backup is "
            "for SQLite."
        )
    if store.database is None:
        raise TrackingError(
            f"{store.shown}: back up a server's store on its machine: gemma-nli backup --tracking-uri "
            "sqlite:///path/to/mlflow.db there."
        )
    if is_unsettled(store.database):
        with store_lock(store.database):
            settle_exchange(store.database)
    if not store.database.is_file():
        raise TrackingError(f"{store.shown}: there is no MLflow store yet; run a sweep, or name another tracking URI.")
    return store.database


def _snapshot(database: Path, copy: Path) -> None:
    """SQLite's online backup: writers continue meanwhile, the copy is of one moment."""
    try:
        with closing(read_sqlite(database)) as live:
            with closing(sqlite3.connect(copy)) as target:
                live.backup(target)
            count = live.execute("SELECT COUNT(*) FROM runs").fetchone()
        assert count is not None
    except sqlite3.Error as error:
        raise TrackingError(f"{database}: cannot be copied: {error}.") from None


def _pack(
    store: Store, database: Path, copy: Path, part: Path, without: Collection[str], compressed: bool = True
) -> tuple[dict[str, Any], int]:
    """Write the archive; gives its manifest and its unpacked size in bytes."""
    roots = _roots(store, copy)
    with closing(sqlite3.connect(copy)) as snapshot:
        runs = int(snapshot.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
    sums: dict[str, str] = {}
    left_out = {name: {"files": 0, "megabytes": 0.0} for name in sorted(without)}
    manifest = {"format": FORMAT, "gemma_nli": gemma_nli.__version__, "database": str(database), "runs": runs}
    manifest |= {"roots": [str(root) for root in roots], "left_out": left_out, "sha256": sums}
    with tarfile.open(part, "w:gz", compresslevel=1 if compressed else 0) as archive:
        packed: set[str] = set()
        sums[DATABASE] = _add(archive, copy, DATABASE, packed)
        for number, root in enumerate(roots):
            models = [path.parent for path in root.rglob("MLmodel")]
            for path in sorted(p for p in root.rglob("*") if p.is_file()):
                name = f"artifacts/{number}/{path.relative_to(root).as_posix()}"
                kind = _part(path, models, without)
                try:
                    if kind is not None:
                        left_out[kind]["files"] += 1
                        left_out[kind]["megabytes"] += path.stat().st_size / 1e6
                    elif unsafe_name(name):
                        raise TrackingError(
                            f"{root}: {shown(name)} is not a valid name in an archive; rename that file."
                        )
                    else:
                        sums[name] = _add(archive, path, name, packed)
                except FileNotFoundError:  # deleted by a live store since it was listed
                    continue
        text = json.dumps(manifest, indent=1).encode()
        if len(text) > MANIFEST_BYTES:
            raise TrackingError(f"{store.shown}: {len(sums):,} files are too many for one archive; copy the folder.")
        entry = tarfile.TarInfo(MANIFEST)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        unpacked = archive.offset
    return manifest, unpacked


def _part(path: Path, models: list[Path], without: Collection[str]) -> str | None:
    """Which of the parts to leave out a file belongs to."""
    if "exports" in without and path.suffix == ".pt2":
        return "exports"
    if "models" in without and any(path.is_relative_to(model) for model in models):
        return "models"
    if "weights" in without and _WEIGHTS.fullmatch(path.name):
        return "weights"
    return None


class _Hashed:
    """A file being read into the archive, with the checksum of what was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data


def _add(archive: tarfile.TarFile, path: Path, name: str, packed: set[str]) -> str:
    """Add one file, unless its content is already there; gives its checksum. A file that grows is taken at its first
    size.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest in packed:
            return digest
        stream.seek(0)
        entry, status = tarfile.TarInfo(name), os.fstat(stream.fileno())
        entry.size, entry.mtime = status.st_size, int(status.st_mtime)
        hashed = _Hashed(stream)
        archive.addfile(entry, cast(Any, hashed))
        packed.add(hashed.digest.hexdigest())
        return hashed.digest.hexdigest()


def _roots(store: Store, database: Path) -> list[Path]:
    """Folders that hold the store's artifacts, none inside another."""
    own = local_folder(store.artifact_root or "")
    folders = {own} if own is not None else set()
    with closing(sqlite3.connect(database)) as snapshot:
        found = [(table, str(address)) for table, _, _, address in addresses(snapshot)]
    for _, place in (entry for entry in found if entry[0] == "experiments"):
        folder = local_folder(place)
        if folder is None:
            raise TrackingError(f"{store.shown}: artifacts at {place} are not on this machine; back them up there.")
        if Path(str(store.database)).is_relative_to(folder):
            raise TrackingError(
                f"{store.shown}: lies inside its artifact folder {folder}; move the database out first."
            )
        folders.add(folder)
    for table, place in found:
        folder = local_folder(place)
        if (folder is None and is_elsewhere(place)) or any(folder and folder.is_relative_to(f) for f in folders):
            continue
        # a model's folder that is elsewhere, or a row whose files no longer exist
        if folder is None or unsafe_path(str(folder)) or (folder.exists() and not (folder / "MLmodel").is_file()):
            raise TrackingError(
                f"{store.shown}: {table} names files at {place}, in no experiment's folder, so they would not be "
                "backed up. Move them into one, or delete that row."
            )
        folders.add(folder)
    return sorted(f for f in folders if not any(other != f and f.is_relative_to(other) for other in folders))
