"""What a rule is that stops trials early: it is given each fold as it ends, and says whether the trial goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from gemma_nli.base.part_registry import Registry
from gemma_nli.config import setting_names
from gemma_nli.spec.spec import SweepSpec


@dataclass(frozen=True)
class Decision:
    """Whether to stop, the chance that the trial would still win (None: not judged), its running mean F1, and why."""

    stop: bool
    probability: float | None
    estimate: float
    reason: str


@dataclass(frozen=True)
class EndedFold:
    """A fold's out-of-fold predictions of R pairs.

    Attributes:
        fold: its number, from 1.
        rows: (R,) the pairs' row numbers, in any order.
        probabilities: (R,) of `matched`; a pair counts as matched from `threshold` on, one of all or (R,) of each.
        post_ids: (R,) the post each pair belongs to; a post and its copies are one.
    """

    fold: int
    rows: NDArray[Any]
    probabilities: NDArray[Any]
    labels: NDArray[Any]
    post_ids: NDArray[Any]
    threshold: float | NDArray[Any]


Folds: TypeAlias = Callable[[], Iterable[EndedFold]]
"""Reads a trial's ended folds from its journal: only a rule that needs more than the mean calls it."""


class StoppingRule(ABC):
    """Judges trials fold by fold. Every rule is given the settings below, and by name those that it declares to read.

    Trials of earlier runs of the sweep are given to it first, and no decision is asked for.
    """

    def __init__(self, num_folds: int, grace_folds: int = 1, keep_last: int = 3) -> None:
        """
        Args:
            num_folds: folds of a whole trial.
            grace_folds: folds a trial runs before it is judged.
            keep_last: the best few trials by running mean F1 are never stopped.
        """
        self.num_folds, self.grace_folds, self.keep_last = num_folds, grace_folds, keep_last

    @abstractmethod
    def fold_ended(self, trial_key: Hashable, folds_done: int, mean_f1: float, folds: Folds) -> None:
        """Record that a trial has run its first `folds_done` folds, with this mean F1 (NaN where there is none)."""

    @abstractmethod
    def decide(self, trial_key: Hashable) -> Decision:
        """Whether the trial should continue, from what has been recorded; not asked after its last fold."""


RULES: Registry[type[StoppingRule]] = Registry("scheduler.kind")
rule = RULES.part


def build_rule(spec: SweepSpec) -> StoppingRule | None:
    """The rule that `spec.scheduler.kind` names, with its settings; None where every trial runs all its folds.

    Raises:
        TypeError: the rule declares a setting that no sweep has.
    """
    kind, num_folds = spec.scheduler.kind, spec.base.data.num_folds
    if kind == "none":
        return None
    declared = RULES.declared(kind) or frozenset()
    if unknown := declared - setting_names(SweepSpec).keys():
        raise TypeError(f"scheduler.kind {kind} says that it reads {', '.join(sorted(unknown))}: no such setting")
    given = {name.rsplit(".", 1)[-1]: _value(spec, name) for name in sorted(declared)}
    return RULES[kind](num_folds, grace_folds=spec.scheduler.grace_folds, keep_last=spec.scheduler.keep_last, **given)


def _value(spec: SweepSpec, name: str) -> Any:
    value: Any = spec
    for word in name.split("."):
        value = getattr(value, word)
    return value
