"""What do the layers of a frozen encoder cost, and what do they gain?

    python benchmarks/layers.py [--encoder FOLDER] [--data DIR] [--posts 1600] [--norm NAME] [--json FILE]

Cost: CPU seconds of encoding seven layers x three poolings over those of one layer and pooling, the same texts in turn.
Gain: each layer's head is cross-validated over the product's own folds with pooled and with matched negatives. The
layer of a fold is the best on the other folds, so that its AUC is of folds that did not choose; `last` is beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.head_norms import some_posts
from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import REAL_DATA, Workplace
from gemma_nli.config import FeaturesConfig, RunConfig
from gemma_nli.config.suited_defaults import FROZEN_NORM
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.features.encode_texts import encode, load_for
from gemma_nli.features.request import FeatureRequest, view_of_layer
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.layers import layers_of
from gemma_nli.training.frozen.head_inputs import feature_request, load_inputs
from gemma_nli.training.frozen.train_folds import train_folds

POOLINGS = ("mean", "max", "last")
ALLOWED = 1.15
GAIN = 0.03


def base(encoder: Path, negatives: str, norm: str) -> RunConfig:
    return RunConfig().with_settings(
        {"model.name": str(encoder), "model.max_length": 128, "data.negatives": negatives, "model.head_norm": norm}
    )


def cost(encoder: Path, corpus: Corpus, texts: int, turns: int) -> dict[str, float]:
    """CPU seconds of one layer and pooling, and of seven layers (spread over the encoder) x three poolings."""
    config = base(encoder, "matched", "none")
    pairs = build_pairs(corpus, config.data)
    one = feature_request(config, corpus, pairs, pairs.rows_used(1.0)[:texts])
    depth = layers_of(config.model).depth
    numbers = sorted({round(depth * step / 6) for step in range(7)})
    views = tuple(view_of_layer(pooling, number, depth) for number in numbers for pooling in POOLINGS)
    many = FeatureRequest(one.model, one.device, one.identity, one.premises, one.hypotheses, views)
    own, settings = load_for(many), FeaturesConfig()
    spent: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(turns):
        for name, request in (("one", one), ("many", many)):
            began = time.process_time()
            encode(request, own, settings)
            spent[name].append(time.process_time() - began)
    best = {name: min(seconds) for name, seconds in spent.items()}
    return {**best, "views": len(views), "ratio": best["many"] / best["one"]}


def chosen_on_other_folds(auc_LF: np.ndarray) -> np.ndarray:
    """(F,) for each fold the layer that is best on the others."""
    return np.array([np.delete(auc_LF, fold, axis=1).mean(1).argmax() for fold in range(auc_LF.shape[1])])


def gain(encoder: Path, corpus: Corpus, store: Path, negatives: str, norm: str, pooling: str) -> dict[str, Any]:
    """AUC of each layer, of the layer chosen on the other folds, and of the last."""
    config = base(encoder, negatives, norm).with_settings({"model.pooling_strategy": pooling})
    pairs = build_pairs(corpus, config.data)
    features, depth = FeatureStore(store, config.features), layers_of(config.model).depth
    folds = list(range(1, pairs.num_folds + 1))
    rows = pairs.rows_used(config.data.negative_ratio)
    views = tuple(view_of_layer(pooling, number, depth) for number in range(depth + 1))
    whole = feature_request(config, corpus, pairs, rows)
    features.ensure(FeatureRequest(whole.model, whole.device, whole.identity, whole.premises, whole.hypotheses, views))
    auc_LF = []
    for number in range(depth + 1):
        layer = config.with_settings({"model.layers": number})
        results = train_folds(layer, pairs, folds, load_inputs(layer, corpus, pairs, rows, features))
        auc_LF.append([fold.metrics.get("auc", np.nan) for fold in results])
    table = np.array(auc_LF)
    honest = table[chosen_on_other_folds(table), np.arange(len(folds))]
    return {
        "negatives": negatives,
        "norm": norm,
        "pooling": pooling,
        "auc by layer": [round(float(auc), 4) for auc in table.mean(1)],
        "chosen on other folds": float(np.mean(honest)),
        "last": float(table[-1].mean()),
        "gain": float(np.mean(honest) - table[-1].mean()),
    }


def run(place: Workplace) -> Outcome:
    corpus = some_posts(load_corpus(place.data), place.size(1600, 60))
    spent = cost(minilm_folder(), corpus, place.size(1500, 100), place.size(3, 1))
    gains = [gain(minilm_folder(), corpus, place.work, kind, FROZEN_NORM, "mean") for kind in ("pooled", "matched")]
    marks = [Mark("CPU of 7 layers x 3 poolings over one", spent["ratio"], at_most=ALLOWED)]
    marks += [
        Mark(f"AUC of the best layer above last, {each['negatives']} negatives", each["gain"], at_least=GAIN)
        for each in gains
    ]
    return Outcome(marks, {"cost": spent, "gains": gains})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, default=None)
    parser.add_argument("--data", type=Path, default=REAL_DATA)
    parser.add_argument("--posts", type=int, default=1600)
    parser.add_argument("--norm", default=FROZEN_NORM)
    parser.add_argument("--poolings", nargs="+", default=["mean", "last"])
    parser.add_argument("--texts", type=int, default=1000, help="pairs that the cost is measured on")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    encoder, corpus = asked.encoder or minilm_folder(), some_posts(load_corpus(asked.data), asked.posts)
    spent = cost(encoder, corpus, asked.texts, 3)
    print(
        f"{spent['views']:.0f} views: {spent['many']:.1f} CPU s over {spent['one']:.1f}: {spent['ratio']:.3f}",
        flush=True,
    )
    found = []
    with tempfile.TemporaryDirectory() as work:
        for pooling in asked.poolings:
            for negatives in ("pooled", "matched"):
                found.append(gain(encoder, corpus, Path(work), negatives, asked.norm, pooling))
                print(json.dumps(found[-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"cost": spent, "gains": found}, indent=1))


if __name__ == "__main__":
    main()
