"""Sentences that were annotated both ways for one criterion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma_nli.corpus.file_problems import SHOWN_PLACES

if TYPE_CHECKING:
    from gemma_nli.corpus.redsm5 import Annotation


@dataclass(frozen=True)
class Contradiction:
    """A sentence of a post that was annotated both ways for one criterion, first in these two lines."""

    post_id: str
    lines: tuple[int, int]


def contradictions_in(judged: Iterable[tuple[int, Annotation]]) -> tuple[Contradiction, ...]:
    """The sentences that were annotated both ways for one criterion, by line."""
    lines: dict[tuple[str, str, str], dict[int, int]] = {}
    for line, one in judged:
        # Each annotator may number sentences separately, so equal text also counts as one sentence.
        for sentence in {one.sentence_id, one.sentence_text.strip()} - {""} or {""}:
            lines.setdefault((one.post_id, sentence, one.criterion_id), {}).setdefault(one.status, line)
    both = {
        (min(found.values()), max(found.values()), post_id)
        for (post_id, _, _), found in lines.items()
        if len(found) == 2
    }
    return tuple(Contradiction(post_id, (first, second)) for first, second, post_id in sorted(both))


def note_on(both: tuple[Contradiction, ...], file: str) -> tuple[str, ...]:
    """A sentence for the user, without a post's text; none if there are none."""
    if not both:
        return ()
    places = ", ".join("{} and {}".format(*one.lines) for one in both[:SHOWN_PLACES])
    more = ", ..." if len(both) > SHOWN_PLACES else ""
    what = "1 sentence has" if len(both) == 1 else f"{len(both)} sentences have"
    return (
        f"{what} status 1 and status 0 for one criterion ({file}, lines {places}{more}); "
        "any status 1 counts, so the pair is positive.",
    )
