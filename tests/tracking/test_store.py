from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import BOUNDS, Store, bounded, resolve_store
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep, a_trial


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working directory that must stay empty."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def test_the_default_store_is_one_folder_wherever_the_command_was_started(elsewhere, tmp_path):
    tracker = MlflowTracker(MlflowConfig(), "a name/with ../ slashes")
    tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial())
    store = tmp_path / "home" / "mlflow"
    assert (store / "mlflow.db").is_file()
    assert len(list((store / "artifacts").rglob("config.yaml"))) == 1
    assert list(elsewhere.iterdir()) == []
    with sqlite3.connect(store / "mlflow.db") as database:
        places = [place for (place,) in database.execute("select artifact_location from experiments")]
    assert all(place.startswith(str(store / "artifacts")) for place in places), places


def test_a_sqlite_path_of_the_users_has_its_artifacts_beside_it(elsewhere, sqlite_uri, tmp_path):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "mine")
    tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial())
    assert len(list((tmp_path / "store" / "artifacts" / "mine").rglob("config.yaml"))) == 1
    assert list(elsewhere.iterdir()) == []


def test_a_relative_sqlite_path_stays_where_it_was_named(elsewhere, monkeypatch, tmp_path):
    store = resolve_store(MlflowConfig(tracking_uri="sqlite:///runs.db"))
    assert store.database == elsewhere / "runs.db"


def test_the_environments_uri_is_taken_when_the_setting_is_unset(elsewhere, monkeypatch, sqlite_uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    assert resolve_store(MlflowConfig()).uri == sqlite_uri
    assert resolve_store(MlflowConfig(tracking_uri="http://127.0.0.1:1")).uri == "http://127.0.0.1:1"


def test_the_users_artifact_location_is_taken_as_it_is(sqlite_uri, tmp_path):
    place = tmp_path / "big disk"
    config = MlflowConfig(tracking_uri=sqlite_uri, artifact_location=str(place))
    tracker = MlflowTracker(config, "mine")
    tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial())
    assert len(list(place.rglob("config.yaml"))) == 1


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:"])
def test_a_store_that_cannot_work_is_refused_with_a_way_out(uri):
    with pytest.raises(TrackingError, match="sqlite:///path/to"):
        resolve_store(MlflowConfig(tracking_uri=uri))


def test_a_store_in_an_impossible_place_is_refused_at_once(tmp_path, slept):
    (tmp_path / "file").write_text("")
    tracker = MlflowTracker(MlflowConfig(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db"), "x")
    with pytest.raises(TrackingError, match="cannot be opened"):
        tracker.sweep_run(a_sweep())
    assert sum(slept) < 1


@pytest.mark.parametrize("room", [100, 20])
def test_a_long_experiments_artifacts_fit_mlflows_tables_and_its_neighbours_are_elsewhere(room):
    root = "/" + "r" * (199 - 43 - room)
    store = Store("postgresql://x", root, None)
    names = [f"{'long' * 40}{number}" for number in range(2)]
    places = {str(store.location(name)) for name in names}
    assert len(places) == 2
    assert {len(f"{place}/{'0' * 32}/artifacts") for place in places} <= {199, 200}
    assert store.location("short") == f"{root}/short"


def test_a_root_that_leaves_no_room_for_a_run_is_refused():
    with pytest.raises(TrackingError, match=r"set \$GEMMA_NLI_HOME or mlflow.artifact_location to a shorter one"):
        Store("postgresql://x", "/" + "r" * 150, None).location("experiment")


_KILLED_BETWEEN_TABLES = """
import os, signal, sys
import mlflow.store.db.utils as utils
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.write.tracker import MlflowTracker

create = utils.InitialBase.metadata.create_all
def some_and_die(engine):
    create(engine, tables=list(utils.InitialBase.metadata.tables.values())[:3])
    os.kill(os.getpid(), signal.SIGKILL)
utils.InitialBase.metadata.create_all = some_and_die
MlflowTracker(MlflowConfig(tracking_uri=sys.argv[1]), "killed").experiment_id
"""


def test_a_process_killed_while_the_tables_are_made_leaves_a_store_that_opens(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    killed = subprocess.run([sys.executable, "-c", _KILLED_BETWEEN_TABLES, uri], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / ".mlflow.db.new").stat().st_size > 0, "it died with some tables made"
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "killed")
    assert tracker.experiment_id
    assert not (tmp_path / ".mlflow.db.new").exists()


def test_a_broken_database_is_refused_at_once(tmp_path, slept):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match="not a database"):
        MlflowTracker(MlflowConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"), "x").sweep_run(a_sweep())
    assert sum(slept) < 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:canary@db:5432/x", "postgresql://***@db:5432/x"),
        ("postgresql+psycopg2://me:can@ary@db/x", "postgresql+psycopg2://***@db/x"),
        ("https://me:can/ary@host/path", "https://***@host/path"),
        ("https://canary@host/path", "https://***@host/path"),
        ("a https://u:canary@h and http://v:canary@i/ b", "a https://***@h and http://***@i/ b"),
        ("https://host/x?token=canary&a=1", "https://host/x?token=***&a=1"),
        ("mysql://me:canary%40@h/x", "mysql://***@h/x"),
        ("mysql://me:it's-canary@h/x", "mysql://***@h/x"),
        ("mssql+pyodbc:///?odbc_connect=UID=sa;PWD=canary;x=1", "mssql+pyodbc:///?odbc_connect=UID=sa;PWD=***;x=1"),
        ("mssql:///?odbc_connect=UID%3Dsa%3BPWD%3Dcanary%3Bx", "mssql:///?odbc_connect=UID%3Dsa%3BPWD%3D***%3Bx"),
        ("http://host:8080/path@version", "http://host:8080/path@version"),
        ("sqlite:////data/me@home/mlflow.db", "sqlite:////data/me@home/mlflow.db"),
        ("nobody@example.org: nothing to mask", "nobody@example.org: nothing to mask"),
    ],
)
def test_credentials_in_a_uri_are_masked(text, shown):
    assert mask_credentials(text) == shown


def test_bounds_hold_inside_nested_and_threaded_calls_and_leave_no_trace(monkeypatch):
    for name in BOUNDS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with bounded():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with bounded():
        thread.start()
        inside.wait(5)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 77
    leave.set()
    thread.join()
    assert dict(os.environ) == before


def test_postgresql_without_a_driver_takes_the_one_of_our_extra():
    store = resolve_store(MlflowConfig(tracking_uri="postgresql://ann:secret@host/db"))
    assert store.uri == "postgresql+psycopg2://ann:secret@host/db"
    assert store.shown == "postgresql+psycopg2://***@host/db"
    asked = resolve_store(MlflowConfig(tracking_uri="postgresql+pg8000://host/db"))
    assert asked.uri == "postgresql+pg8000://host/db"
