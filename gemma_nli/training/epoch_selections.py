"""What a fold's epochs are chosen by (`training.epoch_selection`), and what the threshold comes from.

Shapes: V evaluation rows, I rows of the inner split.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gemma_nli.base.metrics import Counts
from gemma_nli.base.metrics.f1 import f1_of
from gemma_nli.base.part_registry import Registry
from gemma_nli.config import TrainingConfig
from gemma_nli.training.metrics import best_threshold, sigmoid

Floats = NDArray[np.floating]
Labels = NDArray[np.int8]


class EpochSelection:
    """One way to choose. `inner`: by a split of the training pairs, which gives the threshold too, else 0.5."""

    inner: ClassVar[bool] = False
    chooses: ClassVar[bool] = True

    def score(
        self, epoch: int, logits_V: Floats, label_V: Labels, inner_I: Floats | None, inner_label_I: Labels
    ) -> float:
        """What the epoch with the highest is chosen by."""
        raise TypeError("use a registered epoch selection")


EPOCH_SELECTIONS: Registry[type[EpochSelection]] = Registry("training.epoch_selection")
epoch_selection = EPOCH_SELECTIONS.part


@epoch_selection("inner", reads=("training.patience", "training.threshold", "training.calibration"))
class Inner(EpochSelection):
    """F1 on the inner split, at the one threshold that is best there, whatever `training.threshold` is: trials that
    differ in it alone decide the same predictions."""

    inner = True

    def score(
        self, epoch: int, logits_V: Floats, label_V: Labels, inner_I: Floats | None, inner_label_I: Labels
    ) -> float:
        assert inner_I is not None, "a fold chosen by its inner split is measured on it each epoch"
        return best_threshold(sigmoid(inner_I), inner_label_I)[1]


@epoch_selection("last", reads=())
class Last(EpochSelection):
    """Nothing chooses: each epoch beats the one before, and patience never ends."""

    chooses = False

    def score(
        self, epoch: int, logits_V: Floats, label_V: Labels, inner_I: Floats | None, inner_label_I: Labels
    ) -> float:
        return float(epoch)


@epoch_selection("best", reads=("training.patience",))
class Best(EpochSelection):
    """F1 on the very pairs that measure the fold, at 0.5: optimistic."""

    def score(
        self, epoch: int, logits_V: Floats, label_V: Labels, inner_I: Floats | None, inner_label_I: Labels
    ) -> float:
        return float(f1_of(Counts.of_rows(logits_V >= 0, label_V)))


def patience_of(training: TrainingConfig) -> int | None:
    """Epochs without a better score before a fold stops; None: it runs them all."""
    name = training.epoch_selection
    if not EPOCH_SELECTIONS.reads(name, "training.patience"):
        return None
    return training.patience
