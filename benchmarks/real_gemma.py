"""The table of a real Gemma 3 270M over one corpus: frozen, trained, asked, and what needs no Gemma, in pieces.

    python -m benchmarks.real_gemma FOLDER --data DATA [--posts N] [--minutes M]

Each piece (the states of some posts, a fold of a trained trial) lies in FOLDER as soon as it is done, and a run goes on
where the last one stopped, however that ended. FOLDER/table.md has the rows that are finished, those without training
of the encoder first. Every layer of the grid is a row, and the best of many rows is partly luck: the row of the layer
chosen on the other folds has none of it, since no fold is scored by a layer that it helped to choose.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.head_norms import some_posts
from benchmarks.layers import chosen_on_other_folds
from gemma_nli.analysis.baselines import tfidf_scores
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus, write_corpus
from gemma_nli.features import FeatureRequest, FeatureStore
from gemma_nli.local.train import run_here
from gemma_nli.model.gemma_weights import gemma_folder
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.prepare import feature_requests, prepare
from gemma_nli.training.criterion_only import criterion_only, evaluation_rows, mean_scores
from gemma_nli.training.zero_shot import ANSWER, QUESTION, zero_shot, zero_shot_request

MEASURED = ("f1", "auc", "macro_auc")
PIECE_POSTS = 100
LAYERS = [4, 7, 9, 11, 13, "last"]
FROZEN: dict[str, dict[str, Any]] = {
    "joint": {
        "model.template": {"grid": ["native", QUESTION + ANSWER]},
        "model.pooling_strategy": {"grid": ["last", "mean"]},
        "model.layers": {"grid": LAYERS},
    },
    "separate": {"model.pooling_strategy": {"grid": ["mean"]}, "model.layers": {"grid": LAYERS}},
}
LORA = {
    "model.freeze_encoder": False,
    "model.lora.rank": 8,
    "model.layers": 9,
    "training.num_epochs": 2,
    "training.batch_size": 16,
    "training.encoder_learning_rate": 5e-4,
}
"""Of the encoder cut after a layer in its middle: half the cost, and where the frozen states say most."""
TRAINED: dict[str, dict[str, Any]] = {
    "LoRA, causal, native, last, layer 9": {**LORA, "model.pooling_strategy": "last"},
    "LoRA, bidirectional, native, mean, layer 9": {
        **LORA,
        "model.pooling_strategy": "mean",
        "model.attention": "bidirectional",
    },
}


class Clock:
    """Raises TimeoutError between pieces once the minutes are over."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def check(self) -> None:
        if time.monotonic() > self.end:
            raise TimeoutError


def base_of(data: Path, encoder: Path) -> dict[str, Any]:
    return {
        "data": {"data_dir": str(data)},
        "model": {"name": str(encoder), "max_length": 256, "head_norm": "standardize"},
        "training": {"num_epochs": 20, "batch_size": 32, "learning_rate": 1e-3},
        "mlflow": {"enabled": False},
        "output": {"experiment_name": "real_gemma"},
    }


def spec_of(folder: Path, base: dict[str, Any], encoding: str) -> SweepSpec:
    own = {**base, "model": {**base["model"], "pair_encoding": encoding}}
    tree = {"name": encoding, "base": own, "space": FROZEN[encoding], "storage": str(folder / "storage")}
    return SweepSpec.from_mapping(tree, source=encoding)


def encode_in_pieces(request: FeatureRequest, store: FeatureStore, clock: Clock) -> None:
    """The states of some posts at a time; a post stays whole, so that its pairs share its tokens."""
    while missing := store.missing(request):
        clock.check()
        posts = set(list(dict.fromkeys(request.premises[row] for row in missing))[:PIECE_POSTS])
        rows = [row for row in missing if request.premises[row] in posts]
        report = store.ensure(request.subset(rows))
        print(f"{len(missing) - len(rows):>6} texts left; {len(rows)} in {report.seconds:.0f} s", flush=True)


