"""What is seen while a sweep works: phase, trials done, best so far, time left."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from gemma_nli.console.words import duration, short

if TYPE_CHECKING:
    from gemma_nli.sweep.board import Board

_PHASES = {
    "starting": "opening the sweep",
    "encoding": "encoding texts, once each",
    "tuning": "running trials",
    "confirming": "running the leaders again on fresh folds and seeds",
    "reporting": "writing the report",
    "finalizing": "fitting the best on all pairs and registering it",
    "recording": "bringing MLflow up to date",
}


class Progress:
    """A live line on stderr: phase, trials done, best so far, time left. On no terminal: a line a phase."""

    def __init__(self, enabled: bool = True) -> None:
        self.console = Console(stderr=True)
        self.enabled = enabled
        self.live = enabled and self.console.is_terminal
        self.board: Board | None = None
        self._phase = ""
        self._display: Live | None = None
        self._lock = threading.Lock()

    def watch(self, board: Board) -> None:
        self.board = board
        board.watchers.append(self._changed)

    def __enter__(self) -> Progress:
        if self.live:
            self._display = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True
            )
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def _changed(self) -> None:
        if not self.enabled or self.live or self.board is None:
            return
        with self._lock:
            if self.board.phase != self._phase:
                self._phase = self.board.phase
                self.console.print(f"- {_PHASES.get(self._phase, self._phase)}")

    def _render(self) -> Group:
        board = self.board
        if board is None:
            return Group(Text("reading the corpus"))
        done, failed = board.count("finished", "pruned", "failed"), board.count("failed")
        facts = [f"{done} of {board.total} trials"]
        if board.count("pruned"):
            facts.append(f"{board.count('pruned')} stopped early")
        if failed:
            facts.append(f"{failed} failed")
        best = board.best()
        if best is not None:
            facts.append(f"best {short(board.metric)} {best.objective:.3f}")
        left = board.seconds_left()
        if left is not None and board.phase == "tuning":
            facts.append(f"about {duration(left)} left")
        bar = ProgressBar(total=max(board.total, 1), completed=done, width=40)
        return Group(Text(_PHASES.get(board.phase, board.phase), style="bold"), bar, Text(" | ".join(facts)))
