"""Are features held once, however many trials use them?

Four trial actors and then one train an attention pooling (the pooling that reads token states) over the same block of
random token states, put into Ray's object store as a sweep does it and read through the trials' own `SharedFeatures`.
Measured when every actor has read the whole block: the proportional set size (PSS, /proc/PID/smaps_rollup: a page
shared by n processes counts 1/n in each) of the actors, of the raylet that owns the store, and of the driver. Against
it: the same processes after the same work on a block of a thousandth of the size, plus one copy of the block. A copy a
process would show as four.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace
from gemma_nli.config import FeaturesConfig, RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.features import FeatureBlock, FeatureRequest, FeatureStore
from gemma_nli.features.request import digest_array
from gemma_nli.features.token_states import TokenStates
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.sweep.ray.shared_features import SharedBlock, SharedFeatures
from gemma_nli.training.frozen.head_inputs import feature_request

TRIALS = 4
HIDDEN = 384


def run(place: Workplace) -> Outcome:
    import ray

    config = RunConfig().with_settings(
        {
            "data.data_dir": str(place.data),
            "model.name": str(minilm_folder()),
            "model.max_length": 128,
            "model.pooling_strategy": "attention",
        }
    )
    corpus = load_corpus(place.data)
    pairs = build_pairs(corpus, config.data)
    request = feature_request(config, corpus, pairs, pairs.rows_used(1.0))
    tokens = place.size(100, 20)
    copy_mib = len(request.unique_rows) * tokens * HIDDEN * 4 / 2**20
    ray.init(
        "local",
        include_dashboard=False,
        log_to_driver=False,
        num_cpus=TRIALS,
        object_store_memory=int(2 * copy_mib * 2**20) + 200 * 2**20,
    )
    try:
        without = _pss(place, request, 1, TRIALS, corpus, pairs)
        with_four = _pss(place, request, tokens, TRIALS, corpus, pairs)
        with_one = _pss(place, request, tokens, 1, corpus, pairs)
    finally:
        ray.shutdown()
    small_mib = copy_mib / tokens
    expected = without["total_mib"] - small_mib + copy_mib
    return Outcome(
        [
            Mark(
                f"sum of PSS of {TRIALS} trials over one copy and the processes without",
                with_four["total_mib"] / expected,
                at_most=1.15,
            ),
            Mark("one copy of the features", copy_mib, unit="MiB"),
            Mark(f"{TRIALS} trials, the store and the driver, with them", with_four["total_mib"], unit="MiB"),
            Mark("the same without them", without["total_mib"] - small_mib, unit="MiB"),
            Mark("copies held by 4 trials", (with_four["total_mib"] - without["total_mib"] + small_mib) / copy_mib),
        ],
        {"copy_mib": copy_mib, "with_four": with_four, "with_one": with_one, "without": without},
    )


def _pss(
    place: Workplace, request: FeatureRequest, tokens: int, trials: int, corpus: Corpus, pairs: PairTable
) -> dict[str, Any]:
    """PSS of everything while `trials` actors hold a block with `tokens` states a text."""
    import ray

    # In a task, as a sweep does: the driver never maps it. The task's process ends, or it would share the pages too.
    block = ray.remote(max_calls=1)(_make_block).remote(request, tokens)
    shared = SharedBlock(request.key, frozenset(request.views), True, block)
    actors = [ray.remote(num_cpus=1)(_Trial).remote(shared, place.work / "store") for _ in range(trials)]
    held = ray.get([actor.read_everything.remote(request) for actor in actors])
    assert len({total for _, total in held}) == 1, "every trial has to see the same states"
    raylets = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("raylet")]
    parts = {
        "trials_mib": [_pss_mib(pid) for pid, _ in held],
        "store_mib": sum(_pss_mib(process.pid) for process in raylets),
        "driver_mib": _pss_mib(os.getpid()),
    }
    for actor in actors:
        ray.kill(actor)
    return {**parts, "total_mib": sum(parts["trials_mib"]) + parts["store_mib"] + parts["driver_mib"]}


def _make_block(request: FeatureRequest, tokens: int) -> dict[str, np.ndarray]:
    """Random states, the same number for each text."""
    digests = [request.digests[row] for row in request.unique_rows]
    count = len(digests)
    flat_SH = np.random.default_rng(0).standard_normal((count * tokens, HIDDEN), dtype=np.float32)
    states = TokenStates({"tokens": flat_SH}, np.arange(count + 1, dtype=np.int64) * tokens, "float32")
    lengths = np.full(count, tokens, dtype=np.int32)
    return FeatureBlock(digest_array(digests), lengths, HIDDEN, {}, states).to_arrays()


class _Trial:
    """What a trial holds: its imports, and the features as trials get them."""

    def __init__(self, shared: SharedBlock, store: Path) -> None:
        self.features = SharedFeatures((shared,), FeatureStore(store, FeaturesConfig()))

    def read_everything(self, request: FeatureRequest) -> tuple[int, float]:
        """Every token state through the pooling of a trial; (process id, a sum that depends on all of them)."""
        import torch

        import gemma_nli.sweep.ray.trainable  # noqa: F401 - what a trial's process has imported
        from gemma_nli.model.pooling import build_pooler

        torch.set_num_threads(1)
        block = self.features.load(request)
        pooler = build_pooler("attention", HIDDEN)
        pooler.reset(0, torch.Generator().manual_seed(0))
        rows = block.rows_of(request.digests)
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                h_BTH, mask_BT = block.token_batch(rows[start : start + 64])
                total += float(pooler(h_BTH.unsqueeze(0), mask_BT.unsqueeze(0)).sum())
        return os.getpid(), total


def _pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
