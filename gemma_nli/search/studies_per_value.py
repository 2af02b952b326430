"""One Optuna study per compared value, searched side by side: each with the same sampler, seed and number of trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gemma_nli.search.study import Proposal, SweepStudy


class StudyPerVariant:
    """Behaves as one SweepStudy whose trials are given to the compared values in turn."""

    def __init__(self, variants: Sequence[tuple[Mapping[str, Any], SweepStudy]]) -> None:
        """
        Args:
            variants: the compared settings of each compared value, and the study that tunes the rest for them.
        """
        self.variants = [(dict(fixed), study) for fixed, study in variants]
        self._asked = [0] * len(self.variants)
        self._trials: list[tuple[SweepStudy, int]] = []

    @property
    def counted(self) -> int:
        return sum(study.counted for _, study in self.variants)

    def propose(self) -> Proposal | None:
        """The next configuration of the compared value that has been asked least; None where none has one now."""
        for index in sorted(range(len(self.variants)), key=lambda variant: self._asked[variant]):
            fixed, study = self.variants[index]
            proposal = study.propose()
            if proposal is not None:
                self._asked[index] += 1
                self._trials.append((study, proposal.number))
                settings = {**fixed, **proposal.settings}
                return dataclasses.replace(proposal, number=len(self._trials) - 1, settings=settings)
        return None

    def report(self, number: int, folds_done: int, mean_f1: float) -> None:
        study, own = self._trials[number]
        study.report(own, folds_done, mean_f1)

    def finish(self, number: int, metrics: Mapping[str, float]) -> None:
        study, own = self._trials[number]
        study.finish(own, metrics)

    def prune(self, number: int, reason: str = "") -> None:
        study, own = self._trials[number]
        study.prune(own, reason)

    def fail(self, number: int, reason: str = "") -> None:
        study, own = self._trials[number]
        study.fail(own, reason)

    def close(self, reason: str = "the sweep ended before it did") -> None:
        for _, study in self.variants:
            study.close(reason)
