"""The store's commands on a real store with real runs: listed, filtered, compared, cleaned, backed up, exported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.archives.backup import backup, restore
from gemma_nli.tracking.read.frames import compare_runs, list_experiments, list_models, list_runs, metric_history
from gemma_nli.tracking.store.clean_and_export import clean, export_experiment, plan_clean
from gemma_nli.tracking.write.projection import MetricPoint
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.commands import run_command
from tests.tracking.conftest import a_sweep, a_trial

HOUR_MS = 3_600_000


def trial(key: str, f1: float | None, pooling: str = "mean", **changes: object):
    base = a_trial(key)
    metrics = [point for point in base.metrics if not point.name.startswith("cv_")]
    if f1 is not None:
        metrics.append(MetricPoint("cv_aggregate/mean_f1", f1, 0, 1))
        metrics += [MetricPoint(f"cv_summary/fold_{k}_selected_f1", f1 + k / 100, 0, 1) for k in (1, 2)]
    params = {**base.params, "model.pooling_strategy": pooling}
    known = {"metrics": metrics, "params": params, "tags": {"gemma_nli.fold_fingerprint": "folds", "who": "ann"}}
    return a_trial(key, **{"state": "finished" if f1 is not None else "failed", **known, **changes})


def filled(uri: str) -> str:
    """Two experiments: `pooling` with a sweep of three trials, one of which failed, and `other` with one trial."""
    tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "pooling")
    parent = tracker.sweep_run(a_sweep())
    tracker.sync_trial(parent, trial("k1", 0.6))
    tracker.sync_trial(parent, trial("k2", 0.7, "max", started_ms=1_700_000_000_000 + HOUR_MS))
    tracker.sync_trial(parent, trial("k3", None, error="RuntimeError: no"))
    MlflowTracker(MlflowConfig(tracking_uri=uri), "other").sync_trial(None, trial("k4", 0.5))
    return uri


@pytest.fixture
def store(fresh_uri: str) -> str:
    """SQLite, a server, PostgreSQL."""
    return filled(fresh_uri)


@pytest.fixture
def sqlite_store(sqlite_uri: str) -> str:
    return filled(sqlite_uri)


def test_runs_come_by_f1_and_those_without_one_last(store):
    table = list_runs("pooling", tracking_uri=store)
    assert table["f1"].tolist()[:2] == [0.7, 0.6]
    assert pd.isna(table["f1"].iloc[2])
    assert table["state"].tolist() == ["finished", "finished", "failed"]
    assert list_runs(tracking_uri=store)["experiment"].tolist()[:3] == ["pooling", "pooling", "other"]
    assert len(list_runs("pooling", kind="sweep", tracking_uri=store)) == 1
    assert len(list_runs("pooling", kind=None, tracking_uri=store)) == 4


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("params.model.pooling_strategy = 'mean'", 3),
        ("params.model.pooling_strategy = 'max'", 1),
        ("metrics.cv_aggregate/mean_f1 > 0.55", 2),
        ("params.`model.pooling_strategy` = 'mean' and metrics.cv_aggregate/mean_f1 > 0.55", 1),
        ("tags.who = 'ann'", 4),
        ("tags.who = 'params.model.x'", 0),
        ("attributes.status = 'FAILED'", 1),
    ],
)
def test_filters_need_no_backticks(store, where, count):
    assert len(list_runs(where=where, tracking_uri=store)) == count


def test_since_takes_a_date_or_an_age(store):
    assert len(list_runs(since="2023-11-14 22:30", tracking_uri=store)) == 1  # the fixture's times are of November 2023
    assert len(list_runs(since="2023-11-01", tracking_uri=store)) == 4
    assert len(list_runs(since="7d", tracking_uri=store)) == 0
    with pytest.raises(TrackingError, match="invalid time"):
        list_runs(since="yesterday", tracking_uri=store)


def test_a_bad_filter_is_told(store):
    with pytest.raises(TrackingError, match="search runs where"):
        list_runs(where="pooling is mean", tracking_uri=store)


def test_the_commands_print_tables_csv_and_json(store, capsys):
    words = ["--tracking-uri", store]
    assert run_command("runs", "--experiment", "pooling", *words) == 0
    out = capsys.readouterr().out
    assert all(
        word in " ".join(out.split()) for word in ("0.700", "N/A", "failed", "they appear when the last fold has ended")
    )
    assert max(len(line) for line in out.splitlines()) <= 80
    assert run_command("runs", "--experiment", "pooling", "--csv", *words) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["params.model.pooling_strategy"] for row in rows] == ["max", "mean", "mean"]
    assert run_command("runs", "--limit", "1", "--json", *words) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["metrics.cv_aggregate/mean_f1"] == 0.7
    assert run_command("experiments", *words) == 0
    assert "pooling" in capsys.readouterr().out
    assert run_command("experiments", "--json", *words) == 0
    named = {row["experiment"]: row for row in json.loads(capsys.readouterr().out)}
    assert (named["pooling"]["runs"], named["pooling"]["best_f1"]) == (4, 0.7)
    assert run_command("models", *words) == 0
    assert "no models are registered yet" in capsys.readouterr().out


def test_two_runs_side_by_side_show_what_differs_and_each_fold(store, capsys):
    best, second = list_runs("pooling", tracking_uri=store)["run_id"][:2]
    found = compare_runs([best, second], store)
    assert found.params.index.tolist() == ["model.pooling_strategy"]
    assert found.params.loc["model.pooling_strategy"].tolist() == ["max", "mean"]
    assert found.metrics.loc["cv_aggregate/mean_f1"].tolist() == [0.7, 0.6]
    assert found.folds.loc[("selected_f1", 2)].tolist() == [0.72, 0.62]
    assert found.notes == ()
    assert run_command("compare", best, second, "--tracking-uri", store) == 0
    out = capsys.readouterr().out
    assert "model.pooling_strategy" in out
    assert "0.7200" in out
    assert run_command("compare", best, second, "--tracking-uri", store, "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert {"metric": "selected_f1", "fold": 2, best: 0.72, second: 0.62} in reported["folds"]


def test_runs_that_cannot_be_compared_are_said_to_be_so(store):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=store), "pooling")
    elsewhere = tracker.sync_trial(None, trial("k9", 0.9, tags={"gemma_nli.fold_fingerprint": "other"}))
    best = list_runs("pooling", "params.model.pooling_strategy = 'max'", tracking_uri=store)["run_id"][0]
    assert any("their evaluation pairs differ" in note for note in compare_runs([best, elsewhere], store).notes)
    with pytest.raises(TrackingError, match="at least two runs"):
        compare_runs([best, best], store)
    with pytest.raises(TrackingError, match="no run 'abc'"):
        compare_runs([best, "abc"], store)


def test_a_metric_comes_with_every_epoch(store):
    run_id = list_runs("pooling", tracking_uri=store)["run_id"][0]
    history = metric_history(run_id, "fold_1/val_f1", store)
    assert history["step"].tolist() == [1, 2, 3]
    assert history["value"].tolist() == pytest.approx([0.511, 0.512, 0.513])
    with pytest.raises(TrackingError, match="did you mean 'fold_1/val_f1'"):
        metric_history(run_id, "fold_1/valf1", store)


def test_frames_of_an_empty_store_are_empty_and_asking_creates_none(sqlite_uri, tmp_path):
    assert len(list_runs(tracking_uri=sqlite_uri)) == 0
    assert len(list_models(sqlite_uri)) == 0
    assert list_experiments(sqlite_uri)["runs"].sum() == 0
    for call in (list_runs, list_experiments, list_models):
        with pytest.raises(TrackingError, match="there is no MLflow store yet"):
            call(tracking_uri=f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


def test_clean_says_what_it_would_delete_and_asks(store, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run_command("clean", "--experiment", "pooling", "--tracking-uri", store) == 1
    out = capsys.readouterr().out
    assert "4 runs of pooling" in out
    assert "nothing was deleted" in out
    assert len(list_runs(kind=None, tracking_uri=store)) == 5


def test_clean_takes_one_experiment_with_its_files_and_keeps_what_a_model_rests_on(sqlite_store, capsys):
    client = MlflowClient(sqlite_store, sqlite_store)
    best, second = list_runs("pooling", tracking_uri=sqlite_store)["run_id"][:2]
    client.create_registered_model("m")
    client.create_model_version("m", f"{client.get_run(best).info.artifact_uri}/model", best)
    files = {run_id: Path(client.get_run(run_id).info.artifact_uri) for run_id in (best, second)}
    assert all((folder / "config.yaml").is_file() for folder in files.values())
    assert run_command("clean", "--experiment", "pooling", "--yes", "--tracking-uri", sqlite_store) == 0
    assert f"kept: run {best}, which registered model m version 1 depends on" in capsys.readouterr().out
    assert list_runs(kind=None, tracking_uri=sqlite_store)["experiment"].tolist() == ["pooling", "other"]
    assert (files[best] / "config.yaml").is_file()
    assert not files[second].exists()
    with closing(sqlite3.connect(sqlite_store.removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (2,)


@pytest.mark.slow
def test_a_clean_of_everything_leaves_an_empty_store_to_go_on_with(sqlite_store):
    clean(plan_clean(tracking_uri=sqlite_store))
    assert len(list_runs(kind=None, tracking_uri=sqlite_store)) == 0
    assert list_experiments(sqlite_store)["experiment"].tolist() == ["Default"]
    MlflowTracker(MlflowConfig(tracking_uri=sqlite_store), "pooling").sync_trial(None, trial("k1", 0.6))
    assert len(list_runs(tracking_uri=sqlite_store)) == 1


def _contents(uri: str) -> dict[str, object]:
    """Every row of every table, and every artifact file's hash."""
    path = Path(uri.removeprefix("sqlite:///"))
    found: dict[str, object] = {}
    with closing(sqlite3.connect(path)) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            found[name] = sorted(map(repr, database.execute(f'SELECT * FROM "{name}"')))
    for file in sorted((path.parent / "artifacts").rglob("*")):
        if file.is_file():
            found[str(file.relative_to(path.parent))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def test_a_backup_brings_back_an_equal_store(sqlite_store, tmp_path):
    before = _contents(sqlite_store)
    archive = backup(tmp_path / "a.tar.gz", sqlite_store)
    assert archive.runs == 5
    folder = Path(sqlite_store.removeprefix("sqlite:///")).parent
    with pytest.raises(TrackingError, match="--replace moves it aside"):
        restore(archive.path, sqlite_store)
    shutil.rmtree(folder)
    restore(archive.path, sqlite_store)
    assert _contents(sqlite_store) == before
    assert list_runs("pooling", tracking_uri=sqlite_store)["f1"].max() == 0.7


def test_a_store_in_the_way_is_moved_aside_not_deleted(sqlite_store, tmp_path):
    backup(tmp_path / "a.tar.gz", sqlite_store)
    MlflowTracker(MlflowConfig(tracking_uri=sqlite_store), "later").sync_trial(None, trial("k7", 0.9))
    later = _contents(sqlite_store)
    database = restore(tmp_path / "a.tar.gz", sqlite_store, replace=True)
    with closing(sqlite3.connect(database)) as restored:  # not by MLflow: this process still holds the old file
        names = {name for (name,) in restored.execute("SELECT name FROM experiments")}
    assert names == {"Default", "pooling", "other"}
    (aside,) = database.parent.glob("mlflow.db.before-restore-*")
    with closing(sqlite3.connect(aside)) as old:
        assert sorted(map(repr, old.execute("SELECT * FROM runs"))) == later["runs"]


def test_at_another_place_the_artifacts_are_found_there(sqlite_store, tmp_path):
    backup(tmp_path / "a.tar.gz", sqlite_store)
    shutil.rmtree(Path(sqlite_store.removeprefix("sqlite:///")).parent)
    other = f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}"
    restore(tmp_path / "a.tar.gz", other)
    client = MlflowClient(other, other)
    for run_id in list_runs("pooling", tracking_uri=other)["run_id"]:
        assert client.get_run(run_id).info.artifact_uri.startswith(str(tmp_path / "else"))
        assert "config.yaml" in [file.path for file in client.list_artifacts(run_id)]


