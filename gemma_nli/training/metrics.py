"""The table's metrics of whole training curves at once, of a fold, and the threshold of the best F1.

Shapes: E epochs, N rows. scikit-learn computes each metric for one vector of scores; a trial of 5 folds x 20 epochs
needs a hundred of each, which would cost more than training its heads, so these take all epochs in one call. The tests
hold them equal to scikit-learn's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import AT_HALF, Counts, scores_of
from gemma_nli.base.metrics.f1 import f1_of

Floats = NDArray[np.float64]


def log_loss(logits_EN: Floats, labels_N: NDArray[np.int8]) -> Floats:
    """(E,) mean cross-entropy of logits, in nats."""
    return np.asarray((np.logaddexp(0, logits_EN) - logits_EN * labels_N).mean(1), dtype=np.float64)


def out_of_fold(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Probabilities as a journal keeps them, and as everything is measured on."""
    return sigmoid(logits).astype(np.float32)


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64))))


def log_odds(probabilities: NDArray[np.floating]) -> Floats:
    """What `sigmoid` makes these of; 0 and 1 are taken for the nearest that are finite."""
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside / (1 - inside)))


def curves(
    logits_EN: NDArray[np.floating],
    labels_N: NDArray[np.int8],
    probability_EN: NDArray[np.float32] | None = None,
    threshold_EN: NDArray[np.floating] | float = 0.5,
) -> dict[str, Floats]:
    """`val_loss`, `val_NAME` of every metric of the table, and `val_f1_at_half`, of every epoch.

    Args:
        logits_EN: as they are trained; only the loss is of them.
        probability_EN: what they mean, calibrated where that is asked for; else their sigmoid.
        threshold_EN: what the fold would be decided by if the epoch were chosen: decisions are at it, so that at the
            chosen epoch `val_NAME` is what `fold_metrics` gives. `val_f1_at_half` is at threshold 0.5.
    """
    exact_EN = np.asarray(logits_EN, dtype=np.float64)
    kept_EN = out_of_fold(exact_EN) if probability_EN is None else probability_EN
    probability_EN = kept_EN.astype(np.float64)
    scores = scores_of(probability_EN >= threshold_EN, probability_EN, labels_N)
    halved_E = f1_of(Counts.of_rows(probability_EN >= 0.5, labels_N))
    return {
        "val_loss": log_loss(exact_EN, labels_N),
        **{f"val_{name}": values for name, values in scores.items()},
        f"val_f1{AT_HALF}": halved_E,
    }


def best_threshold(probabilities_N: NDArray[np.floating], labels_N: NDArray[np.int8]) -> tuple[float, float]:
    """The probability (or score of any range) from which on calling a pair matched gives the best F1, and that F1.

    The threshold lies midway between two neighbouring scores, the lowest one's between it and 0; among equal F1s the
    highest threshold wins. Without a positive label it is 0.5 and the F1 is 0.
    """
    if not labels_N.any():
        return 0.5, 0.0
    order_N = np.argsort(-probabilities_N, kind="stable")
    scores_N = np.asarray(probabilities_N, dtype=np.float64)[order_N]
    hit_N, named_N = labels_N[order_N].cumsum().astype(np.float64), np.arange(1.0, len(order_N) + 1)
    real_N, every_N = np.full(len(order_N), hit_N[-1]), np.full(len(order_N), float(len(order_N)))
    f1_N = f1_of(Counts(hit_N, named_N, real_N, every_N))
    f1_N[:-1][scores_N[:-1] == scores_N[1:]] = -1.0
    best = int(f1_N.argmax())
    below = scores_N[best + 1] if best + 1 < len(scores_N) else min(0.0, scores_N[best])
    return float((scores_N[best] + below) / 2), float(f1_N[best])


def fold_metrics(
    probabilities_N: NDArray[np.floating], labels_N: NDArray[np.int8], threshold: float | NDArray[np.floating]
) -> dict[str, float]:
    """Every metric of the table of one fold: decisions at `threshold`, one or (N,) a pair's own; ranks without one."""
    exact_1N = np.asarray(probabilities_N, dtype=np.float64)[None]
    return {name: float(score_1[0]) for name, score_1 in scores_of(exact_1N >= threshold, exact_1N, labels_N).items()}
