from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gemma_nli.training.frozen.stacked_adamw import StackedAdamW
from gemma_nli.training.rate_schedules import rate_factors

MODELS, STEPS = 3, 12


class Little(nn.Module):
    """A matrix and a bias a model, of unequal starting values."""

    def __init__(self, models: int = MODELS) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight_KDE = nn.Parameter(torch.randn(models, 4, 3, generator=generator))
        self.bias_K = nn.Parameter(torch.randn(models, generator=generator))


def losses_K(weight_KDE: torch.Tensor, bias_K: torch.Tensor, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + step)
    target = torch.randn(MODELS, 4, 3, generator=generator)[: len(bias_K)] * 10 ** torch.randn(1, generator=generator)
    return ((weight_KDE - target) ** 2).sum((1, 2)) + (bias_K - 2) ** 2


def one_by_one(model: int, rates_S: torch.Tensor, decay: float, clip: float | None, awake: list[int]) -> Little:
    """The same model trained alone by torch.optim.AdamW on the steps in which it is awake."""
    start = Little()
    alone = Little(1)
    with torch.no_grad():
        alone.weight_KDE.copy_(start.weight_KDE[model : model + 1])
        alone.bias_K.copy_(start.bias_K[model : model + 1])
    groups = [
        {"params": [alone.weight_KDE], "weight_decay": decay},
        {"params": [alone.bias_K], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    for clock, step in enumerate(awake):
        for group in optimizer.param_groups:
            group["lr"] = float(rates_S[min(clock, len(rates_S) - 1)])
        optimizer.zero_grad()
        whole_KDE = start.weight_KDE.detach().clone()
        bias_K = start.bias_K.detach().clone()
        weight = torch.cat([whole_KDE[:model], alone.weight_KDE, whole_KDE[model + 1 :]])
        losses_K(weight, torch.cat([bias_K[:model], alone.bias_K, bias_K[model + 1 :]]), step)[model].backward()
        if clip is not None:
            nn.utils.clip_grad_norm_([alone.weight_KDE, alone.bias_K], clip)
        optimizer.step()
    return alone


@settings(deadline=None, max_examples=12)
@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.sampled_from([0.0, 0.25, 0.9]),
    decay=st.sampled_from([0.0, 0.01, 5.0]),
    clip=st.sampled_from([None, 0.05, 1.0, 1e6]),
    sleeps=st.lists(st.sets(st.integers(0, MODELS - 1), max_size=MODELS), min_size=STEPS, max_size=STEPS),
    peaks=st.tuples(*[st.sampled_from([1e-4, 1e-2, 0.3])] * MODELS),
)
def test_each_model_moves_as_torch_adamw_would_move_it_alone(schedule, warmup, decay, clip, sleeps, peaks):
    rates_KS = torch.stack([peak * rate_factors(STEPS, warmup, schedule) for peak in peaks])
    together = Little()
    optimizer = StackedAdamW(together, rates_KS, decay, clip)
    for step, sleeping in enumerate(sleeps):
        asleep = torch.tensor(sorted(sleeping)) if sleeping else None
        optimizer.descend(losses_K(together.weight_KDE, together.bias_K, step).sum(), asleep)
    for model in range(MODELS):
        awake = [step for step, sleeping in enumerate(sleeps) if model not in sleeping]
        alone = one_by_one(model, rates_KS[model], decay, clip, awake)
        for name, parameter in together.named_parameters():
            torch.testing.assert_close(parameter[model], alone.get_parameter(name)[0], rtol=2e-6, atol=1e-6)


def test_a_model_that_becomes_nan_leaves_the_others_as_they_are():
    rates_KS = torch.full((MODELS, STEPS), 0.1, dtype=torch.float64)
    clean, hurt = Little(), Little()
    optimizers = [StackedAdamW(module, rates_KS, 0.01, 1.0) for module in (clean, hurt)]
    for step in range(STEPS):
        for module, optimizer in zip((clean, hurt), optimizers, strict=True):
            each_K = losses_K(module.weight_KDE, module.bias_K, step)
            if module is hurt:
                each_K = each_K * torch.tensor([1.0, float("nan"), 1.0])
            optimizer.descend(each_K.sum())
    assert torch.isnan(hurt.weight_KDE[1]).all()
    for model in (0, 2):
        assert torch.equal(clean.weight_KDE[model], hurt.weight_KDE[model])


def test_the_module_sees_every_step_because_its_parameters_are_views():
    module = Little()
    optimizer = StackedAdamW(module, torch.full((MODELS, 1), 0.1, dtype=torch.float64), 0.0, None)
    before = module.weight_KDE.detach().clone()
    optimizer.descend(module.weight_KDE.sum() + module.bias_K.sum())
    assert not torch.equal(module.weight_KDE, before)
    flat = torch.cat([module.weight_KDE.reshape(MODELS, -1), module.bias_K.reshape(MODELS, -1)], dim=1)
    assert torch.equal(flat, optimizer.values_KP)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_rate_rises_to_its_peak_over_the_warmup_and_never_above(schedule):
    factors = rate_factors(20, 0.25, schedule).tolist()
    assert factors[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    after = factors[5:]
    assert all(later <= earlier for earlier, later in pairwise(after))
    assert {"constant": 1.0, "linear": 1 / 15}.get(schedule, after[-1]) == pytest.approx(after[-1])
    assert 0 < after[-1] <= 1


def test_a_single_step_has_its_peak_rate():
    assert rate_factors(1, 0.0, "cosine").tolist() == [1.0]
