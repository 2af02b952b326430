"""The one connection between Ray and MLflow: a callback that only reports which trials have changed.

Ray's MLflowLoggerCallback writes each metric with a call of its own, in the driver's loop, and an unreachable
server ends the sweep. This subclass writes nothing itself: it hands the trial's key to the outbox, whose thread
projects the trial's journal, in batches, whenever the store answers. MLflow's errors never reach the driver's
loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray.air.integrations.mlflow import MLflowLoggerCallback

from gemma_nli.base.errors import JournalError
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.storage import Place
from gemma_nli.sweep.ray.lost_trials import LostTrials
from gemma_nli.sweep.ray.ray_processes import dead_part
from gemma_nli.sweep.records.progress_state import ProgressState
from gemma_nli.training.results import summarize
from gemma_nli.trial import TrialJournal

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class TrialChanged(Protocol):
    """Takes the keys of trials that have changed, at once and without raising."""

    def __call__(self, key: str) -> None: ...


@dataclass
class LiveSweep:
    """The driver's own objects of a running sweep. They hold threads and locks and never leave the process."""

    progress: ProgressState
    storage: Place
    pairs: PairTable
    trial_changed: TrialChanged
    report_running: bool
    stopped: Callable[[str], str | None]
    lost: LostTrials
    notes: list[str]


_LIVE: dict[str, LiveSweep] = {}


def register_live(sweep_id: str, live: LiveSweep) -> None:
    """Make a sweep's objects known to its callback: Ray pickles callbacks, so the callback itself holds the id only."""
    _LIVE[sweep_id] = live


def unregister_live(sweep_id: str) -> None:
    _LIVE.pop(sweep_id, None)


class SweepCallback(MLflowLoggerCallback):
    """Keeps the board, records ends that the trial could not record itself, and posts keys to the outbox."""

    def __init__(self, sweep_id: str, experiment_name: str) -> None:
        super().__init__(experiment_name=experiment_name)
        self.sweep_id = sweep_id

    @property
    def live(self) -> LiveSweep:
        return _LIVE[self.sweep_id]

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Open no connection here: the stock callback's setup talks to the server, and fails with it."""

    def log_trial_start(self, trial: Trial) -> None:
        for cell in (trial.config, *trial.config.get("beside", ())):
            self.live.progress.add(cell["key"], cell["settings"])
            self.live.progress.update(cell["key"], "running")
            if self.live.report_running:
                self.live.trial_changed(cell["key"])

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        if not result.get("done"):
            self.live.progress.update(trial.config["key"], "running", folds_done=result["folds_done"])
            if self.live.report_running:
                self.live.trial_changed(trial.config["key"])

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        try:
            self._ended(trial, failed)
        except JournalError as error:  # a disk error ends one trial, not the sweep
            self.live.notes.append(f"trial {trial.config['key'][:8]} could not record its end: {error}")
            self.live.progress.update(trial.config["key"], "failed")
        self.live.trial_changed(trial.config["key"])
        for cell in trial.config.get("beside", ()):
            record = TrialJournal(self.live.storage, cell["key"]).read()
            state = record.state if record is not None and record.state != "running" else "waiting"
            self.live.progress.update(cell["key"], state, record.aggregates if record is not None else None)
            self.live.trial_changed(cell["key"])

    def _ended(self, trial: Trial, failed: bool) -> None:
        key, last = trial.config["key"], trial.last_result or {}
        journal = TrialJournal(self.live.storage, key)
        if failed and dead_part() is not None:  # Ray's end and not the trial's
            self.live.progress.update(key, "waiting")
        elif failed:
            again = not self.live.lost.ended(key) and self.live.lost.lost(key, trial.num_failures, _cause(trial))
            self.live.progress.update(key, "waiting" if again else "failed")
        elif last.get("failed"):
            self.live.progress.update(key, "failed")
            if not self.live.lost.ended(key):
                self.live.lost.refused(key, str(last.get("error")))
        elif not last.get("done") or last.get("folds_done", 0) < last.get("num_folds", 0):
            self._cut_short(key, journal, last)
        else:
            self.live.progress.update(key, "finished", dict(last["aggregates"]), last["folds_done"])

    def _cut_short(self, key: str, journal: TrialJournal, last: dict[str, Any]) -> None:
        """Stopped by the scheduler: pruned, with its reason. Stopped by the sweep's end: continues when the sweep
        does.
        """
        reason = self.live.stopped(key)
        if reason is None:
            self.live.progress.update(key, "waiting")
            return
        record = journal.read()
        done = sorted(record.folds) if record is not None else []
        estimate = summarize([record.folds[fold] for fold in done], self.live.pairs) if record is not None else None
        journal.stop("pruned", estimate, reason=f"after fold {len(done)}: {reason}")
        self.live.progress.update(key, "pruned", estimate.aggregates if estimate else None, len(done))


def _cause(trial: Trial) -> str:
    """The last line of Ray's message; if a worker could not import what a trial needs, also the file it failed in.

    Read from the file here; `get_error` looks at a copy that is made later.
    """
    try:
        said = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, TypeError):  # a trial that never had a folder has no file
        said = str(trial.get_error() or "").strip()
    files = re.findall(r'File "([^"]+)", line \d+', said) if "failed to import" in said else []
    where = f"a worker could not import {files[-1]}: " if files else ""
    return where + (said.splitlines() or ["Ray gives no reason"])[-1][:300]
