"""What a sweep would do, shown before it costs anything: cells, what is done, texts to encode, memory, concurrency."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.features import FeatureStore
from gemma_nli.model.gguf_conversion import quantization_notes
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.check_layers import layer_notes
from gemma_nli.sweep.cluster.trial_resources import Node, choose, most_memory
from gemma_nli.sweep.earlier_spaces import how_many_fit, take_up_earlier
from gemma_nli.sweep.forecast.confirm_cost import plan_confirmation
from gemma_nli.sweep.forecast.gpu_memory import GIB, estimate_memory
from gemma_nli.sweep.prepare import configs_to_run, feature_requests, prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder


def plan_sweep(spec: SweepSpec) -> dict[str, Any]:
    """The plan of a sweep on this machine; starts no Ray, loads no weights and writes nothing.

    Raises:
        GemmaNliError: whatever the sweep itself would refuse.
    """
    ready = prepare(spec)
    folder = SweepFolder(ready.folder)
    folder.pull()
    take_up_earlier(ready, folder)
    store = FeatureStore(ready.storage / "features", spec.base.features)
    requests = feature_requests(ready)
    missing = [len(store.missing(request)) for request in requests]
    cpus, gpus, gpu_gib = _machine()
    resources = choose(ready, [Node(cpus, gpus)], gpu_gib)
    configs = configs_to_run(ready)
    total = len(ready.cells) or spec.total_trials
    done = ready.num_done
    estimate = estimate_memory(most_memory(configs)) if configs else None
    space = spec.model_dump(mode="json")["space"]
    return {
        "name": spec.name,
        "question": spec.question,
        "compared": {key: domain for key, domain in space.items() if key in spec.compare},
        "varied": {key: domain for key, domain in space.items() if key not in spec.compare},
        "sweep_id": ready.sweep_id,
        "cells": total,
        "chosen_by": spec.search.algorithm,
        "done": done,
        "to_run": max(0, total - done),
        "earlier": how_many_fit(ready),
        "confirm": plan_confirmation(ready, done >= total),
        "failed_before": sum(record.state == "failed" for record in ready.records.values()),
        "evaluation_pairs": {
            fold: len(ready.pairs.evaluation_rows(fold)) for fold in range(1, ready.pairs.num_folds + 1)
        },
        "texts": {"to_encode": sum(missing), "reused": sum(len(r.unique_rows) for r in requests) - sum(missing)},
        "machine": {"cpus": cpus, "gpus": gpus, "gpu_gib": round(gpu_gib, 1)},
        "trial": {"cpu": resources.cpu, "gpu": resources.gpu, "concurrent": resources.concurrent},
        "memory_gib": {**{k: round(v, 3) for k, v in asdict(estimate).items()}, "total": round(estimate.total, 3)}
        if estimate
        else None,
        "storage": str(ready.storage),
        "notes": [
            *corpus_notes(ready.corpus, ready.pairs),
            *quantization_notes(config.model for config in configs),
            *layer_notes(configs),
        ],
    }


def _machine() -> tuple[float, float, float]:
    """(CPUs, GPUs, GiB of the first GPU) of this machine; a cluster may have more."""
    import torch

    cpus = float(len(os.sched_getaffinity(0)))
    if not torch.cuda.is_available():
        return cpus, 0.0, 0.0
    return cpus, float(torch.cuda.device_count()), torch.cuda.get_device_properties(0).total_memory / GIB
