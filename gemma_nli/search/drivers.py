"""Several drivers, one Optuna study: whose a trial is, and what the others are running or have found.

Each driver takes up, retries and closes only what it has opened itself, however often it is resumed; what the others
have told counts, is learnt from by the sampler, and is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

OWNER = "owner"
COUNTED = ("asked", "reused", "retry")
"""Kinds of trials that count towards `search.num_trials`."""


class Drivers:
    """This driver among those of its study."""

    def __init__(self, study: optuna.Study, owner: str, identify: Callable[[dict[str, Any]], str | None]) -> None:
        """
        Args:
            owner: names this driver over all its resumes.
            identify: what makes two trials' settings the same configuration; None where they fit no configuration.
        """
        self.study, self.owner, self.identify = study, owner, identify
        self._identities: dict[int, str | None] = {}

    def is_mine(self, trial: FrozenTrial) -> bool:
        """A trial of a study from before there were owners is whoever's asks."""
        return bool(trial.user_attrs.get(OWNER, self.owner) == self.owner)

    def is_surplus(self, number: int, limit: int) -> bool:
        """Whether enough trials were opened before this one, by drivers that asked at the same time."""
        trials = self.study.get_trials(deepcopy=False)
        if trials[number].user_attrs.get("kind") == "retry" or all(self.is_mine(trial) for trial in trials):
            return False
        return count([trial for trial in trials if trial.number < number]) >= limit

    def same_elsewhere(self, number: int, identity: str) -> FrozenTrial | None:
        """Another driver's trial of that configuration: one that has ended, or one that runs and was asked earlier."""
        for trial in self.study.get_trials(deepcopy=False):
            if self.is_mine(trial) or trial.user_attrs.get("kind", "asked") not in COUNTED:
                continue
            ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            if (ended or (trial.state == TrialState.RUNNING and trial.number < number)) and self._is(trial, identity):
                return trial
        return None

    def _is(self, trial: FrozenTrial, identity: str) -> bool:
        settings = trial.user_attrs.get("settings")
        if settings is None:  # its driver is just writing them
            return False
        if trial.number not in self._identities:
            self._identities[trial.number] = self.identify(dict(settings))
        return self._identities[trial.number] == identity


def count(trials: Sequence[FrozenTrial]) -> int:
    """Trials that count towards num_trials: the samplers' own, over all runs, failures that ran again left out."""
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    return sum(
        trial.state != TrialState.WAITING
        and trial.user_attrs.get("kind", "asked") in COUNTED
        and trial.number not in retried
        for trial in trials
    )
