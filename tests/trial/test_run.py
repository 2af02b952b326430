"""One trial, one way to run it: `gemma-nli train` and a sweep's trial leave the same journal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.local.train import run_here
from gemma_nli.model.encoder import identify_encoder
from gemma_nli.sweep.ray.shared_features import TrialContext
from gemma_nli.sweep.ray.trainable import CvTrial
from gemma_nli.trial import TrialJournal, TrialRecord, read_trial, trial_key
from gemma_nli.trial.hardware import environment_tags
from gemma_nli.trial.trial_run import TrialRun

OF_THE_MOMENT = ("at_ms", "seconds", "samples", "traceback", "gemma_nli.computed_by")


def events(journal: TrialJournal) -> list[Any]:
    """What the journal says, but for the moment and the command it was written in, and samples of the machine."""

    def lasting(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: lasting(v) for k, v in value.items() if k not in OF_THE_MOMENT}
        return [lasting(each) for each in value] if isinstance(value, list) else value

    return [lasting(event) for event in journal.events() if event["event"] != "system"]


def run_as_ray_does(config: RunConfig, storage: Path, key: str) -> list[dict[str, Any]]:
    """The steps of a sweep's trial, in this process."""
    corpus = load_corpus(config.data.data_dir)
    pairs = build_pairs(corpus, config.data)
    context = TrialContext(
        config, corpus, pairs, storage, "cv_aggregate/mean_f1", cpus=torch.get_num_threads(), tags=environment_tags()
    )
    trial = tune.with_parameters(CvTrial, context=context)({"key": key, "settings": {}})
    reported = [trial.train()]
    while not reported[-1]["done"]:
        reported.append(trial.train())
    trial.stop()
    return reported


@pytest.fixture
def broken(config: RunConfig, tmp_path: Path) -> RunConfig:
    """The same with an encoder whose fingerprint can be taken, and whose weights cannot be loaded."""
    folder = tmp_path / "broken"
    shutil.copytree(config.model.name, folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    return config.with_settings({"model.name": str(folder), "mlflow.system_metrics_seconds": 600})


TRAINED = {"model.freeze_encoder": False, "model.max_length": 12, "training.num_epochs": 1}


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("changes", "steps"), [({}, 1), (TRAINED, 2)])
def test_train_and_a_sweeps_trial_leave_the_same_journal(config, few_posts, tmp_path, changes, steps):
    config = config.with_settings({"data.data_dir": str(few_posts), **changes})
    here = run_here(config, output=tmp_path / "here", storage=tmp_path / "storage")
    reported = run_as_ray_does(config, tmp_path / "storage", here.record.key)
    ours = TrialJournal(tmp_path / "here", here.record.key)
    theirs = TrialJournal(tmp_path / "storage", here.record.key)
    assert events(theirs) == events(ours)
    assert (here.record.state, reported[-1]["failed"], len(reported)) == ("finished", False, steps)


@pytest.mark.usefixtures("local_ray")
def test_train_and_a_sweeps_trial_fail_with_the_same_journal_and_their_last_machine_samples(broken, tmp_path):
    with pytest.raises(EncoderError):
        run_here(broken, output=tmp_path / "here", storage=tmp_path / "storage")
    (journal,) = (tmp_path / "here").rglob("journal.jsonl")
    (reported,) = run_as_ray_does(broken, tmp_path / "storage", journal.parent.name)
    ours, theirs = (TrialJournal(tmp_path / name, journal.parent.name) for name in ("here", "storage"))
    assert events(theirs) == events(ours)
    record = theirs.read()
    assert record is not None
    assert (reported["failed"], record.state, reported["error"]) == (True, "failed", record.error)
    assert len(record.system) == 1  # no other is due for ten minutes


class _Refuses:
    """Features that cannot be had, and an error that says more than it should."""

    def __init__(self, said: str) -> None:
        self.said = said

    def load(self, request: Any) -> Any:
        raise EncoderError(self.said)


