"""How long a sweep will take and what it will cost, from a rehearsal and short probes on its own machine."""

from __future__ import annotations

import heapq
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from gemma_nli.base.errors import SweepError
from gemma_nli.config import RunConfig
from gemma_nli.config.templates import NATIVE
from gemma_nli.features import FeatureRequest, FeatureStore
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.cluster.autoscaling import wait_for_nodes
from gemma_nli.sweep.cluster.ray_session import cluster_size, node_cpus, ray_failed, ray_session
from gemma_nli.sweep.cluster.trial_resources import TrialResources, decide_resources
from gemma_nli.sweep.earlier_spaces import take_up_earlier
from gemma_nli.sweep.forecast.confirm_cost import confirm_cost
from gemma_nli.sweep.forecast.measure import EncodeCost, TrialCost, cost_class, probe_encoding, probe_trial
from gemma_nli.sweep.forecast.rehearsal import rehearse
from gemma_nli.sweep.prepare import Prepared, configs_to_run, feature_requests, prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder

MEASURED_CLASSES = 6
"""Kinds of trial that are measured, the most frequent ones; the others are assumed to cost their average."""


@dataclass
class Forecast:
    """Seconds of each phase; `gpus` and `cpus` are those of the machine or cluster that was measured."""

    start: float
    encode: float
    tune: float
    refit: float
    trial: float
    gpu_hours: float
    cpu_hours: float
    gpus: float
    trials: int
    confirm: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        return self.start + self.encode + self.tune + self.confirm + self.refit

    def cost(self, price: float) -> float:
        """The price per GPU-hour (per machine-hour without GPUs) times all GPUs that are held while the sweep runs."""
        return price * max(1.0, self.gpus) * self.total / 3600

    def to_json(self, price: float | None = None) -> dict[str, Any]:
        seconds = {
            name: round(getattr(self, name), 1)
            for name in ("total", "start", "encode", "tune", "confirm", "refit", "trial")
        }
        times = {"seconds": seconds, "gpu_hours": round(self.gpu_hours, 4), "cpu_hours": round(self.cpu_hours, 4)}
        cost = {} if price is None else {"price": price, "cost": round(self.cost(price), 2)}
        return {**times, **cost, "trials": self.trials, "notes": self.notes}


def forecast(spec: SweepSpec, report: Callable[[str], None] = lambda step: None) -> Forecast:
    """Measure, then compute; takes a minute or two, and leaves nothing behind.

    Args:
        report: called with what is measured next, as each step begins.
    Raises:
        GemmaNliError: whatever the sweep itself would refuse.
    """
    began = time.monotonic()
    ready = prepare(spec)
    configs = _configs(ready)
    if not configs:
        return Forecast(time.monotonic() - began, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, notes=["nothing left to run"])
    prepared = time.monotonic() - began
    report("starting Ray")
    with ray_session():
        wait_for_nodes(spec.resources, lambda phase: None)
        resources = decide_resources(ready)
        started = time.monotonic() - began
        counts = Counter(map(cost_class, configs))
        common = next(config for config in configs if cost_class(config) == counts.most_common(1)[0][0])
        report("a rehearsal: one trial on made-up posts, from its start to a registered model")
        fixed = rehearse(spec, common)["total"]
        try:
            report("how long the texts take to encode")
            encoding, rates = _encoding(ready)
            report(f"the first epochs of {min(len(counts), MEASURED_CLASSES)} kinds of trial")
            costs, notes = _trials(ready, configs, counts, resources, rates)
        except RayError as error:
            raise ray_failed(error) from None
        gpus = cluster_size()[1]
    seconds = [costs[cost_class(config)].of(config) for config in configs]
    refit = _refits(ready) * statistics.fmean(seconds) / (ready.pairs.num_folds - 1)
    if spec.scheduler.kind != "none":
        notes.append(f"scheduler {spec.scheduler.kind} stops some trials early: the time is an upper bound")
    again = confirm_cost(ready, configs, costs, encoding)
    work = sum(seconds) + again.work + refit
    return Forecast(
        start=max(started, prepared) + fixed,
        encode=encoding,
        tune=_span(seconds, resources.concurrent),
        confirm=again.encode + sum(_span(each, resources.concurrent) for each in again.trials),
        refit=refit,
        trial=statistics.fmean(seconds),
        gpu_hours=(work * resources.gpu + encoding * (gpus and max(1.0, gpus))) / 3600,
        cpu_hours=work * resources.cpu / 3600,
        gpus=gpus,
        trials=len(configs),
        notes=notes,
    )


