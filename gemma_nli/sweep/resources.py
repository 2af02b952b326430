"""What a trial asks of Ray: as the sweep file says, or decided from the machine and the model's estimated memory."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from gemma_nli.config import RunConfig
from gemma_nli.errors import SweepError
from gemma_nli.sweep.cluster import cluster_size
from gemma_nli.sweep.memory import GIB, estimate_memory, gpu_share
from gemma_nli.sweep.prepare import Prepared, configs_to_run


@dataclass(frozen=True)
class TrialResources:
    """A trial's share and how many fit side by side. All trials of a sweep ask for the same."""

    cpu: float
    gpu: float
    concurrent: int

    def request(self) -> dict[str, float]:
        return {"CPU": self.cpu, **({"GPU": self.gpu} if self.gpu else {})}


def decide_resources(ready: Prepared) -> TrialResources:
    """A trial's share of the cluster that Ray has joined.

    Raises:
        SweepError: the sweep file asks for more than the cluster has, or a trial cannot fit its largest GPU.
    """
    cpus, gpus = cluster_size()
    gpu_gib = ray.get(_gpu_gib.options(num_gpus=0.01).remote()) if gpus else 0.0
    return choose(ready, cpus, gpus, gpu_gib)


def choose(ready: Prepared, cpus: float, gpus: float, gpu_gib: float) -> TrialResources:
    """The rule itself: `auto` is one CPU, and where there are GPUs the share that the hungriest trial needs."""
    asked = ready.spec.resources
    cpu = float(asked.cpu) if asked.cpu != "auto" else 1.0
    if asked.gpu != "auto":
        gpu = float(asked.gpu)
    elif gpus:
        gpu = gpu_share(hungriest(configs_to_run(ready)), gpu_gib)
    else:
        gpu = 0.0
    if cpu > cpus or gpu > gpus:
        raise SweepError(
            f"resources: a trial asks for {cpu:g} CPUs and {gpu:g} GPUs, the cluster has {cpus:g} and {gpus:g}; "
            "lower resources.cpu, resources.gpu, training.batch_size or model.max_length."
        )
    fits = int(cpus / cpu + 1e-9)
    if gpu:
        fits = min(fits, int(gpus) * int(1 / gpu + 1e-9) if gpu < 1 else int(gpus / gpu))
    return TrialResources(cpu, gpu, max(1, min(fits, asked.max_concurrent or fits)))


def hungriest(configs: list[RunConfig]) -> RunConfig:
    return max(configs, key=lambda config: estimate_memory(config).total)


@ray.remote(num_cpus=0)
def _gpu_gib() -> float:
    """Memory of the GPU that Ray gave to this task."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / GIB) if torch.cuda.is_available() else 0.0
