"""Whether a study may live in its database: Optuna and MLflow cannot share one, each keeps `alembic_version` there."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from gemma_nli.config import same_database, sqlite_file
from gemma_nli.errors import SweepError
from gemma_nli.masking import mask_address

MLFLOW_TABLES = {"experiments", "experiment_tags", "latest_metrics"}
OPTUNA_TABLES = {"studies", "study_directions", "trial_params"}
_MEND = "name another database in search.storage, or leave it out: the study is then a file of its own"


def check_study_database(url: str, mlflow_uri: str | None) -> None:
    """Refuses a study and an MLflow store in one database, before either is written.

    Args:
        url: the study's, as `study_url` gives it.
        mlflow_uri: the resolved MLflow store, None where the sweep records none. A server cannot be compared by its
            address; its tables in the study's database tell.
    Raises:
        SweepError: the addresses name one database, or one of the two holds the other's tables.
    """
    shown = mask_address(url)
    if mlflow_uri is not None and same_database(url, mlflow_uri):
        raise SweepError(
            f"search.storage: {shown} is the database of mlflow.tracking_uri ({mask_address(mlflow_uri)}), and "
            f"Optuna's and MLflow's tables cannot share one; {_MEND}."
        )
    if table_names(url) & MLFLOW_TABLES:
        raise SweepError(f"search.storage: {shown} holds an MLflow store, which a study cannot share; {_MEND}.")
    is_database = mlflow_uri is not None and not mlflow_uri.startswith(("http:", "https:"))
    if mlflow_uri is not None and is_database and table_names(mlflow_uri) & OPTUNA_TABLES:
        raise SweepError(
            f"mlflow.tracking_uri: {mask_address(mlflow_uri)} holds Optuna studies, which an MLflow store cannot "
            "share; name another database, or leave it out."
        )


def table_names(url: str) -> set[str]:
    """The tables of a database; none where there is no file yet, or where it does not answer: who opens it says so."""
    file = sqlite_file(url)
    if file is None:
        return set() if url.lower().startswith("sqlite") else _tables_of_server(url)
    if not file.is_file():
        return set()
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            return {str(row[0]) for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return set()


def _tables_of_server(url: str) -> set[str]:
    import sqlalchemy

    try:
        limit = {"connect_timeout": 10} if url.startswith(("postgresql", "mysql")) else {}
        engine = sqlalchemy.create_engine(url, connect_args=limit, poolclass=sqlalchemy.pool.NullPool)
        return set(sqlalchemy.inspect(engine).get_table_names())
    except Exception:  # noqa: BLE001 - each database driver has exceptions of its own, one may not be installed
        return set()
