"""Which `model.head_norm` suits frozen encoders best? Decides its default.

    python benchmarks/head_norms.py --encoder FOLDER [--encoder FOLDER ...] [--data DIR] [--posts 400] [--json FILE]

Each encoder's texts are encoded once, joint and separate; then a head is cross-validated over the product's own folds
with each norm at several learning rates. Compared are mean AUCs: at the default rate, and at the norm's own best rate.
Corpora: the real posts (all, or `--posts` of them) and the synthetic ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import REAL_DATA, Workplace
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.head_norms import HEAD_NORMS
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import train_folds

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
DEFAULT_RATE = 1e-3
POOLINGS = ("mean", "last")
Row = dict[str, Any]


def some_posts(corpus: Corpus, count: int) -> Corpus:
    """`count` of the posts, the same at each call; all of them where there are no more."""
    names = np.random.default_rng(0).permutation(sorted(corpus.posts)).tolist()[:count]
    kept = {name: corpus.posts[name] for name in names}
    return Corpus(kept, corpus.criteria, tuple(a for a in corpus.annotations if a.post_id in kept))


def measure(
    encoder: Path, corpus: Corpus, store: Path, pair_encoding: str, negatives: str, epochs: int, length: int
) -> Iterator[Row]:
    """The mean AUC over folds of each norm, pooling and learning rate."""
    base = RunConfig().with_settings(
        {
            "data.negatives": negatives,
            "model.name": str(encoder),
            "model.max_length": length,
            "model.pair_encoding": pair_encoding,
            "training.num_epochs": epochs,
        }
    )
    pairs = build_pairs(corpus, base.data)
    features = FeatureStore(store, base.features)
    folds = list(range(1, pairs.num_folds + 1))
    for pooling in POOLINGS:
        pooled = base.with_settings({"model.pooling_strategy": pooling})
        inputs = load_inputs(pooled, corpus, pairs, pairs.rows_used(base.data.negative_ratio), features)
        for norm in HEAD_NORMS:
            for rate in RATES:
                config = pooled.with_settings({"model.head_norm": norm, "training.learning_rate": rate})
                results = train_folds(config, pairs, folds, inputs)
                auc = float(np.mean([fold.metrics.get("auc", np.nan) for fold in results]))
                case = {"negatives": negatives, "pair_encoding": pair_encoding, "pooling": pooling}
                yield {**case, "norm": norm, "rate": rate, "auc": auc}


def summary(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Per norm, over all encoders, corpora, encodings and poolings: the mean AUC at the default and the best rate."""
    found = {}
    for norm in sorted({row["norm"] for row in rows}):
        mine: dict[tuple[str, ...], dict[float, float]] = {}
        for row in rows:
            if row["norm"] == norm:
                case = tuple(row[name] for name in ("encoder", "corpus", "negatives", "pair_encoding", "pooling"))
                mine.setdefault(case, {})[row["rate"]] = row["auc"]
        default = float(np.mean([rates[DEFAULT_RATE] for rates in mine.values()]))
        found[norm] = {"default": default, "best": float(np.mean([max(rates.values()) for rates in mine.values()]))}
    return found


def measure_all(
    encoders: list[Path], corpora: dict[str, Corpus], work: Path, epochs: int, length: int, negatives: tuple[str, ...]
) -> list[Row]:
    rows: list[Row] = []
    for encoder in encoders:
        for name, corpus in corpora.items():
            for pair_encoding, kind in itertools.product(("joint", "separate"), negatives):
                for row in measure(encoder, corpus, work / "features", pair_encoding, kind, epochs, length):
                    rows.append({"encoder": encoder.name, "corpus": name, **row})
                    print(" ".join(f"{value:.3f}" if key == "auc" else str(value) for key, value in rows[-1].items()))
    return rows


def run(place: Workplace) -> Outcome:
    corpora = {"real": some_posts(load_corpus(place.data), place.size(400, 60)), "synthetic": synthetic_corpus(120)}
    rows = measure_all([minilm_folder()], corpora, place.work, place.size(20, 2), 128, ("matched",))
    found = summary(rows)
    lead = found[RunConfig().model.head_norm]["default"] - max(norm["default"] for norm in found.values())
    marks = [Mark("AUC of the default norm above the best norm's, MiniLM", lead, at_least=-0.01)]
    return Outcome(marks, {"summary": found, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, action="append", default=[])
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    parser.add_argument("--posts", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    corpora = {"real": some_posts(load_corpus(asked.data), asked.posts), "synthetic": synthetic_corpus(120)}
    with tempfile.TemporaryDirectory() as work:
        encoders = asked.encoder or [minilm_folder()]
        rows = measure_all(encoders, corpora, Path(work), asked.epochs, asked.max_length, ("matched", "pooled"))
    for norm, values in summary(rows).items():
        print(f"{norm:<12} default rate {values['default']:.3f}  best rate {values['best']:.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
