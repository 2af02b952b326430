"""A trial's journal in a bucket: what a folder's journal promises, and a writer that was taken over is refused."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from gemma_nli.base.errors import JournalError
from gemma_nli.storage import BucketRecord, folder_of
from gemma_nli.trial import TrialJournal, read_trial, read_trials
from tests.training.frozen_setup import assert_same_fold
from tests.trial.test_journal import CONFIG, fold_result


@pytest.fixture
def journal(store):
    journal = TrialJournal(store.place("storage"), "ab" * 16)
    journal.start(CONFIG, "folds", "encoder", num_folds=2)
    return journal


ONE, TWO = fold_result(1), fold_result(2)


def _elsewhere(monkeypatch, tmp_path, name="elsewhere"):
    """As another machine: with a home of its own, and nothing in it."""
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / name))


def test_what_one_machine_records_another_reads_to_the_last_bit(journal, store, monkeypatch, tmp_path):
    journal.add_folds([ONE, TWO])
    _elsewhere(monkeypatch, tmp_path)
    record = read_trial(store.place("storage"), journal.key)
    assert sorted(record.folds) == [1, 2]
    for number, written in ((1, ONE), (2, TWO)):
        assert_same_fold(record.folds[number], written)
        assert record.folds[number].probabilities.tobytes() == written.probabilities.tobytes()
    assert list(read_trials(store.place("storage"), [journal.key, "cd" * 16])) == [journal.key]


def test_a_fold_whose_arrays_are_gone_or_damaged_is_computed_again(journal, store, monkeypatch, tmp_path):
    journal.add_folds([ONE])
    journal.add_folds([TWO])
    first, second = sorted(key for key in store.names() if "/folds_" in key)
    store.delete(first)
    store.overwrite(second, b"half a file")
    _elsewhere(monkeypatch, tmp_path)
    assert read_trial(store.place("storage"), journal.key).folds == {}


def test_the_mirror_may_be_deleted_or_damaged_at_any_time(journal, store):
    journal.add_folds([ONE])
    assert read_trial(store.place("storage"), journal.key).folds
    (near,) = folder_of(store.place("storage")).rglob("folds_*")
    near.write_bytes(b"half a file")
    assert_same_fold(read_trial(store.place("storage"), journal.key).folds[1], ONE)
    near.unlink()
    assert_same_fold(read_trial(store.place("storage"), journal.key).folds[1], ONE)


def test_a_writer_that_was_taken_over_is_refused_and_the_journal_is_left_as_it_is(store):
    place = store.place("storage") / "trials" / "ab" / "trial"
    late_holder, next_holder = BucketRecord(place, lease_seconds=1.0), BucketRecord(place, lease_seconds=1.0)
    with late_holder.claim():
        late_holder.append(b"one")
        late_holder._lease._ended.set()  # it sleeps: no renewal, and no word of what happens
        with next_holder.claim():
            assert next_holder.lines()[:1] == [b"one"]
            next_holder.append(b"two")
            with pytest.raises(JournalError, match="its trial was taken over"):
                late_holder.append(b"late")
            next_holder.append(b"three")
    assert next_holder.lines() == [b"one", b"two", b"three", b""]


def test_the_driver_adds_to_what_is_there(journal, store):
    """As the callback does for a trial whose process died: without a claim, whoever has written meanwhile."""
    driver = TrialJournal(store.place("storage"), journal.key)
    assert driver.read().state == "running"
    journal.add_folds([ONE])
    driver.stop("failed", error="its process died")
    record = read_trial(store.place("storage"), journal.key)
    assert (record.state, sorted(record.folds)) == ("failed", [1])


def test_past_the_limit_only_the_best_folds_weights_stay(journal, store):
    folds = [fold_result(1), fold_result(2)]
    folds[1].metrics["f1"] = 0.9
    names = folds[1].state.keys()
    journal.add_folds(folds, keep_weights=False)
    journal.keep_weights(folds, [], limit_bytes=8)
    weights = [key for key in store.names() if "/weights_" in key]
    assert [key.rpartition("/")[2].partition("-")[0] for key in weights] == ["weights_2"]
    record = read_trial(store.place("storage"), journal.key, weights=True)
    assert list(record.weights) == [2]
    assert load_file(record.weights[2]).keys() == names


def test_a_store_that_goes_away_costs_the_event_and_nothing_that_was_recorded(journal, store):
    journal.add_folds([ONE])
    store.away = True
    with pytest.raises(JournalError, match=r"(s3|gs)://sweeps/storage/trials/ab/.*again when it is fixed"):
        journal.add_folds([TWO])
    with pytest.raises(JournalError, match="again when it is fixed"):
        journal.read()
    store.away = False
    assert sorted(journal.read().folds) == [1]
    journal.add_folds([TWO])
    assert sorted(read_trial(store.place("storage"), journal.key).folds) == [1, 2]


def test_no_secret_is_kept_with_a_claim(store):
    place = store.place("storage") / "trials" / "ab" / "trial"
    with BucketRecord(place).claim():
        facts = json.loads((place / "claim.json").read_bytes())
    assert facts.keys() == {"holder", "writes", "free", "pid", "host"}
