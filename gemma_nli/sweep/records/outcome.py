"""A sweep's trials, read from their journals: everything that is counted, ranked, confirmed, registered or shown comes
from here.

Which trials these are: of a grid or a random search its cells; of a study those it has proposed that lie in its present
space. A trial on other folds (a confirming one) and one that was stopped early are not candidates for the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from gemma_nli.base.metrics import MEAN_F1
from gemma_nli.base.outgoing import shown
from gemma_nli.spec.sweep_sections import Objective
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.training.fallbacks import fallback_note
from gemma_nli.training.learned import learning_warning
from gemma_nli.trial import TrialRecord, read_trials

State = Literal["finished", "pruned", "failed", "waiting"]
ENDS: tuple[State, ...] = ("finished", "pruned", "failed")
NAMED = 5
_AT_A_TIME = 64


@dataclass(frozen=True)
class TrialOutcome:
    """One trial. `objective` is the sweep's metric (NaN without one); `ended` identifies this end of it."""

    key: str
    settings: dict[str, Any]
    state: State
    objective: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    folds_done: int = 0
    ended: tuple[int, int | None] = (0, None)
    warning: str = ""  # why its numbers mean little, if a fold did not learn
    fallback: str = ""  # which folds could not choose all by their inner split


@dataclass(frozen=True)
class Outcome:
    """All trials of a sweep; `mode` says whether higher or lower values of the metric are better.

    decided_by: the sweep's metric and its objectives, by name.
    """

    trials: tuple[TrialOutcome, ...]
    mode: str = "max"
    decided_by: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Trials that have ended, by how."""
        found = Counter(trial.state for trial in self.trials)
        return {state: found[state] for state in ENDS}

    @property
    def waiting(self) -> int:
        """Trials without an end: never begun, or cut off."""
        return sum(trial.state == "waiting" for trial in self.trials)

    @cached_property
    def ranked(self) -> list[TrialOutcome]:
        """Finished trials, best first, ties by key; one whose metric is missing or NaN is not a candidate."""
        done = [t for t in self.trials if t.state == "finished" and math.isfinite(t.objective)]
        return sorted(done, key=lambda t: (t.objective if self.mode == "min" else -t.objective, t.key))

    @property
    def best(self) -> TrialOutcome | None:
        return self.ranked[0] if self.ranked else None

    def run_since(self, before: Mapping[str, TrialRecord]) -> int:
        """How many have come to an end that `before` does not know."""
        return sum(t.state != "waiting" and t.ended != ended_of(before.get(t.key)) for t in self.trials)

    def failures(self) -> list[dict[str, Any]]:
        """Why trials failed, the most common reason first: `{error, trials, settings}`, the settings of one of them."""
        groups: dict[str, list[TrialOutcome]] = {}
        for trial in self.trials:
            if trial.state == "failed":
                groups.setdefault(_first_line(trial.error), []).append(trial)
        ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
        return [{"error": why, "trials": len(found), "settings": found[0].settings} for why, found in ordered]

    def notes(self) -> list[str]:
        """What its user should know of the trials: which cannot be ranked, how many did not learn."""
        return [*self._unranked(), *self._unlearned(), *self._fallen_back()]

    def _unranked(self) -> Iterator[str]:
        """Trials whose journals are older than a metric that decides."""
        measured = [trial for trial in self.trials if trial.state == "finished" and MEAN_F1 in trial.metrics]
        for metric in self.decided_by:
            lacking = [trial.key[:8] for trial in measured if metric not in trial.metrics]
            if lacking:
                named = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
                yield (
                    f"{len(lacking)} of {len(measured)} finished trials lack {metric} and are not ranked by it: their "
                    f"journals were written before it was measured (trials {named}). Another `storage` measures them "
                    "anew."
                )

    def _unlearned(self) -> list[str]:
        """How many did not learn, the best one's reason or one of theirs."""
        warned = [trial for trial in self.trials if trial.warning]
        if not warned:
            return []
        which, one = self._example(warned)
        trials = f"{len(warned)} of {self.counts['finished']} finished trials did not learn in every fold"
        return [f"{trials}; {which}: {one.warning}"]

    def _fallen_back(self) -> list[str]:
        """How many have folds that could not choose all by their inner split, and which folds of one."""
        fallen = [trial for trial in self.trials if trial.fallback]
        if not fallen:
            return []
        which, one = self._example(fallen)
        trials = f"{len(fallen)} of {self.counts['finished']} finished trials have folds that could not choose"
        return [f"{trials} everything on their inner split; {which}: {one.fallback}"]

    def _example(self, some: list[TrialOutcome]) -> tuple[str, TrialOutcome]:
        best = self.best
        return ("the best trial", best) if best is not None and best in some else ("one of them", some[0])

    def pareto_front(self, objectives: Sequence[Objective]) -> list[dict[str, Any]]:
        """Settings and values of the finished trials that no other beats in every objective; empty with one
        objective.
        """
        names = [objective.metric for objective in objectives]
        if len(names) < 2:
            return []
        signs = [1 if objective.mode == "max" else -1 for objective in objectives]
        found: list[tuple[TrialOutcome, list[float]]] = []
        for trial in self.trials:
            values = [sign * trial.metrics.get(name, math.nan) for sign, name in zip(signs, names, strict=True)]
            if trial.state == "finished" and all(math.isfinite(value) for value in values):
                found.append((trial, values))
        return [
            {"settings": trial.settings, "values": {name: trial.metrics[name] for name in names}}
            for trial, values in found
            if not any(_beats(other, values) for _, other in found)
        ]


def outcome_of(ready: Prepared) -> Outcome:
    """Read it from the journals; one that was done is not read again, as its end is final."""
    trials = []
    for keys in _slices(list(ready.trials)):
        read_now = read_trials(ready.storage, [key for key in keys if not ready.is_done(key)])
        for key in keys:
            record = ready.records[key] if ready.is_done(key) else read_now.get(key)
            trials.append(_outcome(key, ready.trials[key].settings, record, ready.spec.metric))
    decided_by = dict.fromkeys((ready.spec.metric, *(objective.metric for objective in ready.spec.objectives)))
    return Outcome(tuple(trials), ready.spec.mode, tuple(decided_by))


def ended_of(record: TrialRecord | None) -> tuple[int, int | None]:
    """What distinguishes this end of a trial from a later one."""
    return (record.attempts, record.ended_ms) if record is not None else (0, None)


def _outcome(key: str, settings: dict[str, Any], record: TrialRecord | None, metric: str) -> TrialOutcome:
    if record is None or record.state == "running":
        return TrialOutcome(key, settings, "waiting", folds_done=len(record.folds) if record is not None else 0)
    metrics = record.metrics()
    objective = float(metrics.get(metric, math.nan))
    folds = len(record.folds)
    warning = learning_warning(record.folds.values(), record.config) if record.state == "finished" else ""
    fallback = fallback_note(record.folds.values()) if record.state == "finished" else ""
    facts = (key, settings, record.state, objective, metrics, record.error, folds, ended_of(record))
    return TrialOutcome(*facts, warning, fallback)


def _slices(keys: list[str]) -> Iterator[list[str]]:
    """A few journals in memory at a time: each holds its folds' predictions and weights."""
    for start in range(0, len(keys), _AT_A_TIME):
        yield keys[start : start + _AT_A_TIME]


def _first_line(error: str | None) -> str:
    lines = shown(error or "").strip().splitlines()
    return lines[0][:300] if lines else "no reason was recorded"


def _beats(one: list[float], other: list[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
