"""An optimizer step: the gradient of the whole batch however it is cut, and memory that runs out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gemma_nli.base.errors import TrainingError
from gemma_nli.training.finetuning.adamw_groups import ScheduledAdamW, decays
from gemma_nli.training.finetuning.encoder_cache import release_shared_encoder, shared_encoder, trial_rows
from gemma_nli.training.finetuning.optimizer_step import MicroBatchWarning, Steps, is_out_of_memory
from tests.training.small_trials import (
    LORA,
    NO_DROPOUT,
    LimitedMemory,
    allocate_too_much,
    corpus,
    pairs_for,
    run_fold,
    trial,
)


@pytest.fixture(autouse=True)
def _no_encoder_left() -> None:
    release_shared_encoder()
    torch.set_num_threads(1)


def steps_on(folder: Path, precision: torch.dtype = torch.float32, **settings: Any) -> tuple[Steps, np.ndarray]:
    """Steps at the start of fold 1 and that fold's training rows."""
    config = trial(folder, **settings)
    setup, pairs = shared_encoder(config), pairs_for(config.data)
    rows = pairs.training_rows(1, config.data.negative_ratio)
    tokens = setup.tokens_of(config, corpus(), pairs, trial_rows(config, pairs))
    classifier = setup.classifier(config, 1)
    return Steps(config, pairs, rows, 1, classifier, tokens, precision, 10, MicroBatchWarning()), rows


def weights(steps: Steps) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in steps.classifier.named_parameters() if p.requires_grad}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance, msg=name)


def gradients(steps: Steps, rows: np.ndarray) -> dict[str, torch.Tensor]:
    assert steps._gradients(rows) is not None
    return {n: p.grad.clone() for n, p in steps.classifier.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["cross_entropy", "weighted", "focal"])
