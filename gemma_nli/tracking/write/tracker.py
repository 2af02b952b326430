"""Projects sweeps and trials to MLflow runs: each run once, each number once, however often it is delivered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.store.mlflow_store import connect, deleted_experiment, resolve_store, talking
from gemma_nli.tracking.write import projection as shape
from gemma_nli.tracking.write.projection import STATUS, MetricPoint, SweepProjection, TrialProjection
from gemma_nli.tracking.write.runs import (
    ALIVE,
    KnownRun,
    keep_earliest,
    log_changes,
    log_dataset,
    search,
    tag_texts,
    tags_filter,
    unique_trials,
    upload_changed,
)

TASK = {**shape.TASK_TAG, "mlflow.source.name": "gemma-nli", "mlflow.source.type": "LOCAL"}
_REFUSED = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")  # what a deleted run answers


class MlflowTracker:
    """The only writer to MLflow. Connects on first use; safe to call from several threads.

    Every call is idempotent and bounded in time, and raises TrackingError if the store is unreachable or refuses.
    """

    def __init__(self, config: MlflowConfig, experiment: str) -> None:
        self.store = resolve_store(config)
        self.experiment = experiment
        self._lock = threading.RLock()
        self._connected: tuple[MlflowClient, str] | None = None
        self._sweep_ids: dict[str, str] = {}  # sweep run -> sweep id
        self._trials: dict[str, dict[str, KnownRun]] = {}  # sweep id -> trial key -> its run
        self._unsure: set[tuple[str, str]] = set()  # trials whose run may exist without our knowledge

    # --- sweeps

    def sweep_run(self, sweep: SweepProjection) -> str:
        """The sweep's one run, found by its id or created, RUNNING, with params, tags and artifacts as they are now."""
        with self._talking(f"open the run of sweep '{sweep.name}'"):
            identity = {shape.SWEEP_ID: sweep.sweep_id, shape.KIND: "sweep"}
            run = self._find(identity)
            if run is None:
                self._create(sweep.name, None, {**_notes(sweep), **tag_texts(sweep.tags), **TASK, **identity})
                self._trials.setdefault(sweep.sweep_id, {})
                run = self._find(identity)
                assert run is not None
            known = KnownRun.of(run, detailed=True)
            self._sweep_ids[known.run_id] = sweep.sweep_id
            upload_changed(self._client, known, sweep.artifacts)
            log_dataset(self._client, known, sweep.dataset)
            log_changes(self._client, known, sweep.params, (), {**_notes(sweep), **sweep.tags})
            if known.status != "RUNNING":
                self._client.update_run(known.run_id, status="RUNNING")
            return known.run_id

    def end_sweep(
        self,
        run_id: str,
        status: str,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        artifacts: Mapping[str, Path | bytes] | None = None,
        ended_ms: int | None = None,
    ) -> None:
        """Closes the sweep's run, duplicates of its trials' runs removed.

        A sweep may end several times (resumed, extended): a metric that has changed goes to its next step.

        Args:
            status: `finished`, `failed` or `killed`, or MLflow's own name for it.
        """
        ended = ended_ms or now_ms()
        with self._talking("close the sweep's run"):
            self.known_trials(run_id)
            known = KnownRun.of(self._client.get_run(run_id), detailed=True)
            points = []
            for name, value in (metrics or {}).items():
                old = known.latest.get(shape.safe_name(name))
                step = 0 if old is None else old.step + (old.value != value)
                if old is None or step != old.step:
                    points.append(MetricPoint(name, value, step, ended))
            upload_changed(self._client, known, artifacts or {})
            log_changes(self._client, known, {}, points, tags or {})
            self._client.set_terminated(run_id, STATUS.get(status, status), ended)

    def known_trials(self, sweep_run_id: str | None) -> dict[str, tuple[str, str]]:
        """Trial key to (run id, status) of the sweep's trial runs; duplicates are deleted, orphans put under it."""
        with self._talking("list the sweep's trials"):
            sweep_id = self._sweep_id(sweep_run_id)
            runs = search(self._client, self._experiment_id, tags_filter(_of_sweep(sweep_id)))
            known = unique_trials(self._client, runs)
            old = self._trials.get(sweep_id, {})
            for key, run in known.items():  # what was sent in this process stays known
                if key in old and old[key].run_id == run.run_id:
                    known[key] = old[key]
                    known[key].status = run.status
                if sweep_run_id is not None and known[key].parent != sweep_run_id:
                    self._client.set_tag(run.run_id, shape.PARENT, sweep_run_id)
                    known[key].parent = sweep_run_id
            self._trials[sweep_id] = known
            return {key: (run.run_id, run.status) for key, run in known.items()}

    # --- trials

    def sync_trial(self, sweep_run_id: str | None, trial: TrialProjection) -> str:
        """Makes the trial's one run show `trial`, sending only what it does not show yet.

        Args:
            sweep_run_id: the parent's run, or None for a trial outside a sweep.
        Returns:
            The run's id. It changes if the run held numbers that the journal contradicts: MLflow cannot take a number
            back, so such a run is deleted and projected anew.
        """
        with self._talking(f"record trial '{trial.run_name}'"):
            sweep_id = self._sweep_id(sweep_run_id)
            for last_try in (False, True):
                run = self._trial_run(sweep_run_id, sweep_id, trial)
                try:
                    if self._send(run, sweep_run_id, trial):
                        return run.run_id
                    self._client.delete_run(run.run_id)
                except MlflowException as error:
                    self._forget(sweep_id, trial.key)
                    if last_try or error.error_code not in _REFUSED:
                        raise
                self._forget(sweep_id, trial.key)
            raise TrackingError(
                f"{self.store.shown}: trial '{trial.run_name}' is being recorded by another process too."
            )

    def close(self) -> None:
        """Forgets what was read; the next call connects again."""
        with self._lock:
            self._connected = None
            self._sweep_ids, self._trials, self._unsure = {}, {}, set()

    # --- one trial's run

    def _trial_run(self, sweep_run_id: str | None, sweep_id: str, trial: TrialProjection) -> KnownRun:
        if sweep_id not in self._trials and sweep_run_id is not None:
            self.known_trials(sweep_run_id)
        trials = self._trials.setdefault(sweep_id, {})
        if trial.key in trials:
            return trials[trial.key]
        identity = {**_of_sweep(sweep_id), shape.TRIAL_KEY: trial.key}
        run = self._find(identity) if sweep_run_id is None or (sweep_id, trial.key) in self._unsure else None
        if run is None:
            self._unsure.add((sweep_id, trial.key))  # until the answer is here: it may get lost
            tags = {**tag_texts(_trial_tags(trial)), **TASK, **identity, **_parent(sweep_run_id)}
            self._create(trial.run_name, trial.started_ms or None, tags)
            run = self._find(identity)  # a retried request or a second writer may have made a duplicate
            assert run is not None
        self._unsure.discard((sweep_id, trial.key))
        trials[trial.key] = KnownRun.of(run, detailed=True)
        return trials[trial.key]

    def _send(self, run: KnownRun, sweep_run_id: str | None, trial: TrialProjection) -> bool:
        """Sends what the run lacks; False if it holds numbers that the trial contradicts."""
        digest, status = trial.digest(), STATUS[trial.state]
        ended = None if status in ALIVE else trial.ended_ms
        if run.delivered == digest and run.status == status:
            return True
        if not run.detailed:
            run.detail(self._client.get_run(run.run_id))
        rows, infinite = shape.metric_rows(trial.metrics)
        if any(run.disagrees(point) for point in rows):
            return False
        if trial.named and run.tags.get("mlflow.runName") != mask_credentials(trial.run_name):
            self._client.update_run(run.run_id, name=mask_credentials(trial.run_name))
        unsent = [point for point in rows if (point.name, point.step) not in run.sent]
        tags = {**_trial_tags(trial), **_parent(sweep_run_id)}
        if status not in ALIVE:  # a running trial has more to show soon: this saves writing the tag each time
            tags[shape.DELIVERED] = digest
        if infinite:
            tags[shape.INFINITE] = infinite
        artifacts = dict(trial.artifacts)
        if trial.error:
            artifacts["traceback.txt"] = mask_credentials(trial.error).encode()
        upload_changed(self._client, run, artifacts)
        log_dataset(self._client, run, trial.dataset)
        log_changes(self._client, run, trial.params, unsent, tags)
        run.delivered = digest
        if status in ALIVE and run.status != status:
            self._client.update_run(run.run_id, status=status)
        elif status not in ALIVE and (run.status != status or (ended is not None and run.end_ms != ended)):
            self._client.set_terminated(run.run_id, status, ended)
            run.end_ms = ended
        run.status = status
        if status not in ALIVE:
            run.forget()
        return True

    def _forget(self, sweep_id: str, key: str) -> None:
        self._trials.get(sweep_id, {}).pop(key, None)
        self._unsure.add((sweep_id, key))

    # --- one run

    def _find(self, identity: Mapping[str, str]) -> Run | None:
        return keep_earliest(self._client, list(search(self._client, self._experiment_id, tags_filter(identity))))

    def _create(self, name: str, started_ms: int | None, tags: dict[str, str]) -> None:
        made = {**tag_texts(tags), shape.CREATED: str(now_ms())}
        self._client.create_run(self._experiment_id, started_ms, made, mask_credentials(name))

    # --- the connection

    @property
    def client(self) -> MlflowClient:
        """The connected client, for the other files of this room; use it within `talking`."""
        with self._talking("connect"):
            return self._client

    @property
    def experiment_id(self) -> str:
        with self._talking(f"open experiment '{self.experiment}'"):
            return self._experiment_id

    @property
    def _client(self) -> MlflowClient:
        return self._connection()[0]

    @property
    def _experiment_id(self) -> str:
        return self._connection()[1]

    def _connection(self) -> tuple[MlflowClient, str]:
        if self._connected is None:
            client = connect(self.store)
            self._connected = client, self._open_experiment(client)
        return self._connected

    def _open_experiment(self, client: MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            try:
                return str(client.create_experiment(self.experiment, self.store.location(self.experiment)))
            except MlflowException:
                experiment = client.get_experiment_by_name(self.experiment)  # another process was faster
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise deleted_experiment(self.store, experiment)
        return str(experiment.experiment_id)

    def _sweep_id(self, sweep_run_id: str | None) -> str:
        if sweep_run_id is None:
            return shape.STANDALONE
        if sweep_run_id not in self._sweep_ids:
            tags = self._client.get_run(sweep_run_id).data.tags
            if shape.SWEEP_ID not in tags:
                raise TrackingError(f"{self.store.shown}: run '{sweep_run_id}' is not a sweep of gemma-nli.")
            self._sweep_ids[sweep_run_id] = tags[shape.SWEEP_ID]
        return self._sweep_ids[sweep_run_id]

    @contextmanager
    def _talking(self, doing: str) -> Iterator[None]:
        with self._lock, talking(self.store, doing):
            yield


def now_ms() -> int:
    return int(time.time() * 1000)


def _of_sweep(sweep_id: str) -> dict[str, str]:
    return {shape.SWEEP_ID: sweep_id, shape.KIND: "trial"}


def _parent(sweep_run_id: str | None) -> dict[str, str]:
    return {} if sweep_run_id is None else {shape.PARENT: sweep_run_id}


def _notes(sweep: SweepProjection) -> dict[str, str]:
    return {"mlflow.note.content": sweep.question, "gemma_nli.question": sweep.question} if sweep.question else {}


def _trial_tags(trial: TrialProjection) -> dict[str, str]:
    lines = (trial.error or "").strip().splitlines()
    return {**trial.tags, shape.STATE: trial.state, **({shape.ERROR: lines[-1][:500]} if lines else {})}
