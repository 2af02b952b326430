"""What a threshold per criterion and Platt scaling are worth: macro F1, F1 and calibration error over many seeds.

`python -m benchmarks.thresholds --ratio all --seeds 20` takes a synthetic corpus, `--data FOLDER` one in ReDSM5's
format. Heads are trained on a frozen MiniLM, once per seed of folds and training, and the same predictions are decided
by each rule: the product's two, and thresholds of the best F1 on a criterion's own pairs of the inner split, as they
are and drawn towards the shared one with the weight of 10 positive pairs. docs/LOG.md keeps the table.

Letters: K folds, C criteria, I pairs of an inner split, V evaluation pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import METRICS
from gemma_nli.base.metrics.macro import mean_of_known, supported, within_criteria
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, build_pairs
from gemma_nli.corpus.redsm5 import Corpus, load_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.training.calibrations import fit_platt
from gemma_nli.training.fold import plan_fold
from gemma_nli.training.frozen.head_inputs import HeadInputs, StackedClassifier, load_inputs
from gemma_nli.training.frozen.stacked_heads import EvaluationSet
from gemma_nli.training.frozen.train_folds import train_folds
from gemma_nli.training.metrics import best_threshold, log_odds, sigmoid
from gemma_nli.training.threshold_rules import ThresholdRule, Thresholds, per_criterion, shared

Floats = NDArray[np.float64]
DRAWN = 10.0


def own_best(weight: float) -> ThresholdRule:
    """The best F1 on the criterion's own pairs, its log-odds averaged with the shared one's by n / (n + weight)."""

    def rule(probability_I: Floats, label_I: NDArray[np.int8], criterion_I: NDArray[np.integer]) -> Thresholds:
        middle, own = shared(probability_I, label_I, criterion_I).shared, {}
        for criterion in np.unique(criterion_I[label_I == 1]).tolist():
            mine_I = criterion_I == criterion
            positives = float(label_I[mine_I].sum())
            both = log_odds(np.array([best_threshold(probability_I[mine_I], label_I[mine_I])[0], middle]))
            share = positives / (positives + weight)
            own[criterion] = float(sigmoid(np.array(share * both[0] + (1 - share) * both[1])))
        return Thresholds(middle, own)

    return rule


RULES: dict[str, ThresholdRule] = {
    "shared": shared,
    "own best F1": own_best(0.0),
    "own best F1, drawn": own_best(DRAWN),
    "per_criterion": per_criterion,
}


@dataclass(frozen=True)
class Fold:
    """Logits of a fold's inner split and of its evaluation pairs, and these pairs' rows."""

    inner_I: Floats
    selection_I: NDArray[np.int64]
    logit_V: Floats
    rows_V: NDArray[np.int64]


def folds_of(config: RunConfig, pairs: PairTable, inputs: HeadInputs) -> Iterator[Fold]:
    """The folds that have an inner split, at the epoch that it chooses."""
    for result in train_folds(config, pairs, list(range(1, pairs.num_folds + 1)), inputs):
        plan = plan_fold(config, pairs, result.fold)
        if not plan.choice.inner:
            continue
        classifier = StackedClassifier(config, inputs.width, 1)
        classifier.load_model(0, result.state)
        sides = [EvaluationSet([rows], inputs.device) for rows in (plan.selection, plan.evaluation)]
        inner_I, logit_V = (side.logits(inputs, classifier)[0].astype(np.float64) for side in sides)
        yield Fold(inner_I, plan.selection, logit_V, plan.evaluation)


def scores_of(folds: list[Fold], pairs: PairTable, rule: ThresholdRule) -> tuple[float, float]:
    """Macro F1 and the mean F1 over folds."""
    decided, each = [], []
    for fold in folds:
        found = rule(sigmoid(fold.inner_I), pairs.label_N[fold.selection_I], pairs.criterion_N[fold.selection_I])
        decided.append(sigmoid(fold.logit_V) >= found.of(pairs.criterion_N[fold.rows_V]))
        each.append(float(METRICS["f1"].of_rows(decided[-1][None], pairs.label_N[fold.rows_V])[0]))
    rows_N = np.concatenate([fold.rows_V for fold in folds])
    label_N, criterion_N = pairs.label_N[rows_N], pairs.criterion_N[rows_N]
    criteria = supported(label_N, criterion_N)
    within = within_criteria(
        METRICS["f1"], np.concatenate(decided)[None], label_N, criterion_N, pairs.fold_N[rows_N], criteria
    )
    return float(mean_of_known(within)[0]), float(np.mean(each))


def log_loss_of(folds: list[Fold], pairs: PairTable, calibrated: bool) -> float:
    """Mean cross-entropy in nats, over folds."""
    losses = []
    for fold in folds:
        scaling = fit_platt(fold.inner_I, pairs.label_N[fold.selection_I]) if calibrated else None
        logit_V, label_V = fold.logit_V if scaling is None else scaling.of(fold.logit_V), pairs.label_N[fold.rows_V]
        losses.append(float((np.logaddexp(0, logit_V) - label_V * logit_V).mean()))
    return float(np.mean(losses))


def corpus_of(data: str | None, posts: int) -> Corpus:
    return load_corpus(data) if data else synthetic_corpus(posts, seed=7)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", help="folder of a corpus; by default one is made up")
    words.add_argument("--posts", type=int, default=1000, help="of the made-up corpus")
    words.add_argument("--ratio", default="all", help="data.eval_negative_ratio")
    words.add_argument("--pair-encoding", default="separate", choices=["separate", "joint"])
    words.add_argument("--seeds", type=int, default=20)
    asked = words.parse_args()
    corpus, found, losses = corpus_of(asked.data, asked.posts), [], []
    with tempfile.TemporaryDirectory(prefix="gemma_nli_thresholds_") as folder:
        for seed in range(asked.seeds):
            settings = {"model.name": str(minilm_folder()), "model.max_length": 128, "training.learning_rate": 0.01}
            settings |= {"model.pair_encoding": asked.pair_encoding, "data.eval_negative_ratio": asked.ratio}
            config = RunConfig().with_settings({**settings, "training.seed": seed, "data.fold_seed": seed})
            pairs = build_pairs(corpus, config.data)
            store = FeatureStore(Path(folder) / "features", config.features)
            inputs = load_inputs(config, corpus, pairs, pairs.rows_used(config.data.negative_ratio), store)
            folds = list(folds_of(config, pairs, inputs))
            found.append([scores_of(folds, pairs, rule) for rule in RULES.values()])
            losses.append([log_loss_of(folds, pairs, calibrated) for calibrated in (False, True)])
    of_SR2 = np.array(found)
    for place, name in enumerate(RULES):
        macro, mean = of_SR2[:, place].mean(0)
        gain_S = of_SR2[:, place, 0] - of_SR2[:, 0, 0]
        error = gain_S.std(ddof=1) / len(gain_S) ** 0.5 if len(gain_S) > 1 else 0.0
        gained = f"{gain_S.mean():+.4f} (se {error:.4f}, better in {(gain_S > 0).sum()} of {len(gain_S)})"
        print(f"{name:20s} macro F1 {macro:.4f} {gained}, F1 {mean:.4f} {mean - of_SR2[:, 0, 1].mean():+.4f}")
    raw, scaled = np.array(losses).mean(0)
    print(f"cross-entropy {raw:.4f}, platt {scaled:.4f} nats")


if __name__ == "__main__":
    main()
