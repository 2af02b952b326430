"""The exception tree, and the lines that tell a user how to fix a mistake.

GemmaNliError            an error that a user can fix: printed without a traceback, exit status 2
├── ConfigError          a setting, an override or a config file
├── SpecError            a sweep file or a search space
├── CorpusError          post, annotation and criterion files
├── EncoderError         an encoder or tokenizer that cannot be loaded or used as asked
├── FeatureError         the feature store's folder
├── JournalError         a trial's record on disk
├── TrainingError        a trial that cannot continue (no memory for one pair, no training pairs)
├── ReportError          evidence that cannot be reported on: nothing finished, or sweeps that cannot be compared
├── TrackingError        MLflow: an unknown experiment, an unreachable store
├── StorageError         a bucket that does not exist or cannot be used
└── SweepError           a sweep that cannot start or continue
    └── SweepBusyError   another process is running this sweep
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

NEAREST = 5
"""How many known names are listed for an unknown one: a hundred of them would hide what is wrong."""


class GemmaNliError(Exception):
    """Root of all errors that a user can fix."""


class ConfigError(GemmaNliError):
    """A setting, an override or a config file is wrong."""


class SpecError(GemmaNliError):
    """A sweep file or a search space is wrong."""


class CorpusError(GemmaNliError):
    """The post, annotation or criterion files are wrong."""


class EncoderError(GemmaNliError):
    """An encoder or its tokenizer cannot be loaded, or not used as asked."""


class FeatureError(GemmaNliError):
    """The feature store's folder cannot be used."""


class JournalError(GemmaNliError):
    """A trial's record on disk cannot be used."""


class TrainingError(GemmaNliError):
    """A trial cannot continue."""


class ReportError(GemmaNliError):
    """What was run cannot be reported on as asked."""


class TrackingError(GemmaNliError):
    """MLflow has no such experiment, or cannot be reached."""


class StorageError(GemmaNliError):
    """The bucket that a sweep is kept in cannot be used."""


class SweepError(GemmaNliError):
    """A sweep cannot start or continue."""


class SweepBusyError(SweepError):
    """Another process is running this sweep."""


SHOWN_PROBLEMS, SEARCHED_NAMES = 100, 5_000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'last'?`, or, if none is that near, the known names (of many, the nearest five), or nothing."""
    names = sorted(set(known))
    if len(names) > SEARCHED_NAMES:  # comparing takes a millisecond per ten of them
        return f"; {len(names):,} names are known."
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    if len(names) <= NEAREST:
        return f"; known: {', '.join(names)}." if names else ""
    nearest = sorted(names, key=lambda other: _distance(name, other))[:NEAREST]
    return f"; the nearest of {len(names)}: {', '.join(nearest)}."


def _distance(name: str, other: str) -> float:
    """0 for equal names; for dotted ones the last parts count as well, so that `batch` is near
    `training.batch_size`.
    """
    pairs = ((name, other), (name.rpartition(".")[2], other.rpartition(".")[2]))
    return 1 - max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


@dataclass
class Problems:
    """Everything wrong with one file, reported at once.

    >>> problems = Problems("sweeps/x.yaml")
    >>> problems.add("search.seed", "must be a whole number, got 'a'.")
    >>> problems.raise_if_any(SpecError)
    """

    source: str
    lines: list[str] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        self.lines.append(f"{where}: {what}" if where else what)

    def raise_if_any(self, kind: type[GemmaNliError]) -> None:
        if self.lines:
            raise kind(self.text())

    def text(self) -> str:
        count = f"{len(self.lines):,} problem{'s' if len(self.lines) != 1 else ''}"
        shown = [f"  {line}" for line in self.lines[:SHOWN_PROBLEMS]]
        if len(self.lines) > len(shown):
            shown.append(f"  ... and {len(self.lines) - len(shown):,} more")
        return "\n".join([f"{self.source}: {count}", *shown])
