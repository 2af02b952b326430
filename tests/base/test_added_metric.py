"""One new file is one new metric: in a copy of the package, over journals of the package without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.findings import find
from gemma_nli.analysis.from_journals import gather
from gemma_nli.base.metrics.table import HEADLINES
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus, write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.local.train import run_here
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.training.results import summarize
from gemma_nli.trial import read_trials
from tests.contributed import shown_files
from tests.package_copy import ask_copy

FILE = shown_files()["base/metrics/specificity.py"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Any]:
    """What the copy answers (`added_metric.py`), and what the package without the metric had found before."""
    folder = tmp_path_factory.mktemp("added_metric")
    write_corpus(synthetic_corpus(num_posts=60, seed=3), folder / "corpus")
    tree = {
        "name": "added",
        "base": {
            "data": {"data_dir": str(folder / "corpus"), "num_folds": 3},
            "model": {"name": str(tiny_bert), "max_length": 24},
            "training": {"num_epochs": 2},
            "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
        },
        "space": {"training.learning_rate": {"grid": [1e-3, 1e-2]}},
        "storage": str(folder / "storage"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        spec = SweepSpec.from_mapping(tree)
        sweep_id = simulate_sweep(spec, lambda settings: settings["training.learning_rate"] * 100)
        corpus, storage = load_corpus(spec.base.data.data_dir), Path(spec.storage)
        cells = SweepFolder(storage / "sweeps" / sweep_id).cells()
        before = find(gather(spec, corpus, build_pairs(corpus, spec.base.data), storage, cells, sweep_id))
        run_here(spec.base)
        facts = {"tree": tree, "sweep_id": sweep_id, "new_storage": str(folder / "new_storage")}
        script = Path(__file__).with_name("added_metric.py")
        found = ask_copy(folder, {"base/metrics/specificity.py": FILE}, script, facts)
    newer = read_trials(folder / "new_storage", found_keys(folder / "new_storage"))
    pairs = build_pairs(corpus, spec.base.data)
    again = [summarize(list(record.folds.values()), pairs).metrics() for record in newer.values()]
    older = {"kept": [record.metrics() for record in newer.values()], "again": again}
    return {**found, "before": {"winner": before.winner_key, "honest": before.honest.value}, "older": older}


def found_keys(storage: Path) -> list[str]:
    return [path.name for path in sorted((storage / "trials").glob("*/*"))]


def test_a_sweep_can_be_decided_by_it_and_its_report_measures_it_again(told: dict[str, Any]) -> None:
    found = told["new_sweep"]
    assert found["name"] == "specificity"
    assert {"specificity", "F1", "AUC"} <= set(found["header"])
    assert found["scores"] == found["journals"]
    for low, value, high in (found["honest"], found["contrast"]):
        assert low < value < high
    assert found["baselines"]["always positive"] == 0.0
    assert found["baselines"]["TF-IDF"] > 0
    assert all(0 <= value <= 1 for value in found["slices"])


def test_a_run_is_trained_with_it_and_found_by_it(told: dict[str, Any]) -> None:
    found = told["train"]
    assert found["best"] == found["trained"]
    assert found["fold"] == ["fold_1/val_specificity"]
    assert "did you mean" in found["refused"] or "no finished trial has metric" in found["refused"]
    (note,) = found["notes"]
    assert "1 finished trials lack cv_aggregate/mean_specificity and are not ranked" in note


def test_journals_that_were_written_before_it_are_summarized_and_reported_without_it(told: dict[str, Any]) -> None:
    found = told["old_sweep"]
    assert found["same"]
    assert found["has_it"] == []
    assert {name: found[name] for name in ("winner", "honest")} == told["before"]


def test_ranking_by_it_says_which_trials_lack_it(told: dict[str, Any]) -> None:
    found = told["old_sweep_by_it"]
    assert "no finished trial has cv_aggregate/mean_specificity" in found["refused"]
    assert found["ranked"] == 4
    assert len(found["notes"]) == 2
    assert all("without cv_aggregate/mean_specificity" in note for note in found["notes"])
    assert any("2 without cv_aggregate/mean_specificity" in warning for warning in found["warnings"])


def test_journals_of_a_newer_version_are_read_by_one_that_does_not_know_the_metric(told: dict[str, Any]) -> None:
    kept, again = told["older"]["kept"], told["older"]["again"]
    assert len(kept) == 2
    for newer, here in zip(kept, again, strict=True):
        assert "cv_aggregate/mean_specificity" in newer
        assert {name: newer[name] for name in here} == here
        assert newer.keys() - here.keys() == {f"cv_aggregate/{way}_specificity" for way in HEADLINES}