@pytest.mark.parametrize("encoding", ["joint", "separate"])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(tiny_gemma2: Path, loss: str, encoding: str) -> None:
    settings = {"training.loss": loss, "model.pair_encoding": encoding, "training.batch_size": 11, **NO_DROPOUT}
    settings |= {"training.label_smoothing": 0.1, "data.negative_ratio": 3.0}
    whole, rows = steps_on(tiny_gemma2, **settings)
    expected = gradients(whole, rows[:11])
    for cuts in (2, 4, 11):  # 4: micro-batches of 3, 3, 3 and 2
        parts, _ = steps_on(tiny_gemma2, **settings, **{"training.gradient_accumulation": cuts})
        assert parts.micro == -(-11 // cuts)
        assert_same(gradients(parts, rows[:11]), expected)
        assert_same(gradients(parts, rows[:7]), gradients(whole, rows[:7]))  # the short batch at an epoch's end
        expected = gradients(whole, rows[:11])


def test_a_step_is_the_textbook_step_of_torch(tiny_gemma3: Path) -> None:
    settings = {"training.weight_decay": 5.0, "training.encoder_learning_rate": 1e-4, "training.max_grad_norm": 0.2}
    steps, rows = steps_on(tiny_gemma3, **settings, **NO_DROPOUT, **{"training.gradient_accumulation": 3})
    before = weights(steps)
    batches = [rows[:16], rows[40:47]]
    losses = [float(steps.descend(batch)) for batch in batches]
    after = weights(steps)

    again, _ = steps_on(tiny_gemma3, **settings, **NO_DROPOUT)
    assert_same(weights(again), before, 0)
    classifier = again.classifier
    encoder = {n: p for n, p in classifier.named_parameters() if n.startswith("encoder.")}
    head = {n: p for n, p in classifier.named_parameters() if not n.startswith("encoder.")}
    groups = [
        {"params": [p for p in encoder.values() if p.ndim > 1], "lr": 1e-4, "weight_decay": 5.0},
        {"params": [p for p in encoder.values() if p.ndim == 1], "lr": 1e-4, "weight_decay": 0.0},
        {"params": [head["head.weight_KD"]], "lr": 1e-3, "weight_decay": 5.0},
        {"params": [head["head.bias_K"]], "lr": 1e-3, "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, foreach=False)
    clear = {name: torch.ones_like(p, dtype=torch.bool) for name, p in {**encoder, **head}.items()}
    for batch, loss in zip(batches, losses, strict=True):
        label_B = torch.from_numpy(pairs_for(steps.config.data).label_N[batch].astype(np.float32))
        expected = F.binary_cross_entropy_with_logits(again.tokens.logits(classifier, batch), label_B)
        assert loss == pytest.approx(expected.item(), abs=1e-6)
        reference.zero_grad()
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_([*encoder.values(), *head.values()], 0.2)
        assert norm > 0.2, "nothing was clipped: the test would show nothing"
        for name, parameter in {**encoder, **head}.items():
            clear[name] &= parameter.grad.abs() > 1e-5  # AdamW makes a whole step of a gradient that is all rounding
        reference.step()
    wanted = weights(again)
    assert sum(int(mask.sum()) for mask in clear.values()) > 10_000
    for name, mask in clear.items():
        torch.testing.assert_close(after[name][mask], wanted[name][mask], rtol=0, atol=2e-6, msg=name)


def test_biases_and_norms_do_not_decay(tiny_bert: Path, tiny_gemma2: Path) -> None:
    for folder in (tiny_bert, tiny_gemma2):
        settings = {"model.head": "mlp", "model.pooling_strategy": "attention", "training.weight_decay": 0.3}
        steps, _ = steps_on(folder, **settings)
        named = {id(p): n for n, p in steps.classifier.named_parameters()}
        kept = {named[id(p)] for g in steps.optimizer.adamw.param_groups if not g["weight_decay"] for p in g["params"]}
        decayed = {named[id(p)] for g in steps.optimizer.adamw.param_groups if g["weight_decay"] for p in g["params"]}
        trained = {n for n, p in steps.classifier.named_parameters() if p.requires_grad}
        assert kept | decayed == trained
        assert kept == {n for n in trained if "bias" in n or "norm" in n.lower()}
        assert {"head.weight_KE", "head.inner_KDE", "pooler.query_KH"} <= decayed
        assert all(decays(n, p) == (n in decayed) for n, p in steps.classifier.named_parameters() if n in trained)


def test_head_and_encoder_have_their_own_rates_on_one_schedule(tiny_bert: Path) -> None:
    settings = {"training.encoder_learning_rate": 1e-5, "training.warmup_ratio": 0.2, "training.schedule": "linear"}
    steps, _ = steps_on(tiny_bert, **settings)
    named = {id(p): n for n, p in steps.classifier.named_parameters()}

    def rates(optimizer: ScheduledAdamW, step: int) -> dict[bool, float]:
        optimizer.set_rates(step)
        return {named[id(p)].startswith("encoder."): g["lr"] for g in optimizer.adamw.param_groups for p in g["params"]}

    for step, factor in [(0, 1 / 3), (1, 2 / 3), (2, 1.0), (6, 0.5), (9, 1 / 8), (50, 1 / 8)]:
        assert rates(steps.optimizer, step) == {
            True: pytest.approx(1e-5 * factor, abs=1e-12),
            False: pytest.approx(1e-3 * factor, abs=1e-12),
        }
    alone, _ = steps_on(tiny_bert)
    assert {group["lr"] for group in alone.optimizer.adamw.param_groups} == {1e-3}


@pytest.mark.parametrize("where", ["forward", "cuda", "backward"])
@pytest.mark.parametrize("settings", [{}, LORA], ids=["all", "lora"])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_numbers(
    tiny_gemma3: Path, where: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = trial(tiny_gemma3, **settings, **NO_DROPOUT)
    roomy = run_fold(config)
    setup = shared_encoder(config)
    cramped = LimitedMemory(setup.encoder.model, lambda rows, tokens, training: training and rows > 5, where)
    with caplog.at_level(logging.WARNING, logger="gemma_nli"):
        tight, second = run_fold(config), run_fold(config, 2)
    cramped.handle.remove()
    assert {16, 8, 4} <= set(cramped.seen), "it went straight to small parts"
    np.testing.assert_allclose(tight.probabilities, roomy.probabilities, atol=1e-5)
    np.testing.assert_allclose(tight.history["train_loss"], roomy.history["train_loss"], atol=1e-5)
    assert_same(tight.state, roomy.state, 1e-4)  # AdamW's first steps magnify rounding
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1, "told once, for all folds"
    assert "4 pairs at a time" in warnings[0]
    assert "gradient_accumulation=4" in warnings[0]
    np.testing.assert_allclose(second.probabilities, run_fold(config, 2).probabilities, atol=1e-5)


def test_what_a_failed_attempt_had_added_is_forgotten(tiny_gemma2: Path) -> None:
    settings = {"training.gradient_accumulation": 2, **NO_DROPOUT}
    steps, rows = steps_on(tiny_gemma2, **settings)
    steps.descend(rows[:16])
    expected = weights(steps)
    tight, _ = steps_on(tiny_gemma2, **settings)
    calls: list[int] = []

    def second_part_fails(rows: int, tokens: int, training: bool) -> bool:
        calls.append(rows)
        return len(calls) == 2

    cramped = LimitedMemory(tight.classifier.encoder.model, second_part_fails, "backward")
    tight.descend(rows[:16])
    cramped.handle.remove()
    assert calls == [8, 8, 4, 4, 4, 4]
    assert_same(weights(tight), expected)


def test_a_step_done_again_in_parts_draws_the_dropout_of_those_parts(tiny_bert: Path) -> None:
    parts, rows = steps_on(tiny_bert, **{"training.gradient_accumulation": 4})
    parts.descend(rows[:16])
    tight, _ = steps_on(tiny_bert)
    cramped = LimitedMemory(tight.classifier.encoder.model, lambda rows, tokens, training: rows > 4)
    tight.descend(rows[:16])
    cramped.handle.remove()
    assert_same(weights(tight), weights(parts), 0)


def test_where_one_pair_does_not_fit_it_says_what_to_change(tiny_gemma2: Path) -> None:
    def nothing_fits(config_settings: dict[str, Any]) -> str:
        config = trial(tiny_gemma2, **config_settings)
        cramped = LimitedMemory(shared_encoder(config).encoder.model, lambda rows, tokens, training: training)
        with pytest.raises(TrainingError) as caught:
            run_fold(config)
        cramped.handle.remove()
        assert cramped.seen == [16, 8, 4, 2, 1]
        return str(caught.value)

    message = nothing_fits({})
    for hint in ("one pair of 48 tokens", "max_length (48)", "gradient_checkpointing=true", "model.lora", "smaller"):
        assert hint in message
    message = nothing_fits({**LORA, "device.gradient_checkpointing": True})
    assert "gradient_checkpointing" not in message
    assert "model.lora" not in message


def test_evaluation_too_goes_on_in_smaller_batches(tiny_gemma2: Path) -> None:
    config = trial(tiny_gemma2)
    roomy = run_fold(config)
    cramped = LimitedMemory(
        shared_encoder(config).encoder.model, lambda rows, tokens, training: not training and rows > 9
    )
    tight = run_fold(config)
    cramped.handle.remove()
    np.testing.assert_allclose(tight.probabilities, roomy.probabilities, atol=1e-6)
    cramped = LimitedMemory(shared_encoder(config).encoder.model, lambda rows, tokens, training: not training)
    with pytest.raises(TrainingError, match="one pair of"):
        run_fold(config)
    cramped.handle.remove()


def test_another_error_is_not_taken_for_a_lack_of_memory(tiny_gemma2: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        allocate_too_much()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    steps, rows = steps_on(tiny_gemma2)
    steps.classifier.head.weight_KD.data = torch.zeros(1, 5)
    with pytest.raises(RuntimeError, match="size"):
        steps.descend(rows[:4])


def test_half_precision_gradients_are_unscaled_before_clipping(tiny_gemma2: Path) -> None:
    settings = {**NO_DROPOUT, "training.max_grad_norm": 0.01}
    half, rows = steps_on(tiny_gemma2, torch.float16, **settings)
    expected = gradients(half, rows[:16])
    full, _ = steps_on(tiny_gemma2, **settings)
    true = gradients(full, rows[:16])
    scale = half.scaler.get_scale()
    assert scale > 1
    for name, tensor in true.items():
        torch.testing.assert_close(expected[name] / scale, tensor, rtol=0.05, atol=0.02 * float(tensor.abs().max()))
    half.descend(rows[:16])
    clipped = torch.stack([p.grad.norm() for p in half.optimizer.parameters]).norm()
    assert float(clipped) == pytest.approx(0.01, rel=1e-3)


def test_each_step_draws_dropout_of_its_own(tiny_gemma2: Path) -> None:
    steps, rows = steps_on(tiny_gemma2, **{"model.dropout": 0.5, "training.learning_rate": 1e-12})
    losses = [float(steps.descend(rows[:16])) for _ in range(4)]
    assert len({round(loss, 5) for loss in losses}) == 4
