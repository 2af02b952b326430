"""Folds whose encoder is trained: what is selected and kept, that each setting acts, and that numbers repeat."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import TrainingError
from gemma_nli.base.metrics import METRICS
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import pair_texts
from gemma_nli.features import FeatureStore
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier, load_trainable_state, trainable_encoder
from gemma_nli.model.encoder import load_encoder
from gemma_nli.training.cross_validation import run_folds
from gemma_nli.training.finetuning.encoder_cache import release_shared_encoder, shared_encoder
from gemma_nli.training.finetuning.train_fold import fit_all, train_fold
from gemma_nli.training.fold import plan_fold
from gemma_nli.training.listeners import IgnoreEvents
from gemma_nli.training.metrics import sigmoid
from gemma_nli.training.results import DIVERGED, FINISHED, FoldResult, summarize
from gemma_nli.trial import TrialJournal
from tests.training.small_trials import LORA, NO_DROPOUT, corpus, pairs_for, run_fold, same_numbers, trial

LAST_LAYER = {"model.unfreeze_last_n": 1}
KINDS = {"all": {}, "lora": {**LORA, "model.head_norm": "standardize"}, "last": LAST_LAYER}


@pytest.fixture(autouse=True)
def _one_thread_and_no_encoder_left() -> None:
    release_shared_encoder()
    torch.set_num_threads(1)


@pytest.mark.parametrize("encoder", ["tiny_bert", "tiny_gemma2", "tiny_gemma3"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("encoding", ["joint", "separate"])
def test_what_is_kept_gives_the_out_of_fold_probabilities_again(
    encoder: str, kind: str, encoding: str, request: pytest.FixtureRequest
) -> None:
    settings = {"model.pair_encoding": encoding, "model.pooling_strategy": "attention", **KINDS[kind]}
    config = trial(request.getfixturevalue(encoder), **settings)
    result = run_fold(config)
    pairs = pairs_for(config.data)
    assert result.status == FINISHED
    assert result.rows.tolist() == pairs.evaluation_rows(1).tolist()

    again = PairClassifier(
        trainable_encoder(load_encoder(config.model, config.device), config.model, config.training.seed), config.model
    ).eval()
    trained = {name: p for name, p in again.named_parameters() if p.requires_grad}
    fitted = {name for name, _ in again.named_parameters() if name.startswith("norm.")}
    assert result.state.keys() == trained.keys() | fitted, "only what was trained or fitted is kept"
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in result.state.values())
    assert result.trained_parameters == sum(p.numel() for p in trained.values())
    logits = again.predict(*pair_texts(corpus(), pairs, result.rows))
    assert not np.allclose(sigmoid(logits), result.probabilities, atol=1e-3)
    again.load_head_state(result.state)
    prefix = "encoder."
    encoder_state = {n.removeprefix(prefix): t for n, t in result.state.items() if n.startswith(prefix)}
    load_trainable_state(again.encoder, encoder_state)
    logits = again.predict(*pair_texts(corpus(), pairs, result.rows))
    np.testing.assert_allclose(sigmoid(logits), result.probabilities, atol=1e-5)


def test_a_trained_encoders_head_is_normed_by_what_the_encoder_gave_at_first(tiny_gemma3: Path) -> None:
    config = trial(tiny_gemma3, **{"model.head_norm": "standardize", "training.num_epochs": 1})
    state = run_fold(config).state
    pairs = pairs_for(config.data)
    rows = plan_fold(config, pairs, 1).fit
    first = PairClassifier(load_encoder(config.model, config.device), config.model).eval()
    tokens = first.encoder.tokenize(*pair_texts(corpus(), pairs, rows))
    with torch.no_grad():
        x_BD = first.by_length(tokens, np.arange(len(rows)), 4096, first.vectors)
    torch.testing.assert_close(state["norm.mean_KD"][0], x_BD.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(1 / state["norm.scale_KD"][0], x_BD.std(0, correction=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_training_learns(tiny_gemma3: Path, kind: str) -> None:
    """From the post alone: no criterion is more frequent than another, so adapters of rank 2 learn slowly."""
    settings = {"training.learning_rate": 1e-2, "training.num_epochs": 10, **NO_DROPOUT, **KINDS[kind]}
    loss_E = run_fold(trial(tiny_gemma3, **settings)).history["train_loss"]
    assert min(loss_E[-3:]) < 0.95 * loss_E[0]


ACTING: list[dict[str, Any]] = [
    {"training.loss": "focal"},
    {"training.loss": "weighted", "data.negative_ratio": 3.0},
    {"training.label_smoothing": 0.2},
    {"training.schedule": "linear"},
    {"training.schedule": "cosine"},
    {"training.warmup_ratio": 0.5},
    {"training.weight_decay": 5.0},
    {"training.max_grad_norm": 0.001},
    {"training.encoder_learning_rate": 1e-2},
    {"training.seed": 7},
    {"training.batch_size": 8},
    {"model.dropout": 0.5},
    {"model.head": "mlp"},
    {"model.pooling_strategy": "attention_kv"},
    {"model.attention": "bidirectional"},
    {"device.mixed_precision": "bf16"},
    {"model.lora.rank": 2},
    {"model.lora.rank": 2, "model.lora.dropout": 0.5},
    {"model.lora.rank": 2, "model.lora.alpha": 64.0},
    {"model.lora.rank": 2, "model.lora.target_modules": "all-linear"},
    {"model.unfreeze_last_n": 1},
]


def test_every_setting_acts(tiny_gemma2: Path) -> None:
    seen: dict[tuple[float, ...], Any] = {}
    for settings in [{}, {"data.negative_ratio": 3.0}, *ACTING]:
        result = run_fold(trial(tiny_gemma2, **{"training.num_epochs": 1, "model.max_length": 32, **settings}))
        assert result.status == FINISHED, settings
        reported = (*result.history["train_loss"], *result.history["val_loss"])
        assert all(math.isfinite(value) for value in reported), settings
        assert reported not in seen, f"{settings} gives the numbers of {seen[reported]}"
        seen[reported] = settings


@pytest.mark.parametrize(
    "settings",
    [
        {"device.gradient_checkpointing": True},
        {"training.gradient_accumulation": 5},
        {"features.batch_tokens": 64},
        pytest.param({"device.compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_settings_of_speed_and_memory_leave_the_numbers(tiny_gemma3: Path, kind: str, settings: dict[str, Any]) -> None:
    plain = run_fold(trial(tiny_gemma3, **NO_DROPOUT, **KINDS[kind]))
    other = run_fold(trial(tiny_gemma3, **NO_DROPOUT, **KINDS[kind], **settings))
    np.testing.assert_allclose(other.history["train_loss"], plain.history["train_loss"], atol=1e-5)
    np.testing.assert_allclose(other.probabilities, plain.probabilities, atol=1e-4)


def test_checkpointing_does_recompute(tiny_bert: Path) -> None:
    calls = []
    for on in (False, True):
        setup = shared_encoder(trial(tiny_bert, **LAST_LAYER, **{"device.gradient_checkpointing": on}))
        layers = setup.encoder.model.encoder.layer
        handle = layers[1].attention.register_forward_hook(lambda *_: calls.append(1))
        calls.clear()
        setup.encoder.train()
        h_BTH = setup.encoder(setup.encoder.collate(setup.encoder.tokenize(["i feel sad"])))
        h_BTH.sum().backward()
        handle.remove()
        assert len(calls) == 1 + on


@pytest.mark.parametrize("family", ["fnet", "nystromformer", "convbert"])
@pytest.mark.parametrize("encoding", ["joint", "separate"])
def test_what_stands_beside_a_text_in_a_batch_trains_nothing(tiny_encoder, family: str, encoding: str) -> None:
    """These encoders let a longer text change a shorter one; alone (a row at a time) nothing can."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = trial(tiny_encoder(family, **quiet), **NO_DROPOUT, **{"model.pair_encoding": encoding})
    batches = run_fold(config.with_settings({"training.num_epochs": 1}))
    rows = {"training.num_epochs": 1, "training.gradient_accumulation": 16, "features.batch_tokens": 64}
    alone = run_fold(config.with_settings(rows))
    np.testing.assert_allclose(alone.history["train_loss"], batches.history["train_loss"], atol=1e-5)
    np.testing.assert_allclose(alone.probabilities, batches.probabilities, atol=1e-4)


