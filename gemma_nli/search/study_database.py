"""Whether a study may be kept in its database: it must open, and Optuna cannot share one with a program that also keeps
its schema's version in `alembic_version`, such as MLflow."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from gemma_nli.base.errors import SweepError
from gemma_nli.base.masking import mask_address, mask_credentials
from gemma_nli.config import read_sqlite, same_database, sqlite_file

MLFLOW_TABLES = {"experiments", "experiment_tags", "latest_metrics"}
OPTUNA_TABLES = {"studies", "study_directions", "trial_params"}
_MEND = "name another database in search.storage, or leave it out: the study is then a file of its own"


def check_study_database(url: str, mlflow_uri: str | None, home: Path | None = None) -> None:
    """Refuses a database that does not open, and a study and an MLflow store in the same one, before either is written.

    Args:
        url: the study's, as `study_url` gives it.
        mlflow_uri: the resolved MLflow store, None where the sweep records none. A server cannot be compared by its
        address,
            but its tables in the study's database show it.
        home: the sweep's own folder, which is made when the sweep runs.
    Raises:
        SweepError: the study's database cannot be opened, the addresses name one database, or one of the two holds the
            other's tables.
    """
    shown = mask_address(url)
    if mlflow_uri is not None and same_database(url, mlflow_uri):
        raise SweepError(
            f"search.storage: {shown} is the database of mlflow.tracking_uri ({mask_address(mlflow_uri)}), and "
            f"Optuna's and MLflow's tables cannot share one; {_MEND}."
        )
    try:
        tables = _tables(url, home)
    except Exception as error:  # noqa: BLE001 - SQLAlchemy and each database driver have exceptions of their own
        raise not_opened(url, error) from None
    if tables & MLFLOW_TABLES:
        raise SweepError(f"search.storage: {shown} holds an MLflow store, which a study cannot share; {_MEND}.")
    if "alembic_version" in tables and not tables & OPTUNA_TABLES:
        raise SweepError(f"search.storage: {shown} is another program's database, which a study cannot share; {_MEND}.")
    is_database = mlflow_uri is not None and not mlflow_uri.startswith(("http:", "https:"))
    if mlflow_uri is not None and is_database and table_names(mlflow_uri) & OPTUNA_TABLES:
        raise SweepError(
            f"mlflow.tracking_uri: {mask_address(mlflow_uri)} holds Optuna studies, which an MLflow store cannot "
            "share; name another database, or leave it out."
        )


def not_opened(url: str, error: Exception) -> SweepError:
    """The error for a study's database that does not open."""
    cause = mask_credentials(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
    return SweepError(
        f"the Optuna study cannot be opened at {mask_address(url)}: {cause}; "
        "set search.storage to a database that answers (and whose driver is installed), or leave it out."
    )


def table_names(url: str) -> set[str]:
    """The tables of a database; none if there is no file yet, or if it does not answer: opening it reports that."""
    try:
        return _tables(url, None)
    except Exception:  # noqa: BLE001 - each database driver has exceptions of its own, one may not be installed
        return set()


def _tables(url: str, home: Path | None) -> set[str]:
    """Raises whatever keeps the database from being opened and written."""
    file = sqlite_file(url)
    if file is None:
        return set() if url.lower().startswith("sqlite") else _tables_of_server(url)
    if not os.path.lexists(file):
        if file.parent != home and not file.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {file.parent}")
        if file.parent.is_dir() and not os.access(file.parent, os.W_OK):
            raise PermissionError(f"{file.parent} cannot be written")
        return set()
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder")
    if not os.access(file, os.W_OK):
        raise PermissionError(f"{file} cannot be written")
    with closing(read_sqlite(file)) as database:
        return {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _tables_of_server(url: str) -> set[str]:
    import sqlalchemy

    limit = {"connect_timeout": 10} if url.startswith(("postgresql", "mysql")) else {}
    engine = sqlalchemy.create_engine(url, connect_args=limit, poolclass=sqlalchemy.pool.NullPool)
    return set(sqlalchemy.inspect(engine).get_table_names())
