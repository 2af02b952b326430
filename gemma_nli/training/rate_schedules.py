"""The learning rate over a fold's steps: a rise over the warmup, then what `training.schedule` says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gemma_nli.base.part_registry import Registry

SCHEDULES: Registry[Callable[[float], float]] = Registry("training.schedule")
rate_schedule = SCHEDULES.part


@rate_schedule("constant", reads=())
def constant(left: float) -> float:
    return 1.0


@rate_schedule("linear", reads=())
def linear(left: float) -> float:
    return left


@rate_schedule("cosine", reads=())
def cosine(left: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * left))


def rate_factors(steps: int, warmup_ratio: float, schedule: str) -> Tensor:
    """(steps,) factor of the peak rate at each step; a schedule is given the share of the steps that is left."""
    warmup, after = math.ceil(steps * warmup_ratio), SCHEDULES[schedule]
    factors = []
    for step in range(steps):
        if step < warmup:
            factors.append((step + 1) / (warmup + 1))
            continue
        factors.append(after(1 - (step - warmup) / max(1, steps - warmup)))
    return torch.tensor(factors, dtype=torch.float64)