def test_a_pass_that_cannot_be_repeated_is_not_checkpointed(tiny_encoder) -> None:
    with pytest.raises(TrainingError, match=r"gradient_checkpointing: .* cannot be repeated; set it to false"):
        run_fold(trial(tiny_encoder("big_bird"), **{"device.gradient_checkpointing": True}))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
def test_half_precision_trains_on_a_gpu(tiny_gemma3: Path, precision: str) -> None:
    for kind in KINDS.values():
        settings = {"device.device": "cuda", "device.mixed_precision": precision, **kind}
        result = run_fold(trial(tiny_gemma3, **settings))
        assert result.status == FINISHED
        assert np.isfinite(result.probabilities).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_fold_gives_the_same_numbers_whatever_ran_before(tiny_bert: Path, kind: str) -> None:
    config = trial(tiny_bert, **KINDS[kind])
    second = run_fold(config, 2)
    first = run_fold(config, 1)
    assert same_numbers(run_fold(config, 2), second), "after another fold, on the same encoder"
    assert not same_numbers(first, second)
    shared_encoder(config).first_weights = None
    assert same_numbers(run_fold(config, 2), second), "its first weights read from disk again"
    release_shared_encoder()
    torch.rand(5)
    assert same_numbers(run_fold(config, 2), second), "in a fresh process, as good as"
    assert not same_numbers(run_fold(config.with_settings({"training.seed": 7}), 2), second)


