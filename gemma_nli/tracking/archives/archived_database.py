"""The database from an archive: whether it is MLflow's and intact, and its artifact addresses at a new place."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import read_sqlite
from gemma_nli.tracking.archives.archive import shown
from gemma_nli.tracking.store.artifact_uris import folder_address, is_elsewhere, local_folder

# (table, column, which rows): addresses of artifacts, where MLflow reads, writes and deletes.
PLACES = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("logged_models", "artifact_location", ""),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)
_NEEDED = {"alembic_version", "experiments", "runs", "metrics", "params", "tags"}
_HARMLESS_TRIGGER = re.compile(r"\bBEGIN\s+SELECT\s+RAISE\s*\([^();]*(\([^();]*\)[^();]*)*\)\s*;\s*END\s*;?\s*$", re.I)


def check_database(path: Path) -> None:
    """Raises TrackingError unless it is a whole SQLite database of MLflow's, of this version's schema or an older one.

    What acts by itself is refused: a trigger could change addresses later, after they were looked at.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(16) != b"SQLite format 3\0":
                raise TrackingError("its database is not SQLite's")
        with closing(sqlite3.connect(path)) as database:
            (sound,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise TrackingError("its database is damaged")
            rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
            tables = {str(name) for kind, name, _, _ in rows if kind == "table"}
            if not tables >= _NEEDED:
                raise TrackingError("its database is not MLflow's")
            for kind, name, table, sql in rows:
                if kind == "view" or (kind == "trigger" and not _is_harmless(str(table), str(sql))):
                    raise TrackingError(f"its database contains a {kind} that is not MLflow's: {shown(str(name))}")
            revisions = [str(row[0]) for row in database.execute("SELECT version_num FROM alembic_version")]
            for revision in revisions:
                if revision not in known_revisions():
                    raise TrackingError(
                        f"its database is from a newer MLflow than this one (schema {shown(revision)}); upgrade mlflow"
                    )
    except (sqlite3.Error, OSError, TypeError) as error:
        raise TrackingError(f"its database cannot be read: {error}") from None


def _is_harmless(table: str, sql: str) -> bool:
    """MLflow's own one protects two columns of `secrets` from changes, and can only refuse."""
    return table == "secrets" and _HARMLESS_TRIGGER.search(sql) is not None


def is_other_program(path: Path) -> bool:
    """Whether there is an intact SQLite database with tables but none of MLflow's, such as an Optuna study."""
    if not path.is_file():
        return False
    try:
        with closing(read_sqlite(path)) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:
        return False
    return bool(rows) and not {str(row[0]) for row in rows} & {"experiments", "runs"}


def known_revisions() -> set[str]:
    """Every schema that this MLflow knows."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    return {revision.revision for revision in script.walk_revisions()}


def addresses(database: sqlite3.Connection) -> Iterator[tuple[str, str, str, object]]:
    """(table, column, condition, address) of each distinct artifact address."""
    for table, column, rows in PLACES:
        there = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
        if column in there:
            where = f"WHERE {rows}" if rows else ""
            found = database.execute(f'SELECT DISTINCT "{column}" FROM "{table}" {where}').fetchall()  # noqa: S608
            yield from ((table, column, rows, row[0]) for row in found if row[0] not in (None, ""))


def move_addresses(path: Path, folders_of: Mapping[Path, Path]) -> None:
    """Rewrite each artifact address from the folders they were backed up from to those they are restored to.

    Raises:
        TrackingError: a row names a place on this machine that is in none of them: MLflow would read, write and delete
            there.
    """
    with closing(sqlite3.connect(path)) as database, database:
        for table, column, rows, address in list(addresses(database)):
            moved = _moved(address, folders_of)
            if moved is None:
                raise TrackingError(
                    f"its database names artifacts outside the archive: {shown(str(address))} in {table}.{column}"
                )
            if moved != address:
                also = f" AND {rows}" if rows else ""
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?{also}',  # noqa: S608 - names of ours
                    (moved, address),
                )


def _moved(address: object, folders_of: Mapping[Path, Path]) -> str | None:
    if not isinstance(address, str) or "\0" in address:
        return None
    folder = local_folder(address)
    if folder is None:
        return address if is_elsewhere(address) else None
    folder = Path(os.path.normpath(folder))
    for old, new in folders_of.items():
        if folder.is_relative_to(old):
            return (
                address
                if old == new and folder == local_folder(address)
                else folder_address(new / folder.relative_to(old), like=address)
            )
    return None
