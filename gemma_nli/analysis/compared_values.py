"""Which values the headline compares, and the trials of each: what is confirmed, and what the answer is about.

What `compare:` names, each combination of its values; else the one setting that varies; else, of several, the one with
the largest effect over the trials (`effects.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gemma_nli.analysis.effects import Effect, grouped
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.wording import listed

ChosenBy = Literal["compare", "only", "largest"]
BEST = "the best trial"
FRESH = ("data.fold_seed", "training.seed")
"""What a confirming trial changes; everything else is its leader's."""


@dataclass(frozen=True)
class ComparedValues:
    """`groups`: each value (or combination) and the places of its complete trials; fewer than two leave nothing to
    compare.
    """

    keys: tuple[str, ...]
    chosen_by: ChosenBy
    groups: tuple[tuple[str, list[int]], ...]

    def leaders(self, evidence: Evidence) -> dict[str, int]:
        """The best trial of each value, which is the one that is confirmed.

        Where nothing is compared, or what is compared are training seeds, which a confirming trial changes, the best of
        all.
        """
        if len(self.groups) < 2 or set(FRESH) & set(self.keys):
            return {BEST: evidence.winner}
        return {name: evidence.best_of(places) for name, places in self.groups}

    @property
    def setting(self) -> str:
        """`pooling_strategy`; of several `combination of layers and pooling_strategy`."""
        names = [key.rsplit(".", 1)[-1] for key in self.keys]
        return f"combination of {listed(names)}" if len(names) > 1 else "".join(names)


def compared_values(evidence: Evidence, effects: Callable[[], list[Effect]]) -> ComparedValues:
    """
    Args:
        effects: asked where several settings vary and none is named under `compare:`, the most important first.
    """
    if evidence.compared:
        return ComparedValues(tuple(evidence.compared), "compare", tuple(_combinations(evidence)))
    if len(evidence.varied) == 1:
        key, groups = evidence.varied[0], grouped(evidence, evidence.varied[0])
        return ComparedValues((key,), "only", tuple(groups)) if len(groups) > 1 else _NOTHING
    found = effects() if evidence.varied else []
    return ComparedValues((found[0].key,), "largest", tuple(grouped(evidence, found[0].key))) if found else _NOTHING


_NOTHING = ComparedValues((), "only", ())


def compared_groups(evidence: Evidence) -> list[list[int]]:
    """The trials of each value that `compare:` names; empty where it names none."""
    return [places for _, places in _combinations(evidence)] if evidence.compared else []


def _combinations(evidence: Evidence) -> list[tuple[str, list[int]]]:
    """Every combination of compared values that has a finished trial."""
    by_key = [grouped(evidence, key) for key in evidence.compared]
    found = []
    for combination in itertools.product(*by_key):
        places = sorted(set.intersection(*(set(places) for _, places in combination)))
        if places:
            first, *others = [name for name, _ in combination]
            found.append((f"{first} with {listed(others)}" if others else first, places))
    return found