def test_the_callers_random_numbers_are_left_alone(tiny_bert: Path) -> None:
    config = trial(tiny_bert)
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    run_fold(config)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("selection", ["inner", "last", "best"])
def test_the_epoch_is_selected_as_asked_and_its_weights_are_kept(tiny_gemma2: Path, selection: str) -> None:
    settings = {"training.epoch_selection": selection, "training.num_epochs": 5, "training.learning_rate": 3e-3}
    config = trial(tiny_gemma2, **settings)
    reported: list[tuple[int, Mapping[str, float]]] = []
    result = train_fold(config, corpus(), pairs_for(config.data), 1, lambda epoch, m: reported.append((epoch, dict(m))))
    assert [epoch for epoch, _ in reported] == [1, 2, 3, 4, 5]
    for name, values in result.history.items():
        assert [metrics[name] for _, metrics in reported] == values
    assert ("inner_f1" in result.history) == (selection == "inner")
    chosen_by = {"inner": "inner_f1", "best": "val_f1", "last": None}[selection]
    expected = 5 if chosen_by is None else int(np.argmax(result.history[chosen_by])) + 1
    assert result.selected_epoch == expected
    assert result.best_epoch == int(np.argmax(result.history["val_f1"])) + 1
    assert (result.threshold == 0.5) == (selection != "inner")
    for name in METRICS:
        assert result.at(f"val_{name}", expected) == result.metrics[name], name
    if expected < 5:  # the same rates for as long: then the last epoch's weights are those that were kept
        shorter = run_fold(config.with_settings({"training.num_epochs": expected, "training.epoch_selection": "last"}))
        same_rows = plan_fold(config, pairs_for(config.data), 1).chosen_by != "inner"
        assert not same_rows or all(torch.equal(t, result.state[n]) for n, t in shorter.state.items())


def test_patience_counts_epochs_without_a_better_f1(tiny_gemma2: Path) -> None:
    config = trial(tiny_gemma2, **{"training.num_epochs": 8, "training.learning_rate": 1e-2})
    scores = run_fold(config).history["inner_f1"]
    stops = [e for e in range(1, 9) if e - (int(np.argmax(scores[:e])) + 1) >= 2]
    assert stops, "it never stalls: the test would show nothing"
    assert stops[0] < 8, "it never stalls early enough"
    stopped = run_fold(config.with_settings({"training.patience": 2}))
    assert stopped.epochs == stops[0]
    assert stopped.history["inner_f1"] == scores[: stops[0]]


@pytest.mark.parametrize("step", [1, 5])
def test_a_loss_that_is_no_number_ends_the_fold_as_diverged(tiny_gemma2: Path, step: int) -> None:
    config = trial(tiny_gemma2)
    network = shared_encoder(config).encoder.model
    steps = 0

    def poison(module: torch.nn.Module, args: Any, output: Any) -> None:
        nonlocal steps
        steps += module.training
        if steps == step and module.training:
            output.last_hidden_state.data.fill_(math.inf)

    handle = network.register_forward_hook(poison)
    bad = run_fold(config)
    handle.remove()
    assert bad.status == DIVERGED
    assert "lower training.learning_rate" in bad.detail
    assert bad.state == {}
    assert len(bad.rows) == 0
    good = run_fold(config, 2)
    assert good.status == FINISHED, "the next fold begins with sound weights"
    aggregates = summarize([bad, good], pairs_for(config.data)).aggregates
    assert aggregates["cv_aggregate/mean_f1"] == good.metrics["f1"]


