"""Which MLflow store we talk to, where its artifacts lie, how long a call may take, and no password in any message."""

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
from urllib.parse import unquote, urlsplit

import mlflow.store.db.utils
import sqlalchemy.exc
from filelock import FileLock, Timeout
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gemma_nli.config import MlflowConfig, database_uri, home
from gemma_nli.errors import TrackingError
from gemma_nli.masking import mask_address, mask_credentials

# Read by MLflow at call time. A dead server costs seconds, not the four minutes of MLflow's seven retries; a user's own
# setting wins. Run URLs stay unprinted: they would carry the credentials of the tracking URI.
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
CONNECT_ATTEMPTS = 3  # of MLflow to a database; its own 10 take 100 seconds

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


ARTIFACT_URI = 200
"""Characters of a run's artifact URI in MLflow's tables: PostgreSQL refuses more."""


@dataclass(frozen=True)
class Store:
    """A resolved MLflow store."""

    uri: str  # as MLflow wants it, credentials included: never shown
    artifact_root: str | None  # for new experiments; None leaves it to the server
    asked_location: str | None  # the user's mlflow.artifact_location, taken as it is

    @property
    def shown(self) -> str:
        return mask_address(self.uri)

    @property
    def is_server(self) -> bool:
        return urlsplit(self.uri).scheme in ("http", "https")

    @property
    def database(self) -> Path | None:
        """The file of a SQLite store."""
        scheme, _, path = self.uri.partition(":///")
        return Path(unquote(path.partition("?")[0])) if scheme.startswith("sqlite") else None

    def location(self, experiment: str) -> str | None:
        """Where a new experiment's artifacts go: the user's place, else a folder of its own under our root."""
        if self.asked_location or self.artifact_root is None:
            return self.asked_location
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", experiment).strip(".") or "experiment"
        room = min(ARTIFACT_URI - len(f"{self.artifact_root}//{32 * '0'}/artifacts"), 128)
        if room < len(folder):
            if room < 16:
                raise TrackingError(
                    f"{self.artifact_root}: too long a path for MLflow, whose runs have {ARTIFACT_URI} characters for "
                    "their artifacts' place; set $GEMMA_NLI_HOME or mlflow.artifact_location to a shorter one."
                )
            folder = f"{folder[: room - 9]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"
        return f"{self.artifact_root}/{folder}"


def resolve_store(config: MlflowConfig) -> Store:
    """The store of the settings, else of $MLFLOW_TRACKING_URI, else SQLite under our home: the same from any folder.

    Raises:
        TrackingError: a file store, which MLflow refuses, or a database that lives in memory only.
    """
    default = f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri else ""
    if scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise TrackingError(_file_store(uri))
    if scheme == "sqlite":
        driver, separator, path = uri.partition(":///")
        if not separator or not path or path.startswith((":memory:", "?")):
            raise TrackingError("mlflow.tracking_uri: a SQLite store needs a file: sqlite:///path/to/mlflow.db.")
        file = Path(path.partition("?")[0]).expanduser().absolute()
        uri = f"{driver}:///{file}{path[len(path.partition('?')[0]) :]}"
        root: str | None = str(file.parent / "artifacts")
    else:
        uri = database_uri(uri)
        root = str(home() / "mlflow" / "artifacts") if scheme in _DATABASES else None
    return Store(uri, root, config.artifact_location)


def _file_store(uri: str) -> str:
    """What to do about a `./mlruns`: two lines that keep its runs, where it has any."""
    told = f"mlflow.tracking_uri: '{mask_address(uri)}' is a file store, which MLflow no longer takes; "
    folder = Path(unquote(uri.removeprefix("file://").removeprefix("file:"))).expanduser().absolute()
    if not folder.is_dir():
        return told + "write sqlite:///path/to/mlflow.db, the address of a server, or leave it out."
    names = ("mlflow.db", *(f"mlflow-migrated{n or ''}.db" for n in range(100)))
    target = next(path for name in names if not (path := folder.parent / name).exists())
    return (
        f"{told}to keep its runs (its artifacts stay where they are):\n"
        f"  mlflow migrate-filestore --source {shlex.quote(str(folder))} --target sqlite:///{shlex.quote(str(target))}\n"
        f"  export MLFLOW_TRACKING_URI=sqlite:///{shlex.quote(str(target))}"
    )


