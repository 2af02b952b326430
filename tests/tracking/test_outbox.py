from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.write.outbox import Outbox, undelivered
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import Server, a_sweep, a_trial


@pytest.fixture
def pending_file(tmp_path: Path) -> Path:
    return tmp_path / "sweep" / "pending.jsonl"


@pytest.fixture
def outbox(pending_file: Path):
    box = Outbox(pending_file, first_wait_seconds=0.02)
    yield box
    box.close()


class Store:
    """A store that is away until told otherwise."""

    def __init__(self) -> None:
        self.away, self.got = True, []

    def take(self, key: str) -> None:
        if self.away:
            raise TrackingError("postgresql://me:canary@db is away")
        self.got.append(key)


def test_what_cannot_be_sent_waits_on_disk_and_is_sent_once_in_order(outbox, pending_file):
    store = Store()
    for key in "abc":
        outbox.submit(key, lambda key=key: store.take(key))
    assert not outbox.drain(0.2)
    assert outbox.pending == 3
    assert undelivered(pending_file) == ["a", "b", "c"]
    assert outbox.last_error == "postgresql://***@db is away"
    store.away = False
    assert outbox.drain(5)
    assert sorted(store.got) == ["a", "b", "c"]
    assert (outbox.pending, outbox.last_error, outbox.delivered) == (0, None, 3)
    assert not pending_file.exists()


def test_submitting_never_waits_and_never_raises(outbox):
    hold = threading.Event()
    outbox.submit("slow", lambda: hold.wait(30))
    for i in range(200):
        outbox.submit(f"k{i}", lambda: 1 / 0)
    assert (outbox.pending, outbox.delivered) == (201, 0), "the first delivery is still under way"
    hold.set()


def test_a_newer_job_of_a_key_replaces_the_waiting_one(outbox):
    begun, go, got = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        go.wait(5)
        got.append(1)

    outbox.submit("a", first)
    begun.wait(5)
    for version in (2, 3, 4):
        outbox.submit("a", lambda version=version: got.append(version))
    assert outbox.pending == 1
    go.set()
    assert outbox.drain(5)
    assert got == [1, 4]


def test_one_poisoned_job_does_not_hold_up_the_others(outbox, pending_file):
    got = []
    outbox.submit("poison", lambda: 1 / 0)
    for key in "abc":
        outbox.submit(key, lambda key=key: got.append(key))
    assert not outbox.drain(1)
    assert got == ["a", "b", "c"]
    assert undelivered(pending_file) == ["poison"]
    assert outbox.last_error == "division by zero"


def test_drain_tries_at_once_whatever_the_back_off(pending_file):
    box, store = Outbox(pending_file, first_wait_seconds=60), Store()
    box.submit("a", lambda: store.take("a"))
    assert not box.drain(0.1)
    store.away = False
    assert box.drain(5)
    assert box.close()


def test_close_keeps_what_is_left_for_the_next_process(pending_file):
    box, store = Outbox(pending_file, first_wait_seconds=0.02), Store()
    for key in "abc":
        box.submit(key, lambda key=key: store.take(key))
    assert not box.close(0.1)
    box.submit("late", lambda: store.take("late"))
    with pending_file.open("a") as lines:
        lines.write('{"key": "torn", "wai')  # as a crash in mid-write leaves it
    assert undelivered(pending_file) == ["a", "b", "c", "late"]
    store.away = False
    again = Outbox(pending_file, first_wait_seconds=0.02)
    for key in undelivered(pending_file):
        again.submit(key, lambda key=key: store.take(key))
    assert again.close(5)
    assert sorted(store.got) == ["a", "b", "c", "late"]
    assert undelivered(pending_file) == []


def test_a_disk_that_refuses_the_list_does_not_stop_deliveries(tmp_path):
    (tmp_path / "file").write_text("")
    box, got = Outbox(tmp_path / "file" / "pending.jsonl"), []
    box.submit("a", lambda: got.append("a"))
    assert box.close(5)
    assert got == ["a"]


def test_a_server_that_was_away_ends_with_each_trial_and_number_once(server: Server, pending_file):
    tracker = MlflowTracker(MlflowConfig(tracking_uri=server.uri), "outage")
    box = Outbox(pending_file, first_wait_seconds=0.1)

    def deliver(key: str, state: str) -> None:
        tracker.sync_trial(tracker.sweep_run(a_sweep()), a_trial(key, state, epochs=2 if state == "running" else 3))

    box.submit("k0", lambda: deliver("k0", "running"))
    assert box.drain(20)
    server.stop()
    try:
        for key in ("k0", "k1", "k2"):
            box.submit(key, lambda key=key: deliver(key, "finished"))
        assert not box.drain(0.5)
    finally:
        server.start()
    assert box.close(20)
    trials = tracker.known_trials(tracker.sweep_run(a_sweep()))
    assert {key: status for key, (_, status) in trials.items()} == dict.fromkeys(("k0", "k1", "k2"), "FINISHED")
    for run_id, _ in trials.values():
        assert [m.step for m in tracker.client.get_metric_history(run_id, "fold_1/val_f1")] == [1, 2, 3]
    assert undelivered(pending_file) == []