def trials(base: dict[str, Any], specs: list[SweepSpec]) -> Iterator[tuple[str, RunConfig]]:
    for spec in specs:
        for cell in spec.cells():
            model = cell.config.model
            words = "" if model.pair_encoding == "separate" else ", native" if model.template == "native" else ", asked"
            yield f"frozen, {spec.name}{words}, {model.pooling_strategy}, layer {model.layers}", cell.config
    for name, settings in TRAINED.items():
        yield name, specs[0].base.with_settings(settings)


def baselines(base: RunConfig, corpus: Corpus, pairs: PairTable, store: FeatureStore) -> dict[str, dict[str, float]]:
    rows_N = evaluation_rows(pairs)
    asked = zero_shot(base, corpus, pairs, rows_N, store)
    found = {
        "criterion only": criterion_only(base, pairs, rows_N),
        "zero-shot": (asked.decision_N, asked.score_N),
        "TF-IDF": tfidf_scores(base, corpus, pairs, rows_N),
    }
    return {name: mean_scores(pairs, rows_N, *scores, MEASURED) for name, scores in found.items()}


def measure(folder: Path, data: Path, clock: Clock) -> Iterator[tuple[str, dict[str, float]]]:
    """Every row of the table: its name and its scores.

    Raises:
        TimeoutError: the minutes are over; all finished pieces are kept.
    """
    base = base_of(data, gemma_folder(print))
    specs = [spec_of(folder, base, encoding) for encoding in FROZEN]
    store = FeatureStore(folder / "storage" / "features", specs[0].base.features)
    corpus = load_corpus(data)
    pairs = build_pairs(corpus, specs[0].base.data)
    for spec in specs:
        for request in feature_requests(prepare(spec)):
            encode_in_pieces(request, store, clock)
    encode_in_pieces(zero_shot_request(specs[0].base, corpus, pairs), store, clock)
    yield from baselines(specs[0].base, corpus, pairs, store).items()
    layers: dict[str, list[dict[str, list[float]]]] = {}
    for name, config in trials(base, specs):
        clock.check()
        result = run_here(config, folder / "runs", folder / "storage").result
        yield name, {metric: result.aggregates[f"cv_aggregate/{aggregate(metric)}"] for metric in MEASURED}
        if name.startswith("frozen"):
            of_all = layers.setdefault(name.partition(", layer")[0], [])
            of_all.append({metric: [fold.metrics[metric] for fold in result.folds] for metric in ("f1", "auc")})
            if len(of_all) == len(LAYERS):
                yield f"{name.partition(', layer')[0]}, layer chosen on the other folds", chosen(of_all)


def chosen(layers: list[dict[str, list[float]]]) -> dict[str, float]:
    """Each fold's scores by the layer that has the best AUC on the other folds; a mean within criteria has no folds."""
    of_fold = chosen_on_other_folds(np.array([layer["auc"] for layer in layers]))
    found = {m: float(np.mean([layers[at][m][fold] for fold, at in enumerate(of_fold)])) for m in ("f1", "auc")}
    return {**found, "macro_auc": math.nan}


def aggregate(metric: str) -> str:
    return metric if metric.startswith("macro_") else f"mean_{metric}"


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = [f"| {' | '.join(['', *MEASURED])} |", "|---" * (len(MEASURED) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join('-' if math.isnan(row[m]) else f'{row[m]:.3f}' for m in MEASURED)} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--posts", type=int, help="only so many, drawn at random, the same in every run")
    parser.add_argument("--minutes", type=float, default=8.0)
    asked = parser.parse_args()
    data = asked.data
    if asked.posts is not None:
        data = asked.folder / f"posts_{asked.posts}"
        write_corpus(some_posts(load_corpus(asked.data), asked.posts), data)
    rows: dict[str, dict[str, float]] = {}
    try:
        for name, row in measure(asked.folder, data, Clock(asked.minutes)):
            rows[name] = row
            (asked.folder / "table.md").write_text(table(rows), encoding="utf-8")
            print(f"{name}: {row}", flush=True)
    except TimeoutError:
        print(f"{len(rows)} rows are finished; run it again to go on")
        return 1
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
