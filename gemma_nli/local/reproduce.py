"""`gemma-nli reproduce RUN_ID`: the configuration from MLflow alone, trained again, its numbers beside the old ones."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.base.metrics.earlier_names import EARLIER, todays_metrics
from gemma_nli.config import RunConfig, home
from gemma_nli.local.train import LocalRun, run_here
from gemma_nli.storage import Place
from gemma_nli.tracking.read.recorded import recorded_run
from gemma_nli.tracking.write.from_journal import metric_points
from gemma_nli.training.listeners import Listener
from gemma_nli.trial.hardware import environment_tags

NOTED = {
    "gemma_nli.data_fingerprint": "the corpus",
    "gemma_nli.fold_fingerprint": "the evaluation pairs",
    "gemma_nli.encoder_fingerprint": "the encoder's files",
    "gemma_nli.git_commit": "the code's commit",
    "device": "the kind of device",
    "gpu_name": "the GPU",
    "cpu_name": "the CPU",
}
TOLERANCE = 1e-6
"""How far a number may lie from the recorded one. A fold trained beside fewer others than then, as when a killed trial
was resumed, differs by up to 1e-7 (float32 sums are split differently); one changed decision moves F1 by far more."""
_LEFT_OUT = ("system/", "sweep/")


@dataclass(frozen=True)
class Row:
    metric: str
    recorded: float
    now: float

    @property
    def difference(self) -> float:
        """0 if both are equal, or both are NaN."""
        if self.recorded == self.now or (math.isnan(self.recorded) and math.isnan(self.now)):
            return 0.0
        return self.now - self.recorded


@dataclass(frozen=True)
class Reproduction:
    """`rows`: every metric that either run has, at its last step. `notes`: what differs between then and now."""

    run_id: str
    run_name: str
    again: LocalRun
    rows: list[Row]
    notes: list[str]
    tolerance: float = TOLERANCE

    @property
    def equal(self) -> bool:
        """Whether every number is within TOLERANCE of the recorded one."""
        return all(abs(row.difference) <= TOLERANCE for row in self.rows)

    @property
    def moved(self) -> list[Row]:
        """Metrics that are not equal to the last bit, the largest difference first."""
        apart = [row for row in self.rows if row.difference != 0]
        return sorted(apart, key=lambda row: -math.inf if math.isnan(row.difference) else -abs(row.difference))


def reproduce(
    run_id: str,
    tracking_uri: str | None = None,
    overrides: Mapping[str, object] | None = None,
    storage: Place | None = None,
    listeners: Iterable[Listener] = (),
) -> Reproduction:
    """Run a recorded trial again, in a folder that is deleted, and compare. Nothing is written to MLflow.

    Args:
        overrides: settings that say where things are here, such as data.data_dir; one that affects the numbers is
        noted. storage: a sweep's storage folder, for its encoded texts.
    Raises:
        TrackingError: no such run, a run without a config.yaml, or the store cannot be reached.
    """
    recorded = recorded_run(run_id, tracking_uri)
    config = recorded.config.with_settings({**(overrides or {}), "mlflow.enabled": False})
    with tempfile.TemporaryDirectory(prefix="gemma_nli_reproduce_") as folder:
        again = run_here(config, Path(folder), storage or home() / "storage", listeners=listeners)
    now = {point.name: point.value for point in metric_points(again.record)}  # the last step of each
    then = todays_metrics(recorded.metrics)
    earlier = then != recorded.metrics
    names = then.keys() & now.keys() if earlier else then.keys() | now.keys()
    rows = [
        Row(name, then.get(name, math.nan), now.get(name, math.nan))
        for name in sorted(names)
        if not name.startswith(_LEFT_OUT)
    ]
    notes = [*([EARLIER] if earlier else []), *_notes(recorded.tags, again, config, recorded.config)]
    return Reproduction(recorded.run_id, recorded.run_name, dataclasses.replace(again, notes=[]), rows, notes)


def _notes(then: Mapping[str, str], again: LocalRun, config: RunConfig, recorded: RunConfig) -> Iterable[str]:
    record = again.record
    now = {**environment_tags(), **record.tags, "gemma_nli.data_fingerprint": again.data_fingerprint}
    now |= {"gemma_nli.fold_fingerprint": record.fold_fingerprint}
    now |= {"gemma_nli.encoder_fingerprint": record.encoder_fingerprint}
    for tag, name in NOTED.items():
        if tag in then and then[tag] != now.get(tag):
            yield f"{name} differs: {then[tag][:40]} then, {str(now.get(tag, 'unknown'))[:40]} now"
    versions = [tag for tag in then if tag.startswith("version.") and tag in now and then[tag] != now[tag]]
    for tag in sorted(versions):
        yield f"{tag.removeprefix('version.')} differs: {then[tag]} then, {now[tag]} now"
    if then.get("gemma_nli.git_dirty") == "true":
        yield "the code then had uncommitted changes"
    changed = {k for k, v in config.canonical().items() if recorded.canonical().get(k) != v}
    if changed:
        yield f"settings changed since then: {', '.join(sorted(changed))}"
