"""A sweep that compares, confirms and reports, on a real local Ray and a real MLflow store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from gemma_nli.console.command_results import show_result
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.tracking.read.frames import list_runs
from gemma_nli.tracking.read.queries import best_trial
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.trial import read_trial
from tests.commands import run_command
from tests.sweep.conftest import little_tree, spec_of

AT = "at 1 matched negative per positive"


def comparing(folder: Path, corpus: Path, encoder: Path) -> dict[str, Any]:
    tree = little_tree(folder, corpus, encoder)
    del tree["space"]
    tree["base"]["training"]["num_epochs"] = 2
    return {
        **tree,
        "name": "comparing",
        "compare": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
        "tune": {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}},
        "search": {"algorithm": "optuna", "num_trials": 2},
        "report": {"enabled": True},
        "finalize": {"confirm": {"seeds": 2, "fold_drawings": 2}},
    }


@pytest.fixture(scope="module")
def compared(
    local_ray: None, tmp_path_factory: pytest.TempPathFactory, small_corpus: Path, tiny_bert: Path
) -> tuple[dict[str, Any], SweepResult, Path]:
    folder = tmp_path_factory.mktemp("compared")
    tree = comparing(folder, small_corpus, tiny_bert)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        return tree, run_sweep(spec_of(tree)), folder


def _cells(tree: dict[str, Any], result: SweepResult) -> dict[str, dict[str, Any]]:
    return SweepFolder(Path(tree["storage"]) / "sweeps" / result.sweep_id).cells()


def test_each_compared_value_is_tuned_with_the_same_budget(compared: tuple[dict[str, Any], SweepResult, Path]) -> None:
    tree, result, _ = compared
    assert result.exit_status == 0
    assert result.trials["finished"] == 4
    swept = [s["model.pooling_strategy"] for s in _cells(tree, result).values() if "data.fold_seed" not in s]
    assert sorted(swept) == ["cls", "cls", "mean", "mean"]


def test_the_best_of_each_compared_value_is_trained_again_as_trials_of_the_sweep(
    compared: tuple[dict[str, Any], SweepResult, Path],
) -> None:
    tree, result, _ = compared
    again = {key: s for key, s in _cells(tree, result).items() if "data.fold_seed" in s}
    assert len(again) == 8
    assert result.confirming == {"finished": 8, "pruned": 0, "failed": 0, "waiting": 0}
    records = [record for key in again if (record := read_trial(Path(tree["storage"]), key)) is not None]
    assert [record.state for record in records] == ["finished"] * 8
    assert len({record.fold_fingerprint for record in records}) == 2
    drawn = {(s["model.pooling_strategy"], s["data.fold_seed"], s["training.seed"]) for s in again.values()}
    assert drawn == {
        (pooling, 42 + 1000 * drawing, 42 + drawing + 50 * number)
        for pooling in ("cls", "mean")
        for drawing in (1, 2)
        for number in (0, 1)
    }
    leaders = {trial.settings["model.pooling_strategy"]: trial.settings for trial in reversed(result.ranked)}
    for settings in again.values():
        assert leaders[settings["model.pooling_strategy"]].items() <= settings.items()
    assert result.report is not None
    assert result.report["confirmed"]["values"].keys() == {"cls", "mean"}
    assert "counting posts and 4 trainings of each" in result.report["answer"][0]
    for name, value in result.report["confirmed"]["values"].items():
        own = [r for r in records if r.config.model.pooling_strategy == name]
        scores = [record.aggregates["cv_aggregate/mean_f1"] for record in own]
        text = Path(result.report["markdown"]).read_text().split("## Confirmed")[1].split("## ")[0]
        assert f"{min(scores):.3f} | {max(scores):.3f}" in text
        assert value["confirmed"] <= sum(scores) / 4 + 1e-9


def test_each_confirming_run_names_the_trial_that_it_trains_again(
    compared: tuple[dict[str, Any], SweepResult, Path],
) -> None:
    tree, result, _ = compared
    client = MlflowClient(tree["base"]["mlflow"]["tracking_uri"])
    experiment = client.get_experiment_by_name("little")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`gemma_nli.kind` = 'trial'")
    again = [run for run in runs if "gemma_nli.confirms" in run.data.tags]
    assert len(again) == 8
    keys = {trial.settings["model.pooling_strategy"]: trial.key for trial in reversed(result.ranked)}
    for run in again:
        assert run.data.tags["gemma_nli.confirms"] == keys[run.data.params["model.pooling_strategy"]]


def test_seeds_that_trained_together_have_the_numbers_of_each_alone(
    compared: tuple[dict[str, Any], SweepResult, Path],
) -> None:
    tree, result, _ = compared
    key = next(key for key, settings in _cells(tree, result).items() if settings.get("training.seed") == 42 + 51)
    record = read_trial(Path(tree["storage"]), key)
    assert record is not None
    corpus = load_corpus(record.config.data.data_dir)
    pairs = build_pairs(corpus, record.config.data)
    alone = cross_validate(record.config, corpus, pairs, FeatureStore(Path(tree["storage"]) / "features"))
    for fold in alone.folds:
        np.testing.assert_allclose(record.folds[fold.fold].probabilities, fold.probabilities, atol=1e-5)


def test_the_best_is_no_confirming_trial_and_tells_its_honest_score(
    compared: tuple[dict[str, Any], SweepResult, Path],
) -> None:
    tree, result, _ = compared
    found = best_trial("little", tracking_uri=tree["base"]["mlflow"]["tracking_uri"])
    assert result.best is not None
    assert result.report is not None
    assert found.run_id == result.best_run_id
    assert found.value == result.best.objective
    assert found.honest is not None
    assert found.honest["value"] == result.report["honest"]["honest"]
    assert found.honest["candidates"] == 4


def test_the_report_and_the_honest_score_are_in_mlflow(compared: tuple[dict[str, Any], SweepResult, Path]) -> None:
    tree, result, folder = compared
    client = MlflowClient(tree["base"]["mlflow"]["tracking_uri"])
    assert result.sweep_run_id is not None
    assert {"report.html", "report.md"} <= {file.path for file in client.list_artifacts(result.sweep_run_id)}
    sent = client.download_artifacts(result.sweep_run_id, "report.html", str(folder))
    assert result.report is not None
    assert Path(sent).read_bytes() == Path(result.report["html"]).read_bytes()
    version = client.get_model_version_by_alias("gemma_nli_little", "candidate")
    assert float(version.tags["gemma_nli.honest_value"]) == result.report["honest"]["honest"]
    assert float(version.tags["gemma_nli.metric_value"]) == pytest.approx(result.report["honest"]["raw"])


def test_running_it_again_runs_nothing_and_keeps_the_report(
    compared: tuple[dict[str, Any], SweepResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, result, folder = compared
    monkeypatch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
    assert result.report is not None
    before = Path(result.report["html"]).stat().st_mtime_ns
    again = run_sweep(spec_of(tree))
    assert again.ran == 0
    assert len(_cells(tree, again)) == 4 + 8
    assert again.report == result.report
    assert Path(result.report["html"]).stat().st_mtime_ns == before
    assert json.dumps(again.to_json())


def test_a_report_that_fails_costs_the_sweep_nothing(
    sweep_tree: dict[str, Any], local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses the page: the sweep ends well, registers its best, and says why there is no report."""
    import gemma_nli.analysis.report.write as there

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(there, "write_whole", full)
    result = run_sweep(spec_of(sweep_tree, report={"enabled": True}))
    assert result.exit_status == 0
    assert result.registered is not None
    assert result.report is None
    assert any("the report cannot be written: No space left on device" in note for note in result.notes)


