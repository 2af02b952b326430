"""`gemma-nli train-simple`: one split by post into train, validation and test; the epoch of the best validation F1.

The split is cut from the folds that a cross-validation has: one fold tests, the next validates, the others train.
No test pair is used before the weights of the best epoch are fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import ConfigError, CorpusError, EncoderError, FeatureError, TrainingError
from gemma_nli.base.metrics import METRICS
from gemma_nli.config import RunConfig, home
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.pairs import PairTable, build_pairs, pair_texts
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.adapters import load_trainable_state, trainable_encoder
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import identify_encoder, load_encoder, resolve_device, resolve_precision
from gemma_nli.model.gguf_conversion import quantization_notes
from gemma_nli.storage import Place
from gemma_nli.tracking.write.artifacts.config_yaml import config_yaml
from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker
from gemma_nli.tracking.write.from_journal import dataset_of, params_of
from gemma_nli.training.finetuning.train_fold import train_fold
from gemma_nli.training.fold import Rows, plan_fold
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import train_folds
from gemma_nli.training.metrics import fold_metrics, sigmoid
from gemma_nli.training.results import DIVERGED, FoldResult
from gemma_nli.training.trial_texts import check_texts
from gemma_nli.trial.hardware import hardware_tags

TEST_FOLD, VALIDATION_FOLD = 1, 2
PER_EPOCH = ("train_loss", "val_loss", *(f"val_{name}" for name in METRICS))
OnEpoch = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class SimpleResult:
    """`history`: each of PER_EPOCH, one value per epoch. `metrics`: test_accuracy, test_f1, test_auc, best_val_f1..."""

    history: dict[str, list[float]]
    best_epoch: int
    metrics: dict[str, float]
    pairs: dict[str, int]
    fold: FoldResult
    data_fingerprint: str
    notes: tuple[str, ...] = ()  # notes on the corpus


@dataclass(frozen=True)
class Split:
    """Rows of the whole table: no post is in two of them."""

    train: Rows
    validation: Rows
    test: Rows


def run_simple(
    config: RunConfig,
    storage: Place | None = None,
    use_mlflow: bool = False,
    wandb_project: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[SimpleResult, str | None]:
    """`train_simple`, logged epoch by epoch on request; the result and its MLflow run's id."""
    store = FeatureStore((storage or home() / "storage") / "features", config.features)
    if not use_mlflow and wandb_project is None:
        return train_simple(config, store), None
    corpus = training_corpus(config.data)
    pairs = build_pairs(corpus, config.data)
    identify_encoder(config.model)
    device = resolve_device(config.device)
    with ExperimentTracker(
        config.experiment,
        use_mlflow,
        wandb_project is not None,
        wandb_project,
        config.mlflow.tracking_uri,
        config.output.run_name,
    ) as tracker:
        tracker.set_tags(tags or {})
        measured = {
            "gemma_nli.eval_negative_ratio": str(config.data.eval_negative_ratio),
            "gemma_nli.negatives": config.data.negatives,
            "gemma_nli.measured": config.data.measured_at,
        }
        tracker.set_facts({"gemma_nli.data_fingerprint": corpus.fingerprint, **measured, **hardware_tags(device)})
        tracker.log_params(params_of(config, pairs))
        tracker.log_dataset(dataset_of(config, corpus, pairs))
        tracker.log_artifact(config_yaml(config).encode(), "config.yaml")
        try:
            result = train_simple(config, store, lambda epoch, metrics: tracker.log_metrics(metrics, step=epoch))
        except (ConfigError, CorpusError, EncoderError, FeatureError):
            tracker.discard()  # nothing was trained: the setup is at fault
            raise
        tracker.log_metrics(result.metrics, step=result.best_epoch)
        state = {name: tensor.contiguous() for name, tensor in result.fold.state.items()}
        tracker.log_artifact(save_tensors(state), "best.safetensors")
        return result, tracker.run_id


def split_of(pairs: PairTable, negative_ratio: float) -> Split:
    held = pairs.training_rows(TEST_FOLD, negative_ratio)
    train = held[pairs.fold_N[held] != VALIDATION_FOLD]
    return Split(train, pairs.evaluation_rows(VALIDATION_FOLD), pairs.evaluation_rows(TEST_FOLD))


