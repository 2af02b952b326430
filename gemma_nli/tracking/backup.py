"""A store and its artifacts as one archive, taken while it is in use, and brought back equal.

    manifest.json      format, versions, the store's folders, a checksum of each file
    mlflow.db          a snapshot by SQLite's own online backup
    artifacts/N/...    the files of artifact root N

The database is copied first: what it names was uploaded before, so the artifacts copied after it are all there.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import gemma_nli
from gemma_nli.config import MlflowConfig
from gemma_nli.errors import TrackingError
from gemma_nli.tracking.store import Store, resolve_store
from gemma_nli.tracking.upkeep import local_folder

FORMAT = 1
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
    "trace_tags": ("value",),
}
"""Columns that hold addresses of artifacts; a store restored to another place has them rewritten."""


@dataclass(frozen=True)
class Archive:
    path: Path
    runs: int
    files: int
    megabytes: float


def backup(target: Path | None = None, tracking_uri: str | None = None) -> Archive:
    """Write an archive of a live SQLite store and all of its artifacts.

    Raises:
        TrackingError: no SQLite store (with what to use instead), artifacts that lie elsewhere, an existing file.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    database = _database_of(store)
    if target is None:
        target = Path(f"mlflow-backup-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    if target.exists():
        raise TrackingError(f"{target}: is there already; name another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        with tempfile.TemporaryDirectory(prefix=".mlflow_backup_", dir=target.parent) as folder:
            copy = Path(folder) / "mlflow.db"
            _snapshot(database, copy)
            archive = _pack(store, database, copy, part)
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return Archive(target, archive["runs"], len(archive["sha256"]), target.stat().st_size / 1e6)


def restore(source: Path, tracking_uri: str | None = None, replace: bool = False) -> Path:
    """Bring an archive back; gives the database's path.

    A process that has the store open goes on with the file moved aside: end servers and notebooks first.

    Args:
        tracking_uri: where to, else the default store. At another place than the archive was taken from, the addresses
            of artifacts are rewritten.
        replace: put it in the place of a store that is there; that store is moved aside, not deleted.
    Raises:
        TrackingError: no archive of ours, a damaged one, or a store that is there already.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    if store.database is None:
        raise TrackingError(
            f"{store.shown}: a backup is restored to a SQLite store; name one: sqlite:///path/to/mlflow.db."
        )
    database = store.database
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow_restore_", dir=database.parent) as folder:
        work = Path(folder)
        manifest = _unpack(source, work)
        homes = _homes(manifest, database)
        taken = [
            path for path in (database, *homes.values()) if path.exists() and (path.is_file() or any(path.iterdir()))
        ]
        if taken and not replace:
            raise TrackingError(
                f"{taken[0]}: is there already; --replace moves it aside, or name another --tracking-uri sqlite:///..."
            )
        aside = f".before-restore-{time.strftime('%Y%m%d-%H%M%S')}"
        for path in taken:
            path.rename(path.with_name(path.name + aside))
        for suffix in ("-wal", "-shm"):  # they belong to the database moved aside
            if Path(f"{database}{suffix}").exists():
                Path(f"{database}{suffix}").rename(f"{database}{aside}{suffix}")
        _rewrite(work / "mlflow.db", {root: str(homes[number]) for number, root in enumerate(manifest["roots"])})
        for number, home in homes.items():
            packed = work / "artifacts" / str(number)
            home.parent.mkdir(parents=True, exist_ok=True)
            if packed.is_dir():
                if home.is_dir():
                    home.rmdir()  # an empty one
                shutil.move(packed, home)
            else:
                home.mkdir(exist_ok=True)
        shutil.move(work / "mlflow.db", database)
    return database


def _database_of(store: Store) -> Path:
    if store.uri.startswith("postgresql"):
        raise TrackingError(
            f"{store.shown}: PostgreSQL backs itself up: pg_dump --format=custom --file=mlflow.dump, "
            "and a copy of the artifact folder taken after it; gemma-nli backup is for SQLite."
        )
    if store.database is None:
        raise TrackingError(
            f"{store.shown}: a server's store is backed up where it runs: gemma-nli backup --tracking-uri "
            "sqlite:///path/to/mlflow.db there."
        )
    if not store.database.is_file():
        raise TrackingError(f"{store.shown}: no MLflow store there yet; run a sweep, or name another tracking URI.")
    return store.database


def _snapshot(database: Path, copy: Path) -> None:
    """SQLite's online backup: writers go on meanwhile, the copy is of one moment."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as live:
            with closing(sqlite3.connect(copy)) as target:
                live.backup(target)
            count = live.execute("SELECT COUNT(*) FROM runs").fetchone()
        assert count is not None
    except sqlite3.Error as error:
        raise TrackingError(f"{database}: cannot be copied: {error}.") from None


def _pack(store: Store, database: Path, copy: Path, part: Path) -> dict[str, Any]:
    roots = _roots(store, copy)
    with closing(sqlite3.connect(copy)) as snapshot:
        runs = int(snapshot.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
    manifest: dict[str, Any] = {"format": FORMAT, "gemma_nli": gemma_nli.__version__, "database": str(database)}
    manifest |= {"runs": runs, "roots": [str(root) for root in roots], "sha256": {}}
    with tarfile.open(part, "w:gz", compresslevel=1) as archive:
        manifest["sha256"]["mlflow.db"] = _add(archive, copy, "mlflow.db")
        for number, root in enumerate(roots):
            for path in sorted(p for p in root.rglob("*") if p.is_file()):
                name = f"artifacts/{number}/{path.relative_to(root).as_posix()}"
                try:
                    manifest["sha256"][name] = _add(archive, path, name)
                except FileNotFoundError:  # deleted by a live store since it was listed
                    continue
        text = json.dumps(manifest, indent=1).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return manifest


def _add(archive: tarfile.TarFile, path: Path, name: str) -> str:
    """Put one file in and give its checksum; a file that grows meanwhile is taken as long as it was."""
    with path.open("rb") as stream:
        data = stream.read() if path.stat().st_size < 2**26 else None
        if data is not None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), int(path.stat().st_mtime)
            archive.addfile(entry, io.BytesIO(data))
            return hashlib.sha256(data).hexdigest()
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        archive.add(path, name, recursive=False)
        return digest


def _roots(store: Store, database: Path) -> list[Path]:
    """Folders that hold the store's artifacts, none inside another."""
    with closing(sqlite3.connect(database)) as snapshot:
        places = {str(row[0]) for row in snapshot.execute("SELECT artifact_location FROM experiments") if row[0]}
    folders = {Path(store.artifact_root)} if store.artifact_root else set()
    for place in places:
        folder = local_folder(place)
        if folder is None:
            raise TrackingError(
                f"{store.shown}: artifacts at {place} are not on this machine; back that place up itself."
            )
        if Path(str(store.database)).is_relative_to(folder):
            raise TrackingError(
                f"{store.shown}: lies inside its artifact folder {folder}; move the database out first."
            )
        folders.add(folder)
    return sorted(f for f in folders if not any(other != f and f.is_relative_to(other) for other in folders))


def _unpack(source: Path, work: Path) -> dict[str, Any]:
    """Everything into `work`, checked against the manifest."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            archive.extractall(work, filter="data")
        manifest: dict[str, Any] = json.loads((work / "manifest.json").read_text(encoding="utf-8"))
        sums: dict[str, str] = manifest["sha256"]
        if manifest["format"] != FORMAT:
            raise TrackingError(f"{source}: format {manifest['format']}, this version reads {FORMAT}.")
    except FileNotFoundError:
        raise TrackingError(f"{source}: no such file, or no backup of gemma-nli.") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(f"{source}: no backup of gemma-nli, or a damaged one ({type(error).__name__}).") from None
    for name, expected in sums.items():
        path = work / PurePosixPath(name)
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != expected:
            raise TrackingError(f"{source}: damaged: {name} is not what was packed; nothing was restored.")
    return manifest


def _homes(manifest: dict[str, Any], database: Path) -> dict[int, Path]:
    """Where each artifact root goes: where it was, or under the new database's folder."""
    same = str(database) == manifest["database"]
    old = Path(manifest["database"]).parent
    homes = {}
    for number, root in enumerate(manifest["roots"]):
        path = Path(root)
        if not same:
            path = database.parent / (path.relative_to(old) if path.is_relative_to(old) else f"artifacts-{number}")
        homes[number] = path
    return homes


def _rewrite(database: Path, moved: dict[str, str]) -> None:
    moved = {old: new for old, new in moved.items() if old != new}
    if not moved:
        return
    with closing(sqlite3.connect(database)) as store, store:
        for table, column in _columns(store):
            for old, new in moved.items():
                for scheme in ("", "file://"):
                    store.execute(
                        f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '  # noqa: S608 - names of ours
                        f'WHERE "{column}" = ? OR "{column}" LIKE ? ESCAPE ?',
                        (scheme + new, len(scheme + old) + 1, scheme + old, _like(scheme + old) + "/%", "!"),
                    )


def _columns(store: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for table, columns in _PLACES.items():
        there = {row[1] for row in store.execute(f'PRAGMA table_info("{table}")')}
        yield from ((table, column) for column in columns if column in there)


def _like(text: str) -> str:
    for sign in ("!", "%", "_"):
        text = text.replace(sign, f"!{sign}")
    return text
