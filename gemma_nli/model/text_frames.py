"""Texts set into the words of a template, as tokens: the whole is tokenized as one text, and only the post is ever cut.

Tokenizers merge characters across the borders of a text that is set in, so pieces tokenized on their own would be other
tokens than a reader of the whole text gives. A post that is too long is shortened to the end of one of its tokens, and
the whole tokenized again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_nli.base.errors import EncoderError
from gemma_nli.config.templates import PREMISE, Template

Row = dict[str, list[Any]]
"""input_ids, and token_type_ids and offset_mapping where they were asked for."""
_MARKS = ("\ue000", "\ue001")
"""Characters of the private use area, which are in no text: where a chat template shows them, texts are set in."""
_EXTRAS = ("token_type_ids", "offset_mapping")


@dataclass(frozen=True, order=True)
class Frame:
    """`words[i]` stands before the text of `places[i]`, the last of `words` behind all.

    Args:
        special: whether the tokenizer adds its special tokens; the text of a chat template has its own.
        source: how the user wrote it, for messages.
    """

    words: tuple[str, ...]
    places: tuple[str, ...]
    special: bool = True
    source: str = ""

    def text(self, text: str, partner: str | None = None) -> str:
        """The whole. Without a partner `text` is what is set in, whichever place that is."""
        inner = zip(self.words[:-1], self.places, strict=True)
        return "".join(word + self._set_in(place, text, partner) for word, place in inner) + self.words[-1]

    def beginning(self, text: str, partner: str | None) -> str:
        """The whole up to the end of the first text that is set in: rows of one beginning share its tokens."""
        return self.words[0] + self._set_in(self.places[0], text, partner)

    @property
    def premise_first(self) -> bool:
        """Whether the first text that is set in is the post; of a text alone, always."""
        return self.places[0] == PREMISE or len(self.places) == 1

    def before_premise(self, text: str, partner: str | None) -> int:
        """Characters before the post."""
        at = self.places.index(PREMISE)
        inner = zip(self.words[:at], self.places[:at], strict=True)
        return sum(len(word) + len(self._set_in(place, text, partner)) for word, place in inner) + len(self.words[at])

    @functools.cached_property
    def digest(self) -> bytes:
        """sha256 of everything that decides the whole besides the texts set in."""
        return hashlib.sha256(json.dumps([self.words, self.places, self.special]).encode()).digest()

    @staticmethod
    def _set_in(place: str, text: str, partner: str | None) -> str:
        return text if partner is None or place == PREMISE else partner


def tokenize_framed(
    tokenizer: Any,
    max_length: int,
    frames: Sequence[Frame],
    texts: Sequence[str],
    partners: Sequence[str] | None,
    segments: bool = False,
) -> tuple[list[list[int]], list[list[int]] | None]:
    """Ids of each text in its frame, at most `max_length` of them, and segment ids if they are asked for.

    Args:
        partners: the criteria of joint pairs; without, each text is set in alone.
    Raises:
        EncoderError: the template and what may not be cut exceed `max_length`.
    """
    kept = [len(text) for text in texts]

    def whole(row: int) -> str:
        return frames[row].text(texts[row][: kept[row]], None if partners is None else partners[row])

    def read(rows: list[int], offsets: bool = False) -> dict[int, Row]:
        found: dict[int, Row] = {}
        for special in (True, False):
            some = [row for row in rows if frames[row].special == special]
            each = _read(tokenizer, [whole(row) for row in some], special, segments, offsets) if some else []
            found |= dict(zip(some, each, strict=True))
        return found

    done = read(list(range(len(texts))))
    while over := [row for row, found in done.items() if len(found["input_ids"]) > max_length]:
        for row, found in read(over, offsets=tokenizer.is_fast).items():
            excess = len(found["input_ids"]) - max_length
            if not kept[row] or PREMISE not in frames[row].places:
                raise _too_long(frames[row], max_length + excess, max_length)
            if tokenizer.is_fast:
                start = frames[row].before_premise(texts[row], None if partners is None else partners[row])
                kept[row] = _by_tokens(found["offset_mapping"], start, kept[row], excess)
            else:
                kept[row] = _by_share(tokenizer, texts[row][: kept[row]], excess)
        done |= read(over)
    rows = [done[row] for row in range(len(texts))]
    return [row["input_ids"] for row in rows], [row["token_type_ids"] for row in rows] if segments else None


def frame_of(template: Template, source: str, chat: Callable[[str], str]) -> Frame:
    """The frame of a setting's template.

    Args:
        chat: a user's message as the encoder's chat template shows it.
    Raises:
        EncoderError: the chat template does not show the message once and as it is.
    """
    if not template.chat:
        return Frame(template.words, template.places, True, source)
    marks = _MARKS[: len(template.places)]
    whole = Frame(template.words, template.places)
    message = whole.text(*(marks if whole.premise_first else marks[::-1]))
    rest, words = chat(message), []
    for mark in marks:
        word, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise EncoderError(f"{source}: the encoder's chat template does not show a user's message once, as it is.")
        words.append(word)
    return Frame((*words, rest), template.places, False, source)


def _read(tokenizer: Any, wholes: list[str], special: bool, segments: bool, offsets: bool) -> list[Row]:
    out = tokenizer(
        wholes, add_special_tokens=special, truncation=False, padding=False, return_attention_mask=False,
        return_token_type_ids=segments, return_offsets_mapping=offsets, verbose=False,
    )  # fmt: skip
    names = ["input_ids", *(name for name in _EXTRAS if name in out)]
    rows = [{name: list(out[name][row]) for name in names} for row in range(len(wholes))]
    return [_once(tokenizer, row) for row in rows] if special else rows


def _once(tokenizer: Any, row: Row) -> Row:
    """A special token at either end that the template writes itself and the tokenizer adds: one of the two is taken."""
    ids = row["input_ids"]
    first = slice(1, None) if len(ids) > 1 and ids[0] == ids[1] in _ids(tokenizer, "bos", "cls") else slice(None)
    row = {name: values[first] for name, values in row.items()}
    ids = row["input_ids"]
    last = slice(-1) if len(ids) > 1 and ids[-1] == ids[-2] in _ids(tokenizer, "eos", "sep") else slice(None)
    return {name: values[last] for name, values in row.items()}


def _ids(tokenizer: Any, *names: str) -> set[int]:
    found = (getattr(tokenizer, f"{name}_token_id") for name in names)
    return {token for token in found if token is not None}


def _too_long(frame: Frame, taken: int, max_length: int) -> EncoderError:
    beside = "without any post" if PREMISE in frame.places else "with its criterion"
    return EncoderError(
        f"{frame.source} takes {taken} tokens {beside}, and model.max_length is {max_length}; shorten the template or "
        "the criterion, or raise model.max_length."
    )


def _by_tokens(offsets: list[tuple[int, int]], start: int, kept: int, excess: int) -> int:
    """Characters to keep of a post that begins at `start`, so that its last `excess` tokens go."""
    ends = [end - start for begin, end in offsets if start <= begin < end <= start + kept]
    left = len(ends) - excess
    return min(ends[left - 1], kept - 1) if left > 0 else 0


def _by_share(tokenizer: Any, text: str, excess: int) -> int:
    """The same for tokenizers that do not say where their tokens lie."""
    count = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return max(0, min(len(text) - 1, len(text) * (count - excess) // max(count, 1)))


def check_room(tokenizer: Any, max_length: int, frame: Frame, partners: Sequence[str] | None) -> None:
    """
    Args:
        partners: the criteria that will be set in, or stand alone.
    Raises:
        EncoderError: the template leaves no token for a post beside the longest criterion, or none for the criterion.
    """
    taken = max(tokens_beside(tokenizer, frame, partners), default=0)
    if taken > max_length - (PREMISE in frame.places):
        raise _too_long(frame, taken, max_length)


def tokens_beside(tokenizer: Any, frame: Frame, partners: Sequence[str] | None) -> list[int]:
    """Tokens of the template with each criterion and no post; one number for a post's template alone."""
    if PREMISE not in frame.places:
        wholes = [frame.text(text) for text in partners or []]
    else:
        wholes = [frame.text("")] if partners is None else [frame.text("", partner) for partner in partners]
    return [len(row["input_ids"]) for row in _read(tokenizer, wholes, frame.special, False, False)]
