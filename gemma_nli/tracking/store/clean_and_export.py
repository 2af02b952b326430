"""Maintenance of a store: what `clean` would remove, and removing it; an experiment as a folder of plain files."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.read.frames import experiments_named, pages
from gemma_nli.tracking.store.artifact_uris import local_folder
from gemma_nli.tracking.store.mlflow_store import Store, connect_existing, resolve_store, talking

GC_SECONDS = 3600


@dataclass
class CleanPlan:
    """What `clean` would remove. `kept`: runs that a registered model depends on, by the model's name and version."""

    store: Store
    experiments: dict[str, str]  # id -> name
    runs: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)  # run id -> "model version 3"
    megabytes: float = 0.0
    folders: dict[str, Path] = field(default_factory=dict)  # run id -> its files, if they are on this machine

    @property
    def whole(self) -> list[str]:
        """Experiments that lose all their runs, and are removed too."""
        return [name for name in self.experiments.values() if name != "Default"] if not self.kept else []


def plan_clean(experiment: str | None = None, tracking_uri: str | None = None) -> CleanPlan:
    """What cleaning one experiment, or all, would remove; nothing is changed.

    Raises:
        TrackingError: no such experiment, or the store cannot be reached.
    """
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    with talking(store, "plan a clean"):
        client = connect_existing(store)
        plan = CleanPlan(store, experiments_named(client, store, experiment))
        used = _used_runs(client)
        for number in plan.experiments:
            for run in pages(client.search_runs, experiment_ids=[number], run_view_type=ViewType.ALL):
                if run.info.run_id in used:
                    plan.kept[run.info.run_id] = used[run.info.run_id]
                else:
                    plan.runs.append(run.info.run_id)
                    plan.megabytes += _size(run) / 1e6
                    folder = local_folder(run.info.artifact_uri or "")
                    if folder is not None and run.info.run_id in folder.parts:
                        plan.folders[run.info.run_id] = folder
    return plan


def clean(plan: CleanPlan) -> str:
    """Remove the plan's runs permanently, files included; gives a sentence on what was done.

    On a remote server the runs are only marked as deleted, which can be undone.

    Raises:
        TrackingError: the store cannot be reached, or MLflow's own garbage collection fails.
    """
    with talking(plan.store, "clean"):
        client = connect_existing(plan.store)
        for run_id in plan.runs:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                client.delete_run(run_id)
        removed = plan.whole
        for number, name in plan.experiments.items():
            if name in removed:
                client.delete_experiment(number)
    if plan.store.is_server:
        return f"{len(plan.runs)} runs marked as deleted; `mlflow gc` on the server removes them permanently."
    if plan.runs:
        _collect(plan, [number for number, name in plan.experiments.items() if name in removed])
        for folder in plan.folders.values():  # MLflow decodes an address twice, and misses a folder named My%20Project
            if folder.is_dir():
                shutil.rmtree(folder)
    return f"{len(plan.runs)} runs and {plan.megabytes:.1f} MB removed."


def _collect(plan: CleanPlan, experiments: list[str]) -> None:
    """MLflow's own garbage collector, in a process of its own; the address is passed in the environment, not visible
    in `ps`.
    """
    environment = {**os.environ, "MLFLOW_TRACKING_URI": plan.store.uri, "MLFLOW_BACKEND_STORE_URI": plan.store.uri}
    for start in range(0, len(plan.runs), 500):
        command = [sys.executable, "-P", "-m", "mlflow", "gc", "--run-ids", ",".join(plan.runs[start : start + 500])]
        _gc(command, environment, plan)
    all_there = pages(connect_existing(plan.store).search_experiments, view_type=ViewType.ALL)
    left = {experiment.experiment_id for experiment in all_there} & set(experiments)
    if left:  # collecting its runs may already have removed a deleted experiment
        _gc([sys.executable, "-P", "-m", "mlflow", "gc", "--experiment-ids", ",".join(sorted(left))], environment, plan)


def _gc(command: list[str], environment: dict[str, str], plan: CleanPlan) -> None:
    done = subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=GC_SECONDS
    )
    if done.returncode:
        why = mask_credentials(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given")
        raise TrackingError(
            f"{plan.store.shown}: runs are marked as deleted, but MLflow's garbage collection failed: {why}"
        )


def _used_runs(client: MlflowClient) -> dict[str, str]:
    """Runs whose files a registered version consists of."""
    return {
        run_id: f"{version.name} version {version.version}"
        for version in pages(client.search_model_versions, filter_string="")
        for run_id in {version.run_id, version.tags.get("gemma_nli.source_run_id")}
        if run_id
    }


def _size(run: Run) -> float:
    """Bytes of the run's files, if they are on this machine."""
    folder = local_folder(run.info.artifact_uri or "")
    if folder is None or not folder.is_dir():
        return 0.0
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def export_experiment(experiment: str, target: Path, tracking_uri: str | None = None) -> int:
    """Every run of an experiment as plain files; gives their number.

        target/runs.csv                    a row a run
        target/RUN_ID/run.json             name, status, times, params, tags, last metrics, dataset
        target/RUN_ID/metrics.csv          metric, step, value, timestamp_ms: every point
        target/RUN_ID/artifacts/           as they are

    Raises:
        TrackingError: no such experiment, a folder that is not empty, or the store cannot be reached.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TrackingError(f"{target}: is not empty; name another --to.")
    store = resolve_store(MlflowConfig(tracking_uri=tracking_uri))
    rows = []
    with talking(store, f"export experiment '{experiment}'", seconds=120):
        client = connect_existing(store)
        (number,) = experiments_named(client, store, experiment)
        for run in pages(client.search_runs, experiment_ids=[number]):
            _export_run(client, run, target / run.info.run_id)
            about = {"run_id": run.info.run_id, "name": run.info.run_name, "status": run.info.status}
            rows.append({**about, **_named("params", run.data.params), **_named("metrics", run.data.metrics)})
    target.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(target / "runs.csv", index=False)
    return len(rows)


def _named(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{kind}.{name}": value for name, value in values.items()}


def _export_run(client: MlflowClient, run: Run, folder: Path) -> None:
    (folder / "artifacts").mkdir(parents=True)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    facts = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_ms": run.info.start_time,
        "end_ms": run.info.end_time,
        "params": dict(run.data.params),
        "metrics": {k: (v if math.isfinite(v) else None) for k, v in run.data.metrics.items()},
        "tags": dict(run.data.tags),
        "datasets": [{"name": i.dataset.name, "digest": i.dataset.digest} for i in inputs],
    }
    (folder / "run.json").write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")
    points = [
        (point.key, point.step, point.value, point.timestamp)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    frame = pd.DataFrame(points, columns=["metric", "step", "value", "timestamp_ms"])
    frame.sort_values(["metric", "step"]).to_csv(folder / "metrics.csv", index=False)
    source = local_folder(run.info.artifact_uri or "")
    if source is not None:
        if source.is_dir():
            shutil.copytree(source, folder / "artifacts", dirs_exist_ok=True)
    elif client.list_artifacts(run.info.run_id):
        client.download_artifacts(run.info.run_id, "", str(folder / "artifacts"))
