"""Tables of what confirming trainings say: each value's scores, and how far posts, seeds and folds move them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.confirmation import Confirmation
from gemma_nli.analysis.report.report_tables import TableOf, Words, number, word


def confirmed_table(confirmation: Confirmation) -> TableOf:
    """Each value's best trial in the sweep and trained again."""
    header = ("value", "in the sweep", "lowest", "highest", "confirmed", "95% interval")
    rows = []
    for place, value in enumerate(confirmation.values):
        low, high = confirmation.interval(place)
        scores = (
            value.swept,
            float(value.score_DR.min()),
            float(value.score_DR.max()),
            confirmation.luck.values[place],
        )
        rows.append((word(value.name), *map(number, scores), word(f"{low:.3f} to {high:.3f}")))
    return TableOf(header, tuple(rows))


def variance_table(confirmation: Confirmation) -> TableOf:
    """Standard deviations of each value's score, and of the leader's lead over each other value."""
    luck, names = confirmation.luck, [value.name for value in confirmation.values]
    seeds = confirmation.seeds > 1
    folds = "fold drawing" if seeds else "fold drawing and seed"
    header = ("of", "other posts", *(["training seed"] if seeds else []), folds, f"mean of {luck.trainings} trainings")

    def row(name: str, contrast_A: NDArray[np.float64]) -> tuple[Words, ...]:
        found = [math.sqrt(luck.posts(contrast_A)), *([luck.of_seeds(contrast_A)] if seeds else [])]
        return (word(name), *(number(sd, 4) for sd in (*found, luck.of_folds(contrast_A), luck.error(contrast_A))))

    rows = [row(name, luck.one(place)) for place, name in enumerate(names)]
    rows += [row(f"{names[0]} less {name}", luck.one(0) - luck.one(place)) for place, name in enumerate(names) if place]
    return TableOf(header, tuple(rows), scored=False)
