"""A sweep kept in a bucket: the promises of a folder, over a real S3 API on loopback and a real local Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma_nli.journal import TrialRecord, read_trial
from gemma_nli.storage import Prefix
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.folder import SweepFolder
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.resume import stored_spec
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
    s3, sweep_tree, finished_sweep, tmp_path, monkeypatch
):
    tree = {**sweep_tree, "storage": ADDRESS, "report": {"enabled": True}}
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

    assert not (tmp_path / "s3:").exists()
    assert stored_spec("little").storage == ADDRESS
    elsewhere(monkeypatch, tmp_path / "third_home")
    kept = SweepFolder(Prefix(BUCKET, "a/b") / "sweeps" / first.sweep_id)
    kept.pull()
    assert kept.result()["trials"] == again.trials
    assert len(kept.cells()) == 4
    assert (kept.path / "report.html").read_bytes() == Path(again.report["html"]).read_bytes()
    for key in s3.names():
        assert SECRET.encode() not in (Prefix(BUCKET) / key).read_bytes()
