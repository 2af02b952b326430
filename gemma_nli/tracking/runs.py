"""Finding the one run of a sweep or a trial by its tags, whoever created it and however often."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from gemma_nli.tracking.projection import CREATED, DELIVERED, TRIAL_KEY, Batch, MetricPoint

PAGE = 200  # runs a search call: a page of 1,000 full runs is tens of megabytes and outlasts a short timeout
ALIVE = ("SCHEDULED", "RUNNING")


@dataclass
class KnownRun:
    """What this process knows of a run, so that only news is sent."""

    run_id: str
    status: str
    end_ms: int | None = None
    delivered: str = ""
    detailed: bool = False  # whether the fields below hold what the store has
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    latest: dict[str, MetricPoint] = field(default_factory=dict)  # last point of each metric, as first read
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, detailed: bool = False) -> KnownRun:
        known = cls(run.info.run_id, run.info.status, run.info.end_time, run.data.tags.get(DELIVERED, ""))
        return known.detail(run) if detailed else known

    def detail(self, run: Run) -> KnownRun:
        self.tags, self.params = dict(run.data.tags), dict(run.data.params)
        points = run.data._metric_objs  # public `metrics` drops step and timestamp
        self.latest = {m.key: MetricPoint(m.key, m.value, m.step, m.timestamp) for m in points}
        self.detailed = True
        return self

    def forget(self) -> None:
        """Drops the details of a run that has ended: memory stays flat over a long sweep."""
        self.tags, self.params, self.latest, self.sent, self.artifacts = {}, {}, {}, {}, {}
        self.detailed = False

    def disagrees(self, point: MetricPoint) -> bool:
        """Whether the store holds another number where the journal has `point`.

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


def tag_filter(**tags: str) -> str:
    return tags_filter(tags)


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
    """The first created of runs that stand for one thing; the others are deleted. Every process picks the same one."""
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
    """Trial key to its one run, twins deleted."""
    by_key: dict[str, list[Run]] = {}
    known: dict[str, KnownRun] = {}
    for run in runs:
        key = run.data.tags[TRIAL_KEY]
        if key in by_key:
            by_key[key].append(run)
        else:
            by_key[key] = [run]
    for key, twins in by_key.items():
        first = keep_earliest(client, twins)
        assert first is not None
        known[key] = KnownRun.of(first)
    return known


def log(client: MlflowClient, run_id: str, batch: Batch) -> None:
    client.log_batch(
        run_id,
        metrics=[Metric(p.name, p.value, p.timestamp_ms, p.step) for p in batch.metrics],
        params=[Param(name, value) for name, value in batch.params.items()],
        tags=[RunTag(name, value) for name, value in batch.tags.items()],
    )
