"""A sweep kept in a bucket: the promises of a folder, over both kinds of store on loopback and a real local Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma_nli.base.errors import GemmaNliError, SpecError, StorageError, SweepBusyError, SweepError
from gemma_nli.storage import Lease
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.resume import stored_spec
from gemma_nli.trial import TrialRecord, read_trial
from tests.s3_server import BUCKET, SECRET
from tests.sweep.conftest import spec_of

ADDRESS = f"s3://{BUCKET}/a/b"


def records(spec: Any) -> dict[str, TrialRecord]:
    ready = prepare(spec)
    found = {key: read_trial(ready.storage, key) for key in ready.cells}
    assert all(record is not None and record.state == "finished" for record in found.values())
    return {key: record for key, record in found.items() if record is not None}


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As another machine, whose home is empty."""
    assert not folder.exists()
    monkeypatch.setenv("GEMMA_NLI_HOME", str(folder))


@pytest.mark.usefixtures("local_ray")
def test_a_sweep_in_a_bucket_gives_a_folders_numbers_and_goes_on_from_another_machine(
    store, sweep_tree, finished_sweep, tmp_path, monkeypatch
):
    address = str(store.place("a/b"))
    tree = {**sweep_tree, "storage": address, "report": {"enabled": True}}
    tree["base"]["mlflow"]["tracking_uri"] = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    half = {**tree["space"], "training.learning_rate": {"grid": ["1e-3"]}}
    first = run_sweep(spec_of(tree, space=half))
    assert (first.ran, first.trials["finished"]) == (2, 2)
    assert first.registered is not None
    assert first.texts["encoded"] > 0

    elsewhere(monkeypatch, tmp_path / "second_home")
    second = run_sweep(spec_of(tree))
    assert (second.ran, second.trials["finished"]) == (2, 4)
    assert second.texts["encoded"] == 0
    again = run_sweep(spec_of(tree))
    assert (again.ran, again.texts) == (0, {"encoded": 0, "reused": 0})
    assert (again.sweep_run_id, again.best_run_id) == (first.sweep_run_id, second.best_run_id)

    in_bucket, in_folder = records(spec_of(tree)), records(spec_of(finished_sweep[0]))
    assert in_bucket.keys() == in_folder.keys()
    for key, record in in_bucket.items():
        assert record.attempts == 1
        assert record.metrics() == in_folder[key].metrics()
        for number, fold in record.folds.items():
            np.testing.assert_array_equal(fold.probabilities, in_folder[key].folds[number].probabilities)

    assert not [path for path in tmp_path.iterdir() if ":" in path.name]
    assert stored_spec("little").storage == address
    elsewhere(monkeypatch, tmp_path / "third_home")
    kept = SweepFolder(store.place("a/b") / "sweeps" / first.sweep_id)
    kept.pull()
    assert kept.result()["trials"] == again.trials
    assert len(kept.cells()) == 4
    assert (kept.path / "report.html").read_bytes() == Path(again.report["html"]).read_bytes()
    for key in store.names():
        assert SECRET.encode() not in store.read(key)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_trials_whose_store_goes_away_fail_with_what_to_do_and_run_when_it_is_back(s3, sweep_tree):
    tree = {**sweep_tree, "storage": ADDRESS, "space": {"model.pooling_strategy": {"grid": ["mean", "cls"]}}}
    tree["base"]["mlflow"] = {"enabled": False}
    s3.refused = "/folds_"
    first = run_sweep(spec_of(tree))
    assert first.trials == {"finished": 0, "pruned": 0, "failed": 2}
    ready = prepare(spec_of(tree))
    for record in ready.records.values():
        assert "status 503); run the same command again when it is fixed" in str(record.error)
    s3.refused = ""
    again = run_sweep(spec_of(tree))
    assert (again.ran, again.trials["finished"], again.texts["encoded"]) == (2, 2, 0)


def test_what_the_driver_could_not_put_there_is_put_there_with_the_next(s3):
    folder = SweepFolder(s3.place("x"))
    with folder.held("little"):
        folder.add_cells({"k": {"training.seed": 1}})
        s3.away = True
        with pytest.raises(StorageError, match="again when it is fixed"):
            folder.add_cells({"l": {"training.seed": 2}})
        s3.away = False
        folder.end({"interrupted": False, "trials": {}, "best": None})
    assert SweepFolder(s3.place("x")).cells().keys() == {"k", "l"}


def test_one_driver_at_a_time_and_one_that_was_taken_over_changes_nothing(s3, monkeypatch, tmp_path):
    place = s3.place("sweep")
    first = SweepFolder(place)
    with first.held("little"):
        first.add_cells({"k": {"training.seed": 1}})
        elsewhere(monkeypatch, tmp_path / "second_home")
        second = SweepFolder(place)
        monkeypatch.setattr("gemma_nli.sweep.records.sweep_folder.Lease", lambda at: Lease(at, seconds=1.5))
        first._lease._ended.set()  # it sleeps, and its claim grows old
        first._lease._thread.join()
        with second.held("little"):
            assert second.cells().keys() == {"k"}
            second.add_cells({"l": {"training.seed": 2}})
            monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "third_home"))
            with pytest.raises(SweepBusyError, match=r"is being run by process .* on "), SweepFolder(place).held("x"):
                pass
            with pytest.raises(SweepError, match="another process has taken over this sweep"):
                first.add_cells({"m": {"training.seed": 3}})
    third = SweepFolder(place)
    third.pull()
    assert third.cells().keys() == {"k", "l"}


@pytest.mark.parametrize(
    ("changes", "environment", "reported"),
    [
        ({"storage": "s3://nowhere-at-all/x"}, {}, "s3://nowhere-at-all: there is no such bucket"),
        ({}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://sweeps: .*127.0.0.1:1 does not answer"),
        ({"storage": "az://bucket/x"}, {}, "storage: az:// is not supported"),
        ({"storage": "gs://nowhere-at-all/x"}, {}, "gs://nowhere-at-all: there is no such bucket"),
        ({"search": {"algorithm": "optuna"}}, {}, "search.storage: an Optuna study is a database"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_told_before_anything_starts(
    s3, gcs, sweep_tree, monkeypatch, changes, environment, reported
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(GemmaNliError, match=reported):
        run_sweep(spec_of({**sweep_tree, "storage": ADDRESS, **changes}))


def test_a_study_on_a_server_may_go_with_a_bucket(sweep_tree):
    search = {"algorithm": "optuna", "storage": "postgresql://db/optuna"}
    sweep_tree["space"] = {"training.learning_rate": {"loguniform": ["1e-3", "1e-2"]}}
    assert spec_of({**sweep_tree, "storage": ADDRESS}, search=search).kept_in_bucket
    with pytest.raises(SpecError, match="cannot be kept in a bucket"):
        spec_of({**sweep_tree, "storage": ADDRESS}, search={**search, "storage": "sqlite:////tmp/x.db"})
