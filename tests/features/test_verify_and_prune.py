from __future__ import annotations

import os
import time

import pytest

from gemma_nli.base.errors import FeatureError
from gemma_nli.features import FeatureStore

TEXTS = [f"{number} so tired and sad" for number in range(6)]


@pytest.fixture
def store(tmp_path, request_for, tiny_bert):
    """Two keys: six texts at 64 tokens with token states, then three at 16 without."""
    store = FeatureStore(tmp_path / "store")
    store.load(request_for(tiny_bert, TEXTS, with_tokens=True))
    store.load(request_for(tiny_bert, TEXTS[:3], max_length=16))
    old = time.time() - 1000
    os.utime(store.root / request_for(tiny_bert, TEXTS).key / "meta.json", (old, old))
    return store


def shards(store):
    return sorted(store.root.glob("*/shard-*"))


def test_entries_tell_what_each_key_holds(store, request_for, tiny_bert):
    old, new = store.entries()
    assert (old.texts, old.with_tokens, new.texts, new.with_tokens) == (6, 6, 3, 0)
    assert old.key == request_for(tiny_bert, TEXTS).key
    assert old.about["max_length"] == 64
    assert old.encoder == str(tiny_bert)
    assert set(old.views) == {"mean", "max", "cls", "last", "first_k:4", "last_k:4"}
    assert old.size_bytes == sum(path.stat().st_size for path in (store.root / old.key).iterdir())
    assert time.time() - old.last_used > 900 > time.time() - new.last_used
    assert old.created >= time.time() - 900


def test_a_sound_store_has_no_findings(store):
    assert store.verify() == []
    assert FeatureStore(store.root / "nowhere").verify() == []
    assert FeatureStore(store.root / "nowhere").entries() == []


def test_verify_finds_a_flipped_bit_even_after_this_process_trusted_the_file(store):
    path = shards(store)[0]
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size, inode and time as when it was checked
    (finding,) = store.verify()
    assert (finding.file, finding.repaired) == (path.name, False)
    assert path.exists()
    assert [finding.repaired for finding in store.verify(repair=True)] == [True]
    assert not path.exists()
    assert store.verify() == []


def test_verify_tells_leftovers_from_strangers(store):
    folder = shards(store)[0].parent
    (folder / ".tmp-1-abc").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    (folder / "meta.json").write_text("{")
    problems = {finding.file: finding.repaired for finding in store.verify(repair=True)}
    assert problems == {".tmp-1-abc": True, "notes.txt": False, "meta.json": True}
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("shard")) == ["notes.txt"]


def test_a_store_repaired_is_whole_after_the_next_request(store, request_for, tiny_bert):
    path = shards(store)[0]
    os.truncate(path, 100)
    store.verify(repair=True)
    for request in (request_for(tiny_bert, TEXTS), request_for(tiny_bert, TEXTS[:3], max_length=16)):
        FeatureStore(store.root).load(request)
    assert FeatureStore(store.root).verify() == []


def test_prune_takes_what_it_is_told_to(store):
    old, new = store.entries()
    assert [pruned.entry.key for pruned in store.prune(older_than_seconds=500, dry_run=True)] == [old.key]
    assert len(store.entries()) == 2
    assert [pruned.removed for pruned in store.prune([new.key[:8]])] == [True]
    assert [entry.key for entry in store.entries()] == [old.key]
    assert [pruned.removed for pruned in store.prune(everything=True)] == [True]
    assert store.entries() == []
    assert store.prune(everything=True) == []


def test_prune_of_an_unknown_key_says_so_and_removes_nothing(store):
    with pytest.raises(FeatureError, match="no such key"):
        store.prune(["zzz", store.entries()[0].key])
    assert len(store.entries()) == 2


def test_a_key_in_the_making_is_left_alone(store):
    key = store.entries()[0].key
    with FeatureStore(store.root).lock(key):
        (pruned,) = store.prune([key])
    assert (pruned.removed, pruned.busy) == (False, True)
    assert len(store.entries()) == 2


def test_a_block_in_use_outlives_its_pruning(store, request_for, tiny_bert):
    request = request_for(tiny_bert, TEXTS)
    block = store.load(request)
    before = block.view("mean").clone()
    store.prune(everything=True)
    assert (block.view("mean") == before).all()
    assert store.ensure(request).encoded == 6
