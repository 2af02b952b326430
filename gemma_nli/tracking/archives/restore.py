"""An archive restored as a store: into the database's folder and nowhere else, completely or not at all."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig, read_sqlite
from gemma_nli.tracking.archives.archive import DATABASE, Manifest, Unpacked, unpack, unsafe_text
from gemma_nli.tracking.archives.archived_database import addresses, check_database, is_other_program, move_addresses
from gemma_nli.tracking.archives.exchange import (
    Moves,
    exchange,
    is_unsettled,
    settle_exchange,
    store_lock,
    working_folder,
)
from gemma_nli.tracking.store.artifact_uris import local_folder
from gemma_nli.tracking.store.mlflow_store import Store, resolve_store


@dataclass(frozen=True)
class Restored:
    """Where the store is now, what was moved aside for it, and what its backup had left out."""

    database: Path
    moved_aside: tuple[Path, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def restore(source: Path, tracking_uri: str | None = None, replace: bool = False) -> Path:
    """`restore_archive`, giving the database's path alone."""
    return restore_archive(source, tracking_uri, replace).database


def restore_archive(source: Path, tracking_uri: str | None = None, replace: bool = False) -> Restored:
    """Restore an archive; an existing store stays in its place until the new one is complete.

    Artifacts go into the database's folder, wherever the archive says they were, and their addresses are rewritten.
    A process that has the store open continues with the file moved aside: stop servers and notebooks first.

    Args:
        tracking_uri: where to, by default the default store.
        replace: replace an existing store, which is moved aside, not deleted.
    Raises:
        TrackingError: not one of our archives, a damaged or unsafe one, no space, or a store that already exists.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    database = store.database
    if database is None:
        raise TrackingError(
            f"{store.shown}: a backup is restored to a SQLite store; name one: sqlite:///path/to/mlflow.db."
        )
    try:
        if is_unsettled(database):
            with store_lock(database):
                settle_exchange(database)
        if database.exists() and not replace:
            raise _taken(database)
        if is_other_program(database):
            raise TrackingError(f"{database}: is not an MLflow store but another program's database; name another.")
        with working_folder(database) as work:
            unpacked = unpack(source, work)
            return _put(source, store, database, work, unpacked, replace)
    except OSError as error:
        why = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        raise TrackingError(f"{source}: cannot be restored to {database.parent}: {why}; nothing was changed.") from None


def _put(source: Path, store: Store, database: Path, work: Path, unpacked: Unpacked, replace: bool) -> Restored:
    manifest, ready = unpacked.manifest, work / "store"
    ready.mkdir()
    unpacked.place(ready)
    folders_of = _homes(manifest, database, _own_roots(store, database))
    try:
        check_database(ready / DATABASE)
        move_addresses(ready / DATABASE, {Path(root): folders_of[n] for n, root in enumerate(manifest.roots)})
    except (TrackingError, sqlite3.Error) as error:
        raise TrackingError(f"{source}: {error}; nothing was restored.") from None
    taken = [path for path in (database, *folders_of) if _is_in_the_way(path)]
    if taken and not replace:
        raise _taken(taken[0])
    aside = f".before-restore-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    away: Moves = [(path, path.with_name(path.name + aside)) for path in taken]
    for suffix in ("-wal", "-shm", "-journal"):  # of the database moved aside: they would damage another
        if os.path.lexists(f"{database}{suffix}"):
            away.append((Path(f"{database}{suffix}"), Path(f"{database}{aside}{suffix}")))
    into: Moves = []
    for number, home in enumerate(folders_of):
        if not home.is_relative_to(database.parent):
            continue  # nothing was packed of it
        packed = ready / "artifacts" / str(number)
        packed.mkdir(parents=True, exist_ok=True)  # a root without files
        into.append((packed, home))
    exchange(database, work, away, [*into, (ready / DATABASE, database)])
    left_out = {name: f"{part.files} files, {part.megabytes:.1f} MB" for name, part in manifest.left_out.items()}
    return Restored(database, tuple(target for path, target in away if path in taken), left_out)


def _is_in_the_way(path: Path) -> bool:
    return os.path.lexists(path) and (not path.is_dir() or path.is_symlink() or any(path.iterdir()))


def _taken(path: Path) -> TrackingError:
    return TrackingError(
        f"{path}: already exists; --replace moves it aside, or name another --tracking-uri sqlite:///..."
    )


def _own_roots(store: Store, database: Path) -> set[Path]:
    """Folders of the existing store, which a restore may move aside with it."""
    found = {folder} if (folder := local_folder(store.artifact_root or "")) is not None else set()
    if database.is_file():
        try:
            with closing(read_sqlite(database)) as there:
                for table, _, _, address in addresses(there):
                    if table == "experiments" and (place := local_folder(str(address))) is not None:
                        found.add(place)
        except sqlite3.Error:
            return found  # a damaged database is replaced as well
    return found


def _homes(manifest: Manifest, database: Path, own: set[Path]) -> list[Path]:
    """Where each artifact root goes: below the database's folder, in the same place below it as it was, or beside it.

    A place that is taken is taken over only where it is the replaced store's own.
    """
    folder, old = database.parent, Path(manifest.database).parent
    folders_of: list[Path] = []
    filled = {name.split("/")[1] for name in manifest.sha256 if name != DATABASE}
    for number, root in enumerate(map(Path, manifest.roots)):
        hidden = any(part.startswith(".") for part in root.parts)
        if Path(manifest.database) == database and str(number) not in filled and not (hidden or os.path.lexists(root)):
            folders_of.append(root)  # an experiment without files, in its old place: nothing there can be damaged
            continue
        wanted = folder / root.relative_to(old) if root.is_relative_to(old) and root != old else None
        if wanted is None or not _is_free(wanted, folder, database, own, folders_of):
            names = (f"artifacts-{n}" for n in range(number, 10**6))
            wanted = next(p for name in names if _is_free(p := folder / name, folder, database, own, folders_of))
        folders_of.append(wanted)
    return folders_of


def _is_free(path: Path, folder: Path, database: Path, own: set[Path], folders_of: list[Path]) -> bool:
    parts = path.relative_to(folder).parts
    if any(part.startswith((".", database.name)) or unsafe_text(part) for part in parts):
        return False
    if any(path.is_relative_to(home) or home.is_relative_to(path) for home in folders_of):
        return False
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        return False  # a link on the way leads out
    return path in own or not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))