def train_simple(config: RunConfig, features: FeatureStore, on_epoch: OnEpoch | None = None) -> SimpleResult:
    """Train once and test once, at threshold 0.5.

    Args:
        config: `training.epoch_selection` is not asked: the epoch is the one of the best validation F1.
        on_epoch: called with each epoch and its PER_EPOCH metrics, live if the encoder is trained.
    Raises:
        CorpusError, EncoderError: before anything is trained. TrainingError: the loss became NaN or infinite.
    """
    chosen, asked = {"training.threshold": "shared", "training.calibration": "none"}, config.flat()
    for name, plain in chosen.items():
        if asked[name] != plain:
            raise ConfigError(
                f"{name} is {asked[name]}, but train-simple decides at threshold 0.5 and has no inner split to choose "
                f"it by; leave it out, or cross-validate: {command_line('gemma-nli', 'train', f'{name}={asked[name]}')}"
            )
    config = config.with_settings({"training.epoch_selection": "best", "data.num_folds": max(3, config.data.num_folds)})
    corpus = training_corpus(config.data)
    pairs = build_pairs(corpus, config.data)
    check_texts(config, corpus)
    split = split_of(pairs, config.data.negative_ratio)
    known, table = _without_test(corpus, pairs)
    on_each = on_epoch or (lambda _epoch, _metrics: None)
    fold = _train(config, known, table, features, on_each)
    if fold.status == DIVERGED:
        raise TrainingError(fold.detail or "the loss became NaN or infinite; lower training.learning_rate.")
    test = _test(config, corpus, pairs, split.test, fold)
    metrics = {f"test_{name}": value for name, value in test.items()}
    metrics["best_val_f1"] = fold.at("val_f1", fold.best_epoch)
    sizes = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    history = {name: fold.history[name] for name in PER_EPOCH}
    notes = (*corpus_notes(corpus, pairs), *quantization_notes([config.model]))
    return SimpleResult(history, fold.best_epoch, metrics, sizes, fold, corpus.fingerprint, notes)


def _train(config: RunConfig, corpus: Corpus, pairs: PairTable, features: FeatureStore, on_each: OnEpoch) -> FoldResult:
    """One fold that validates, in a table that has no test post."""
    validates = VALIDATION_FOLD - 1  # the test fold before it is gone
    if not config.model.freeze_encoder:

        def report_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            on_each(epoch, {name: metrics[name] for name in PER_EPOCH})

        return train_fold(config, corpus, pairs, validates, report_epoch)
    plan = plan_fold(config, pairs, validates)
    used = np.unique(np.concatenate([plan.fit, plan.selection, plan.evaluation]))
    (fold,) = train_folds(config, pairs, [validates], load_inputs(config, corpus, pairs, used, features))
    for epoch in range(1, fold.epochs + 1):
        on_each(epoch, {name: fold.at(name, epoch) for name in PER_EPOCH})
    return fold


def _test(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: Rows, fold: FoldResult) -> dict[str, float]:
    """The weights of the best epoch on the test pairs."""
    encoder = load_encoder(config.model, config.device)
    if not config.model.freeze_encoder:
        encoder = trainable_encoder(encoder, config.model, config.training.seed)
    classifier = PairClassifier(encoder, config.model)
    classifier.load_head_state(fold.state)
    trained = {name.removeprefix("encoder."): v for name, v in fold.state.items() if name.startswith("encoder.")}
    if trained:
        load_trainable_state(classifier.encoder, trained)
    premises, hypotheses = pair_texts(corpus.in_words(config.data.wording), pairs, rows)
    precision = resolve_precision(config.device, encoder.device)
    mixed = encoder.dtype == torch.float32 and precision != torch.float32
    with torch.autocast(encoder.device.type, dtype=precision, enabled=mixed):
        logits = classifier.predict(premises, hypotheses, config.features.batch_tokens)
    return fold_metrics(sigmoid(logits), pairs.label_N[rows], 0.5)


def _without_test(corpus: Corpus, pairs: PairTable) -> tuple[Corpus, PairTable]:
    """Corpus and table as if the test posts had never existed; the folds after theirs move up."""
    keep_P = np.ones(len(pairs.post_ids), dtype=bool)
    keep_P[pairs.post_N[pairs.fold_N == TEST_FOLD]] = False
    kept = [name for name, keep in zip(pairs.post_ids, keep_P.tolist(), strict=True) if keep]
    known = set(kept)
    smaller = dataclasses.replace(
        corpus,
        posts={name: corpus.posts[name] for name in kept},
        annotations=tuple(a for a in corpus.annotations if a.post_id in known),
        contradictions=(),
    )
    rows = np.flatnonzero(keep_P[pairs.post_N])
    place_P = np.cumsum(keep_P) - 1
    columns = {name: getattr(pairs, name)[rows] for name in ("criterion_N", "label_N", "source_N", "inner_N", "rank_N")}
    table = dataclasses.replace(
        pairs,
        post_ids=kept,
        group_P=pairs.group_P[keep_P],
        post_N=place_P[pairs.post_N[rows]].astype(np.int32),
        fold_N=(pairs.fold_N[rows] - 1).astype(np.int16),
        num_folds=pairs.num_folds - 1,
        corpus_fingerprint=smaller.fingerprint,
        **columns,
    )
    return smaller, table
