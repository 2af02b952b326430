"""The driver's line to MLflow: the sweep's run, and an outbox that projects journals to runs off the sweep's path."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial

from gemma_nli.errors import TrackingError
from gemma_nli.journal import read_trial
from gemma_nli.sweep.board import Board
from gemma_nli.sweep.folder import SweepFolder
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.projecting import artifacts_of_sweep, params_of_sweep, project_trial
from gemma_nli.sweep.result import SweepResult
from gemma_nli.tracking.hardware import environment_tags
from gemma_nli.tracking.outbox import Outbox
from gemma_nli.tracking.projection import SweepProjection
from gemma_nli.tracking.tracker import MlflowTracker

log = logging.getLogger(__name__)
END = "sweep-end"
DRAIN_SECONDS = 120.0
AWAY_SECONDS = 8.0


class Recorder:
    """Records a prepared sweep. With `mlflow.enabled: false` it does nothing and has no run id."""

    def __init__(self, ready: Prepared, folder: SweepFolder) -> None:
        self.ready, self.folder = ready, folder
        self.enabled = ready.spec.base.mlflow.enabled
        self.sweep_run_id: str | None = None
        self.tracker: MlflowTracker | None = None
        self.outbox: Outbox | None = None

    def open(self) -> None:
        """Find or make the sweep's run.

        Raises:
            TrackingError: the store cannot be reached. Later outages only delay; at the start it is a mistake.
        """
        if not self.enabled:
            return
        self.tracker = MlflowTracker(self.ready.spec.base.mlflow, self.ready.spec.base.experiment)
        self.sweep_run_id = self.tracker.sweep_run(self._sweep())
        self.outbox = Outbox(self.folder.pending)

    def post(self, key: str) -> None:
        """A trial has news: its journal is projected soon, in the outbox's thread."""
        if self.outbox is not None:
            self.outbox.submit(key, partial(self.deliver, key))

    def deliver(self, key: str, unfinished: str = "running") -> str | None:
        """Make the trial's run show its journal now; `unfinished` is what a trial without an end is shown as."""
        assert self.tracker is not None, "only an open recorder delivers"
        record = read_trial(self.ready.storage, key)
        if record is None:
            return None
        trial = project_trial(record, self.ready.corpus, self.ready.pairs, self.folder.shared, self.ready.sweep_id)
        if record.state == "running":
            trial = dataclasses.replace(trial, state=unfinished, ended_ms=None)
        return self.tracker.sync_trial(self.sweep_run_id, trial)

    def run_id_of(self, key: str) -> str | None:
        """The MLflow run of a trial, None while MLflow does not have it."""
        if self.tracker is None:
            return None
        self.drain()
        try:
            return self.tracker.known_trials(self.sweep_run_id).get(key, (None, ""))[0]
        except TrackingError as error:
            log.warning("%s", error)
            return None

    def drain(self) -> bool:
        """Wait until MLflow has everything; gives up soon where the store is away."""
        if self.outbox is None:
            return True
        return self.outbox.drain(AWAY_SECONDS if self.outbox.last_error else DRAIN_SECONDS)

    def close(self, result: SweepResult, board: Board) -> None:
        """Send what is left and close the sweep's run; what could not be sent stays noted for `gemma-nli flush`."""
        if self.tracker is None or self.outbox is None or self.sweep_run_id is None:
            return
        for key, cell in board.cells.items():
            if cell.state in ("running", "waiting"):
                self.outbox.submit(key, partial(self.deliver, key, "stopped"))
        drained = self.drain()
        self.outbox.submit(END, self._ending(result))
        drained = self.drain() and drained
        self.outbox.close(0.0)
        result.undelivered = self.outbox.pending
        if not drained:
            result.notes.append(
                f"MLflow has not got {self.outbox.pending} updates yet ({self.outbox.last_error}); "
                f"send them with: gemma-nli flush {self.ready.spec.name}"
            )

    def abandon(self) -> None:
        """Stop the outbox after an error; what waits stays noted."""
        if self.outbox is not None:
            self.outbox.close(0.0)

    def _ending(self, result: SweepResult) -> Callable[[], None]:
        def end() -> None:
            assert self.tracker is not None
            assert self.sweep_run_id is not None
            status = "killed" if result.interrupted else "finished"
            metrics = {f"sweep/{state}": float(count) for state, count in result.trials.items()}
            tags = {"gemma_nli.metric": self.ready.spec.metric}
            if result.best is not None:
                metrics["sweep/best"] = result.best.objective
                tags["gemma_nli.best_trial_key"] = result.best.key
            self.tracker.end_sweep(self.sweep_run_id, status, metrics, tags)

        return end

    def _sweep(self) -> SweepProjection:
        ready = self.ready
        tags = {
            **environment_tags(),
            "gemma_nli.data_fingerprint": ready.corpus.fingerprint,
            "gemma_nli.fold_fingerprint": ready.pairs.fingerprint,
            "gemma_nli.eval_negative_ratio": str(ready.spec.base.data.eval_negative_ratio),
        }
        return SweepProjection(
            sweep_id=ready.sweep_id,
            name=ready.spec.name,
            question=ready.spec.question,
            params=params_of_sweep(ready.spec, ready.pairs),
            tags=tags,
            artifacts=artifacts_of_sweep(ready.spec, ready.corpus, ready.pairs, self.folder.shared),
        )


def flush(ready: Prepared, folder: SweepFolder) -> tuple[int, int]:
    """Send the news of every trial of a sweep that MLflow lacks; (trials sent, trials still waiting).

    Raises:
        TrackingError: the store cannot be reached at all.
    """
    recorder = Recorder(ready, folder)
    recorder.open()
    if recorder.outbox is None:
        raise TrackingError(f"sweep '{ready.spec.name}': mlflow.enabled is false; there is nothing to send.")
    keys = [key for key in folder.cells() if read_trial(ready.storage, key) is not None]
    for key in keys:
        recorder.outbox.submit(key, partial(recorder.deliver, key, "stopped"))
    recorder.drain()
    waiting = recorder.outbox.pending
    if not waiting and recorder.tracker is not None and recorder.sweep_run_id is not None:
        recorder.tracker.end_sweep(recorder.sweep_run_id, "finished")
    recorder.outbox.close(0.0)
    return len(keys) - waiting, waiting
