"""Databases that are not MLflow's, or another MLflow's, or cannot be used now: one sentence each, nothing written."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.archives.backup import backup
from gemma_nli.tracking.archives.restore import restore
from gemma_nli.tracking.read.frames import list_runs
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_sweep

NEWER, OLDER = "ffffffffffff", "181f10493468"
"""Schema versions: of no MLflow yet, and of MLflow 1.0's neighbourhood."""


def write_to(uri: str) -> None:
    MlflowTracker(MlflowConfig(tracking_uri=uri), "x").sweep_run(a_sweep())


def read_from(uri: str) -> None:
    list_runs(tracking_uri=uri)


def sentence_of(act, uri: str) -> str:
    with pytest.raises(TrackingError) as caught:
        act(uri)
    reported = str(caught.value)
    assert "Traceback" not in reported
    assert "alembic" not in reported
    assert "OperationalError" not in reported
    assert len(reported.splitlines()) <= 3, reported
    return reported


def content(file: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in file.parent.iterdir() if path.is_file()}


@pytest.mark.parametrize("act", [write_to, read_from])
@pytest.mark.parametrize(
    "tables",
    [
        "CREATE TABLE people (name TEXT)",
        "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('v3.2.0.a');"
        "CREATE TABLE studies (study_id INTEGER)",  # Optuna's
        "CREATE TABLE experiments (id INTEGER); CREATE TABLE runs (id INTEGER)",  # names that MLflow has, too
    ],
)
def test_another_programs_database_is_refused_and_stays_as_it_was(act, tables, tmp_path):
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(tables)
    before = content(file)
    reported = sentence_of(act, f"sqlite:///{file}")
    assert "is the database of another program" in reported
    assert content(file) == before
    write_to(reported.rsplit(" ", 1)[-1])  # the address that is proposed works


@pytest.mark.parametrize("act", [write_to, read_from])
@pytest.mark.parametrize(("kind", "reported"), [("file", "is not a database"), ("folder", "is a folder")])
def test_no_database_at_all_is_refused_with_an_address_that_works(act, kind, reported, tmp_path):
    file = tmp_path / "mlflow.db"
    file.mkdir() if kind == "folder" else file.write_bytes(b"\x89PNG a picture" * 100)
    sentence = sentence_of(act, f"sqlite:///{file}")
    assert reported in sentence
    write_to(sentence.rsplit(" ", 1)[-1])


def test_asking_an_empty_file_makes_no_store_of_it_and_a_sweep_does(tmp_path):
    file = tmp_path / "mlflow.db"
    file.touch()
    assert "there is no MLflow store yet" in sentence_of(read_from, f"sqlite:///{file}")
    assert file.stat().st_size == 0
    write_to(f"sqlite:///{file}")


@pytest.mark.parametrize("act", [write_to, read_from])
def test_a_newer_mlflows_store_is_left_alone(act, sqlite_uri, tmp_path):
    file = tmp_path / "store" / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (NEWER,))
    reported = sentence_of(act, sqlite_uri)
    assert "was written by a newer MLflow than the" in reported
    assert "-m pip install mlflow --upgrade" in reported
    write_to(reported.rsplit(" ", 1)[-1])


def older_store(file: Path) -> str:
    """A store as an MLflow of years ago left it: its first tables and a schema of long before ours."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(f"sqlite:///{file}")
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()
    return f"sqlite:///{file}"


@pytest.mark.slow
def test_an_older_mlflows_store_is_brought_up_to_date_by_the_lines_that_are_printed(tmp_path, monkeypatch):
    folder = tmp_path / "my store"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = older_store(folder / "mlflow.db")
    reported = sentence_of(read_from, uri)
    assert reported == sentence_of(write_to, uri)
    assert "was written by an older MLflow" in reported
    for line in reported.splitlines()[1:]:
        done = subprocess.run(line, shell=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert list(folder.glob("mlflow-backup-*.tar.gz"))
    write_to(uri)


def test_half_made_tables_are_told(tmp_path, empty_database):
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_database, file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM alembic_version")
    assert "incomplete" in sentence_of(write_to, f"sqlite:///{file}")


@pytest.mark.parametrize("act", [write_to, read_from])
def test_a_store_that_another_process_holds_is_told(act, sqlite_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("gemma_nli.tracking.store.database_owner.LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "store" / "mlflow.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert "another process is writing to it" in sentence_of(act, sqlite_uri)


_AS_NOBODY = """
import os, sys
from tests.tracking.test_database import read_from, write_to
from gemma_nli.base.errors import TrackingError
write_to(sys.argv[2]), read_from(sys.argv[2])  # all that is imported on the way: nobody may not read root's files
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    {act}(sys.argv[1])
except TrackingError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become a user without rights")
@pytest.mark.parametrize(("act", "reported"), [("read_from", ""), ("write_to", "is read-only")])
def test_a_store_that_may_only_be_read_is_read_and_not_written(act, reported, empty_database, tmp_path):
    with tempfile.TemporaryDirectory(prefix="read_only_") as folder:
        file = Path(folder) / "mlflow.db"
        shutil.copy(empty_database, file)
        file.chmod(0o444)
        file.parent.chmod(0o555)
        words = [f"sqlite:///{file}", f"sqlite:///{tmp_path / 'warm.db'}"]
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY.format(act=act), *words], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert reported in done.stdout
    assert bool(reported) == bool(done.stdout)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("act", [write_to, read_from])
