"""Folds that were to choose something by an inner split and could not, named wherever a trial is shown."""

from __future__ import annotations

from collections.abc import Iterable

from gemma_nli.training.results import FINISHED, FoldResult


def fallback_note(folds: Iterable[FoldResult]) -> str:
    """`fold 2: the inner split's selection pairs lack a class: measured at ...`; empty where every fold chose."""
    why: dict[str, list[int]] = {}
    for fold in folds:
        if fold.status == FINISHED and fold.detail:
            why.setdefault(fold.detail, []).append(fold.fold)
    return "; ".join(
        f"{'fold' if len(numbers) == 1 else 'folds'} {', '.join(map(str, numbers))}: {detail}"
        for detail, numbers in why.items()
    )
