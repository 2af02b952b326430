"""Which MLflow store we use, where its artifacts are, how long a call may take, and no password in any message."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.store.db.utils
import sqlalchemy.exc
from filelock import Timeout
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gemma_nli.base.advice import command_line, install_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.base.files import put_in_place
from gemma_nli.base.masking import mask_address
from gemma_nli.config import MlflowConfig, database_uri, home, quoted_path, sqlite_address, sqlite_file
from gemma_nli.tracking.archives.exchange import is_unsettled, settle_exchange, store_lock
from gemma_nli.tracking.store.database_owner import check_database
from gemma_nli.tracking.store.refusals import reason_of
from gemma_nli.tracking.store.uri_kinds import DATABASES, check_scheme, file_store_advice

# Read by MLflow at call time. A dead server costs seconds, not the four minutes of MLflow's seven retries; a user's own
# setting wins. Run URLs are not printed: they would contain the credentials of the tracking URI.
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
CONNECT_ATTEMPTS = 3  # of MLflow to a database; its own 10 take 100 seconds

_DATABASE_LOG = logging.getLogger("mlflow.store.db.utils")
DRIVERS = {
    "psycopg2": "gemma-nli[postgres]",
    "psycopg": "psycopg[binary]",
    "pg8000": "pg8000",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "mysql": "mysql-connector-python",
    "pyodbc": "pyodbc",
    "pymssql": "pymssql",
}
"""Module to package."""


ARTIFACT_URI = 200
"""Characters of a run's artifact URI in MLflow's tables: PostgreSQL refuses more."""


@dataclass(frozen=True)
class Store:
    """A resolved MLflow store."""

    uri: str  # as MLflow needs it, credentials included: never shown
    artifact_root: str | None  # for new experiments; None leaves it to the server
    asked_location: str | None  # the user's mlflow.artifact_location, unchanged

    @property
    def shown(self) -> str:
        return mask_address(self.uri)

    @property
    def is_server(self) -> bool:
        return urlsplit(self.uri).scheme in ("http", "https")

    @property
    def argument(self) -> str:
        """The address as a word of a shell line; one with a password comes from the environment."""
        return shlex.quote(self.uri) if self.shown == self.uri else '"$MLFLOW_TRACKING_URI"'

    @property
    def remark(self) -> str:
        """What a command for this store needs first, as a shell comment; empty if nothing."""
        if self.shown == self.uri or self._is_default:
            return ""
        return f"  # after: export MLFLOW_TRACKING_URI='{self.shown}', with the password in it"

    @property
    def _is_default(self) -> bool:
        """Whether a command without --tracking-uri would use this store."""
        try:
            return resolve_store(MlflowConfig()).uri == self.uri
        except TrackingError:
            return False

    def line(self, *words: object) -> str:
        """`gemma-nli words` for this store, as it works in a shell."""
        named = not self._is_default and self.shown == self.uri
        return command_line("gemma-nli", *words, *(("--tracking-uri", self.uri) if named else ())) + self.remark

    def mlflow_line(self, *words: object) -> str:
        """The same for MLflow's own command, whose default store is a file in the working folder."""
        named = f"MLFLOW_TRACKING_URI={self.argument} " if self.shown == self.uri else ""
        return f"{named}{command_line('mlflow', *words)}{self.remark}"

    @property
    def database(self) -> Path | None:
        """The file of a SQLite store."""
        return sqlite_file(self.uri)

    def location(self, experiment: str) -> str | None:
        """Where a new experiment's artifacts go: the user's place, else a folder of its own under our root."""
        if self.asked_location or self.artifact_root is None:
            return self.asked_location
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", experiment).strip(".") or "experiment"
        room = min(ARTIFACT_URI - len(f"{self.artifact_root}//{32 * '0'}/artifacts"), 128)
        if room < len(folder):
            if room < 16:
                raise TrackingError(
                    f"{self.artifact_root}: the path is too long for MLflow, which allows {ARTIFACT_URI} characters "
                    "for a run's artifact address; set $GEMMA_NLI_HOME or mlflow.artifact_location to a shorter one."
                )
            folder = f"{folder[: room - 9]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"
        return f"{self.artifact_root}/{folder}"


def resolve_store(config: MlflowConfig) -> Store:
    """The store of the settings, else of $MLFLOW_TRACKING_URI, else SQLite under our home: the same from any folder.

    Raises:
        TrackingError: a file store, which MLflow refuses, or a database that lives in memory only.
    """
    default = sqlite_address(home() / "mlflow" / "mlflow.db")
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    scheme = uri.partition(":")[0].partition("+")[0].lower() if ":" in uri else ""
    check_scheme(scheme)
    if scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise TrackingError(file_store_advice(uri))
    if scheme == "sqlite":
        file = sqlite_file(uri)
        if file is None:
            raise TrackingError("mlflow.tracking_uri: a SQLite store needs a file: sqlite:///path/to/mlflow.db.")
        uri = database_uri(uri)
        root: str | None = quoted_path(file.parent / "artifacts")
    else:
        uri = database_uri(uri)
        root = quoted_path(home() / "mlflow" / "artifacts") if scheme in DATABASES else None
    return Store(uri, root, config.artifact_location)


