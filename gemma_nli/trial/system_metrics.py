"""What the machine was doing while a trial ran: of this process's GPUs only, on a thread, kept until the journal asks.

Names are MLflow's (`system/cpu_utilization_percentage`), so that its page shows them under System metrics. They travel
in the trial's journal: a worker needs no way to MLflow, and a run that is projected anew has them all.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil
import torch

MIB = 2**20


class SystemSampler:
    """A sample at the start, one every `seconds`, one at the end; `seconds=None` takes none."""

    def __init__(self, seconds: float | None, device: torch.device) -> None:
        self._seconds, self._device = seconds, device
        self._samples: list[tuple[int, dict[str, float]]] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._traffic = psutil.net_io_counters()

    def __enter__(self) -> SystemSampler:
        if self._seconds is not None:
            psutil.cpu_percent(None)  # its first value is meaningless
            self._thread = threading.Thread(target=self._work, name="gemma_nli-system", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the last sample and end; calling it again does nothing."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None
            self._take()

    def collect(self) -> list[tuple[int, dict[str, float]]]:
        """(milliseconds since 1970, metric to value) of the samples since the last call."""
        with self._lock:
            samples, self._samples = self._samples, []
        return samples

    def _work(self) -> None:
        assert self._seconds is not None
        while not self._over.wait(self._seconds):
            self._take()

    def _take(self) -> None:
        sample = {**_host(self._traffic), **_gpu(self._device)}
        with self._lock:
            self._samples.append((time.time_ns() // 1_000_000, sample))


def _host(before: object) -> dict[str, float]:
    memory, disk, traffic = psutil.virtual_memory(), psutil.disk_usage("/"), psutil.net_io_counters()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(None),
        "system_memory_usage_megabytes": memory.used / MIB,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": disk.free / MIB,
        "process_memory_megabytes": psutil.Process().memory_info().rss / MIB,
    }
    if traffic is not None and before is not None:  # a container may hide its network
        values["network_receive_megabytes"] = (traffic.bytes_recv - getattr(before, "bytes_recv", 0)) / MIB
        values["network_transmit_megabytes"] = (traffic.bytes_sent - getattr(before, "bytes_sent", 0)) / MIB
    return values


def _gpu(device: torch.device) -> dict[str, float]:
    """Of the device that trains. Memory is read from CUDA; utilization and power if the driver's library provides
    them.
    """
    if device.type != "cuda":
        return {}
    index = device.index or 0
    free, total = torch.cuda.mem_get_info(index)
    values = {
        f"gpu_{index}_memory_usage_megabytes": (total - free) / MIB,
        f"gpu_{index}_memory_usage_percentage": 100 * (total - free) / total,
    }
    try:
        values[f"gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
        values[f"gpu_{index}_power_usage_watts"] = torch.cuda.power_draw(index) / 1000
    except (RuntimeError, ModuleNotFoundError):  # NVML is absent or refuses (a MIG slice): only memory is shown
        return values
    return values
