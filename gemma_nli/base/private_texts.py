"""Post text removed from exceptions: a library that fails may quote the very text it failed on.

What this process has read of posts is remembered here, so that one gate (`gemma_nli.base.outgoing`) can look for it in
whatever leaves the process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

RUN = 5  # consecutive words that give a text away; a shorter text counts as a whole, a very short one not at all
_LEFT_OUT = "[a line with post text, left out]"
_ESCAPES = re.compile(r"\\(?:[nrtvf]|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


class PrivateTexts:
    """Texts that no message may quote, compared by runs of five words, whatever stands between the words."""

    def __init__(self, texts: Callable[[], Iterator[str]]) -> None:
        """
        Args:
            texts: gives them; called when a message is first checked, so that remembering them costs nothing.
        """
        self._texts = texts

    @cached_property
    def _private(self) -> frozenset[int]:
        """Hashes: eight bytes instead of five words for each word of the corpus."""
        return frozenset(hash(run) for text in self._texts() for run in _whole_or_runs(_words(text)))

    def left_out(self, message: str) -> str:
        """`message` without the lines that quote one of the texts; a quotation may span several lines."""
        lines = message.splitlines()
        words = [(word, place) for place, line in enumerate(lines) for word in _words(line)]
        quoting: set[int] = set()
        for size in range(1, RUN + 1):
            for start in range(len(words) - size + 1):
                part = words[start : start + size]
                if hash(tuple(word for word, _ in part)) in self._private:
                    quoting |= {place for _, place in part}
        if not quoting:
            return message
        return "\n".join(_LEFT_OUT if place in quoting else line for place, line in enumerate(lines))


_read: dict[str, PrivateTexts] = {}
_reading = threading.Lock()


class AnnotatedPosts(Protocol):
    """What of a corpus is private: its posts by id, and annotations that quote and explain them."""

    @property
    def posts(self) -> Mapping[str, str]: ...

    @property
    def annotations(self) -> Iterable[Any]: ...


def remember_corpus(name: str, corpus: AnnotatedPosts) -> None:
    """From now on no message that passes `without_private` quotes this corpus; `name` says whose place it takes."""
    _remember(name, PrivateTexts(lambda: texts_of(corpus)))


def remember_texts(name: str, texts: Sequence[str]) -> None:
    """The same for texts that are not a corpus: rows of a file that is being scored, texts that are being encoded."""
    _remember(name, PrivateTexts(lambda: iter(texts)))


def forget(name: str) -> None:
    """What was remembered under this name may be shown: its user has said so (`data.log_text`)."""
    with _reading:
        _read.pop(name, None)


def without_private(message: str) -> str:
    """`message` without the lines that quote any text that is remembered."""
    with _reading:
        known = list(_read.values())
    for texts in known:
        message = texts.left_out(message)
    return message


def without_posts(message: str, corpus: AnnotatedPosts) -> str:
    """`message` without the lines that quote a post, a sentence or an explanation of the corpus."""
    return PrivateTexts(lambda: texts_of(corpus)).left_out(message)


def texts_of(corpus: AnnotatedPosts) -> Iterator[str]:
    yield from corpus.posts.values()
    for annotation in corpus.annotations:
        yield annotation.sentence_text
        yield annotation.explanation


def _remember(name: str, texts: PrivateTexts) -> None:
    with _reading:
        _read[name] = texts


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", _ESCAPES.sub(_unescaped, text).lower())


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(min(int(code, 16), 0x10FFFF)) if code else " "


def _whole_or_runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    if len(words) >= RUN:
        yield from (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))
    elif _gives_away(words):
        yield tuple(words)


def _gives_away(words: list[str]) -> bool:
    """Whether a text of fewer words is distinctive: `5 runs` and `0 0` occur in messages of any program."""
    in_letters = any(word.isalpha() and len(word) > 2 for word in words)
    return in_letters and (len(words) > 2 or sum(map(len, words)) >= 10)
