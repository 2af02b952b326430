"""A single run: recorded once, resumed fold by fold, told plainly where it is not in MLflow."""

from __future__ import annotations

import dataclasses
import json
import traceback
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from gemma_nli.base.errors import CorpusError, JournalError, TrackingError, TrainingError
from gemma_nli.config import home
from gemma_nli.corpus.pairs import pair_id
from gemma_nli.corpus.redsm5 import Corpus, write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.local.train import run_here
from gemma_nli.training.listeners import IgnoreEvents
from gemma_nli.trial.trial_run import TrialCrashed
from tests.commands import run_command


def test_a_run_shows_every_name_that_the_guide_has(config, runs_of, client):
    config = config.with_settings({"mlflow.system_metrics_seconds": 0.1})
    done = run_here(config, tags={"researcher": "ann", "note": "first try"})
    (run,) = runs_of("single")
    assert (run.info.run_id, run.info.status) == (done.run_id, "FINISHED")
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    for fold in (1, 2):
        for name in ("train_loss", "val_loss", "val_f1", "val_auc"):
            points = client.get_metric_history(done.run_id, f"fold_{fold}/{name}")
            assert [point.step for point in points] == [1, 2]
        assert {f"cv_summary/fold_{fold}_best_f1", f"cv_summary/fold_{fold}_best_auc"} <= metrics.keys()
    assert {f"cv_aggregate/{n}" for n in ("mean_f1", "std_f1", "median_f1", "mean_auc", "std_auc")} <= metrics.keys()
    assert {
        f"dataset/{n}" for n in ("total_pairs", "positive_pairs", "negative_pairs", "num_criteria")
    } <= params.keys()
    assert params["model.pooling_strategy"] == "mean"
    assert {"gpu_name", "gpu_memory_gb", "has_gpu", "supports_bfloat16", "supports_tf32", "cpu_name"} <= tags.keys()
    assert tags["task"] == "nli_binary_classification"
    assert (tags["researcher"], tags["mlflow.note.content"]) == ("ann", "first try")
    files = {file.path for file in client.list_artifacts(done.run_id)}
    wanted = {"config.yaml", "aggregate_results.json", "nli_pairs.csv", "nli_cv_folds_metadata.json"}
    wanted |= {f"fold_{k}_{what}" for k in (1, 2) for what in ("best.safetensors", "history.json")}
    assert wanted <= files
    (dataset,) = run.inputs.dataset_inputs
    assert len(dataset.dataset.digest) == 36
    assert tags["gemma_nli.data_fingerprint"].startswith(dataset.dataset.digest)
    assert json.loads(dataset.dataset.profile)["num_posts"] == 60
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/process_memory_megabytes"] > 1


@pytest.mark.parametrize(("limit", "kept"), [(0.5, 2), (0.0, 1)])
def test_adapters_of_each_fold_are_kept_and_past_the_limit_the_best_folds_alone(config, client, limit, kept):
    lora = {"model.freeze_encoder": False, "model.lora.target_modules": ["query"], "training.num_epochs": 1}
    done = run_here(config.with_settings({**lora, "model.max_length": 12, "output.fold_weights_gib": limit}))
    files = [file.path for file in client.list_artifacts(done.run_id)]
    weights = [name for name in files if name.endswith("_best.safetensors")]
    best = max(done.result.folds, key=lambda fold: fold.metrics["f1"]).fold
    assert f"fold_{best}_best.safetensors" in weights
    if limit:
        assert len(weights) == kept
        tensors = load_file(client.download_artifacts(done.run_id, weights[0]))
        assert any("lora_A" in name for name in tensors)
        assert any(name.startswith("head.") for name in tensors)


def test_no_file_of_a_run_holds_a_post(config, corpus_folder, tmp_path):
    """Journal, encoded texts, MLflow's database and its artifacts."""
    from gemma_nli.corpus.redsm5 import load_corpus
    from gemma_nli.local.train_simple import run_simple

    run_here(config)
    run_simple(config, use_mlflow=True)
    posts = [text[:40].encode() for text in load_corpus(corpus_folder).posts.values()]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not [post for post in posts if post in content], path


