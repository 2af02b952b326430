"""What makes a fold's logits probabilities that hold (`training.calibration`), fitted on its inner split alone.

Shapes: R pairs that it is fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.part_registry import Registry
from gemma_nli.model.scaling import UNSCALED, Scaling
from gemma_nli.training.metrics import sigmoid

Floats = NDArray[np.float64]
Calibration = Callable[[NDArray[np.floating[Any]], NDArray[np.int8]], Scaling | None]
"""(R,) logits and labels to how logits are scaled; None where they do not rise with the labels."""
CALIBRATIONS: Registry[Calibration] = Registry("training.calibration")
calibration = CALIBRATIONS.part
_RIDGE = 1e-2  # of the slope per standard deviation of the logits: classes that are apart would make it endless


@calibration("none", reads=())
def none(logit_R: NDArray[np.floating[Any]], label_R: NDArray[np.int8]) -> Scaling | None:
    return UNSCALED


@calibration("platt", reads=())
def fit_platt(logit_R: NDArray[np.floating[Any]], label_R: NDArray[np.int8]) -> Scaling | None:
    """The slope and intercept under which the labels are most likely; None without both classes or a rising slope.

    Source: Platt 1999, "Probabilistic outputs for support vector machines"; Newton's method with halved steps as in
    Lin, Lin and Weng 2007.
    """
    positives = int(label_R.sum())
    center, spread = float(np.mean(logit_R)), float(np.std(logit_R))
    if not 0 < positives < len(label_R) or not spread > 0:
        return None
    u_R = (np.asarray(logit_R, dtype=np.float64) - center) / spread
    design_R2 = np.stack([u_R, np.ones(len(u_R))], axis=1)
    weights_2 = np.array([0.0, np.log(positives / (len(label_R) - positives))])
    loss = _loss(design_R2, label_R, weights_2)
    for _ in range(100):
        likely_R = sigmoid(design_R2 @ weights_2)
        slope_2 = design_R2.T @ (likely_R - label_R) + _RIDGE * np.array([weights_2[0], 0.0])
        bend_22 = (design_R2.T * (likely_R * (1 - likely_R))) @ design_R2 + np.diag([_RIDGE, 1e-9])
        step_2 = np.linalg.solve(bend_22, slope_2)
        while _loss(design_R2, label_R, weights_2 - step_2) > loss + 1e-12 and np.abs(step_2).max() > 1e-9:
            step_2 = step_2 / 2
        weights_2 = weights_2 - step_2
        gained, loss = loss - _loss(design_R2, label_R, weights_2), _loss(design_R2, label_R, weights_2)
        if gained < 1e-10:
            break
    slope = float(weights_2[0]) / spread
    return Scaling(slope, float(weights_2[1]) - slope * center) if slope > 0 else None


def _loss(design_R2: Floats, label_R: NDArray[np.int8], weights_2: Floats) -> float:
    """Negative log-likelihood in nats, with the ridge."""
    logit_R = design_R2 @ weights_2
    return float((np.logaddexp(0, logit_R) - label_R * logit_R).sum() + _RIDGE * weights_2[0] ** 2 / 2)
