"""A feature store on a bucket: each text once over all machines, and no wrong vector whatever the bucket holds."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gemma_nli.base.errors import FeatureError, StorageError
from gemma_nli.features import FeatureStore

TEXTS = [f"{number} so tired and sad, nothing is fun" for number in range(6)]


@pytest.fixture
def request_(request_for, tiny_bert):
    return request_for(tiny_bert, TEXTS)


@pytest.fixture
def machine(store, monkeypatch, tmp_path):
    """A store as another machine opens it: with a home of its own."""

    def open_store(name: str) -> FeatureStore:
        monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / name))
        return FeatureStore(store.place("storage/features"))

    return open_store


def shards(bucket):
    return [key for key in bucket.names() if "/shard-" in key]


def test_what_one_machine_encodes_no_other_does(machine, request_, store, tmp_path):
    first = machine("one").load(request_)
    other = machine("two")
    report = other.ensure(request_)
    assert (report.encoded, report.reused) == (0, len(TEXTS))
    np.testing.assert_array_equal(other.load(request_).views["mean"], first.views["mean"])
    assert len(shards(store)) == 1


def test_two_machines_that_ask_at_once_encode_each_text_once(machine, request_, store):
    stores = [machine("one"), machine("two")]
    reports = []
    threads = [threading.Thread(target=lambda s=store: reports.append(s.ensure(request_))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.encoded for report in reports) == [0, len(TEXTS)]
    assert len(shards(store)) == 1


def test_a_damaged_shard_is_never_read_and_its_texts_are_encoded_again(machine, request_, store):
    wanted = machine("one").load(request_).views["mean"]
    (key,) = shards(store)
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.overwrite(key, bytes(data))
    two = machine("two")
    assert two.ensure(request_).encoded == len(TEXTS)
    np.testing.assert_array_equal(two.load(request_).views["mean"], wanted)
    assert machine("three").ensure(request_).encoded == 0


def test_what_could_not_be_put_there_is_put_there_the_next_time(machine, request_, store, monkeypatch):
    one = machine("one")
    with monkeypatch.context() as patch:
        patch.setattr(one.bucket_sync, "push", lambda *_: None)
        one.ensure(request_)
    assert shards(store) == []
    assert machine("one").ensure(request_).encoded == 0
    assert len(shards(store)) == 1


def test_a_store_that_is_away_or_asked_for_a_folders_upkeep_is_a_sentence(machine, request_, store):
    one = machine("one")
    with pytest.raises(FeatureError, match=r"(s3|gs)://sweeps/storage/features: `features` manages folders"):
        one.entries()
    store.away = True
    with pytest.raises(StorageError, match=r"(s3|gs)://sweeps: .*again when it is fixed"):
        one.ensure(request_)