def connect(store: Store) -> MlflowClient:
    """A client whose store exists; call it within `bounded()`.

    A fresh SQLite store is made under a lock, since two processes that create its tables at once spoil it, and beside
    its place: MLflow makes tables step by step, and one killed in between would leave what it cannot open again.
    """
    database = store.database
    if database is None:
        return _client(store)
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock", timeout=60):
            sqlite3.connect(database).close()  # says at once what MLflow would try for 100 seconds
            if not database.stat().st_size:
                _make(database)
            return _client(store)
    except (OSError, sqlite3.Error, Timeout) as error:
        why = mask_credentials(str(error))
        raise TrackingError(f"{store.shown}: the MLflow store cannot be opened: {why}.") from None


def _make(database: Path) -> None:
    """MLflow's tables in a file of their own, which takes the empty one's place once it is whole."""
    fresh = database.with_name(f".{database.name}.new")
    for left in database.parent.glob(f"{fresh.name}*"):  # of a process that was killed
        left.unlink()
    _client(Store(f"sqlite:///{fresh}", None, None))
    os.replace(fresh, database)


def connect_existing(store: Store) -> MlflowClient:
    """A client of a store that is there: asking must not create one. Call it within `talking`."""
    database = store.database
    if database is not None and not database.is_file():
        raise TrackingError(f"{store.shown}: no MLflow store there yet; run a sweep, or name another tracking URI.")
    return connect(store)


def get_run(client: MlflowClient, store: Store, run_id: str) -> Run:
    """The run, or a TrackingError that says how to find its id."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise TrackingError(f"{store.shown}: no run '{run_id}'; `gemma-nli runs` lists them.") from None


def _client(store: Store) -> MlflowClient:
    client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
    if not store.is_server:
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial tables"
        client.search_experiments(max_results=1)  # creates the tables
    return client


class _Bounds:
    """How many callers hold the bounds now, and which variables they set."""

    lock = threading.Lock()
    held = 0
    ours: tuple[str, ...] = ()
    attempts = 0


@contextmanager
def bounded(artifact_root: str | None = None, seconds: int | None = None) -> Iterator[None]:
    """Bounds every MLflow call inside; nests, and threads share it, since the environment is everyone's.

    Args:
        seconds: how long a server may take to answer, where the usual 10 are too few; the outermost caller decides.
    """
    wanted = BOUNDS | ({"MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)} if seconds else {})
    if artifact_root is not None:
        wanted["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifact_root  # where experiment "Default" of a new database goes
    with _Bounds.lock:
        if _Bounds.held == 0:
            _Bounds.ours = tuple(name for name in wanted if name not in os.environ)
            _Bounds.attempts = mlflow.store.db.utils.MAX_RETRY_COUNT
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
                for name in _Bounds.ours:
                    os.environ.pop(name, None)


@contextmanager
def talking(store: Store, doing: str, seconds: int | None = None) -> Iterator[None]:
    """Bounds the calls inside and turns what MLflow, a database or the network raises into a TrackingError.

    The cause is cut off: its text and its traceback would show the tracking URI with its password.
    """
    try:
        with bounded(store.artifact_root, seconds):
            yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        why = " ".join(mask_credentials(str(error)).partition("[SQL:")[0].split())  # the statement holds our values
        raise TrackingError(f"{store.shown}: cannot {doing}: {_mended(store, why)}") from None
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("psycopg2", "psycopg", "pymysql", "MySQLdb"):
            raise
        raise TrackingError(
            f"{store.shown}: needs the database driver {error.name}: pip install 'gemma-nli[postgres]' for PostgreSQL."
        ) from None


def _mended(store: Store, why: str) -> str:
    """The reason, and where it is a known one what to do about it instead of MLflow's own wording."""
    if store.is_server and any(sign in why for sign in ("Max retries exceeded", "Connection refused", "timed out")):
        return (
            f"the server does not answer ({why[-120:]}). Start it, name another with mlflow.tracking_uri= (or "
            "--tracking-uri, or $MLFLOW_TRACKING_URI), or train without it: mlflow.enabled=false."
        )
    if store.is_server and "404" in why and ("registered-models" in why or "model-versions" in why):
        return "the server has no model registry; MLflow's own server has one where its store is a database."
    return why[:500]
