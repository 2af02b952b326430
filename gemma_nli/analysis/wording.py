"""How findings are said: differences, p-values, settings, lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.significance import Difference
from gemma_nli.spec.domain import shown

MANY = 12


def points(difference: Difference, score: str, behind: bool = False) -> str:
    """`0.031 F1 (95% interval 0.012 to 0.050)`; `behind` says it of b - a."""
    value, low, high = difference.value, difference.low, difference.high
    if behind:
        value, low, high = -value, -high, -low
    return f"{value:.3f} {score} ({difference.level:.0%} interval {low:.3f} to {high:.3f})"


def p_text(p: float) -> str:
    return "-" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "below 0.001"


def power_text(smallest: float, posts: int, score: str, trainings: int = 0) -> str:
    """What this design could have found; its error falls with the square root of the number of posts, and with that of
    trainings where they are counted.
    """
    more = f" and {4 * trainings} trainings per value (here {trainings})" if trainings else ""
    return (
        f"A true difference of {smallest:.3f} {score} would be found in 80% of cases; half of it takes about "
        f"{rounded(4 * posts):,} posts (here {posts:,}){more}."
    )


def evidence_text(evidence: Evidence, place: int) -> str:
    settings = evidence.complete[place].settings
    named = [f"{short(k)} {brief(settings[k])}" for k in evidence.varied if settings.get(k) is not None]
    return ", ".join(named) or "the base"


def brief(value: object) -> str:
    """A setting's value in a sentence or a cell: numbers that were drawn, to three digits."""
    return f"{value:.3g}" if isinstance(value, float) and len(str(value)) > 6 else shown(value)


def short(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def listed(names: Sequence[str]) -> str:
    """`mean, max and cls`; of very many their number."""
    if len(names) > MANY:
        return f"{len(names)} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def rounded(posts: float) -> int:
    """To two digits."""
    unit: int = 10 ** max(len(str(int(posts))) - 2, 0)
    return round(posts / unit) * unit
