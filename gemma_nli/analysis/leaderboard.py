"""Every trial in order, and which of them cannot be distinguished from the winner.

Letters: T trials, S draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.best_of_trials import LEVEL
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.base.metrics import MACRO_AUC, MEAN_AUC, MEAN_F1


@dataclass(frozen=True)
class Row:
    """A trial on the leaderboard; `behind` the winner with a simultaneous interval, NaN for trials that lack a fold."""

    rank: int | None
    key: str
    sweep: str
    settings: Mapping[str, Any]
    state: str
    score: float
    std: float
    f1: float
    auc: float
    macro_auc: float
    behind: float
    low: float
    high: float
    level_with_winner: bool
    note: str


def leaderboard(evidence: Evidence, draws: Draws) -> list[Row]:
    """All trials, complete ones first by score; the rest as far as they came.

    The intervals hold for all comparisons with the winner at once (their widths come of the largest standardized
    difference in each draw), so that a long table does not produce differences by its length alone.

    Source: Hothorn, Bretz and Westfall 2008, "Simultaneous Inference in General Parametric Models" (max-t), with the
    bootstrap's draws in place of a normal distribution.
    """
    winner, score_T = evidence.winner, draws.score_T
    order = [winner, *sorted((t for t in range(len(score_T)) if t != winner), key=lambda t: -score_T[t])]
    behind_T, reach_T = simultaneous(draws, winner)
    fold_TK = evidence.fold_scores(draws.metric)
    f1_T, auc_T, macro_auc_T = (evidence.scores(name) for name in ("f1", "auc", "macro_auc"))
    std_T = np.nanstd(fold_TK, axis=1, ddof=1)
    rows = []
    for rank, place in enumerate(order, start=1):
        trial, behind, reach = evidence.complete[place], float(behind_T[place]), float(reach_T[place])
        rows.append(
            Row(
                rank,
                trial.key,
                trial.sweep,
                trial.settings,
                trial.state,
                float(score_T[place]),
                float(std_T[place]),
                float(f1_T[place]),
                float(auc_T[place]),
                float(macro_auc_T[place]),
                behind,
                behind - reach,
                behind + reach,
                behind - reach <= 0,
                trial.note,
            )
        )
    nothing = math.nan
    for trial in evidence.trials:
        if trial.place is None:
            f1, auc, macro_auc = (trial.metrics.get(name, nothing) for name in (MEAN_F1, MEAN_AUC, MACRO_AUC))
            facts = (trial.key, trial.sweep, trial.settings, trial.state, nothing, nothing, f1, auc, macro_auc)
            note = f"{trial.folds_done} of {evidence.pairs.num_folds} folds; {trial.note}".rstrip("; ")
            rows.append(Row(None, *facts, nothing, nothing, nothing, False, note))
    return rows


def simultaneous(draws: Draws, winner: int) -> tuple[np.ndarray, np.ndarray]:
    """(T,) how far each trial lies behind the winner, and half the width of its interval."""
    behind_T = draws.score_T[winner] - draws.score_T
    behind_ST = draws.inside_ST[:, [winner]] - draws.inside_ST
    behind_ST = draws.bootstrap.widened(behind_ST, behind_T)
    spread_T = np.nanstd(behind_ST, axis=0)
    standardized_ST = np.abs(behind_ST - behind_T) / np.where(spread_T > 0, spread_T, np.inf)
    critical = float(np.nanquantile(standardized_ST.max(1), LEVEL))
    return behind_T, critical * spread_T
