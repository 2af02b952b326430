"""Several processes on one store: real ones, killed for real."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gemma_nli.features import FeatureStore, load_for
from gemma_nli.model.pooling import build_pooler

TEXTS = [f"{number} " + "so tired and sad, nothing is fun " * (1 + number * 5 % 7) for number in range(30)]

ASK = """
import json, os, pickle, sys, time
from pathlib import Path
from gemma_nli.features import FeatureStore
request = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True); sys.stdin.readline()
report = FeatureStore(sys.argv[2]).ensure(request)
print(json.dumps([report.encoded, report.reused]), flush=True)
"""

STALL = """
import pickle, sys, time
from pathlib import Path
from gemma_nli.features import FeatureStore
from gemma_nli.features import shard_file as shard
request = pickle.loads(Path(sys.argv[1]).read_bytes())
if sys.argv[3] == "write":
    real, written = shard.os.fsync, []
    def stall(descriptor):
        if shard_is_open(descriptor):
            print("stalled", flush=True); time.sleep(600)
        real(descriptor)
    def shard_is_open(descriptor):
        import os
        return os.fstat(descriptor).st_size > 10_000
    shard.os.fsync = stall
else:
    from gemma_nli.features import store
    def stall(*_):
        print("stalled", flush=True); time.sleep(600)
    store.encode = stall
FeatureStore(sys.argv[2]).ensure(request)
"""


@pytest.fixture
def request_file(tmp_path, request_for, tiny_bert):
    """Tests' own pickle, never the package's: a request crosses processes as Ray would carry it."""
    request = request_for(tiny_bert, TEXTS, with_tokens=True)
    path = tmp_path / "request.pickle"
    path.write_bytes(pickle.dumps(request))
    return request, path


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def assert_right(store, request):
    block = store.load(request)
    encoder = load_for(request)
    pool = build_pooler("mean", encoder.hidden_size)
    tokens = encoder.tokenize(request.premises)
    for row in (0, 7, 29):
        batch = encoder.collate(tokens, [row])
        with torch.inference_mode():
            want_1H = pool(encoder(batch), batch["attention_mask"]).clone()
        at = block.positions([request.premises[row]])
        torch.testing.assert_close(block.view("mean")[at], want_1H, atol=1e-5, rtol=1e-5)


def test_three_processes_that_ask_at_once_encode_once(tmp_path, request_file):
    request, path = request_file
    readers = [start(ASK, path, tmp_path / "store") for _ in range(3)]
    for reader in readers:
        assert said(reader) == "ready"
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    reports = sorted(json.loads(said(reader)) for reader in readers)
    for reader in readers:
        reader.communicate(timeout=60)
    assert reports == [[0, 30], [0, 30], [30, 0]]
    assert len(list((tmp_path / "store" / request.key).glob("shard-*"))) == 1
    assert_right(FeatureStore(tmp_path / "store"), request)


@pytest.mark.parametrize("where", ["write", "encode"])
def test_a_writer_killed_halfway_frees_the_key_and_leaves_no_wrong_vector(tmp_path, request_file, where):
    request, path = request_file
    writer = start(STALL, path, tmp_path / "store", where)
    assert said(writer) == "stalled"
    folder = tmp_path / "store" / request.key
    assert len(list(folder.glob(".tmp-*"))) == (1 if where == "write" else 0)
    assert list(folder.glob("shard-*")) == []
    waiter = start(ASK, path, tmp_path / "store")
    assert said(waiter) == "ready"
    assert waiter.stdin is not None
    waiter.stdin.write("go\n")
    waiter.stdin.flush()
    time.sleep(1.0)
    assert waiter.poll() is None, "it did not wait for the lock's holder"
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=30)
    assert json.loads(said(waiter)) == [30, 0]
    waiter.communicate(timeout=60)
    assert list(folder.glob(".tmp-*")) == []
    assert_right(FeatureStore(tmp_path / "store"), request)
    assert FeatureStore(tmp_path / "store").ensure(request).encoded == 0


def test_two_writers_of_the_same_texts_without_a_lock_do_no_harm(tmp_path, request_file, monkeypatch):
    """Where locks do not work (some network disks) the worst is work done twice."""
    from contextlib import nullcontext

    from gemma_nli.features import encode

    request, _ = request_file
    monkeypatch.setattr(FeatureStore, "lock", lambda self, key: nullcontext())
    first, second = FeatureStore(tmp_path / "store"), FeatureStore(tmp_path / "store")
    assert first.missing(request) == second.missing(request) == list(range(30))
    encoder = load_for(request)
    monkeypatch.setattr("gemma_nli.features.shard_index.KeyIndex.refresh", lambda self: None)
    for store in (first, second):
        store.put(request, encode(request, encoder, store.settings))
    monkeypatch.undo()
    assert_right(FeatureStore(tmp_path / "store"), request)
