"""Features before trials: each text that the waiting cells need is encoded once, then shared in the object store.

Where this process starts Ray for itself and sees no GPU, it encodes in a thread while Ray starts: a worker would first
have to start and import torch. Else the nodes encode, with several GPUs each a share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from gemma_nli.config import FeaturesConfig
from gemma_nli.features import EncodeReport, FeatureRequest, FeatureStore
from gemma_nli.features.encode_texts import encode, load_for
from gemma_nli.storage import Place
from gemma_nli.sweep.cluster.ray_session import cluster_size, node_cpus, ray_failed, starts_its_own
from gemma_nli.sweep.ray.shared_features import Arrays, SharedBlock
from gemma_nli.sweep.ray.worker_gate import worker_gate

Encoded = tuple[tuple[SharedBlock, ...], list[EncodeReport]]


class _Stopped(Exception):
    """Raised in the encoding thread once nothing waits for it."""


class Encoding:
    """The encoding of some requests: started on entry, shared once Ray runs, abandoned if left before its end.

    Args:
        on_progress: called with (texts done, texts to do) after each batch that this process encodes.
    """

    def __init__(
        self,
        requests: list[FeatureRequest],
        storage: Place,
        settings: FeaturesConfig,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.requests, self.storage, self.settings = requests, storage, settings
        self.on_progress = on_progress
        self.began = time.monotonic()
        self._left = threading.Event()
        self._thread = ThreadPoolExecutor(1, "gemma_nli-encoding")
        self._reports: Future[list[EncodeReport]] | None = None

    def __enter__(self) -> Encoding:
        if self.requests and starts_its_own() and not torch.cuda.is_available():
            self._reports = self._thread.submit(self._encode_here)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.shutdown(wait=True)

    def shared(self) -> Encoded:
        """Wait for the features of every request and put them into the object store, one copy per node.

        Raises:
            GemmaNliError: an encoder that cannot be loaded, a store that cannot be used, a node that died.
        """
        if self._reports is None:
            try:
                return encode_on_nodes(self.requests, self.storage, self.settings)
            except RayError as error:
                raise ray_failed(error) from None
        reports = self._reports.result()
        store = FeatureStore(self.storage / "features", self.settings)
        return tuple(_block(request, ray.put(store.load(request).to_arrays())) for request in self.requests), reports

    def _encode_here(self) -> list[EncodeReport]:
        store = FeatureStore(self.storage / "features", self.settings)
        missing = [len(store.missing(request)) for request in self.requests]
        reports: list[EncodeReport] = []
        for place, request in enumerate(self.requests):
            before = sum(missing[:place])

            def progress(done: int, _: int, before: int = before) -> None:
                if self._left.is_set():
                    raise _Stopped
                if self.on_progress is not None:
                    self.on_progress(before + done, sum(missing))

            reports.append(store.ensure(request, on_progress=progress))
        return reports


def encode_on_nodes(requests: list[FeatureRequest], storage: Place, settings: FeaturesConfig) -> Encoded:
    """Encode what is missing on Ray's nodes and share it.

    With several GPUs each takes a share of the missing texts; without any, one task with all of a node's cores.
    """
    blocks, reports = [], []
    for request in requests:
        missing = FeatureStore(storage / "features", settings).missing(request)
        _spread(request, missing, storage, settings)
        options: dict[str, Any] = {
            "num_cpus": node_cpus() if missing else 1,
            "num_gpus": 1 if cluster_size()[1] >= 1 and missing else 0,
            "num_returns": 2,
            "max_retries": 3,
        }
        report_ref, arrays = _encode_and_share.options(**options).remote(request, storage, settings)
        report: EncodeReport = ray.get(report_ref)
        reports.append(
            EncodeReport(len(missing), len(request.unique_rows) - len(missing), report.seconds, report.padding_share)
        )
        blocks.append(_block(request, arrays))
    return tuple(blocks), reports


def _block(request: FeatureRequest, arrays: ray.ObjectRef[Arrays]) -> SharedBlock:
    return SharedBlock(request.key, frozenset(request.views), frozenset(request.token_parts), arrays)


def _spread(request: FeatureRequest, missing: list[int], storage: Place, settings: FeaturesConfig) -> None:
    """With several GPUs, encode shares of the missing texts side by side; the store is then complete."""
    gpus = int(cluster_size()[1])
    if gpus < 2 or len(missing) < 2 * gpus:
        return
    by_length = sorted(missing, key=lambda row: len(request.premises[row]))
    shares = [request.subset(by_length[start::gpus]) for start in range(gpus)]
    ray.get([_encode_share.options(num_gpus=1).remote(share, storage, settings) for share in shares])


@ray.remote(num_cpus=1)
def _encode_share(request: FeatureRequest, storage: Place, settings: FeaturesConfig) -> None:
    with worker_gate(request.premises):
        store = FeatureStore(storage / "features", settings)
        store.put(request, encode(request, load_for(request), settings, 0))


@ray.remote(num_cpus=1)
def _encode_and_share(request: FeatureRequest, storage: Place, settings: FeaturesConfig) -> tuple[EncodeReport, Arrays]:
    with worker_gate(request.premises):
        store = FeatureStore(storage / "features", settings)
        report = store.ensure(request)
        return report, store.load(request).to_arrays()
