"""A feature store on a bucket: each text once over all machines, and no wrong vector whatever the bucket holds."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gemma_nli.errors import FeatureError, StorageError
from gemma_nli.features import FeatureStore
from gemma_nli.storage import Prefix
from tests.s3_server import BUCKET

PLACE = Prefix(BUCKET, "storage/features")
TEXTS = [f"{number} so tired and sad, nothing is fun" for number in range(6)]


@pytest.fixture
def request_(request_for, tiny_bert):
    return request_for(tiny_bert, TEXTS)


@pytest.fixture
def machine(s3, monkeypatch, tmp_path):
    """A store as another machine opens it: with a home of its own."""

    def store(name: str) -> FeatureStore:
        monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / name))
        return FeatureStore(PLACE)

    return store


def shards(s3):
    return [key for key in s3.names() if "/shard-" in key]


def test_what_one_machine_encodes_no_other_does(machine, request_, s3, tmp_path):
    first = machine("one").load(request_)
    other = machine("two")
    report = other.ensure(request_)
    assert (report.encoded, report.reused) == (0, len(TEXTS))
    np.testing.assert_array_equal(other.load(request_).views["mean"], first.views["mean"])
    assert len(shards(s3)) == 1


def test_two_machines_that_ask_at_once_encode_each_text_once(machine, request_, s3):
    stores = [machine("one"), machine("two")]
    reports = []
    threads = [threading.Thread(target=lambda s=store: reports.append(s.ensure(request_))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.encoded for report in reports) == [0, len(TEXTS)]
    assert len(shards(s3)) == 1


def test_a_damaged_shard_is_never_read_and_its_texts_are_encoded_again(machine, request_, s3):
    wanted = machine("one").load(request_).views["mean"]
    (key,) = shards(s3)
    data = bytearray(s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[-1] ^= 1
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
    store = machine("two")
    assert store.ensure(request_).encoded == len(TEXTS)
    np.testing.assert_array_equal(store.load(request_).views["mean"], wanted)
    assert machine("three").ensure(request_).encoded == 0


def test_what_could_not_be_put_there_is_put_there_the_next_time(machine, request_, s3, monkeypatch):
    store = machine("one")
    with monkeypatch.context() as patch:
        patch.setattr(store.shelf, "push", lambda *_: None)
        store.ensure(request_)
    assert shards(s3) == []
    assert machine("one").ensure(request_).encoded == 0
    assert len(shards(s3)) == 1


def test_a_store_that_is_away_or_asked_for_a_folders_upkeep_is_a_sentence(machine, request_, s3):
    store = machine("one")
    with pytest.raises(FeatureError, match="s3://sweeps/storage/features: `features` looks after folders"):
        store.entries()
    s3.away = True
    with pytest.raises(StorageError, match=r"s3://sweeps: .*goes on when it is mended"):
        store.ensure(request_)
