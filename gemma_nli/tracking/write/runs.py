"""The one run of a sweep or a trial: found by its tags whoever created it, and sent only what it does not show yet."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_address, mask_credentials
from gemma_nli.tracking.write import projection as shape
from gemma_nli.tracking.write.projection import CREATED, DELIVERED, PARENT, TRIAL_KEY, DatasetFacts, MetricPoint

PAGE = 200  # runs per search call: a page of 1,000 full runs is tens of megabytes and exceeds a short timeout
ALIVE = ("SCHEDULED", "RUNNING")


@dataclass
class KnownRun:
    """What this process knows of a run, so that only changes are sent."""

    run_id: str
    status: str
    end_ms: int | None = None
    delivered: str = ""
    parent: str = ""  # its parent run in MLflow's pages
    detailed: bool = False  # whether the fields below hold what the store has
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    latest: dict[str, MetricPoint] = field(default_factory=dict)  # last point of each metric, as first read
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    datasets: set[tuple[str, str]] = field(default_factory=set)  # (name, digest)

    @classmethod
    def of(cls, run: Run, detailed: bool = False) -> KnownRun:
        tags = run.data.tags
        known = cls(run.info.run_id, run.info.status, run.info.end_time, tags.get(DELIVERED, ""), tags.get(PARENT, ""))
        return known.detail(run) if detailed else known

    def detail(self, run: Run) -> KnownRun:
        self.tags, self.params = dict(run.data.tags), dict(run.data.params)
        points = run.data._metric_objs  # public `metrics` drops step and timestamp
        self.latest = {m.key: MetricPoint(m.key, m.value, m.step, m.timestamp) for m in points}
        self.datasets = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs} if run.inputs else set()
        self.detailed = True
        return self

    def forget(self) -> None:
        """Drops the details of a run that has ended: memory stays flat over a long sweep."""
        self.tags, self.params, self.latest, self.sent, self.artifacts = {}, {}, {}, {}, {}
        self.detailed = False

    def disagrees(self, point: MetricPoint) -> bool:
        """Whether the store has a different number where the journal has `point`.

        MLflow cannot take a number back: adding ours would leave two for one (metric, step).
        """
        if (point.name, point.step) in self.sent:
            return not same(self.sent[point.name, point.step], point.value)
        old = self.latest.get(point.name)
        if old is None or old.step != point.step:
            return False
        return not same(old.value, point.value) or old.timestamp_ms != point.timestamp_ms


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def quoted(text: str) -> str:
    """`text` as a value in a filter of search_runs."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def tags_filter(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{name}` = {quoted(value)}" for name, value in tags.items())


def search(
    client: MlflowClient, experiment_id: str, query: str, order_by: Sequence[str] = (), page: int = PAGE
) -> Iterator[Run]:
    """Every active run of the experiment that matches, page by page."""
    token = None
    while True:
        found = client.search_runs([experiment_id], query, order_by=list(order_by), max_results=page, page_token=token)
        yield from found
        token = found.token
        if not token:
            return


def keep_earliest(client: MlflowClient, runs: Sequence[Run]) -> Run | None:
    """The first created of several runs for the same thing; the others are deleted. Every process picks the same
    one.
    """
    if not runs:
        return None
    first, *others = sorted(runs, key=_age)
    for run in others:
        client.delete_run(run.info.run_id)
    return first


def _age(run: Run) -> tuple[int, str]:
    created = run.data.tags.get(CREATED, "")
    return (int(created) if created.isdigit() else run.info.start_time or 0, run.info.run_id)


def unique_trials(client: MlflowClient, runs: Iterator[Run]) -> dict[str, KnownRun]:
    """Trial key to its one run, duplicates deleted."""
    by_key: dict[str, list[Run]] = {}
    known: dict[str, KnownRun] = {}
    for run in runs:
        key = run.data.tags[TRIAL_KEY]
        if key in by_key:
            by_key[key].append(run)
        else:
            by_key[key] = [run]
    for key, duplicates in by_key.items():
        first = keep_earliest(client, duplicates)
        assert first is not None
        known[key] = KnownRun.of(first)
    return known


def log_changes(
    client: MlflowClient,
    run: KnownRun,
    params: Mapping[str, object],
    points: Sequence[MetricPoint],
    tags: Mapping[str, str],
) -> None:
    """Sends params not there yet, points and changed tags; a param with another value becomes a `changed/` tag."""
    wanted = {k: shape.cut(mask_address(shape.param_text(v)), shape.MAX_PARAM) for k, v in params.items()}
    names = shape.safe_names(wanted)
    wanted = {names[name]: value for name, value in wanted.items()}
    changed = {shape.CHANGED + k: v for k, v in wanted.items() if k in run.params and run.params[k] != v}
    new_params = {k: v for k, v in wanted.items() if k not in run.params}
    new_tags = {k: v for k, v in tag_texts({**tags, **changed}).items() if run.tags.get(k) != v}
    rows, _ = shape.metric_rows(points)
    for batch in shape.batches(new_params, rows, new_tags):
        client.log_batch(
            run.run_id,
            metrics=[Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.metrics],
            params=[Param(name, value) for name, value in batch.params.items()],
            tags=[RunTag(name, value) for name, value in batch.tags.items()],
        )
        run.params.update(batch.params)
        run.tags.update(batch.tags)
        run.sent.update({(p.name, p.step): p.value for p in batch.metrics})


def log_dataset(client: MlflowClient, run: KnownRun, facts: DatasetFacts | None) -> None:
    """The corpus as the run's dataset input, once; its digest is the fingerprint shortened to MLflow's length."""
    if facts is None or (facts.name, facts.digest) in run.datasets:
        return
    source = json.dumps({"uri": mask_address(facts.source), "fingerprint": facts.fingerprint})
    profile = json.dumps(dict(facts.profile))
    dataset = Dataset(facts.name, facts.digest, source_type="local", source=source, profile=profile)
    client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    run.datasets.add((facts.name, facts.digest))


def tag_texts(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as MLflow takes them, credentials masked; a None is left out."""
    kept = {name: shape.cut(mask_credentials(str(v)), shape.MAX_TAG) for name, v in tags.items() if v is not None}
    names = shape.safe_names(kept)
    return {names[name]: value for name, value in kept.items()}


def upload_changed(client: MlflowClient, run: KnownRun, artifacts: Mapping[str, Path | bytes]) -> None:
    """Uploads what is new in one call, staged in a folder of links."""
    signatures = {name: shape.artifact_signature(source) for name, source in artifacts.items()}
    new_artifacts = {name: source for name, source in artifacts.items() if run.artifacts.get(name) != signatures[name]}
    if not new_artifacts:
        return
    with tempfile.TemporaryDirectory(prefix="gemma_nli_artifacts_") as folder:
        for name, source in new_artifacts.items():
            _stage(Path(folder), name, source)
        client.log_artifacts(run.run_id, folder)
    run.artifacts.update(signatures)


def _stage(folder: Path, name: str, source: Path | bytes) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts:
        raise TrackingError(f"artifact '{name}': must be a name inside the run's folder.")
    target = folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        target.write_bytes(source)
        return
    try:
        os.symlink(source.absolute(), target)
    except OSError:
        shutil.copyfile(source, target)
