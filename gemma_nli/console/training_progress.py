"""What is shown while one configuration trains: folds done, and the epochs of an encoder that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from gemma_nli.console.terminal import Terminal, bars
from gemma_nli.training.listeners import IgnoreEvents
from gemma_nli.training.results import FoldResult


class _Bar:
    """A live bar on stderr, if that is a terminal, for the duration of the `with` block."""

    def __init__(self, task: str, total: int | None, enabled: bool, transient: bool) -> None:
        self.console, self.enabled = Terminal(stderr=True), enabled
        self.display = bars(self.console, enabled and self.console.is_terminal, transient)
        self.task = self.display.add_task(task, total=total)

    def __enter__(self) -> Self:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.stop()


class FoldProgress(_Bar, IgnoreEvents):
    """A live line on stderr; one line per fold if that is not a terminal.

    Args:
        measured_at: what stands beside the folds' scores, where it is known before they are trained.
    """

    def __init__(self, measured_at: str = "", enabled: bool = True) -> None:
        super().__init__("folds", None, enabled, transient=True)
        self.beside = f" {measured_at}" if measured_at else ""

    def started(self, num_folds: int, done: Mapping[int, FoldResult]) -> None:
        self.display.update(self.task, total=num_folds, completed=len(done))

    def epoch_ended(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        text = f"fold {fold} epoch {epoch} loss {metrics['train_loss']:.3f} val F1 {metrics['val_f1']:.3f}{self.beside}"
        self.display.update(self.task, description=text)

    def folds_ended(self, folds: list[FoldResult]) -> None:
        self.display.advance(self.task, len(folds))
        if self.enabled and not self.console.is_terminal:
            for fold in folds:
                text = f"F1 {fold.metrics['f1']:.3f}{self.beside}" if fold.metrics else fold.status
                self.console.say(f"- fold {fold.fold}: {text}")


class RowProgress(_Bar):
    """Rows of a file done, on stderr; silent if that is not a terminal."""

    def __init__(self, total: int, enabled: bool = True) -> None:
        super().__init__("rows", total, enabled, transient=False)

    def rows_done(self, rows: int) -> None:
        self.display.update(self.task, completed=rows)
