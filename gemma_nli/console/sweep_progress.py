"""What is shown while a sweep runs: phase, trials done, best so far, time left.

On a terminal a live display; in a job's log, a pipe or a file: lines, one per phase and then one every so often, each
complete in itself, with where the sweep can be watched.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar

from gemma_nli.console.formatting import duration, short, shown
from gemma_nli.console.terminal import Terminal, line

if TYPE_CHECKING:
    from gemma_nli.sweep.records.progress_state import ProgressState

_PHASES = {
    "starting": "opening the sweep",
    "waiting": "waiting for a node that can hold a trial",
    "encoding": "encoding each text once",
    "tuning": "running trials",
    "confirming": "training the best of each compared value again",
    "reporting": "writing the report",
    "finalizing": "fitting the best trial on all pairs and registering it",
    "recording": "bringing MLflow up to date",
}
FIRST_SECONDS, LAST_SECONDS, GROWTH = 15.0, 300.0, 1.5
"""Lines come 15 s after a phase began, then at growing intervals of at most 5 minutes: some 70 in 5 hours."""


class Progress:
    """A live display on stderr; lines if that is not a terminal."""

    def __init__(
        self, enabled: bool = True, console: Console | None = None, first_seconds: float = FIRST_SECONDS
    ) -> None:
        self.console = console or Terminal(stderr=True)
        self.enabled = enabled
        self.live = enabled and self.console.is_terminal
        self.progress: ProgressState | None = None
        self._display: Live | None = None
        self._shown: set[str] = set()
        self._lines = _Lines(self.console, first_seconds)

    def watch(self, progress: ProgressState) -> None:
        self.progress = progress
        if self.live:
            progress.observers.append(self._show_links)
        elif self.enabled:
            self._lines.watch(progress)

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
        self._lines.close()

    def _show_links(self) -> None:
        """Each address once, above the display and never shortened: it is copied, and a display is no wider than the
        terminal.
        """
        assert self.progress is not None
        for name in self.progress.links.keys() - self._shown:
            self._shown.add(name)
            self.console.print(line(f"{name}: {self.progress.links[name]}"), soft_wrap=True)

    def _render(self) -> Group:
        progress = self.progress
        if progress is None:
            return Group(line("reading the corpus"))
        done = progress.count("finished", "pruned", "failed")
        bar = ProgressBar(total=max(progress.total, 1), completed=done, width=40)
        return Group(line(phase_of(progress), "bold"), bar, line(facts_of(progress)))


class _Lines:
    """Prints a line when the phase changes or a link is known, and while a phase lasts, at growing intervals."""

    def __init__(self, console: Console, first_seconds: float) -> None:
        self.console, self.first_seconds = console, first_seconds
        self._phase, self._linked = "", set[str]()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._wait, self._due = first_seconds, float("inf")
        self._thread: threading.Thread | None = None

    def watch(self, progress: ProgressState) -> None:
        self._progress = progress
        progress.observers.append(self._changed)
        self._thread = threading.Thread(target=self._tick, name="progress lines", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _changed(self) -> None:
        progress = self._progress
        with self._lock:
            for name in progress.links.keys() - self._linked:
                self._linked.add(name)
                self._print(f"{name}: {progress.links[name]}")
            if progress.phase != self._phase:
                self._phase = progress.phase
                self._wait, self._due = self.first_seconds, time.monotonic() + self.first_seconds
                self._print(f"{phase_of(progress)}{': ' + facts_of(progress) if progress.phase == 'tuning' else ''}")

    def _tick(self) -> None:
        while not self._ended.wait(min(1.0, self.first_seconds)):
            with self._lock:
                if time.monotonic() >= self._due:
                    self._wait = min(self._wait * GROWTH, LAST_SECONDS)
                    self._due = time.monotonic() + self._wait
                    self._print(f"{phase_of(self._progress)}: {facts_of(self._progress)}")

    def _print(self, text: str) -> None:
        self.console.print(line(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}"), soft_wrap=True)


class Steps:
    """The steps of something that takes a minute or two, on stderr: a line as each begins, and on a
    terminal a spinner."""

    def __init__(self, doing: str, enabled: bool = True, console: Console | None = None) -> None:
        self.doing, self.enabled = doing, enabled
        self.console = console or Terminal(stderr=True)
        self._status = self.console.status(line(doing))

    def report(self, step: str) -> None:
        if not self.enabled:
            return
        text = line(f"{self.doing}: {step}")
        if self.console.is_terminal:
            self._status.update(text)
        else:
            self.console.print(text, soft_wrap=True)

    def __enter__(self) -> Steps:
        if self.enabled and self.console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def phase_of(progress: ProgressState) -> str:
    return _PHASES.get(progress.phase, progress.phase)


def facts_of(progress: ProgressState) -> str:
    """`5 of 24 trials | 1 failed | best mean_f1 0.712 (pooling_strategy mean) | about 3 min 20 s left`

    While this process encodes: `1,200 of 5,168 texts`.
    """
    if progress.phase == "encoding" and progress.texts is not None:
        return f"{progress.texts[0]:,} of {progress.texts[1]:,} texts"
    failed, pruned, running = progress.count("failed"), progress.count("pruned"), progress.count("running")
    facts = [f"{progress.count('finished', 'pruned', 'failed')} of {progress.total} trials"]
    facts += [f"{running} running"] if running else []
    facts += [f"{pruned} stopped early"] if pruned else []
    facts += [f"{failed} failed"] if failed else []
    best = progress.best()
    if best is not None:
        settings = ", ".join(f"{short(key.replace('.', '/'))} {shown(value)}" for key, value in best.settings.items())
        beside = f" {progress.measured_at}" if progress.measured_at else ""
        facts.append(
            f"best {short(progress.metric)} {best.objective:.3f}{beside}{f' ({settings})' if settings else ''}"
        )
    left = progress.seconds_left()
    if left is not None and progress.phase == "tuning":
        facts.append(f"about {duration(left)} left")
    return " | ".join(facts)
