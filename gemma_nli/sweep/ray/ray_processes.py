"""Ray's own death while a sweep runs: detected before Ray ends this process with a dump of its stacks.

Where this process started Ray, its GCS and raylet are children of ours and are looked at; on a joined cluster the
head's port is tried. A Ray without them cannot even be shut down: the command ends at once, and
the same command goes on from the journals.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import worker

LOOK_SECONDS = 0.2
AWAY_SECONDS = 15.0
"""A joined head that refuses connections for this long is gone; a restarted one may be back sooner."""
EXIT_STATUS = 2
_PARTS = {"gcs_server": "its head process (GCS)", "raylet": "its node process (raylet)"}


def dead_part() -> str | None:
    """Which part of the Ray that this process started has ended by itself; None while all are alive, or on a
    cluster.
    """
    node: Any = worker._global_node
    for kind, name in _PARTS.items():
        for info in node.all_processes.get(kind, []) if node is not None else []:
            if info.process.poll() is not None:
                return name
    return None


@contextmanager
def watched_ray(on_death: Callable[[], None]) -> Iterator[None]:
    """End the command when Ray dies meanwhile.

    Args:
        on_death: what to clean up first; in a thread, within seconds.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over, on_death), name="gemma_nli-ray-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(over: threading.Event, on_death: Callable[[], None]) -> None:
    head, away_since = _joined_head(), None
    while not over.wait(LOOK_SECONDS if head is None else 10 * LOOK_SECONDS):
        died = dead_part()
        if head is not None:
            away_since = None if _answers(head) else away_since or time.monotonic()
            if away_since is not None and time.monotonic() - away_since > AWAY_SECONDS:
                died = f"its head at {head[0]}:{head[1]}"
        if died is None or over.is_set():
            continue
        sys.stderr.write(
            f"\nRay has died ({died} is gone) and the sweep has stopped; run the same command again to continue.\n"
        )
        sys.stderr.flush()
        sys.stdout.flush()
        for stream in (1, 2):  # all that follows is Ray's dump
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            on_death()
        finally:
            os._exit(EXIT_STATUS)


def _joined_head() -> tuple[str, int] | None:
    """The address of the head of the cluster that was joined, None where this process started Ray."""
    node: Any = worker._global_node
    if node is None or node.all_processes.get("gcs_server"):
        return None
    host, _, port = str(node.gcs_address).rpartition(":")
    return host.strip("[]"), int(port)


def _answers(head: tuple[str, int]) -> bool:
    try:
        socket.create_connection(head, timeout=2.0).close()
    except OSError:
        return False
    return True
