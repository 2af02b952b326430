"""The types of settings that name a part: the names that are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from gemma_nli.config.parts import (
    CALIBRATIONS,
    EPOCH_SELECTIONS,
    HEAD_NORMS,
    HEADS,
    LOSSES,
    POOLINGS,
    SCHEDULES,
    THRESHOLD_RULES,
)

if TYPE_CHECKING:
    Pooling: TypeAlias = str
    Head: TypeAlias = str
    HeadNorm: TypeAlias = str
    Loss: TypeAlias = str
    Schedule: TypeAlias = str
    Selection: TypeAlias = str
    Threshold: TypeAlias = str
    Calibration: TypeAlias = str
else:  # the names that are registered
    Pooling, Head, HeadNorm, Loss = (Literal[tuple(parts)] for parts in (POOLINGS, HEADS, HEAD_NORMS, LOSSES))
    Schedule, Selection = (Literal[tuple(parts)] for parts in (SCHEDULES, EPOCH_SELECTIONS))
    Threshold, Calibration = (Literal[tuple(parts)] for parts in (THRESHOLD_RULES, CALIBRATIONS))
