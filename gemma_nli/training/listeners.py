"""Listeners to a cross-validation: a journal, a progress bar. Training depends on none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gemma_nli.training.results import CvResult, FoldResult


class Listener(Protocol):
    """Called in this order: started, (epoch_ended*, folds_ended)*, finished. An exception ends the run."""

    def started(self, num_folds: int, done: Mapping[int, FoldResult]) -> None: ...

    def epoch_ended(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a fold whose encoder is trained; folds on cached vectors, done within a second, report none."""

    def folds_ended(self, folds: list[FoldResult]) -> None:
        """Folds that are done: all at once on cached vectors, one at a time when the encoder is trained."""

    def finished(self, result: CvResult) -> None: ...


class IgnoreEvents:
    """A listener that does nothing, to inherit from."""

    def started(self, num_folds: int, done: Mapping[int, FoldResult]) -> None:
        return None

    def epoch_ended(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        return None

    def folds_ended(self, folds: list[FoldResult]) -> None:
        return None

    def finished(self, result: CvResult) -> None:
        return None
