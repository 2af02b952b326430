"""How a classifier's logits are scaled so that their sigmoid is a probability that holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple


class Scaling(NamedTuple):
    """`slope * logit + intercept`; the slope is above 0, so that no order changes."""

    slope: float
    intercept: float

    def of(self, logits: Any) -> Any:
        """Scaled logits, an array or a tensor as they are; the very same ones where nothing is scaled."""
        return logits if self == UNSCALED else logits * self.slope + self.intercept

    def facts(self) -> dict[str, float]:
        """By name, as a bundle and a fold's history keep it."""
        return {"slope": self.slope, "intercept": self.intercept}

    def back(self, logit: float) -> float:
        """The logit that `of` makes this one of."""
        return (logit - self.intercept) / self.slope


UNSCALED = Scaling(1.0, 0.0)


def mean_scaling(scalings: Sequence[Scaling]) -> Scaling:
    """Of several models of one kind: the geometric mean of the slopes, and the mean of the intercepts."""
    if not scalings or set(scalings) == {UNSCALED}:
        return UNSCALED
    slope = math.exp(math.fsum(math.log(each.slope) for each in scalings) / len(scalings))
    return Scaling(slope, math.fsum(each.intercept for each in scalings) / len(scalings))
