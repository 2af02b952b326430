"""How work grows with its size. No test asks how long anything takes: that is the machine's answer, not the code's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LEAST_SECONDS = 2e-3
"""Less than this is mostly noise, and counts as this."""


def growth(work: Callable[[int], Any], small: int, large: int) -> float:
    """How many times the CPU time of this thread the larger work takes, the best of three of each."""
    return _seconds(work, large) / max(_seconds(work, small), LEAST_SECONDS)


def _seconds(work: Callable[[int], Any], size: int) -> float:
    taken = []
    for _ in range(3):
        began = time.thread_time()
        work(size)
        taken.append(time.thread_time() - began)
    return min(taken)
