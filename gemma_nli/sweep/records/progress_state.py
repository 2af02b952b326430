"""What is shown of a sweep while it runs: cells by state, the best so far, the time left.

For display only: a sweep's results come from its journals (`outcome.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CellState = Literal["waiting", "running", "finished", "pruned", "failed"]


@dataclass
class CellStatus:
    """One cell on the board; `objective` is the sweep's metric once it is known."""

    key: str
    settings: dict[str, Any]
    state: CellState = "waiting"
    objective: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    reused: bool = False
    folds_done: int = 0


class ProgressState:
    """Written by the driver's callback, read by the progress display; safe for both threads."""

    def __init__(self, metric: str, mode: str, total: int, measured_at: str = "") -> None:
        self.metric, self.mode, self.total, self.measured_at = metric, mode, total, measured_at
        self.cells: dict[str, CellStatus] = {}
        self.phase = "starting"
        self.texts: tuple[int, int] | None = None  # (encoded, to encode) where this process encodes
        self.links: dict[str, str] = {}
        self.began = time.monotonic()
        self.tuning_since: float | None = None
        self.lock = threading.RLock()
        self.observers: list[Callable[[], None]] = []

    def enter(self, phase: str) -> None:
        with self.lock:
            self.phase = phase
            if phase == "tuning":
                self.tuning_since = time.monotonic()
        self._notify()

    def encoded(self, done: int, of: int) -> None:
        with self.lock:
            self.texts = (done, of)
        self._notify()

    def link(self, name: str, where: str | None) -> None:
        """Where to see more, as in ("MLflow run", "http://..."); None is ignored."""
        if where:
            with self.lock:
                self.links[name] = where
            self._notify()

    def add(self, key: str, settings: Mapping[str, Any], reused: bool = False) -> CellStatus:
        with self.lock:
            cell = self.cells.setdefault(key, CellStatus(key, dict(settings)))
            cell.reused = cell.reused or reused
            return cell

    def update(
        self, key: str, state: CellState, metrics: Mapping[str, float] | None = None, folds_done: int = 0
    ) -> None:
        with self.lock:
            cell = self.cells[key]
            cell.state = state
            cell.folds_done = max(cell.folds_done, folds_done)
            if metrics:
                cell.metrics = dict(metrics)
                cell.objective = float(metrics.get(self.metric, math.nan))
        self._notify()

    def count(self, *states: CellState) -> int:
        with self.lock:
            return sum(cell.state in states for cell in self.cells.values())

    def ranked(self) -> list[CellStatus]:
        """Finished cells, best first; a cell whose metric is NaN is not a candidate."""
        with self.lock:
            done = [cell for cell in self.cells.values() if cell.state == "finished" and not math.isnan(cell.objective)]
        return sorted(done, key=lambda cell: (cell.objective if self.mode == "min" else -cell.objective, cell.key))

    def best(self) -> CellStatus | None:
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def seconds_left(self) -> float | None:
        """From the pace of the cells run so far; None before the first has ended."""
        with self.lock:
            ran = sum(
                cell.state in ("finished", "pruned", "failed") and not cell.reused for cell in self.cells.values()
            )
            if not ran or self.tuning_since is None:
                return None
            left = self.total - sum(cell.state in ("finished", "pruned", "failed") for cell in self.cells.values())
            return left * (time.monotonic() - self.tuning_since) / ran

    def _notify(self) -> None:
        for observer in self.observers:
            observer()