def _configs(ready: Prepared) -> list[RunConfig]:
    """One for each trial that will run; with Optuna, a sample of the space repeated to the number still due."""
    configs = configs_to_run(ready)
    if ready.cells:
        return configs
    folder = SweepFolder(ready.folder)
    folder.pull()
    take_up_earlier(ready, folder)
    due = ready.spec.total_trials - ready.num_done
    return [configs[number % len(configs)] for number in range(max(0, due))]


def _refits(ready: Prepared) -> int:
    """How many trials the end fits anew; of an ensemble at most, as a trial may come again."""
    settings = ready.spec.finalize
    if not settings.enabled or not ready.spec.base.mlflow.enabled:
        return 0
    if settings.ensemble is None:
        return 1
    groups = len(ready.pairs.criterion_ids) if settings.ensemble.per_criterion else 1
    return max(1, min(settings.ensemble.size * groups, ready.spec.total_trials))


def _encoding(ready: Prepared) -> tuple[float, dict[str, float]]:
    """Seconds for everything missing, and tokens per character by request key."""
    store = FeatureStore(ready.storage / "features", ready.spec.base.features)
    due = [(request, missing) for request in feature_requests(ready) if (missing := store.missing(request))]
    gpus = cluster_size()[1]
    costs: list[EncodeCost] = []
    for request, missing in due:  # one after the other, as the sweep does
        options = {"num_cpus": node_cpus(), "num_gpus": 1 if gpus else 0}
        asked = probe_encoding.options(**options).remote(request, missing, ready.spec.base.features)
        costs.append(ray.get(asked))
    seconds = sum(cost.seconds for cost in costs) / max(1.0, gpus)
    seconds += sum(cost.load_seconds for cost in costs[1:])  # the rehearsal has already covered the first
    rates = {request.key: cost.tokens_per_character for (request, _), cost in zip(due, costs, strict=True)}
    return seconds, rates


def _trials(
    ready: Prepared,
    configs: Sequence[RunConfig],
    counts: Counter[str],
    resources: TrialResources,
    rates: dict[str, float],
) -> tuple[dict[str, TrialCost], list[str]]:
    """The cost of each class: measured side by side, as many at a time as the sweep's trials."""
    measured = [name for name, _ in counts.most_common(MEASURED_CLASSES)]
    copies = max(1, min(resources.concurrent, 4) // len(measured))
    examples = {cost_class(config): config for config in reversed(configs)}
    requests = feature_requests(ready)
    corpus, pairs = ray.put(ready.corpus), ray.put(ready.pairs)
    options = {"num_cpus": resources.cpu, "num_gpus": resources.gpu}
    asked = [
        probe_trial.options(**options).remote(
            examples[name], corpus, pairs, ready.storage, resources.cpu, _rate(examples[name], requests, rates)
        )
        for name in measured
        for _ in range(copies)
    ]
    found: list[TrialCost] = ray.get(asked)
    costs = {}
    for place, name in enumerate(measured):
        same = found[place * copies : (place + 1) * copies]
        costs[name] = TrialCost(
            statistics.fmean(cost.fixed for cost in same), statistics.fmean(cost.per_epoch for cost in same)
        )
    others = [name for name in counts if name not in costs]
    if not others:
        return costs, []
    mean = TrialCost(
        statistics.fmean(cost.fixed for cost in costs.values()),
        statistics.fmean(cost.per_epoch for cost in costs.values()),
    )
    costs |= dict.fromkeys(others, mean)
    unmeasured = sum(counts[name] for name in others)
    return costs, [f"{unmeasured} of {len(configs)} trials are of kinds that were not measured; the average is assumed"]


def _rate(config: RunConfig, requests: Sequence[FeatureRequest], rates: dict[str, float]) -> float | None:
    """Tokens per character if this configuration's texts are not encoded yet."""
    if not config.model.freeze_encoder:
        return None
    same = [request for request in requests if request.model.name == config.model.name]
    same = [r for r in same if r.model.max_length == config.model.max_length and r.template == _template(config)]
    if not same:
        raise SweepError(
            "plan: a space with this many ways of encoding cannot be measured; plan it for one encoder at a time."
        )
    return rates.get(same[0].key)


def _template(config: RunConfig) -> str:
    from gemma_nli.features.request import TEMPLATES

    if config.model.pair_encoding != "joint":
        return TEMPLATES["single"]
    return TEMPLATES["joint" if config.model.template == NATIVE else "framed"]


def _span(seconds: Sequence[float], slots: int) -> float:
    """When the last trial ends, each slot taking the next one as it becomes free."""
    free = [0.0] * max(1, min(slots, len(seconds)))
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)
