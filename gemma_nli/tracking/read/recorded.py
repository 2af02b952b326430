"""A run and the configuration it was made with, from MLflow alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_address
from gemma_nli.config import MlflowConfig, RunConfig, build_stored_config, home, read_yaml
from gemma_nli.tracking.read.run_ids import get_run
from gemma_nli.tracking.store.artifact_uris import local_folder
from gemma_nli.tracking.store.mlflow_store import connect_existing, resolve_store, talking
from gemma_nli.tracking.write.projection import KIND, SWEEP_ID


@dataclass(frozen=True)
class RecordedRun:
    """A run as MLflow has it, with the configuration it was made with."""

    run_id: str
    run_name: str
    config: RunConfig
    metrics: dict[str, float]  # the last value of each
    tags: dict[str, str]


def recorded_run(run_id: str, tracking_uri: str | None = None) -> RecordedRun:
    """A trial's run and its configuration, from MLflow alone.

    Raises:
        TrackingError: no such run, a sweep's parent run, or a run without a config.yaml.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, f"read run '{run_id}'"):
        client = connect_existing(store)
        run = get_run(client, store, run_id)
        if run.data.tags.get(KIND) == "sweep":
            raise TrackingError(
                f"run {run_id} is a sweep; name one of its trials; list them with: {store.line('runs')}"
            )
        config, _ = config_of(client, run)
    return RecordedRun(run.info.run_id, run.info.run_name, config, dict(run.data.metrics), dict(run.data.tags))


def config_of(client: MlflowClient, run: Run) -> tuple[RunConfig, Path]:
    """The run's config.yaml, read back, and where it is on this machine."""
    if "config.yaml" not in [file.path for file in client.list_artifacts(run.info.run_id)]:
        place = mask_address(run.info.artifact_uri or "")
        sent_by = command_line("gemma-nli", "flush", run.data.tags.get(SWEEP_ID, "SWEEP"))
        raise TrackingError(
            f"run {run.info.run_id}: no config.yaml among its artifacts at {place}. Send what MLflow is missing "
            f"with: {sent_by}\nA folder on another machine cannot be read here: such a store needs a server."
        )
    artifacts = local_folder(run.info.artifact_uri or "")
    if artifacts is None:
        folder = home() / "mlflow" / "downloads" / run.info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(client.download_artifacts(run.info.run_id, "config.yaml", str(folder)))
    else:
        path = artifacts / "config.yaml"  # in place, not a copy under /tmp
    tree: Any = read_yaml(path)
    return build_stored_config(tree, str(path)), path
