"""The resources a trial requests from Ray: from the sweep file, or derived from the machines and the model's estimated
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gemma_nli.base.errors import SweepError
from gemma_nli.config import RunConfig
from gemma_nli.spec.sweep_sections import Resources
from gemma_nli.sweep.cluster.ray_session import alive_nodes, may_grow
from gemma_nli.sweep.forecast.gpu_memory import GIB, estimate_memory, gpu_share
from gemma_nli.sweep.prepare import Prepared, configs_to_run

_AUTOSCALED = 200
"""Trials that may wait in Ray's queue if nodes can join: an autoscaler's demand. Ray Tune's default."""


@dataclass(frozen=True)
class Node:
    """What one machine has."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class TrialResources:
    """A trial's share and how many run concurrently. All trials of a sweep request the same.

    `limit` is how many may run concurrently even if nodes join later (None: as many as then fit), `pending` how many
    may wait in Ray's queue besides those.
    """

    cpu: float
    gpu: float
    concurrent: int
    limit: int | None = None
    pending: int = 2

    def request(self) -> dict[str, float]:
        return {"CPU": self.cpu, **({"GPU": self.gpu} if self.gpu else {})}


def decide_resources(ready: Prepared) -> TrialResources:
    """A trial's share of the cluster that Ray has joined.

    Raises:
        SweepError: the sweep file requests more than any node has, a trial does not fit the smallest GPU, or PyTorch
        does
            not see a GPU that Ray counts.
    """
    nodes = [Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in alive_nodes()]
    auto = ready.spec.resources.gpu == "auto" and any(node.gpus for node in nodes)
    return choose(ready, nodes, _smallest_gpu() if auto else 0.0, may_grow())


def choose(ready: Prepared, nodes: Sequence[Node], gpu_gib: float, growing: bool = False) -> TrialResources:
    """The rule itself: `auto` is one CPU and, with GPUs, the share that the largest trial needs.

    Args:
        gpu_gib: of the smallest GPU; measured only if `resources.gpu` is `auto` and there is one.
        growing: whether nodes may join while the sweep runs.
    """
    asked = ready.spec.resources
    cpu = float(asked.cpu) if asked.cpu != "auto" else 1.0
    if asked.gpu != "auto":
        gpu = float(asked.gpu)
    elif any(node.gpus for node in nodes):
        gpu = gpu_share(most_memory(configs_to_run(ready)), gpu_gib)
    else:
        gpu = 0.0
    fits = sum(slots(node, cpu, gpu) for node in nodes)
    if not fits:
        cpus, gpus = max((node.cpus for node in nodes), default=0), max((node.gpus for node in nodes), default=0)
        raise SweepError(
            f"resources: a trial requests {cpu:g} CPUs and {gpu:g} GPUs on one node, but the largest of {len(nodes)} "
            f"nodes has {cpus:g} and {gpus:g}; lower resources.cpu, resources.gpu, training.batch_size or "
            "model.max_length."
        )
    concurrent = min(fits, asked.max_concurrent or fits)
    if not growing:
        return TrialResources(cpu, gpu, concurrent, concurrent, max(2, concurrent))
    pending = 1 if ready.spec.search.algorithm == "optuna" else max(_AUTOSCALED, concurrent)
    return TrialResources(cpu, gpu, concurrent, asked.max_concurrent, min(pending, asked.max_concurrent or pending))


def slots(node: Node, cpu: float, gpu: float) -> int:
    """How many trials a node holds: a fraction of a GPU never spans two."""
    fits = int(node.cpus / cpu + 1e-9)
    if gpu:
        fits = min(fits, int(node.gpus) * int(1 / gpu + 1e-9) if gpu < 1 else int(node.gpus / gpu))
    return fits


def least_bundle(asked: Resources) -> dict[str, float]:
    """What a first node must have at least: `auto` assumes a GPU, as there is no node yet to ask."""
    cpu = float(asked.cpu) if asked.cpu != "auto" else 1.0
    gpu = float(asked.gpu) if asked.gpu != "auto" else 1.0
    return {"CPU": cpu, **({"GPU": gpu} if gpu else {})}


def most_memory(configs: list[RunConfig]) -> RunConfig:
    return max(configs, key=lambda config: estimate_memory(config).total)


def _smallest_gpu() -> float:
    """GiB of the smallest GPU over all nodes that have one: trials are alike and may run on any."""
    asked: dict[str, Any] = {}
    for node in alive_nodes():
        if node["Resources"].get("GPU", 0.0):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerHostname"]] = _gpu_gib.options(num_gpus=0.01, scheduling_strategy=there).remote()
    found = dict(zip(asked, ray.get(list(asked.values())), strict=True))
    blind = sorted(name for name, gib in found.items() if not gib)
    if blind:
        raise SweepError(
            f"resources: Ray counts GPUs on {', '.join(blind)} but PyTorch sees none there; install a CUDA build of "
            "torch and its driver on that node, or set resources.gpu."
        )
    return float(min(found.values()))


@ray.remote(num_cpus=0)
def _gpu_gib() -> float:
    """Memory of the GPU that Ray assigned to this task."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / GIB) if torch.cuda.is_available() else 0.0
