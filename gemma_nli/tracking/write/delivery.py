"""Journals delivered to MLflow: what `train` and a sweep's driver do alike, off the path of the training."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gemma_nli.tracking.write.outbox import Outbox
from gemma_nli.tracking.write.projection import TrialProjection
from gemma_nli.tracking.write.tracker import MlflowTracker


class MlflowDelivery:
    """Makes the runs of trials show what their journals say, by an outbox: a store that is unreachable delays only.

    Args:
        pending_file: the outbox's list of what is waiting.
        project: a trial's journal, read now, as its run; None where none has begun. Called in the outbox's thread.
        sweep_run_id: the run that the trials' runs are nested in; None for a run of its own.
    """

    def __init__(
        self,
        tracker: MlflowTracker,
        pending_file: Path,
        project: Callable[[str], TrialProjection | None],
        sweep_run_id: str | None = None,
    ) -> None:
        self.tracker, self.project, self.sweep_run_id = tracker, project, sweep_run_id
        self.outbox = Outbox(pending_file)

    def submit(self, key: str, unfinished: str = "running") -> None:
        """The trial's journal has changed: `deliver` it soon; returns at once."""
        self.outbox.submit(key, partial(self.deliver, key, unfinished))

    def deliver(self, key: str, unfinished: str = "running") -> str | None:
        """Make the trial's run show its journal now; the run's id.

        Args:
            unfinished: how a trial without an end is shown.
        """
        trial = self.project(key)
        if trial is None:
            return None
        if trial.state == "running":
            trial = dataclasses.replace(trial, state=unfinished, ended_ms=None)
        return self.tracker.sync_trial(self.sweep_run_id, trial)

    def run_id_of(self, key: str) -> str | None:
        """The MLflow run of a trial, None while MLflow does not have it.

        Raises:
            TrackingError: the store cannot be asked.
        """
        return self.tracker.known_trials(self.sweep_run_id).get(key, (None, ""))[0]

    def drain(self, seconds: float, away_seconds: float) -> bool:
        """Wait until MLflow has everything.

        Args:
            seconds: to wait at most.
            away_seconds: to wait for a store that does not answer.
        """
        began, away_since = time.monotonic(), None
        while time.monotonic() - began < seconds:
            if self.outbox.drain(1.0):
                return True
            if self.outbox.last_error is None:
                away_since = None
            elif away_since is None:
                away_since = time.monotonic()
            elif time.monotonic() - away_since > away_seconds:
                return False
        return False

    def close(self) -> None:
        """Stop; what is waiting stays on the list."""
        self.outbox.close(0.0)
