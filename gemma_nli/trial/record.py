"""A trial's key, and what its journal records of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gemma_nli.base.metrics.earlier_names import CURVE, CURVE_AT_HALF
from gemma_nli.config import SEMANTICS_VERSION, RunConfig
from gemma_nli.training.results import FoldResult

State = Literal["running", "finished", "failed", "pruned"]
UNKNOWN_ENCODER = "unknown"  # the fingerprint of an attempt that failed before its encoder could be read


def trial_key(config: RunConfig, fold_fingerprint: str, encoder_fingerprint: str, wording_fingerprint: str = "") -> str:
    """32 hex digits: same key, same numbers. Hashes what decides them and nothing else.

    Args:
        wording_fingerprint: of the criteria's texts, where `data.wording` names others than the usual ones, which the
            folds' fingerprint counts.
    """
    parts: list[Any] = [SEMANTICS_VERSION, config.canonical(), fold_fingerprint, encoder_fingerprint]
    if wording_fingerprint:
        parts.append(wording_fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass
class TrialRecord:
    """A journal read back. Times are milliseconds since 1970, as written when the thing happened."""

    key: str
    config: RunConfig
    state: State
    fold_fingerprint: str
    encoder_fingerprint: str
    num_folds: int
    semantics: int = SEMANTICS_VERSION
    attempts: int = 0
    folds: dict[int, FoldResult] = field(default_factory=dict)
    fold_ms: dict[int, int] = field(default_factory=dict)
    aggregates: dict[str, float] = field(default_factory=dict)
    criteria: dict[str, dict[str, float]] = field(default_factory=dict)
    started_ms: int = 0
    ended_ms: int | None = None
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    system: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # (ms, what the machine was doing)
    weights: dict[int, Path] = field(default_factory=dict)  # fold to the file of its trained adapters or encoder

    @property
    def fallen_back(self) -> list[int]:
        """Folds measured at their last epoch and threshold 0.5 since their inner split lacks a class."""
        return [number for number, fold in sorted(self.folds.items()) if fold.lacks_inner_split]

    @property
    def has_earlier_curves(self) -> bool:
        """Whether some fold's curves were measured at threshold 0.5 alone (`base/metrics/earlier_names.py`)."""
        return any(CURVE_AT_HALF in fold.history and CURVE not in fold.history for fold in self.folds.values())

    def metrics(self) -> dict[str, float]:
        """`cv_summary/*` of the folds that are done, and `cv_aggregate/*`."""
        summaries = {k: v for _, fold in sorted(self.folds.items()) for k, v in fold.summary().items()}
        return {**summaries, **self.aggregates}
