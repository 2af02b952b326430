"""A database's address: of any folder's name and back, and the same database however it is spelled."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import ConfigError, SweepError, TrackingError
from gemma_nli.config import MlflowConfig, database_uri, same_database, sqlite_address, sqlite_file
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.search.study import SweepStudy, study_url
from gemma_nli.search.study_database import check_study_database
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.tracking.archives.backup import backup, restore
from gemma_nli.tracking.read.frames import list_runs
from gemma_nli.tracking.store.artifact_uris import local_folder
from gemma_nli.tracking.store.clean_and_export import clean, plan_clean
from gemma_nli.tracking.store.mlflow_store import resolve_store
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.commands import run_command
from tests.tracking.conftest import a_trial, empty_database, sqlite_uri  # noqa: F401 - fixtures

NAMES = ["My%20Project", "a?b#c {x} 50%", 'it\'s "q"; [ü] & $HOME\n\\*']
MORE = ["a?b", "a#b", "50%", "[x]", "a b", "a@b:c", "%2e%2e", "a+b=c", "-x", "*", "~"]
SPACE = {"training.learning_rate": {"loguniform": [1e-5, 1e-2]}}


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_files_address_leads_back_to_it_and_sqlalchemy_reads_the_same(name):
    if name in (".", ".."):
        return
    path = Path("/tmp") / name / "x.db"
    address = sqlite_address(path)
    assert sqlite_file(address) == path
    assert sqlalchemy.make_url(address).database == str(path)
    assert sqlite_file(database_uri(address)) == path
    assert address.format(SCHEMA_VERSION=1) == address  # Optuna's template


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_store_a_study_and_a_backup_work_in_a_folder_of_any_name(name, tmp_path, monkeypatch, capsys):
    home = tmp_path / name
    home.mkdir()
    monkeypatch.setenv("GEMMA_NLI_HOME", str(home))
    run_id = MlflowTracker(MlflowConfig(), "e").sync_trial(None, a_trial("k1"))
    store = resolve_store(MlflowConfig())
    assert store.database == home / "mlflow" / "mlflow.db"
    assert MlflowClient(store.uri).list_artifacts(run_id)
    archive = backup(home / "a.tar.gz").path
    other = sqlite_address(home / "else" / "mlflow.db")
    assert run_command("restore", str(archive), "--tracking-uri", other) == 0
    assert sqlite_address(home / "else" / "mlflow.db") in capsys.readouterr().out.replace("\\x0a", "\n")
    assert len(list_runs(tracking_uri=other)) == 1
    place = local_folder(MlflowClient(other).get_run(run_id).info.artifact_uri)
    assert place is not None
    assert (place / "config.yaml").is_file()
    assert place.is_relative_to(home / "else")
    spec = SweepSpec.from_mapping({"name": "s", "space": SPACE, "search": {"algorithm": "optuna", "num_trials": 2}})
    SweepStudy(spec, "s", study_url(spec, home))
    assert optuna.load_study(study_name="s", storage=study_url(spec, home)).trials == []
    assert {n.partition(".db")[0] for n in os.listdir(home)} == {"a.tar.gz", "else", "mlflow", "optuna"}
    assert os.listdir(tmp_path) == [name]


def test_a_clean_removes_the_files_of_a_store_whose_folder_looks_encoded(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "My%20Project"))
    MlflowTracker(MlflowConfig(), "e").sync_trial(None, a_trial("k1"))
    assert list(tmp_path.rglob("config.yaml"))
    clean(plan_clean("e"))
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_path_cut_off_at_a_question_mark_is_refused_with_the_right_spelling(tmp_path):
    with pytest.raises(ConfigError, match="write %3F"):
        resolve_store(MlflowConfig(tracking_uri=f"sqlite:///{tmp_path}/a?b/mlflow.db"))
    assert resolve_store(MlflowConfig(tracking_uri="sqlite:////x/a.db?timeout=5")).uri == "sqlite:////x/a.db?timeout=5"


def test_advice_on_a_file_store_is_quoted_for_the_shell(tmp_path):
    (tmp_path / "it's 50%").mkdir()
    with pytest.raises(TrackingError) as caught:
        resolve_store(MlflowConfig(tracking_uri=str(tmp_path / "it's 50%")))
    words = shlex.split(str(caught.value).splitlines()[1])
    assert words[3] == str(tmp_path / "it's 50%")
    assert sqlite_file(words[5]) == tmp_path / "mlflow.db"


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.db").touch()
    (tmp_path / "link").symlink_to("d")
    os.link(tmp_path / "d" / "x.db", tmp_path / "hard.db")
    monkeypatch.chdir(tmp_path)
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "spelled",
    [
        "sqlite:///d/x.db", "sqlite:///./d/../d/x.db", "sqlite:///link/x.db", "sqlite:///hard.db",
        "sqlite+pysqlite:///d/x.db", "SQLITE:///d/x.db", "sqlite:///d/%78.db", "sqlite:///d/x.db?timeout=5",
        "sqlite:///file:d/x.db?uri=true", "sqlite:///file:{tmp}/d/x.db?uri=true&mode=rwc",
        "sqlite:///file://{tmp}/d/x.db?uri=true", "sqlite:///file://localhost{tmp}/d/%2578.db?uri=1",
        "sqlite:///{tmp}//d///x.db",
    ],
)  # fmt: skip
def test_one_sqlite_file_in_all_its_spellings(in_tmp, spelled):
    assert same_database(f"sqlite:///{in_tmp}/d/x.db", spelled.format(tmp=in_tmp))
    assert not same_database(f"sqlite:///{in_tmp}/d/y.db", spelled.format(tmp=in_tmp))


@pytest.mark.parametrize(
    "spelled",
    [
        "postgresql://ann:secret@localhost:5432/m", "postgresql+psycopg2://bob@127.0.0.1/m", "postgres://[::1]/m",
        "postgresql+psycopg://LOCALHOST/m?sslmode=disable", "postgresql:///m", "postgresql:///m?host=/var/run/postgresql",
        "postgresql://?host=localhost&port=5432&dbname=m", "postgresql://m@localhost", "postgresql://localhost/%6D",
        "postgresql:///m?host=localhost:5432", "POSTGRESQL://localhost/m", "postgresql://localhost./m",
        "postgresql:///m?host=other,localhost", "postgresql://@/m?hostaddr=127.0.0.1",
    ],
)  # fmt: skip
def test_one_postgresql_database_in_all_its_spellings(in_tmp, spelled):
    assert same_database("postgresql+psycopg2://ann@localhost/m", spelled)
    for other in ("postgresql://localhost/n", "postgresql://localhost:5433/m", "mysql://localhost/m", "sqlite:///m"):
        assert not same_database(other, spelled)
    assert not same_database("postgresql://db.example.invalid/m", "postgresql://other.example.invalid/m")


def test_two_schemas_of_one_database_are_two(in_tmp):
    one = "postgresql://localhost/m?options=-csearch_path%3D"
    assert same_database(f"{one}a", f"{one}a")
    assert not same_database(f"{one}a", f"{one}b")


@pytest.mark.usefixtures("in_tmp")
def test_an_environment_that_names_the_server_counts(monkeypatch):
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATABASE", "m")
    assert same_database("postgresql://", "postgresql://db.example:6000/m")
    assert not same_database("postgresql://", "postgresql://localhost:6000/m")


def test_a_study_and_a_store_in_one_database_are_refused_by_address_and_by_tables(sqlite_uri, tmp_path):  # noqa: F811
    file = sqlite_file(sqlite_uri)
    with pytest.raises(SweepError, match=r"search\.storage: .* is the database of mlflow\.tracking_uri"):
        check_study_database(f"sqlite:///file:{file}?uri=true", sqlite_uri)
    with pytest.raises(SweepError, match="holds an MLflow store"):
        check_study_database(sqlite_uri, "http://127.0.0.1:9")
    with pytest.raises(SweepError, match="holds an MLflow store"):
        check_study_database(sqlite_uri, None)
    study = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=study)
    with pytest.raises(SweepError, match=r"mlflow\.tracking_uri: .* holds Optuna studies"):
        check_study_database(f"sqlite:///{tmp_path / 'new.db'}", study)
    check_study_database(study, sqlite_uri)
    with pytest.raises(TrackingError, match="another program's database"):
        restore(tmp_path / "none.tar.gz", study, replace=True)


def test_a_sweep_whose_study_is_mlflows_database_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    from gemma_nli.model.demo_weights import minilm_folder

    write_synthetic(tmp_path / "data")
    tree = {"name": "s", "space": SPACE, "base": {"data": {"data_dir": str(tmp_path / "data")}}, "storage": "storage"}
    tree["base"]["model"] = {"name": str(minilm_folder())}  # type: ignore[index]
    tree["base"]["mlflow"] = {"tracking_uri": f"sqlite:///{tmp_path}/both.db"}  # type: ignore[index]
    tree["search"] = {"algorithm": "optuna", "num_trials": 2, "storage": "sqlite+pysqlite:///./both.db"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
    before = sorted(path for path in tmp_path.rglob("*"))
    for words in (["sweep", "s.yaml", "--plan"], ["sweep", "s.yaml"]):
        assert run_command(*words) == 2
        assert "search.storage" in capsys.readouterr().err
    assert [p for p in sorted(tmp_path.rglob("*")) if p not in before] == []


def test_the_files_of_a_study_and_a_store_hold_their_own_tables(tmp_path):
    """What the refusal looks for is what the two libraries write today."""
    from gemma_nli.search.study_database import MLFLOW_TABLES, OPTUNA_TABLES, table_names

    study = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=study)
    assert table_names(study) >= OPTUNA_TABLES
    MlflowTracker(MlflowConfig(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), "e").sync_trial(None, a_trial("k"))
    assert table_names(f"sqlite:///{tmp_path / 'mlflow.db'}") >= MLFLOW_TABLES
    assert not table_names(study) & MLFLOW_TABLES
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM alembic_version").fetchone() == (1,)


@pytest.mark.slow
def test_a_sweep_with_a_study_and_all_that_follows_work_in_a_folder_of_any_name(tiny_bert, tmp_path):
    """Each command as a process of its own, typed in the folder, with its printed commands typed after it."""
    home = tmp_path / "My%20Project 50% [x]?#{ü}&'"
    home.mkdir()
    write_synthetic(home / "data", num_posts=40)
    tree: dict[str, object] = {"name": "odd", "space": SPACE, "storage": "storage"}
    tree["base"] = {
        "data": {"data_dir": "data", "num_folds": 2},
        "model": {"name": str(shutil.copytree(tiny_bert, home / "model")), "max_length": 32},
        "training": {"num_epochs": 1},
        "output": {"experiment_name": "odd"},
    }
    tree["search"] = {"algorithm": "optuna", "num_trials": 2}
    (home / "odd.yaml").write_text(yaml.safe_dump(tree))
    environment = {**os.environ, "GEMMA_NLI_HOME": str(home / "home")}

    def type_in(*words: str) -> str:
        command = [sys.executable, "-m", "gemma_nli", *words]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    type_in("sweep", "odd.yaml")
    (study,) = (home / "storage" / "sweeps").glob("*/optuna.db")
    assert study.is_file()
    assert len(json.loads(type_in("runs", "--json"))) == 2
    assert [model["aliases"] for model in json.loads(type_in("models", "--json"))] == ["candidate"]
    type_in("best", "--experiment", "odd")
    type_in("resume", "odd")
    type_in("backup", "a.tar.gz")
    printed = type_in("restore", "a.tar.gz", "--tracking-uri", sqlite_address("else/mlflow.db"))
    other = printed.splitlines()[0].removeprefix("restored to ")
    assert len(json.loads(type_in("runs", "--json", "--tracking-uri", other))) == 2
    assert sorted(os.listdir(tmp_path)) == [home.name]
    wanted = {"a.tar.gz", "data", "else", "home", "model", "odd.yaml", "storage"}
    assert wanted == {name for name in os.listdir(home) if not name.startswith("report")}
