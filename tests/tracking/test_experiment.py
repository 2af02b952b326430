"""`ExperimentTracker`: what is logged is there, once; offline W&B beside it; errors are errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import gemma_nli
from gemma_nli.base.errors import TrackingError
from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker


def run_of(uri: str, tracker: ExperimentTracker):
    return MlflowClient(uri, uri).get_run(tracker.run_id)


def test_everything_logged_is_in_the_run(fresh_uri, tmp_path):
    (tmp_path / "plot.txt").write_text("a plot")
    with gemma_nli.ExperimentTracker("notebook", tracking_uri=fresh_uri) as tracker:
        tracker.log_params({"training.learning_rate": 1e-3, "model.name": "tiny"})
        tracker.log_metrics({"val_f1": 0.5, "val_loss": 1.0}, step=1)
        tracker.log_metrics({"val_f1": 0.7}, step=2)
        tracker.set_tags({"researcher": "ann", "note": "first try"})
        tracker.log_artifact(tmp_path / "plot.txt", "plots/plot.txt")
        tracker.log_artifact(b"{}", "facts.json")
    run = run_of(fresh_uri, tracker)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.learning_rate": "0.001", "model.name": "tiny"}
    assert (run.data.metrics["val_f1"], run.data.metrics["val_loss"]) == (0.7, 1.0)
    assert (run.data.tags["researcher"], run.data.tags["mlflow.note.content"]) == ("ann", "first try")
    assert "has_gpu" in run.data.tags
    assert gemma_nli.list_runs("notebook", tracking_uri=fresh_uri)["run_id"].tolist() == [tracker.run_id]
    with pytest.raises(TrackingError, match="no trial has finished yet"):  # it has no folds to be ranked by
        gemma_nli.best_trial("notebook", tracking_uri=fresh_uri)
    client = MlflowClient(fresh_uri, fresh_uri)
    assert [p.step for p in client.get_metric_history(tracker.run_id, "val_f1")] == [1, 2]
    assert {f.path for f in client.list_artifacts(tracker.run_id)} == {"plots", "facts.json"}
    assert [f.path for f in client.list_artifacts(tracker.run_id, "plots")] == ["plots/plot.txt"]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_block_that_raises_leaves_a_run_that_says_so(fresh_uri, error, status):
    with pytest.raises(error), ExperimentTracker("notebook", tracking_uri=fresh_uri) as tracker:
        raise error("no")
    assert run_of(fresh_uri, tracker).info.status == status


def test_a_model_is_logged_and_loads(sqlite_uri, tiny_bert, tmp_path):
    from gemma_nli.tracking.registry.registered_models import load_model
    from tests.tracking.test_torch_models import make_bundle

    bundle = make_bundle(tmp_path / "bundle", tiny_bert, max_length=48)
    with ExperimentTracker("notebook", tracking_uri=sqlite_uri) as tracker:
        uri = tracker.log_model(bundle, export_limit_gib=0)
        with pytest.raises(TrackingError, match="no bundle"):
            tracker.log_model(tmp_path)
    assert uri == f"runs:/{tracker.run_id}/model"
    assert load_model(uri, sqlite_uri).predict(["a"], ["b"]).shape == (1,)


def test_mistakes_are_errors_and_nothing_is_swallowed(sqlite_uri, tmp_path):
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        ExperimentTracker("notebook", tracking_uri="http://127.0.0.1:9")
    with ExperimentTracker("notebook", tracking_uri=sqlite_uri) as tracker:
        with pytest.raises(TrackingError, match="mlflow"):
            tracker.set_tags({"mlflow.runName": "x"})
        with pytest.raises(TrackingError, match="no such file"):
            tracker.log_artifact(tmp_path / "none")
        with pytest.raises(TrackingError, match="need a name"):
            tracker.log_artifact(b"")


def test_credentials_are_masked(sqlite_uri):
    with ExperimentTracker("notebook", tracking_uri=sqlite_uri) as tracker:
        tracker.log_params({"store": "https://ann:secret@host/x"})
        tracker.set_tags({"where": "https://ann:secret@host/x"})
    run = run_of(sqlite_uri, tracker)
    assert "secret" not in str(run.data.params) + str(run.data.tags)


def test_with_both_off_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with ExperimentTracker("notebook", use_mlflow=False) as tracker:
        tracker.log_params({"a": 1})
        tracker.log_metrics({"b": 1.0})
        tracker.log_artifact(b"x", "x")
    assert tracker.run_id is None
    assert sorted(tmp_path.rglob("*")) == before


OFFLINE = """
import sys
from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker
with ExperimentTracker("notebook", use_mlflow=False, use_wandb=True, wandb_project="emotions") as tracker:
    tracker.log_params({"training.learning_rate": 1e-3, "store": "https://ann:secret@host/x"})
    tracker.log_metrics({"val_f1": 0.5}, step=1)
    tracker.log_metrics({"val_f1": 0.7}, step=2)
    tracker.set_tags({"researcher": "ann"})
    tracker.log_artifact(b"content", "notes/facts.txt")
"""


def test_wandb_offline_has_config_metrics_and_files(tmp_path, monkeypatch):
    """W&B's own process, no account and no network: what it would sync is on disk."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert (folder / "files" / "notes" / "facts.txt").read_bytes() == b"content"
    (log,) = folder.glob("run-*.wandb")
    reported = _records(log)
    config = {item.key or item.nested_key[0]: json.loads(item.value_json) for r in reported for item in _updates(r)}
    assert config["training.learning_rate"] == 1e-3
    assert config["tags/researcher"] == "ann"
    assert config["store"] == "https://***@host/x"
    history = [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in reported
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["_step"], row["val_f1"]) for row in history] == [(1, 0.5), (2, 0.7)]
    assert b"secret" not in log.read_bytes()


def _updates(record):
    kind = record.WhichOneof("record_type")
    return record.config.update if kind == "config" else record.run.config.update if kind == "run" else ()


def _records(log: Path):
    """W&B's log: LevelDB's format (blocks of 32 KiB; chunks of crc, length, type) after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole, records = log.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or the last of several
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def test_wandb_missing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackingError, match=r"gemma-nli\[wandb\]"):
        ExperimentTracker("notebook", use_mlflow=False, use_wandb=True)


LEFT_OPEN = """
import sys
from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker
tracker = ExperimentTracker("notebook", tracking_uri=sys.argv[1])
tracker.log_metrics({"val_f1": 0.5}, step=1)
%s
"""


@pytest.mark.parametrize(
    ("last_line", "status"),
    [("", "FINISHED"), ("raise ValueError('no')", "FAILED"), ("raise KeyboardInterrupt", "KILLED")],
)
def test_a_run_that_nobody_closed_ends_with_its_process(last_line, status, sqlite_uri):
    subprocess.run([sys.executable, "-c", LEFT_OPEN % last_line, sqlite_uri], capture_output=True)
    (found,) = gemma_nli.list_runs("notebook", tracking_uri=sqlite_uri)["status"]
    assert found == status


def test_a_wandb_that_cannot_start_leaves_no_run(sqlite_uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackingError, match=r"gemma-nli\[wandb\]"):
        ExperimentTracker("notebook", use_wandb=True, tracking_uri=sqlite_uri)
    assert len(gemma_nli.list_runs("notebook", tracking_uri=sqlite_uri)) == 0