def test_divergence_after_a_good_epoch_keeps_its_history(tiny_gemma2: Path) -> None:
    config = trial(tiny_gemma2, **{"training.num_epochs": 3})
    network = shared_encoder(config).encoder.model

    def poison(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 2:
            next(network.parameters()).data.fill_(math.nan)

    result = train_fold(config, corpus(), pairs_for(config.data), 1, poison)
    assert result.status == DIVERGED
    assert result.epochs == 2
    assert "epoch 3" in result.detail


def test_a_refit_can_be_saved_and_no_later_fold_changes_it(tiny_bert: Path, tmp_path: Path) -> None:
    config = trial(tiny_bert, **LORA)
    pairs = pairs_for(config.data)
    rows = pairs.all_rows(config.data.negative_ratio)
    classifier = fit_all(config, corpus(), pairs, rows, epochs=2)
    texts = pair_texts(corpus(), pairs, rows[:20])
    logits = classifier.predict(*texts)
    assert not classifier.training
    run_fold(config)
    np.testing.assert_array_equal(classifier.predict(*texts), logits)
    np.testing.assert_array_equal(fit_all(config, corpus(), pairs, rows, epochs=2).predict(*texts), logits)
    assert not np.allclose(fit_all(config, corpus(), pairs, rows, epochs=1).predict(*texts), logits)
    save_bundle(tmp_path / "b", config, classifier, 0.5, {})
    loaded = load_bundle(tmp_path / "b").classifier
    np.testing.assert_allclose(loaded.predict(*texts), logits, atol=1e-5)


def _spoil(output: Any) -> None:
    output.last_hidden_state.data.fill_(math.nan)


def test_a_refit_that_diverges_says_so(tiny_gemma2: Path) -> None:
    config = trial(tiny_gemma2)
    shared_encoder(config).encoder.model.register_forward_hook(lambda module, args, output: _spoil(output))
    rows = pairs_for(config.data).all_rows(1.0)
    with pytest.raises(TrainingError, match="became NaN or infinite in epoch 1 of the refit"):
        fit_all(config, corpus(), pairs_for(config.data), rows, 1)


class _Recorder(IgnoreEvents):
    """Notes which folds run; with `kill_in`, ends its own process without a word after that fold's first epoch."""

    def __init__(self, kill_in: int | None = None) -> None:
        self.kill_in, self.ran = kill_in, set[int]()

    def epoch_ended(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self.ran.add(fold)
        if fold == self.kill_in:
            os.kill(os.getpid(), signal.SIGKILL)


def resumable(folder: Path) -> RunConfig:
    return trial(folder, **LORA, **{"model.lora.dropout": 0.1, "data.num_folds": 4, "training.num_epochs": 2})


def run_trial(config: RunConfig, storage: Path, kill_in: int | None = None) -> tuple[dict[int, FoldResult], set[int]]:
    """As a trial of a sweep does: claim, read, run what is missing, write fold by fold."""
    pairs, journal, recorder = pairs_for(config.data), TrialJournal(storage, "ab" * 16), _Recorder(kill_in)
    with journal.claim():
        record = journal.read()
        done = dict(record.folds) if record else {}
        journal.start(config, pairs.fingerprint, "encoder", pairs.num_folds)
        store = FeatureStore(storage / "features", config.features)
        for folds in run_folds(config, corpus(), pairs, store, done, [recorder]):
            journal.add_folds(folds, keep_weights=False)
    finished = journal.read()
    assert finished is not None
    return finished.folds, recorder.ran


_DRIVER = """
import sys
from pathlib import Path
import torch
from tests.training import test_finetune
torch.set_num_threads(1)
test_finetune.run_trial(test_finetune.resumable(Path(sys.argv[1])), Path(sys.argv[2]), kill_in=3)
"""


def test_a_lora_trial_killed_in_fold_3_goes_on_there_with_the_same_numbers(tiny_bert: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(tiny_bert), str(tmp_path / "killed")],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    before = TrialJournal(tmp_path / "killed", "ab" * 16).read()
    assert before is not None
    assert sorted(before.folds) == [1, 2]
    config = resumable(tiny_bert)
    resumed, ran = run_trial(config, tmp_path / "killed")
    assert ran == {3, 4}, "folds 1 and 2 are not run again"
    undisturbed, everything = run_trial(config, tmp_path / "whole")
    assert everything == {1, 2, 3, 4}
    for fold in (1, 2, 3, 4):
        assert resumed[fold].probabilities.tobytes() == undisturbed[fold].probabilities.tobytes()
        assert resumed[fold].history == undisturbed[fold].history