def test_the_same_run_again_trains_nothing_and_stays_one_run_and_again_trains_it_anew(config, runs_of, monkeypatch):
    first = run_here(config)
    with monkeypatch.context() as patch:
        patch.setattr("gemma_nli.trial.trial_run.run_folds", None)  # a call of it would fail
        second = run_here(config)
    assert (second.reused, second.run_id) == (True, first.run_id)
    anew = run_here(config, again=True)
    assert not anew.reused
    assert anew.result.metrics() == first.result.metrics()
    (run,) = runs_of("single")
    assert run.data.tags["gemma_nli.attempts"] == "2"


def test_under_another_name_the_same_numbers_are_shown_with_that_name(config, runs_of):
    run_here(config)
    renamed = run_here(config.with_settings({"output.experiment_name": "other"}))
    assert renamed.reused
    (run,) = runs_of("other")
    assert run.data.params["output.experiment_name"] == "other"


class _Stops(IgnoreEvents):
    """Somebody's Ctrl-C after the first fold."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def folds_ended(self, folds) -> None:
        raise self.error


def test_a_run_that_is_cut_off_is_killed_in_mlflow_and_goes_on_after_its_last_fold(config, few_posts, runs_of):
    config = config.with_settings({"data.data_dir": str(few_posts)})
    config = config.with_settings({"model.freeze_encoder": False, "training.num_epochs": 1, "model.max_length": 12})
    with pytest.raises(KeyboardInterrupt):
        run_here(config, listeners=[_Stops(KeyboardInterrupt())])
    (run,) = runs_of("single")
    assert run.info.status == "KILLED"
    reported: list[int] = []

    class Counts(IgnoreEvents):
        def folds_ended(self, folds) -> None:
            reported.extend(fold.fold for fold in folds)

    done = run_here(config, listeners=[Counts()])
    assert reported == [2]
    (run,) = runs_of("single")
    assert (run.info.status, run.info.run_id) == ("FINISHED", done.run_id)
    assert done.result.metrics() == run_here(config, again=True).result.metrics()


def test_an_error_is_recorded_without_the_post_that_it_quotes(config, runs_of, corpus_folder, client):
    from gemma_nli.corpus.redsm5 import load_corpus

    post = next(iter(load_corpus(corpus_folder).posts.values()))
    with pytest.raises(TrialCrashed) as caught:
        run_here(config, listeners=[_Stops(ValueError(f"cannot read\n{post}"))])
    assert "ValueError: cannot read" in str(caught.value)
    assert post not in "".join(traceback.format_exception(caught.value))
    (run,) = runs_of("single")
    assert run.info.status == "FAILED"
    assert post not in str(run.data.tags)
    trace = Path(client.download_artifacts(run.info.run_id, "traceback.txt")).read_text()
    assert post not in trace
    assert "ValueError: cannot read" in trace


@pytest.mark.parametrize("kind", [TrainingError, ValueError])
def test_what_a_failing_run_raises_has_no_password_and_no_post(config, corpus_folder, kind):
    from gemma_nli.corpus.redsm5 import load_corpus

    post = next(iter(load_corpus(corpus_folder).posts.values()))
    error = kind(f"cannot go on at postgresql://ann:secret@db\nwith {post}")
    with pytest.raises(TrainingError if kind is TrainingError else TrialCrashed, match="cannot go on at") as caught:
        run_here(config, listeners=[_Stops(error)])
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert post[:40] not in shown


def test_without_mlflow_only_the_output_folder_is_written_and_that_is_said(config, tmp_path, monkeypatch):
    config = config.with_settings({"mlflow.enabled": False})
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    done = run_here(config, output=tmp_path / "out")
    assert done.run_id is None
    assert any("mlflow.enabled is false" in note and str(done.folder) in note for note in done.notes)
    assert {"config.yaml", "aggregate_results.json", "fold_1_history.json"} <= {p.name for p in done.folder.iterdir()}
    written = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert written
    notes = home() / "probes"  # what was found out about the encoder: of no run
    assert all(path.is_relative_to(tmp_path / "out") or path.is_relative_to(notes) for path in written)


def test_mistakes_come_before_any_training(config, monkeypatch, tmp_path):
    monkeypatch.setattr("gemma_nli.trial.trial_run.run_folds", None)
    with pytest.raises(CorpusError):
        run_here(config.with_settings({"data.data_dir": str(tmp_path / "none")}))
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        run_here(config.with_settings({"mlflow.tracking_uri": "http://127.0.0.1:9"}))


def test_two_processes_never_train_one_run(config, monkeypatch):
    from gemma_nli.trial import TrialJournal

    done = run_here(config)
    with (
        TrialJournal(done.folder.parent.parent.parent, done.record.key).claim(),
        pytest.raises(JournalError, match="another"),
    ):
        run_here(config)


def test_the_command_tells_run_experiment_and_metrics(words, capsys, runs_of):
    assert run_command("train", *words, "--tag", "researcher=ann", "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    (run,) = runs_of("single")
    assert reported["run_id"] == run.info.run_id
    assert reported["metrics"]["cv_aggregate/mean_f1"] == run.data.metrics["cv_aggregate/mean_f1"]
    assert run_command("train", *words) == 0
    out = capsys.readouterr().out
    assert run.info.run_id in out
    assert "already trained" in out


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (["experiment=nli_4091"], "did you mean 'nli_4090'"),
        (["--tag", "nonsense"], "expected key=value"),
        (["--tag", "mlflow.runName=x"], "mlflow"),
        (["experiment=nli_cpu", "--config", "x.yaml"], "give only one of them"),
    ],
)
def test_a_mistake_is_one_message(words, more, reported, capsys):
    assert run_command("train", *words, *more) == 2
    assert reported in capsys.readouterr().err


def test_a_run_that_does_not_learn_says_so_and_its_mlflow_run_has_the_tag(config, client):
    dull = run_here(config.with_settings({"training.learning_rate": 1e-12, "training.num_epochs": 1}))
    (note,) = [note for note in dull.notes if "did not learn" in note]
    assert "training.learning_rate (it was 1e-12)" in note
    assert client.get_run(dull.run_id).data.tags["gemma_nli.not_learned"] == note


def test_folds_that_could_choose_no_threshold_are_named_in_the_record_the_notes_and_the_mlflow_run(
    config, client, tmp_path
):
    write_corpus(synthetic_corpus(8, seed=3), tmp_path / "few")
    run = run_here(config.with_settings({"data.data_dir": str(tmp_path / "few")}))
    fallen = run.record.fallen_back
    assert fallen
    (note,) = [note for note in run.notes if "threshold 0.5" in note]
    assert note.startswith(f"fold{'s' if len(fallen) > 1 else ''} {', '.join(map(str, fallen))}: the inner split's")
    assert client.get_run(run.run_id).data.tags["gemma_nli.fell_back"] == note


def test_criteria_with_any_names_are_trained_and_mlflow_has_a_metric_for_each(config, client, tmp_path):
    made = synthetic_corpus(60, seed=3)
    odd = ["USE::MONITOR", "A1: Low mood", "../up", "a/b//c", "50% off", "müde 😴", "a,b", 'say "so"', "[b]", "é" * 300]
    names = dict(zip(made.criteria, odd, strict=True))
    reported = tuple(dataclasses.replace(a, criterion_id=names[a.criterion_id]) for a in made.annotations)
    write_corpus(Corpus(made.posts, {names[k]: v for k, v in made.criteria.items()}, reported), tmp_path / "odd")
    done = run_here(config.with_settings({"data.data_dir": str(tmp_path / "odd")}))
    assert list(done.result.criteria) == odd
    metrics = [name for name in client.get_run(done.run_id).data.metrics if name.startswith("criterion/")]
    assert len(metrics) == 6 * len(odd)  # f1, precision, recall, auc, ap, support
    assert "criterion/USE::MONITOR_f1" in metrics
    pairs = pd.read_csv(client.download_artifacts(done.run_id, "nli_pairs.csv"), dtype=str)
    assert set(pairs["criterion_id"]) == set(odd)
    assert pairs["pair_id"].is_unique
    assert {pair_id(p, c) for p, c in zip(pairs["post_id"], pairs["criterion_id"], strict=True)} == set(
        pairs["pair_id"]
    )
