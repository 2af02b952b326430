"""A sweep of version 1 of the semantics (negatives pooled, no such setting): read as it was run, never gone on with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.base.errors import ReportError, SpecError
from gemma_nli.config import SEMANTICS_VERSION
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.make_report import report_sweeps
from gemma_nli.sweep.resume import stored_spec
from gemma_nli.trial import read_trial


def age(journal: Path) -> None:
    """Write the journal as version 1 did: without the setting, its own version in the line that starts an attempt."""
    lines = []
    for line in journal.read_bytes().splitlines():
        event = json.loads(line.partition(b" ")[2])
        if event["event"] == "started":
            assert event["semantics"] == SEMANTICS_VERSION
            event["semantics"] = 1
            del event["config"]["data"]["negatives"]
        text = json.dumps(event).encode()
        lines.append(hashlib.sha256(text).hexdigest()[:16].encode() + b" " + text)
    journal.write_bytes(b"\n".join(lines) + b"\n")


def sweep(folder: Path, encoder: Path, name: str, seed: int = 42) -> SweepSpec:
    tree = {
        "name": name,
        "base": {
            "data": {"data_dir": str(folder / "data"), "num_folds": 3, "negatives": "pooled"},
            "model": {"name": str(encoder), "max_length": 24},
            "training": {"seed": seed},
            "mlflow": {"enabled": False},
        },
        "space": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "storage": str(folder / "storage"),
    }
    return SweepSpec.from_mapping(tree, name)


@pytest.fixture
def earlier(tmp_path: Path, tiny_bert: Path) -> Path:
    """A finished sweep `earlier` whose folder and journals are as version 1 wrote them."""
    write_synthetic(tmp_path / "data", num_posts=60, seed=2)
    sweep_id = simulate_sweep(sweep(tmp_path, tiny_bert, "earlier"), lambda _settings: 1.0)
    for journal in (tmp_path / "storage" / "trials").rglob("journal.jsonl"):
        age(journal)
    path = tmp_path / "storage" / "sweeps" / sweep_id / "spec.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    del tree["base"]["data"]["negatives"]
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def test_its_trials_and_its_report_are_of_pooled_negatives(earlier: Path) -> None:
    keys = [path.parent.name for path in (earlier / "storage" / "trials").rglob("journal.jsonl")]
    records = [read_trial(earlier / "storage", key) for key in keys]
    assert [(record.semantics, record.config.data.negatives) for record in records if record] == [(1, "pooled")] * 2
    report = report_sweeps(["earlier"])
    assert report.html.is_file()
    assert "criterion only" in report.markdown.read_text(encoding="utf-8")


def test_going_on_with_it_is_refused_with_what_to_do(earlier: Path) -> None:
    with pytest.raises(SpecError, match=r"version 1 of the training semantics.*gemma-nli report.*run its sweep file"):
        stored_spec("earlier")


def test_it_is_not_compared_with_a_sweep_of_today(earlier: Path, tiny_bert: Path) -> None:
    simulate_sweep(sweep(earlier, tiny_bert, "today", seed=7), lambda _settings: 1.0, seed=1)
    stored_spec("today")
    with pytest.raises(ReportError, match="versions 1 and 2 of the training semantics"):
        report_sweeps(["earlier", "today"])
