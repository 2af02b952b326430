"""One split by post: disjoint, tested once, logged epoch by epoch."""

from __future__ import annotations

import json

import pytest

from gemma_nli.base.errors import EncoderError, TrackingError
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.local import train_simple as simple
from gemma_nli.local.train_simple import PER_EPOCH, split_of, train_simple
from tests.commands import run_command


def test_no_post_is_on_two_sides_and_every_side_has_both_labels(config):
    pairs = build_pairs(load_corpus(config.data.data_dir), config.with_settings({"data.num_folds": 5}).data)
    split = split_of(pairs, 1.0)
    sides = [split.train, split.validation, split.test]
    posts = [set(pairs.post_N[rows].tolist()) for rows in sides]
    assert len(set.union(*posts)) == sum(map(len, posts))
    assert all(set(pairs.label_N[rows].tolist()) == {0, 1} for rows in sides)
    assert len(split.train) > len(split.validation)


@pytest.mark.parametrize("frozen", [True, False])
def test_every_metric_of_the_guide_is_there_and_the_best_epoch_is_tested(config, few_posts, tmp_path, frozen):
    config = config.with_settings(
        {"data.data_dir": str(few_posts), "data.num_folds": 3, "training.num_epochs": 3, "model.freeze_encoder": frozen}
    )
    config = config.with_settings({"model.max_length": 48 if frozen else 12})
    reported: list[int] = []
    done = train_simple(config, FeatureStore(tmp_path / "features"), lambda epoch, _: reported.append(epoch))
    assert tuple(done.history) == PER_EPOCH
    assert reported == [1, 2, 3]
    assert all(len(values) == 3 for values in done.history.values())
    assert done.metrics["best_val_f1"] == max(done.history["val_f1"])
    assert {"test_accuracy", "test_f1", "test_auc"} <= done.metrics.keys()
    assert 0 <= done.metrics["test_f1"] <= 1


def test_validation_figures_are_those_of_the_weights_that_are_tested(config, tmp_path, monkeypatch):
    """The tested weights, put to the validation pairs instead, give the best epoch's validation F1: they are those."""
    config = config.with_settings({"data.num_folds": 5, "training.num_epochs": 3})
    done = train_simple(config, FeatureStore(tmp_path / "features"))
    pairs = build_pairs(load_corpus(config.data.data_dir), config.data)
    split = split_of(pairs, 1.0)
    again = simple._test(config, load_corpus(config.data.data_dir), pairs, split.validation, done.fold)
    assert again["f1"] == pytest.approx(done.metrics["best_val_f1"], abs=1e-9)
    assert again["auc"] == pytest.approx(done.history["val_auc"][done.best_epoch - 1], abs=1e-6)


def test_training_never_sees_a_test_post(config, tmp_path, monkeypatch):
    seen: set[str] = set()
    real = simple.load_inputs

    def watch(config: RunConfig, corpus, pairs, rows, features):
        seen.update(corpus.posts)
        return real(config, corpus, pairs, rows, features)

    monkeypatch.setattr(simple, "load_inputs", watch)
    config = config.with_settings({"data.num_folds": 5})
    train_simple(config, FeatureStore(tmp_path / "features"))
    pairs = build_pairs(load_corpus(config.data.data_dir), config.data)
    tested = {pairs.post_ids[post] for post in pairs.post_N[split_of(pairs, 1.0).test]}
    assert seen
    assert not seen & tested


def test_the_command_records_each_epoch_once(words, corpus_folder, capsys, client, runs_of):
    words = [word for word in words if not word.startswith(("data.data_dir", "training.num_epochs"))]
    command = [
        "train-simple",
        *words,
        "--data-dir",
        str(corpus_folder),
        "--epochs",
        "3",
        "--mlflow",
        "--tag",
        "who=ann",
        "--json",
    ]
    assert run_command(*command) == 0
    reported = json.loads(capsys.readouterr().out)
    (run,) = runs_of("single")
    assert (run.info.run_id, run.info.status) == (reported["run_id"], "FINISHED")
    for name in PER_EPOCH:
        assert [p.step for p in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3]
    assert run.data.metrics["test_f1"] == reported["metrics"]["test_f1"]
    assert run.data.tags["who"] == "ann"
    assert run.data.tags["task"] == "nli_binary_classification"
    assert run.data.params["training.num_epochs"] == "3"
    assert {"config.yaml", "best.safetensors"} <= {f.path for f in client.list_artifacts(run.info.run_id)}
    assert len(run.inputs.dataset_inputs) == 1


def test_without_a_flag_nothing_is_recorded_and_that_is_said(words, capsys, runs_of):
    assert run_command("train-simple", *words) == 0
    out = capsys.readouterr().out
    assert "use --mlflow to record it" in out
    assert "test_f1" in out
    assert runs_of("single") == []


def test_a_store_that_is_away_is_told_before_training(config, monkeypatch):
    monkeypatch.setattr(simple, "train_simple", None)
    config = config.with_settings({"mlflow.tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        simple.run_simple(config, use_mlflow=True)


@pytest.mark.parametrize("mistake", ["model.name=/no/such/encoder", "data.data_dir=/no/such/corpus"])
def test_a_set_up_that_fails_leaves_no_run(mistake, words, runs_of):
    assert run_command("train-simple", *words, mistake, "--mlflow") == 2
    assert runs_of("single") == []


def test_an_encoder_that_cannot_be_loaded_leaves_no_run(config, monkeypatch, runs_of):
    def no_encoder(*_: object, **__: object) -> None:
        raise EncoderError("it is damaged")

    monkeypatch.setattr(simple, "load_inputs", no_encoder)
    with pytest.raises(EncoderError):
        simple.run_simple(config, use_mlflow=True)
    assert runs_of("single") == []


def test_a_run_is_called_as_its_user_says(words, capsys, runs_of):
    assert run_command("train-simple", *words, "--mlflow", "--name", "my first") == 0
    assert [run.info.run_name for run in runs_of("single")] == ["my first"]
