"""How the winner ranks the posts of one criterion, where knowing which criteria are frequent helps nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.base.metrics.macro import SUPPORT


@dataclass(frozen=True)
class WithinCriteria:
    """`auc`: the winner's macro AUC, over the criteria `averaged`; NaN where none has enough support."""

    auc: float
    averaged: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def over(self) -> str:
        """`mean over 7 of 9 criteria, those with ...`."""
        every = len(self.averaged) + len(self.left_out)
        return f"mean over {len(self.averaged)} of {every} criteria, those with {SUPPORT}"

    @property
    def sentence(self) -> str:
        """What stands beside the headline."""
        if math.isnan(self.auc):
            return f"Its AUC within a criterion is not known: no criterion has {SUPPORT}."
        return (
            f"Within a criterion, where knowing how frequent it is helps nothing, the best trial has AUC "
            f"{self.auc:.3f} (macro AUC: {self.over})."
        )

    @property
    def note(self) -> str:
        """Which criteria the macro means are without; empty if none."""
        if not self.left_out:
            return ""
        return f"Left out of every macro mean, which is of criteria with {SUPPORT}: {', '.join(self.left_out)}."


def within_criteria_of(evidence: Evidence, place: int) -> WithinCriteria:
    names, averaged = evidence.pairs.criterion_ids, evidence.observed.averaged
    auc = float(evidence.observed.scores(evidence.values("auc")[[place]], "macro_auc")[0])
    left_out = tuple(name for c, name in enumerate(names) if c not in averaged)
    return WithinCriteria(auc, tuple(names[c] for c in averaged), left_out)