def test_a_sweep_may_do_without_a_report(finished_sweep: tuple[dict[str, Any], SweepResult]) -> None:
    _, result = finished_sweep
    assert result.report is None
    assert not [note for note in result.notes if "report" in note]


def test_the_command_writes_it_again_sends_it_and_says_where(
    compared: tuple[dict[str, Any], SweepResult, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree, result, folder = compared
    monkeypatch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
    assert result.report is not None
    assert run_command("report", "comparing", "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["unsent"] is None
    assert {name: reported[name] for name in result.report} == result.report
    run = MlflowClient(tree["base"]["mlflow"]["tracking_uri"]).get_run(result.sweep_run_id)
    assert run.info.status == "FINISHED"
    assert run_command("report", "comparing", "--out", str(folder / "elsewhere")) == 0
    assert (folder / "elsewhere" / "report.html").is_file()
    assert result.report["answer"][0].split()[0] in capsys.readouterr().out
    assert run_command("report", "comparin") == 2
    assert "did you mean 'comparing'?" in capsys.readouterr().err


def test_best_prints_the_honest_score(
    compared: tuple[dict[str, Any], SweepResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tree, result, _ = compared
    uri = tree["base"]["mlflow"]["tracking_uri"]
    assert run_command("best", "--experiment", "little", "--tracking-uri", uri) == 0
    assert result.report is not None
    honest = result.report["honest"]
    assert (
        f"honest mean_f1 {honest['honest']:.4f} ({honest['low']:.4f} to {honest['high']:.4f})"
        in capsys.readouterr().out
    )


def test_a_report_is_written_where_mlflow_is_away(
    compared: tuple[dict[str, Any], SweepResult, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stored address whose password was not kept: the report needs none, and says what MLflow has not got."""
    tree, result, folder = compared
    monkeypatch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
    stored = Path(tree["storage"]) / "sweeps" / result.sweep_id / "spec.yaml"
    before = stored.read_text()
    stored.write_text(before.replace(tree["base"]["mlflow"]["tracking_uri"], "http://***@127.0.0.1:9"))
    try:
        assert run_command("report", "comparing", "--json") == 0
    finally:
        stored.write_text(before)
    assert "set $MLFLOW_TRACKING_URI" in json.loads(capsys.readouterr().out)["unsent"]


def test_mlflow_says_the_answer_what_to_do_and_what_the_scores_were_measured_on(
    compared: tuple[dict[str, Any], SweepResult, Path],
) -> None:
    tree, result, _ = compared
    client = MlflowClient(tree["base"]["mlflow"]["tracking_uri"])
    assert result.report is not None
    assert result.sweep_run_id is not None
    assert result.best_run_id is not None
    sweep, best = (client.get_run(run_id).data.tags for run_id in (result.sweep_run_id, result.best_run_id))
    description = sweep["mlflow.note.content"].replace("\\", "")
    for said in (*result.report["answer"], *result.report["conclusion"].values(), f"Scores {AT}."):
        assert said in description
    assert sweep["gemma_nli.measured"] == best["gemma_nli.measured"] == AT


def test_a_registered_model_says_that_it_is_a_refit_which_nobody_has_measured(
    compared: tuple[dict[str, Any], SweepResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tree, result, _ = compared
    version = MlflowClient(tree["base"]["mlflow"]["tracking_uri"]).get_model_version_by_alias(
        "gemma_nli_little", "candidate"
    )
    for said in (version.tags["gemma_nli.refit"], version.description):
        assert "a refit on all pairs, which nobody has measured" in said
    assert f"{version.tags['gemma_nli.metric_value']} {AT} is its trial's." in version.description
    show_result(result, spec_of(tree))
    out = " ".join(capsys.readouterr().out.split())
    assert "alias candidate: a refit on all pairs, which nobody has measured" in out


def test_every_command_that_shows_f1_says_what_it_was_measured_on(
    compared: tuple[dict[str, Any], SweepResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tree, result, _ = compared
    store = ("--tracking-uri", tree["base"]["mlflow"]["tracking_uri"])
    show_result(result, spec_of(tree))
    assert f"comparing: 4 best of 4, {AT}" in " ".join(capsys.readouterr().out.split())
    assert result.best_run_id is not None
    other = next(r for r in list_runs("little", tracking_uri=store[1])["run_id"] if r != result.best_run_id)
    for words in (
        ("best", "--experiment", "little"),
        ("runs", "--experiment", "little"),
        ("experiments",),
        ("models",),
        ("compare", result.best_run_id, other),
    ):
        assert run_command(*words, *store) == 0
        assert AT in " ".join(capsys.readouterr().out.split()), words
