"""Post text taken out of what an exception says: a library that fails may quote the very text it failed on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gemma_nli.corpus.redsm5 import Corpus

RUN = 5  # words in a row that give a text away; a shorter text counts as a whole
_LEFT_OUT = "[a line with post text, left out]"


def without_posts(message: str, corpus: Corpus) -> str:
    """`message` without the lines that quote a post, a sentence or an explanation of the corpus.

    Compared by runs of five words, whatever quotes, escapes and line breaks stand between them.
    """
    lines = message.splitlines()
    said = [set(_runs(_words(line))) for line in lines]
    asked = set().union(*said)
    private = {run for text in _texts(corpus) for run in _whole_or_runs(_words(text)) if run in asked or len(run) < RUN}
    return "\n".join(
        _LEFT_OUT if runs & private or _quotes_short(line, private) else line
        for line, runs in zip(lines, said, strict=True)
    )


def _texts(corpus: Corpus) -> Iterator[str]:
    yield from corpus.posts.values()
    for annotation in corpus.annotations:
        yield annotation.sentence_text
        yield annotation.explanation


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"\\[nrt]", " ", text.lower()))


def _runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))


def _whole_or_runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    if len(words) >= RUN:
        yield from _runs(words)
    elif len(words) > 1 or (words and len(words[0]) > 12):
        yield tuple(words)


def _quotes_short(line: str, private: set[tuple[str, ...]]) -> bool:
    """Whether the line holds the whole of a text that is shorter than a run."""
    words = _words(line)
    return any(
        tuple(words[start : start + size]) in private
        for size in range(1, RUN)
        for start in range(len(words) - size + 1)
    )
