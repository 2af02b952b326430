"""Whose database is at a store's address: checked before MLflow opens it.

MLflow creates its tables in whatever database it gets, so merely opening another program's database would damage it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.version import VERSION

from gemma_nli.base.advice import command_line, install_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.config import read_sqlite, sqlite_address

if TYPE_CHECKING:
    from gemma_nli.tracking.store.mlflow_store import Store

OURS = frozenset(
    {"experiments", "runs", "metrics", "params", "tags"}
)  # tables that MLflow has had since its first schema
LOCK_SECONDS = 5.0


def check_database(store: Store) -> bool:
    """Whether the store's database contains MLflow's tables; False if it is empty or does not exist yet.

    Raises:
        TrackingError: another program's database, not a database at all, another MLflow's, unfinished tables.
        sqlite3.Error, sqlalchemy.exc.SQLAlchemyError: it cannot be queried (unreachable, locked, no permission).
    """
    file = store.database
    if file is None:
        tables, revisions = _ask_server(store)
    elif file.is_dir():
        raise TrackingError(f"{store.shown}: is a folder; name a file in it: {_address(file / 'mlflow.db')}")
    elif not file.exists() or not file.stat().st_size:
        return False
    else:
        tables, revisions = _ask_file(store, file)
    if not tables:
        return False
    if not set(tables) >= OURS:
        what = ", ".join(sorted(set(tables) - {"alembic_version"})[:3])
        raise TrackingError(
            f"{store.shown}: is the database of another program (its tables: {what} ...), which MLflow would damage; "
            f"{_another(store)}"
        )
    _check_revision(store, revisions)
    return True


def _ask_file(store: Store, file: Path) -> tuple[list[str], list[str]]:
    """Names of the tables, and MLflow's schema revisions, read without writing a byte (see `read_sqlite`)."""
    with file.open("rb") as head:
        if head.read(16) != b"SQLite format 3\0":
            raise TrackingError(f"{store.shown}: is not a database but another kind of file; {_another(store)}")
    with closing(read_sqlite(file, LOCK_SECONDS)) as database:
        tables = [str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        asked = "SELECT version_num FROM alembic_version"
        revisions = [str(row[0]) for row in database.execute(asked)] if "alembic_version" in tables else []
    return [name for name in tables if not name.startswith("sqlite_")], revisions


def _ask_server(store: Store) -> tuple[list[str], list[str]]:
    engine = create_sqlalchemy_engine(store.uri)
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
        if "alembic_version" not in tables:
            return tables, []
        with engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
            return tables, [str(row[0]) for row in rows]
    finally:
        engine.dispose()


def _check_revision(store: Store, revisions: Sequence[str]) -> None:
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    if set(revisions) == set(scripts.get_heads()):
        return
    if not revisions:
        raise TrackingError(
            f"{store.shown}: its MLflow tables are incomplete (no schema version): a process was killed while "
            f"creating them, or MLflow is older than 1.0; {_another(store)}"
        )
    for revision in revisions:
        try:
            scripts.get_revision(revision)
        except CommandError:
            raise TrackingError(
                f"{store.shown}: was written by a newer MLflow than the {VERSION} installed here (schema {revision}): "
                f"{install_line('mlflow')} --upgrade, or {_another(store)}"
            ) from None
    backup = store.line("backup") if store.database else "pg_dump (or your database's own way)"
    raise TrackingError(
        f"{store.shown}: was written by an older MLflow (schema {', '.join(revisions)}). "
        "Back it up, then upgrade it:\n"
        f"  {backup}\n"
        f"  {command_line('mlflow', 'db', 'upgrade')} {store.argument}{store.remark}"
    )


def _another(store: Store) -> str:
    """Where a store can be instead: a new file, or a database of its own on the server."""
    if store.database is None:
        return "name an empty database of its own (--tracking-uri, mlflow.tracking_uri= or $MLFLOW_TRACKING_URI)."
    taken = store.database
    names = ("mlflow.db", *(f"mlflow-{number}.db" for number in range(2, 1000)))
    free = next(path for name in names if not (path := taken.with_name(name)).exists())
    return f"name another (--tracking-uri, mlflow.tracking_uri= or $MLFLOW_TRACKING_URI), as {_address(free)}"


def _address(path: Path) -> str:
    return shlex.quote(sqlite_address(path))
