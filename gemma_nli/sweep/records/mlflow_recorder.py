"""The driver's line to MLflow: the sweep's run, and an outbox that projects journals to runs off the sweep's path."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gemma_nli.analysis.compared_values import FRESH
from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.sweep.prepare import Prepared, is_confirming
from gemma_nli.sweep.records.saved_report import description_of, honest_tags, kept_report
from gemma_nli.sweep.records.sealed_looks import sealed_test
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.tracking.registry.sealed_tags import sealed_metrics, sealed_tags
from gemma_nli.tracking.write.delivery import MlflowDelivery
from gemma_nli.tracking.write.from_journal import (
    artifacts_of_sweep,
    dataset_of,
    params_of_sweep,
    project_trial,
    user_tags,
)
from gemma_nli.tracking.write.projection import SweepProjection, TrialProjection
from gemma_nli.tracking.write.tracker import MlflowTracker
from gemma_nli.trial import TrialRecord, read_trial
from gemma_nli.trial.hardware import environment_tags

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
        self.delivery: MlflowDelivery | None = None
        self._drawn: dict[str, PairTable] = {}

    def open(self) -> None:
        """Find or make the sweep's run.

        Raises:
            TrackingError: the store cannot be reached. Later outages only delay; at the start they are an error.
        """
        if not self.enabled:
            return
        tracker = MlflowTracker(self.ready.spec.base.mlflow, self.ready.spec.base.experiment)
        self.sweep_run_id = tracker.sweep_run(self._sweep())
        self.delivery = MlflowDelivery(tracker, self.folder.pending, self._project, self.sweep_run_id)

    @property
    def tracker(self) -> MlflowTracker | None:
        return self.delivery.tracker if self.delivery is not None else None

    def link(self) -> str | None:
        """Where the sweep's run is looked at: its page on a server, else its id and store. No credentials in it."""
        if self.tracker is None or self.sweep_run_id is None:
            return None
        store = self.tracker.store
        if not store.is_server:
            return f"{self.sweep_run_id} in {store.shown}"
        return f"{store.shown.rstrip('/')}/#/experiments/{self.tracker.experiment_id}/runs/{self.sweep_run_id}"

    def trial_changed(self, key: str) -> None:
        """A trial has changed: its journal is projected soon, in the outbox's thread."""
        if self.delivery is not None:
            self.delivery.submit(key)

    def deliver(self, key: str) -> str | None:
        """Make the trial's run show its journal now."""
        assert self.delivery is not None, "only an open recorder delivers"
        return self.delivery.deliver(key)

    def _project(self, key: str) -> TrialProjection | None:
        record = self.ready.read(key, weights=True)
        if record is None:
            return None
        pairs, shared = self._pairs_of(record)
        ready = self.ready
        shown = project_trial(record, ready.corpus, pairs, shared, ready.sweep_id, ready.spec.tags)
        if pairs is ready.pairs:
            return shown
        confirms = {"gemma_nli.confirms": self._leader_of(record) or "a trial that is no longer the sweep's"}
        return dataclasses.replace(shown, tags={**shown.tags, **confirms})

    def _leader_of(self, record: TrialRecord) -> str | None:
        """The trial that a confirming one trains again."""
        noted = self.folder.cells()
        own = {name: value for name, value in noted.get(record.key, {}).items() if name not in FRESH}
        trials = {key: settings for key, settings in noted.items() if not is_confirming(settings)}
        return next((key for key, settings in trials.items() if own.items() <= settings.items()), None)

    def _pairs_of(self, record: TrialRecord) -> tuple[PairTable, Path]:
        """The pairs a trial was measured on and the folder of their files; a confirming trial has drawn its own."""
        if record.fold_fingerprint == self.ready.pairs.fingerprint:
            return self.ready.pairs, self.folder.shared
        if record.fold_fingerprint not in self._drawn:
            self._drawn[record.fold_fingerprint] = build_pairs(self.ready.corpus, record.config.data)
        return self._drawn[record.fold_fingerprint], self.folder.shared / record.fold_fingerprint[:16]

    def run_id_of(self, key: str) -> str | None:
        """The MLflow run of a trial, None while MLflow does not have it."""
        if self.delivery is None:
            return None
        self.drain()
        try:
            return self.delivery.run_id_of(key)
        except TrackingError as error:
            log.warning("%s", error)
            return None

    def drain(self) -> bool:
        """Wait until MLflow has everything; gives up soon if the store is unreachable."""
        return self.delivery is None or self.delivery.drain(DRAIN_SECONDS, AWAY_SECONDS)

    def close(self, result: SweepResult, ended: Collection[str]) -> None:
        """Send what is left and close the sweep's run; what could not be sent stays noted for `gemma-nli flush`.

        Args:
            ended: keys of the trials whose journals have been read and have an end.
        """
        if self.delivery is None:
            return
        self._stop_unfinished(ended)
        drained, outbox = self.drain(), self.delivery.outbox
        outbox.submit(END, partial(self.end, result.to_json()))
        drained = drained and self.drain()
        self.delivery.close()
        result.undelivered = outbox.pending
        flush_line = command_line("gemma-nli", "flush", self.ready.spec.name)
        if result.unregistered:
            result.notes.append(f"{result.unregistered}; register it with: {flush_line}")
        if not drained:
            result.notes.append(
                f"MLflow does not have {outbox.pending} updates yet ({outbox.last_error}); send them with: {flush_line}"
            )

    def cut_off(self, status: str) -> None:
        """The command ends before the sweep does: leave no run RUNNING, in seconds or not at all."""
        if self.delivery is None or self.sweep_run_id is None:
            return
        self._stop_unfinished({key for key in self.folder.cells() if self.ready.is_done(key)})
        outbox, tracker = self.delivery.outbox, self.delivery.tracker
        outbox.submit(END, partial(tracker.end_sweep, self.sweep_run_id, status))
        outbox.drain(AWAY_SECONDS)

    def _stop_unfinished(self, ended: Collection[str]) -> None:
        """Trials whose journals have no end are shown as stopped, those of earlier runs of the sweep too."""
        assert self.delivery is not None
        for key in self.folder.cells():
            record = read_trial(self.ready.storage, key) if key not in ended else None
            if record is not None and record.state == "running":
                self.delivery.submit(key, "stopped")

    def abandon(self) -> None:
        """Stop the outbox after an error; waiting updates stay noted."""
        if self.delivery is not None:
            self.delivery.close()

    def end(self, result: Mapping[str, Any]) -> None:
        """Close the sweep's run according to its `result.json`; without one the sweep was interrupted.

        The run ends as the command does: FINISHED for exit status 0, FAILED for 1, KILLED for an interrupted sweep.
        """
        assert self.tracker is not None
        assert self.sweep_run_id is not None
        metric = self.ready.spec.metric
        ended = "failed" if result.get("exit_status") else "finished"
        status = ended if result and not result["interrupted"] else "killed"
        counts = {**result.get("trials", {}), "waiting": result.get("waiting", 0)} if result else {}
        metrics = {f"sweep/{state}": float(count) for state, count in counts.items()}
        metrics |= {f"sweep/confirming_{state}": float(n) for state, n in result.get("confirming", {}).items()}
        tags = {"gemma_nli.metric": metric}
        best = result.get("best")
        if best:
            tags["gemma_nli.best_trial_key"] = best["key"]
            if best["metrics"].get(metric) is not None:
                metrics["sweep/best"] = best["metrics"][metric]
        kept = kept_report(self.folder)
        artifacts: dict[str, Path | bytes] = {}
        if kept is not None:
            artifacts = {kept.html.name: kept.html, kept.markdown.name: kept.markdown}
            tags |= honest_tags(kept)
            if "note" not in self.ready.spec.tags:  # the user's own description stays
                tags["mlflow.note.content"] = description_of(kept, self.ready.spec.question)
        for test in sealed_test(self.ready.corpus.seal, self.folder, self.ready.spec.name):
            tags |= sealed_tags(test)
            metrics |= sealed_metrics(test)
        self.tracker.end_sweep(self.sweep_run_id, status, metrics, tags, artifacts)

    def _sweep(self) -> SweepProjection:
        ready = self.ready
        tags = {
            **environment_tags(),
            "gemma_nli.data_fingerprint": ready.corpus.fingerprint,
            "gemma_nli.fold_fingerprint": ready.pairs.fingerprint,
            "gemma_nli.eval_negative_ratio": str(ready.spec.base.data.eval_negative_ratio),
            "gemma_nli.negatives": ready.spec.base.data.negatives,
            "gemma_nli.measured": ready.spec.base.data.measured_at,
            **user_tags(ready.spec.tags),
        }
        return SweepProjection(
            sweep_id=ready.sweep_id,
            name=ready.spec.name,
            question=ready.spec.question,
            params=params_of_sweep(ready.spec, ready.pairs),
            tags=tags,
            artifacts=artifacts_of_sweep(ready.spec, ready.corpus, ready.pairs, self.folder.shared),
            dataset=dataset_of(ready.spec.base, ready.corpus, ready.pairs),
        )


def flush(
    ready: Prepared, folder: SweepFolder, register: Callable[[Recorder], dict[str, Any] | None]
) -> tuple[int, int]:
    """Send every update of a sweep's trials that MLflow lacks; (trials sent, trials still waiting).

    Args:
        register: finalizes the sweep; called if that is still to be done.
    Raises:
        TrackingError: the store cannot be reached at all.
    """
    recorder = Recorder(ready, folder)
    recorder.open()
    if recorder.delivery is None:
        raise TrackingError(f"sweep '{ready.spec.name}': mlflow.enabled is false; there is nothing to send.")
    try:
        keys = [key for key in folder.cells() if read_trial(ready.storage, key) is not None]
        for key in keys:
            recorder.delivery.submit(key, "stopped")
        recorder.drain()
        waiting = recorder.delivery.outbox.pending
        result = folder.result()
        if not waiting and result.get("unregistered"):
            result |= {"registered": register(recorder), "unregistered": None}
        if not waiting:
            recorder.end(result)
            if result:
                folder.end({**result, "undelivered": 0, "notes": []})
    finally:
        recorder.abandon()
    return len(keys) - waiting, waiting
