"""A claim in a bucket: one holder at a time, taken over only when it has not been heard of for its lease."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gemma_nli.storage import Lease
from tests.s3_server import wait_for

KEY = "a/claim.json"


def _die(lease: Lease) -> None:
    """As a killed process does: it writes no more, and lets go of nothing."""
    lease._ended.set()
    lease._thread.join()


def test_of_many_one_gets_it(store):
    leases = [Lease(store.place(KEY), seconds=1.5) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        got = list(threads.map(lambda lease: lease.acquire(patient=False), leases))
    assert sum(got) == 1
    leases[got.index(True)].release()


def test_a_living_holder_keeps_it_for_longer_than_its_lease_and_who_waits_gets_it_when_it_lets_go(store):
    holder, waiting = Lease(store.place(KEY), seconds=1.5), Lease(store.place(KEY), seconds=1.5)
    assert holder.acquire(patient=True)
    came = threading.Event()
    thread = threading.Thread(target=lambda: (waiting.acquire(patient=True), came.set()))
    thread.start()
    assert not came.wait(4)
    assert not holder.lost
    holder.release()
    assert came.wait(5)
    thread.join()
    waiting.release()


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_holder_that_falls_silent_is_taken_over_by_the_stores_clock_and_knows_it_when_it_wakes(store, ahead):
    store.ahead_seconds = ahead
    late_holder, next_one = Lease(store.place(KEY), seconds=1.0), Lease(store.place(KEY), seconds=1.0)
    assert late_holder.acquire(patient=True)
    _die(late_holder)
    store.requests.clear()
    assert next_one.acquire(patient=False)
    assert len([method for method, _ in store.requests if method == "GET"]) > 3, "it looked until the lease had run out"
    late_holder._ended.clear()
    threading.Thread(target=late_holder._renew, daemon=True).start()
    wait_for(lambda: late_holder.lost)
    late_holder.release()
    assert not Lease(store.place(KEY), seconds=1.0).acquire(patient=False), (
        "a sleeper's release lets go of nobody else's claim"
    )
    assert not next_one.lost
    next_one.release()


def test_a_holder_survives_an_outage_in_which_nobody_took_over(store):
    holder = Lease(store.place(KEY), seconds=0.9)
    assert holder.acquire(patient=True)
    store.away = True
    time.sleep(2)
    store.away = False
    before = store.place(KEY).bucket.get(KEY).version
    wait_for(lambda: store.place(KEY).bucket.get(KEY).version != before)
    assert not holder.lost
    holder.release()
