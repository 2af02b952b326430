"""Does training the encoder beat the best frozen joint configuration, fold by fold, on the same pairs?

    python -m benchmarks.finetune --data DIR [--ways full,lora] [--max-length 64]
        [--frozen-max-length 128] [--json results.json]

The frozen side is MiniLM's mean-pooled joint vectors under a linear head, at the best settings that a sweep over them
found by mean AUC (rate 2e-3, 3 training negatives per positive, batches of 64, 20 epochs). It may see longer texts. The
trained sides have 3 epochs. All are measured on the same evaluation pairs (1 negative a positive), at the epoch and
threshold that an inner split of the training posts chose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace, small_corpus
from gemma_nli.config import FeaturesConfig, RunConfig, build_config
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.training.cross_validation import run_folds
from gemma_nli.training.results import FINISHED, FoldResult

WAYS: dict[str, dict[str, Any]] = {
    "frozen": {
        "training.learning_rate": 2e-3,
        "training.batch_size": 64,
        "training.num_epochs": 20,
        "data.negative_ratio": 3,
    },
    "full": {"model.freeze_encoder": False, "training.encoder_learning_rate": 2e-4},
    "lora": {
        "model.freeze_encoder": False,
        "model.lora.rank": 16,
        "model.lora.alpha": 32,
        "model.lora.target_modules": "all-linear",
        "training.encoder_learning_rate": 2e-3,
    },
}
TRAINED = {
    "training.num_epochs": 3,
    "training.batch_size": 32,
    "training.learning_rate": 1e-3,
    "training.warmup_ratio": 0.1,
    "training.schedule": "linear",
}


def settings(way: str, encoder: str, max_length: int) -> RunConfig:
    base = build_config({"model": {"name": encoder, "max_length": max_length}}, "benchmarks.finetune")
    return base.with_settings(({} if way == "frozen" else TRAINED) | WAYS[way])


def measure(way: str, config: RunConfig, corpus: Corpus, pairs: PairTable) -> dict[str, Any]:
    """Each fold's AUC, F1 and seconds, told as they end."""
    began = time.perf_counter()
    found: list[FoldResult] = []
    with tempfile.TemporaryDirectory() as storage:
        store = FeatureStore(Path(storage), FeaturesConfig())
        for ended in run_folds(config, corpus, pairs, store, {}):
            found += ended
            for fold in ended:
                if fold.status != FINISHED:
                    raise SystemExit(f"{way} fold {fold.fold}: {fold.detail}")
                print(f"  {way} fold {fold.fold}: {_line(fold)}, {time.perf_counter() - began:.0f} s", flush=True)
    return {
        "settings": WAYS[way] if way == "frozen" else TRAINED | WAYS[way],
        "auc": [fold.metrics["auc"] for fold in found],
        "f1": [fold.metrics["f1"] for fold in found],
        "epochs": [fold.selected_epoch for fold in found],
        "trained_parameters": found[0].trained_parameters,
        "seconds": time.perf_counter() - began,
    }


def _line(fold: FoldResult) -> str:
    return f"AUC {fold.metrics['auc']:.4f}, F1 {fold.metrics['f1']:.4f}, epoch {fold.selected_epoch}"


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row a way: AUC of each fold, its difference from the frozen side, means, F1, seconds."""
    frozen = results["frozen"]["auc"]
    lines = ["| way | AUC by fold | minus frozen, by fold | mean AUC | mean gain | mean F1 | trained | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for way, result in results.items():
        gains = [mine - theirs for mine, theirs in zip(result["auc"], frozen, strict=True)]
        result["gains"] = gains
        cells = [
            way,
            " ".join(f"{auc:.4f}" for auc in result["auc"]),
            " ".join(f"{gain:+.4f}" for gain in gains),
            f"{statistics.fmean(result['auc']):.4f}",
            f"{statistics.fmean(gains):+.4f}",
            f"{statistics.fmean(result['f1']):.4f}",
            f"{result['trained_parameters']:,}",
            f"{result['seconds']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(place: Workplace) -> Outcome:
    """Full fine-tuning beside the frozen side, as one entry of `python -m benchmarks`; half an hour on two cores."""
    corpus, encoder = load_corpus(place.data), str(minilm_folder())
    if place.quick:
        corpus = load_corpus(small_corpus(place, 40))
    pairs = build_pairs(corpus, RunConfig().data)
    results = {
        way: measure(way, settings(way, encoder, place.size(64, 16)), corpus, pairs) for way in ("frozen", "full")
    }
    gains = [full - frozen for full, frozen in zip(results["full"]["auc"], results["frozen"]["auc"], strict=True)]
    marks = [
        Mark("AUC gained by training the encoder, mean of folds", statistics.fmean(gains)),
        Mark("the same, worst fold", min(gains), at_least=0.0),
        *(Mark(f"mean AUC, {way}", statistics.fmean(result["auc"])) for way, result in results.items()),
        Mark("times longer than frozen, encoding included", results["full"]["seconds"] / results["frozen"]["seconds"]),
    ]
    return Outcome(marks, dict(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of posts, annotations and criteria")
    parser.add_argument("--ways", default="full,lora", help="what to set beside frozen: full, lora")
    parser.add_argument("--max-length", type=int, default=64, help="tokens a pair of the trained sides")
    parser.add_argument("--frozen-max-length", type=int, default=128, help="tokens a pair of the frozen side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    corpus, encoder = load_corpus(asked.data), str(minilm_folder())
    pairs = build_pairs(corpus, RunConfig().data)
    results = {}
    for way in ["frozen", *filter(None, asked.ways.split(","))]:
        max_length = asked.frozen_max_length if way == "frozen" else asked.max_length
        results[way] = measure(way, settings(way, encoder, max_length), corpus, pairs)
    print(f"\nmax_length {asked.max_length} (frozen {asked.frozen_max_length}), folds {pairs.fingerprint[:12]}")
    print(f"\n{table(results)}")
    if asked.json:
        facts = {"max_length": asked.max_length, "frozen_max_length": asked.frozen_max_length}
        facts |= {"fold_fingerprint": pairs.fingerprint, "ways": results}
        asked.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