def test_a_backup_of_a_live_store_is_of_one_moment(sqlite_store, tmp_path):
    """A writer goes on while the archive is made; what the archive holds is whole."""
    over = threading.Event()

    def writes() -> None:
        tracker = MlflowTracker(MlflowConfig(tracking_uri=sqlite_store), "live")
        count = 0
        while not over.is_set():
            tracker.sync_trial(None, trial(f"live{count}", 0.5))
            count += 1

    writer = threading.Thread(target=writes)
    writer.start()
    try:
        archive = backup(tmp_path / "a.tar.gz", sqlite_store)
    finally:
        over.set()
        writer.join()
    other = f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}"
    database = restore(archive.path, other)
    with closing(sqlite3.connect(database)) as restored:
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    client = MlflowClient(other, other)
    finished = list_runs(where="attributes.status = 'FINISHED'", tracking_uri=other)
    assert len(finished) >= 3
    for run_id in finished["run_id"]:
        assert "config.yaml" in [file.path for file in client.list_artifacts(run_id)]


def test_a_damaged_or_foreign_archive_is_refused_before_anything_is_touched(sqlite_store, tmp_path):
    archive = backup(tmp_path / "a.tar.gz", sqlite_store).path
    other = f"sqlite:///{tmp_path / 'else' / 'mlflow.db'}"
    with tarfile.open(archive, "r:gz") as packed:
        packed.extractall(tmp_path / "work", filter="data")
    next((tmp_path / "work" / "artifacts").rglob("config.yaml")).write_text("other")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "work", ".")
    with pytest.raises(TrackingError, match=r"damaged: .*config\.yaml is not what was packed"):
        restore(tmp_path / "b.tar.gz", other)
    (tmp_path / "c.tar.gz").write_bytes(archive.read_bytes()[:5000])
    for name in ("c.tar.gz", "none.tar.gz"):
        with pytest.raises(TrackingError, match=name):
            restore(tmp_path / name, other)
    assert not (tmp_path / "else" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("uri", "reported"),
    [
        ("postgresql://ann:secret@127.0.0.1/mlflow", "pg_dump"),
        ("http://127.0.0.1:9", "back up a server's store on its machine"),
    ],
)
def test_what_cannot_be_backed_up_says_how_to(uri, reported):
    with pytest.raises(TrackingError, match=reported) as caught:
        backup(tracking_uri=uri)
    assert "secret" not in str(caught.value)