def connect(store: Store) -> MlflowClient:
    """A client whose store exists; call it within `talking`.

    A new SQLite store is created under a lock, since two processes that create its tables at once corrupt it, and under
    a temporary name: MLflow creates tables step by step, and if killed in between would leave what it cannot open
    again.

    Raises:
        TrackingError: another program's database, another MLflow's, or not a database; nothing is then written to it.
    """
    with _opening(store):
        if store.is_server or check_database(store):
            return _client(store)
        database = store.database
        if database is None:
            return _client(store)
        database.parent.mkdir(parents=True, exist_ok=True)
        with store_lock(database):
            settle_exchange(database)
            if not check_database(store):
                _make(database)
        return _client(store)


@contextmanager
def _opening(store: Store) -> Iterator[None]:
    database = store.database
    try:
        if database is not None and is_unsettled(database):
            with store_lock(database):
                settle_exchange(database)
        yield
    except (OSError, sqlite3.Error, Timeout) as error:
        if store.is_server:
            raise
        raise TrackingError(f"{store.shown}: the MLflow store cannot be opened: {reason_of(store, error)}") from None


def _make(database: Path) -> None:
    """MLflow's tables in a file of their own, which replaces the empty one once it is complete."""
    fresh = database.with_name(f".{database.name}.new")
    for left in database.parent.glob(f"{fresh.name}*"):  # of a process that was killed
        left.unlink()
    _client(Store(sqlite_address(fresh), None, None))
    put_in_place(fresh, database)


def connect_existing(store: Store) -> MlflowClient:
    """A client of an existing store: asking must not create one. Call it within `talking`."""
    with _opening(store):
        if store.is_server or check_database(store):
            return _client(store)
    raise TrackingError(f"{store.shown}: there is no MLflow store yet; run a sweep, or name another tracking URI.")


def deleted_experiment(store: Store, experiment: Experiment) -> TrackingError:
    """The error for an experiment in MLflow's trash."""
    line = store.mlflow_line("experiments", "restore", "--experiment-id", experiment.experiment_id)
    return TrackingError(
        f"{store.shown}: experiment '{experiment.name}' was deleted; use another name, or restore it with:\n  {line}"
    )


def _client(store: Store) -> MlflowClient:
    client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
    if not store.is_server:
        client.search_experiments(max_results=1)  # creates the tables
    return client


class _Bounds:
    """How many callers hold the limits now, and which variables they set."""

    lock = threading.Lock()
    held = 0
    ours: tuple[str, ...] = ()
    attempts = 0
    level = logging.NOTSET


@contextmanager
def bounded(artifact_root: str | None = None, seconds: int | None = None) -> Iterator[None]:
    """Limits the time of every MLflow call inside; can be nested, and threads share it, since the environment is
    shared.

    Args:
        seconds: how long a server may take to answer, if the usual 10 are too few; the outermost caller decides.
    """
    wanted = BOUNDS | ({"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)} if seconds else {})
    if artifact_root is not None:
        wanted["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifact_root  # where experiment "Default" of a new database goes
    with _Bounds.lock:
        if _Bounds.held == 0:
            _Bounds.ours = tuple(name for name in wanted if name not in os.environ)
            _Bounds.attempts = mlflow.store.db.utils.MAX_RETRY_COUNT
            _Bounds.level = _DATABASE_LOG.level
            _DATABASE_LOG.setLevel(
                logging.CRITICAL
            )  # it logs each refusal with its stack; we report it in one sentence
            os.environ.update({name: wanted[name] for name in _Bounds.ours})
            mlflow.store.db.utils.MAX_RETRY_COUNT = CONNECT_ATTEMPTS
        _Bounds.held += 1
    try:
        yield
    finally:
        with _Bounds.lock:
            _Bounds.held -= 1
            if _Bounds.held == 0:
                mlflow.store.db.utils.MAX_RETRY_COUNT = _Bounds.attempts
                _DATABASE_LOG.setLevel(_Bounds.level)
                for name in _Bounds.ours:
                    os.environ.pop(name, None)


@contextmanager
def talking(store: Store, doing: str, seconds: int | None = None) -> Iterator[None]:
    """Limits the calls' time and turns what MLflow, a database or the network raises into a TrackingError.

    The cause is cut off: its text and its traceback would show the tracking URI with its password.
    """
    try:
        with bounded(store.artifact_root, seconds):
            yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, Timeout) as error:
        raise TrackingError(f"{store.shown}: cannot {doing}: {reason_of(store, error)}") from None
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in DRIVERS:
            raise
        package = DRIVERS[name]
        raise TrackingError(f"{store.shown}: needs the database driver {error.name}: {install_line(package)}") from None
