"""A sweep's result: one object for `--json`, for Python and for the closing lines of the command."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gemma_nli.base.metrics import MEAN_F1
from gemma_nli.sweep.records.outcome import TrialOutcome


@dataclass
class SweepResult:
    """`seconds`: total, encode, tune, finalize. `texts`: encoded now, reused from the store. `ran`: trials run now.

    `trials`: how many have ended, and how; `waiting`: those without an end; both together are the sweep's cells.
    `confirming`: the same for the leaders' repeats, None without any. `failures`: why trials failed.
    `metric` decides; `measured_at` stands beside every score.
    `report`: where it is and what it says. `undelivered`: updates that MLflow does not have; `unregistered`: why the
    best trial is not a model version yet.
    """

    sweep_id: str
    sweep_run_id: str | None
    name: str
    experiment: str
    trials: dict[str, int]
    ran: int
    best: TrialOutcome | None
    best_run_id: str | None
    registered: dict[str, Any] | None
    seconds: dict[str, float]
    texts: dict[str, int]
    interrupted: bool = False
    undelivered: int = 0
    unregistered: str | None = None
    notes: list[str] = field(default_factory=list)
    pareto: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] | None = None
    waiting: int = 0
    confirming: dict[str, int] | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    metric: str = MEAN_F1
    measured_at: str = ""
    ranked: list[TrialOutcome] = field(default_factory=list)

    @property
    def cells(self) -> int:
        """All trials of the sweep: those that have ended and those waiting."""
        return sum(self.trials.values()) + self.waiting

    @property
    def exit_status(self) -> int:
        """0: all cells ended well; 1: some failed or have no end, or none finished; 130: interrupted."""
        if self.interrupted:
            return 130
        again = self.confirming or {}
        lost = self.trials["failed"] + self.waiting + again.get("failed", 0) + again.get("waiting", 0)
        return 1 if lost or self.best is None else 0

    def to_json(self) -> dict[str, Any]:
        best = None
        if self.best is not None:
            metrics = {k: (v if math.isfinite(v) else None) for k, v in self.best.metrics.items()}
            best = {"run_id": self.best_run_id, "key": self.best.key, "params": self.best.settings, "metrics": metrics}
        return {
            "sweep_id": self.sweep_id,
            "sweep_run_id": self.sweep_run_id,
            "name": self.name,
            "experiment": self.experiment,
            "metric": self.metric,
            "measured_at": self.measured_at,
            "cells": self.cells,
            "trials": self.trials,
            "waiting": self.waiting,
            **({"confirming": self.confirming} if self.confirming else {}),
            "failures": self.failures,
            "exit_status": self.exit_status,
            "ran": self.ran,
            "best": best,
            "registered": self.registered,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "texts": self.texts,
            "interrupted": self.interrupted,
            "undelivered": self.undelivered,
            "unregistered": self.unregistered,
            "notes": self.notes,
            "report": self.report,
            **({"pareto": self.pareto} if self.pareto else {}),
        }
