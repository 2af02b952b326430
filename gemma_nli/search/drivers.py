"""Several drivers, one Optuna study: which driver owns a trial, and what the others are running or have found.

Each driver takes up, retries and closes only what it has opened itself, however often it is resumed; the others'
results count, the sampler learns from them, and they are not run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

OWNER, TICKET = "owner", "ticket"
COUNTED = ("asked", "reused", "retry", "carried")
"""Kinds of trials that count towards `search.num_trials`."""
_PATIENCE_SECONDS = 60.0


class Drivers:
    """This driver among those of its study."""

    def __init__(self, study: optuna.Study, owner: str, identify: Callable[[dict[str, Any]], str | None]) -> None:
        """
        Args:
            owner: names this driver over all its resumes.
            identify: what makes two trials' settings the same configuration; None if they are not a valid
            configuration.
        """
        self.study, self.owner, self.identify = study, owner, identify
        self._identities: dict[int, str | None] = {}

    def claim(self, trial: optuna.Trial) -> None:
        """Record which driver owns an opened trial, and when it was claimed.

        Of two drivers that open the same configuration one must give way, whatever they see of each other (Lamport's
        bakery): a ticket is higher than all existing ones, and is drawn while the trial is open and unowned, which
        `_settled` waits for. The time at which Optuna opens a trial cannot be used: it is taken before others see the
        trial.
        """
        seen = self.study.get_trials(deepcopy=False)
        trial.set_user_attr(TICKET, 1 + max((int(other.user_attrs.get(TICKET, 0)) for other in seen), default=0))
        trial.set_user_attr(OWNER, self.owner)

    def is_mine(self, trial: FrozenTrial) -> bool:
        """A trial of a study from before owners existed belongs to whoever asks."""
        return bool(trial.user_attrs.get(OWNER, self.owner) == self.owner)

    def is_surplus(self, number: int, limit: int) -> bool:
        """Whether enough trials were opened before this one, by drivers that asked at the same time."""
        trials = self._settled(number)
        if trials[number].user_attrs.get("kind") == "retry" or all(self.is_mine(trial) for trial in trials):
            return False
        return count([trial for trial in trials if trial.number < number]) >= limit

    def same_elsewhere(self, number: int, identity: str) -> FrozenTrial | None:
        """Another driver's trial of that configuration: one that ended, or one that is running and was claimed
        first.
        """
        trials = self._settled(number)
        mine = _claimed(trials[number])
        for trial in trials:
            if self.is_mine(trial) or trial.user_attrs.get("kind", "asked") not in COUNTED:
                continue
            ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            if (ended or (trial.state == TrialState.RUNNING and _claimed(trial) < mine)) and self._is(trial, identity):
                return trial
        return None

    def _settled(self, number: int) -> list[FrozenTrial]:
        """The study's trials, once those running beside `number` have recorded their settings and owner.

        Optuna opens a trial and takes its attributes in calls of their own: for milliseconds a trial of another driver
        has neither; on a busy machine for seconds. One whose driver died in between is waited for in its first minute:
        going on sooner would let a slow driver run the same configuration too.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
            if (
                not any(_without_ticket(trial) for trial in trials if trial.number != number)
                or time.monotonic() > deadline
            ):
                return trials
            time.sleep(0.02)

    def _is(self, trial: FrozenTrial, identity: str) -> bool:
        settings = trial.user_attrs.get("settings")
        if settings is None:
            return False
        if trial.number not in self._identities:
            self._identities[trial.number] = self.identify(dict(settings))
        return self._identities[trial.number] == identity


def _claimed(trial: FrozenTrial) -> tuple[int, int]:
    """Who came first; a trial from before tickets existed precedes all of them."""
    return (int(trial.user_attrs.get(TICKET, 0)), trial.number)


def _without_ticket(trial: FrozenTrial) -> bool:
    """Whether its driver is still writing its attributes: the owner comes last."""
    recent = trial.datetime_start is not None and datetime.now() - trial.datetime_start < timedelta(minutes=1)
    return trial.state == TrialState.RUNNING and OWNER not in trial.user_attrs and recent


def count(trials: Sequence[FrozenTrial]) -> int:
    """Trials that count towards num_trials: the samplers' own, over all runs, failures that ran again left out."""
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    return sum(
        trial.state != TrialState.WAITING
        and trial.user_attrs.get("kind", "asked") in COUNTED
        and trial.number not in retried
        for trial in trials
    )