def test_another_programs_postgresql_is_refused_and_stays_as_it_was(act, postgres):
    postgres.count += 1
    name = f"test{postgres.count}"
    postgres.server.psql(f"CREATE DATABASE {name};")
    uri = postgres._uri(name)
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE people (name TEXT)"))
    assert "is the database of another program" in sentence_of(act, uri)
    assert sqlalchemy.inspect(engine).get_table_names() == ["people"]
    engine.dispose()
    postgres.drop_newest()


@pytest.mark.slow
def test_a_newer_and_an_absent_postgresql_are_told(postgres_uri):
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"UPDATE alembic_version SET version_num = '{NEWER}'"))
    engine.dispose()
    assert "was written by a newer MLflow" in sentence_of(write_to, postgres_uri)
    absent = "no_such_database".join(postgres_uri.rsplit(postgres_uri.partition("?")[0].rsplit("/", 1)[1], 1))
    assert "it has no database of that name" in sentence_of(write_to, absent)


def test_a_deleted_experiment_is_restored_by_the_line_that_is_printed(tmp_path, monkeypatch, sqlite_uri):
    monkeypatch.chdir(tmp_path)
    tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_uri), "gone")
    tracker.client.delete_experiment(tracker.experiment_id)
    reported = set()
    for ask in (
        lambda uri: MlflowTracker(MlflowConfig(tracking_uri=uri), "gone").sweep_run(a_sweep()),
        lambda uri: list_runs("gone", tracking_uri=uri),
    ):
        reported.add(sentence_of(ask, sqlite_uri).splitlines()[-1])
    (line,) = reported
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    assert len(list_runs("gone", tracking_uri=sqlite_uri)) == 0
    assert shlex.split(line)[0] == f"MLFLOW_TRACKING_URI={sqlite_uri}"


KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 5")
database.execute("BEGIN")
database.execute("CREATE TABLE half_written (text)")
database.executemany("INSERT INTO half_written VALUES (?)", [("x" * 3000,)] * 300)
os._exit(9)
"""


@pytest.fixture
def cut_off(sqlite_uri: str) -> str:
    """A store whose writer was killed while it wrote: SQLite's journal holds what has to be taken back."""
    write_to(sqlite_uri)
    file = Path(sqlite_uri.removeprefix("sqlite:///"))
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert Path(f"{file}-journal").stat().st_size > 0
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True).execute("SELECT * FROM runs")
    return sqlite_uri


@pytest.mark.parametrize("act", [write_to, read_from])
def test_a_store_whose_writer_was_killed_while_it_wrote_is_whole_at_the_next_command(cut_off, act):
    act(cut_off)
    with closing(sqlite3.connect(cut_off.removeprefix("sqlite:///"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'half_written'").fetchone() == (0,)


def test_a_store_whose_writer_was_killed_is_backed_up_and_replaced_whole(cut_off, tmp_path):
    shutil.copytree(Path(cut_off.removeprefix("sqlite:///")).parent, tmp_path / "twin")
    archive = backup(tmp_path / "a.tar.gz", tracking_uri=cut_off).path
    twin = f"sqlite:///{tmp_path / 'twin' / 'mlflow.db'}"
    restore(archive, twin, replace=True)
    assert len(list_runs(tracking_uri=twin, kind=None)) == len(list_runs(tracking_uri=cut_off, kind=None))
    with closing(sqlite3.connect(twin.removeprefix("sqlite:///"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_spoiled_store_takes_its_writers_journal_along_when_it_is_replaced(cut_off, sqlite_uri, tmp_path):
    """Left beside the new database, SQLite would write the old one's pages into it."""
    file = Path(cut_off.removeprefix("sqlite:///"))
    twin = Path(shutil.copytree(file.parent, tmp_path / "twin")) / "mlflow.db"
    archive = backup(tmp_path / "a.tar.gz", tracking_uri=cut_off).path
    twin.write_bytes(b"spoiled " * 2000)
    restore(archive, f"sqlite:///{twin}", replace=True)
    assert not Path(f"{twin}-journal").exists()
    with closing(sqlite3.connect(twin)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
