"""Ctrl-C once: no new trials, running ones finish; twice: stop now. Either way the sweep can be continued later."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Within its `with`, the first SIGINT or SIGTERM asks for an orderly end and the second raises
    KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.count = 0
        self._actions: list[Callable[[], None]] = []
        self._before: dict[int, Any] = {}

    def on_first(self, action: Callable[[], None]) -> None:
        """Called at the first signal; at once if it has already come."""
        self._actions.append(action)
        if self.count:
            action()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        sys.stderr.write(
            "\nfinishing the running trials; press Ctrl-C again to stop now (the sweep can be continued later)\n"
        )
        for action in self._actions:
            action()