def test_an_export_holds_every_point_and_file(store, tmp_path):
    assert export_experiment("pooling", tmp_path / "out", store) == 4
    best = list_runs("pooling", tracking_uri=store)["run_id"][0]
    facts = json.loads((tmp_path / "out" / best / "run.json").read_text())
    assert facts["params"]["model.pooling_strategy"] == "max"
    points = pd.read_csv(tmp_path / "out" / best / "metrics.csv")
    assert points[points["metric"] == "fold_2/val_f1"]["step"].tolist() == [1, 2, 3]
    assert (tmp_path / "out" / best / "artifacts" / "config.yaml").is_file()
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 4
    with pytest.raises(TrackingError, match="not empty"):
        export_experiment("pooling", tmp_path / "out", store)
    with pytest.raises(TrackingError, match="did you mean 'pooling'"):
        export_experiment("poling", tmp_path / "else", store)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.chdir(tmp_path)
    return lambda: sorted(path.name for path in tmp_path.iterdir())


def test_backup_restore_and_export_commands_name_their_files(sqlite_store, in_folder, capsys):
    assert run_command("backup", "--tracking-uri", sqlite_store) == 0
    (name,) = [name for name in in_folder() if name.startswith("mlflow-backup-")]
    assert "5 runs" in capsys.readouterr().out
    assert run_command("restore", name, "--tracking-uri", "sqlite:///else/mlflow.db") == 0
    assert "restored to sqlite:////" in capsys.readouterr().out
    assert run_command("export", "pooling", "--tracking-uri", sqlite_store) == 0
    assert "export-pooling" in in_folder()
