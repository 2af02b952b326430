"""`ExperimentTracker`: one run, logged as it goes, to MLflow, to Weights & Biases, or to both.

What has a journal (a sweep, `gemma-nli train`) is projected by `tracker.py`; what has none, such as `gemma-nli
train-simple` and your own notebook, is logged by this. Nothing is swallowed: an unreachable store is an error.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.config import MlflowConfig
from gemma_nli.spec.sweep_sections import checked_tags
from gemma_nli.tracking.registry.model_folder import save_model_folder
from gemma_nli.tracking.store.mlflow_store import talking
from gemma_nli.tracking.write.from_journal import user_tags
from gemma_nli.tracking.write.projection import KIND, STATE, DatasetFacts, MetricPoint
from gemma_nli.tracking.write.runs import KnownRun, log_changes, log_dataset, upload_changed
from gemma_nli.tracking.write.tracker import TASK, MlflowTracker, now_ms
from gemma_nli.trial.hardware import environment_tags, hardware_tags

log = logging.getLogger(__name__)


class ExperimentTracker:
    """A run of an experiment. As a context manager it ends FINISHED, or FAILED if the block raises.

    Without `with`, `end()` closes it; a run that is never closed ends with its process: FINISHED, or FAILED if an
    exception ends that (KILLED for Ctrl-C). Only a process that is killed leaves a run RUNNING.

    >>> with ExperimentTracker("notebook") as tracker:
    ...     tracker.set_tags({"researcher": "ann", "note": "first try"})
    ...     tracker.log_params({"training.learning_rate": 1e-3})
    ...     tracker.log_metrics({"val_f1": 0.7}, step=1)

    Args:
        experiment_name: MLflow experiment; created if it does not exist.
        use_mlflow: record in MLflow.
        use_wandb: record in Weights & Biases; needs the extra `wandb` (WANDB_MODE=offline needs no account).
        wandb_project: by default the experiment's name.
        tracking_uri: MLflow store, if not the default one.
        run_name: the run's name.
    Raises:
        TrackingError: MLflow or W&B cannot be reached or is not installed. With both off every call does nothing.
    """

    def __init__(
        self,
        experiment_name: str,
        use_mlflow: bool = True,
        use_wandb: bool = False,
        wandb_project: str | None = None,
        tracking_uri: str | None = None,
        run_name: str | None = None,
    ) -> None:
        self.experiment_name = experiment_name
        self.run_id: str | None = None
        self._ended = False
        self._mlflow = MlflowTracker(MlflowConfig(tracking_uri=tracking_uri), experiment_name) if use_mlflow else None
        self._known: KnownRun | None = None
        self._wandb: Any = None
        if self._mlflow is not None:
            _ = self._mlflow.experiment_id  # an unreachable store is reported before W&B starts a run
        try:
            if use_wandb:
                self._wandb = _open_wandb(wandb_project or experiment_name, run_name)
            if self._mlflow is not None:
                self._known = self._open(self._mlflow, run_name)
                self.run_id = self._known.run_id
            self.set_facts({**environment_tags(), **hardware_tags()})
        except BaseException:
            self._give_up()
            raise
        atexit.register(self._end_at_exit)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings by their dotted names; one already logged with another value becomes a tag `changed/NAME`."""
        self._send(params=params)
        if self._wandb is not None:
            self._wandb.config.update(_masked(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers at a step, all in one call; a step may be an epoch. NaN stays NaN."""
        now = now_ms()
        self._send(points=[MetricPoint(name, float(value), step, now) for name, value in metrics.items()])
        if self._wandb is not None:
            self._wandb.log({name: float(value) for name, value in metrics.items()}, step=step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Your own tags; `note` is what MLflow shows as the run's description.

        Raises:
            TrackingError: a name that MLflow or this package reserves.
        """
        try:
            own = user_tags(checked_tags({name: str(value) for name, value in tags.items()}))
        except ValueError as error:
            raise TrackingError(f"tags: {error}.") from None
        self.set_facts(own)

    def set_facts(self, tags: Mapping[str, str]) -> None:
        """Tags of this package's own (`gemma_nli.*`, `version.*`, hardware)."""
        self._send(tags=tags)
        if self._wandb is not None:
            self._wandb.config.update({f"tags/{name}": value for name, value in _masked(tags).items()})

    def log_dataset(self, facts: DatasetFacts) -> None:
        """The corpus, as the run's dataset input."""
        if self._mlflow is not None and self._known is not None:
            with talking(self._mlflow.store, "log the dataset"):
                log_dataset(self._mlflow.client, self._known, facts)

    def log_artifact(self, source: Path | bytes, name: str | None = None) -> None:
        """A file, or bytes under a name; a folder in the name is kept (`plots/roc.png`).

        Raises:
            TrackingError: no such file, or bytes without a name.
        """
        if isinstance(source, bytes) and name is None:
            raise TrackingError("log_artifact: bytes need a name.")
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise TrackingError(f"log_artifact: {source}: no such file.")
        content = source if isinstance(source, bytes) else Path(source)
        title = name or Path(str(source)).name
        if self._mlflow is not None and self._known is not None:
            with talking(self._mlflow.store, f"upload '{title}'", seconds=120):
                upload_changed(self._mlflow.client, self._known, {title: content})
        if self._wandb is not None:
            place = Path(self._wandb.dir) / title  # in the run's own folder: W&B links to files that lie elsewhere
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            self._wandb.save(str(place), base_path=self._wandb.dir, policy="now")

    def log_model(
        self, bundle: Path, name: str = "model", example: pd.DataFrame | None = None, export_limit_gib: float = 4.0
    ) -> str | None:
        """A bundle as an MLflow model among the run's artifacts: pyfunc and, up to the limit, a pt2 program.

        Returns:
            Its address (`runs:/RUN/NAME`), None without MLflow.
        Raises:
            TrackingError: no bundle there, or MLflow refuses.
        """
        if not (bundle / "bundle.json").is_file():
            raise TrackingError(f"{bundle}: no bundle to log here.")
        if self._mlflow is None or self.run_id is None:
            return None
        with (
            tempfile.TemporaryDirectory(prefix=".log_model_", dir=bundle.parent) as folder,
            talking(self._mlflow.store, f"log model '{name}'", seconds=120),
        ):
            save_model_folder(bundle, Path(folder) / name, example, export_limit_gib)
            self._mlflow.client.log_artifacts(self.run_id, folder)
        return f"runs:/{self.run_id}/{name}"

    def end(self, state: str = "finished") -> None:
        """Close the run; `state` is finished, failed or killed. Calling it again does nothing."""
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self._end_at_exit)
        self._send(tags={STATE: state})
        if self._mlflow is not None and self.run_id is not None:
            with talking(self._mlflow.store, "close the run"):
                status = {"finished": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
                self._mlflow.client.set_terminated(self.run_id, status)
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if state == "finished" else 1)

    def discard(self) -> None:
        """Delete the run from MLflow: what it was opened for never started. W&B's run is closed as failed."""
        known, self._known = self._known, None
        if self._mlflow is not None and known is not None:
            with talking(self._mlflow.store, "delete the run"):
                self._mlflow.client.delete_run(known.run_id)
        self._ended, self.run_id = True, None
        if self._wandb is not None:
            self._wandb.finish(exit_code=1)

    def _give_up(self) -> None:
        """After an error while the run was opened: leave none RUNNING, and report that first error."""
        try:
            self.end("failed")
        except TrackingError as error:
            log.warning("%s", error)

    def _end_at_exit(self) -> None:
        """The process ends without the run having been closed: failed or killed if an exception ends it, else
        finished.
        """
        last = getattr(sys, "last_value", None)
        state = "finished" if last is None else "failed" if isinstance(last, Exception) else "killed"
        try:
            self.end(state)
        except TrackingError as error:
            sys.stderr.write(f"{error}\n")

    def __enter__(self) -> ExperimentTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("finished" if kind is None else "failed" if issubclass(kind, Exception) else "killed")

    def _open(self, tracker: MlflowTracker, name: str | None) -> KnownRun:
        experiment = tracker.experiment_id
        with talking(tracker.store, "open a run"):
            tags = {**TASK, KIND: "single", STATE: "running"}  # not a trial: it has no folds to be ranked by
            run = tracker.client.create_run(experiment, tags=tags, run_name=mask_credentials(name) if name else None)
            return KnownRun.of(run, detailed=True)

    def _send(
        self,
        params: Mapping[str, Any] | None = None,
        points: list[MetricPoint] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if self._mlflow is not None and self._known is not None:
            with talking(self._mlflow.store, "log to the run"):
                log_changes(self._mlflow.client, self._known, params or {}, points or [], tags or {})


def _masked(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: mask_credentials(value) if isinstance(value, str) else value for name, value in values.items()}


def _open_wandb(project: str, name: str | None) -> Any:
    try:
        import wandb
    except ModuleNotFoundError:
        raise TrackingError(f"W&B is not installed; install the extra: {install_line('gemma-nli[wandb]')}") from None
    legal = re.sub(r"[/\\#?%:]", "_", project)[:128]
    try:
        return wandb.init(project=legal, name=name, settings=wandb.Settings(silent=True, console="off"))
    except wandb.errors.Error as error:
        why = mask_credentials(" ".join(str(error).split()))[:300]
        raise TrackingError(f"W&B: {why}; WANDB_MODE=offline needs no account.") from None