def failed_trial(config: RunConfig, folder: Path, said: str) -> TrialRecord:
    corpus = load_corpus(config.data.data_dir)
    pairs = build_pairs(corpus, config.data)
    with TrialRun(TrialJournal(folder, "ab" * 16), config, corpus, pairs, _Refuses(said)) as trial:
        assert trial.begin() is None
        with pytest.raises(EncoderError):
            trial.step()
        assert trial.over
    record = read_trial(folder, "ab" * 16)
    assert record is not None
    return record


def test_a_failed_trial_keeps_its_last_machine_samples_and_no_secret(config, tmp_path):
    config = config.with_settings({"mlflow.system_metrics_seconds": 600})  # but for the last one there is none
    post = next(iter(load_corpus(config.data.data_dir).posts.values()))
    record = failed_trial(config, tmp_path, f"no way to https://ann:secret@hub\n{post}")
    assert (record.state, len(record.system)) == ("failed", 1)
    said = f"{record.error} {record.traceback}"
    assert "EncoderError: no way to" in said
    assert "secret" not in said
    assert post[:40] not in said


@pytest.mark.usefixtures("local_ray")
def test_a_trial_whose_encoder_cannot_be_read_is_failed_with_its_reason_and_runs_later(config, tmp_path):
    """Its journal would have no beginning, and the cell would be as if it had never run."""
    corpus = load_corpus(config.data.data_dir)
    key = trial_key(config, build_pairs(corpus, config.data).fingerprint, identify_encoder(config.model).fingerprint)
    away = config.with_settings({"model.name": str(tmp_path / "no encoder")})
    (reported,) = run_as_ray_does(away, tmp_path, key)
    record = read_trial(tmp_path, key)
    assert record is not None
    assert (reported["failed"], record.state) == (True, "failed")
    assert "no encoder" in str(record.error)
    run_as_ray_does(config, tmp_path, key)
    record = read_trial(tmp_path, key)
    assert record is not None
    assert (record.state, record.attempts) == ("finished", 2)
    assert record.encoder_fingerprint == identify_encoder(config.model).fingerprint


def test_a_worker_that_was_handed_its_corpus_quotes_no_post_of_it_either(config, tmp_path):
    """Nobody has told its process of these posts: the trial itself knows what may not be said."""
    corpus = synthetic_corpus(num_posts=60, seed=3)
    pairs, post = build_pairs(corpus, config.data), next(iter(corpus.posts.values()))
    for log_text in (False, True):
        asked = config.with_settings({"data.log_text": log_text, "mlflow.system_metrics_seconds": None})
        journal = TrialJournal(tmp_path / str(log_text), "ab" * 16)
        with TrialRun(journal, asked, corpus, pairs, _Refuses(f"no room for\n{post}")) as trial:
            trial.begin()
            with pytest.raises(EncoderError) as caught:
                trial.step()
        record = journal.read()
        assert record is not None
        for said in (str(caught.value), str(record.error), str(record.traceback), str(trial.error)):
            assert (post[:40] in said) == log_text


def test_a_trial_asked_for_again_trains_every_fold_anew_and_else_none(config, tmp_path):
    asked = config.with_settings({"mlflow.enabled": False})
    first = run_here(asked, output=tmp_path)
    seen = run_here(asked, output=tmp_path)
    assert (seen.reused, seen.record.attempts) == (True, 1)
    anew = run_here(asked, output=tmp_path, again=True)
    assert (anew.reused, anew.record.attempts) == (False, 2)
    assert anew.record.fold_ms[1] > first.record.fold_ms[1]
    assert anew.record.aggregates == first.record.aggregates


def test_other_folds_and_other_weights_are_other_trials(config):
    keys = {trial_key(config, folds, encoder) for folds in ("f", "g") for encoder in ("e", "h")}
    assert len(keys) == 4
    assert trial_key(config, "f", "e") in keys
