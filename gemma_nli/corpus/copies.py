"""Which posts are copies of one another: reposts under another id, with different case or spacing, or a few words
changed.

A copy in training gives a model the answer for its copy in validation, and two copies are not two independent posts. So
posts of one group stay together in folds and inner splits, and are drawn together by the bootstrap.

- Equal: the same letters, digits and pictures in the same order, after Unicode's NFKC; case, space and punctuation
  aside. A post of punctuation alone is compared as it is.
- Near: posts of 10 words or more that share 0.6 of their sets of three consecutive words (Jaccard similarity), and
posts
  of 5 to 29 words that share 0.8 of their words. One word changed in the middle of a text leaves 0.6 of its triples
  from 14 words on, and 0.8 of its words from 9 on.
- A copy of a copy is in the group.

Candidates come from a MinHash index, so that time grows with the words and not with the pairs of posts; each is then
checked. At the similarity limit the index misses one pair in 80; 0.1 above it, one in 7,000.

Source: Broder 1997, "On the Resemblance and Containment of Documents"; Leskovec, Rajaraman and Ullman 2014, "Mining of
Massive Datasets", section 3.4 (banding).
Shape letters: P posts, W distinct words, S shingles of all posts one after another, H hashes.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Nearness:
    """Texts of `least` to `most` words are near when they share `share` of their sets of `shingle` consecutive
    words.
    """

    shingle: int
    least: int
    most: float
    share: float
    bands: int  # of the MinHash index
    rows: int


NEAR = (Nearness(3, 10, math.inf, 0.6, 32, 4), Nearness(1, 5, 29, 0.8, 24, 8))
_COMPARED_IN_A_BUCKET = 8  # each text with this many before it: a bucket of thousands stays linear
_MIXERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
Hashes = NDArray[np.uint64]


def groups_of_copies(ids: Sequence[str], texts: Sequence[str]) -> NDArray[np.int32]:
    """(P,) for each post the place of its group's first post by id; a post without a copy is its own group.

    The groups depend on ids and texts, not on the order of the rows.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    groups = _Groups(len(ids))
    first_of: dict[str, int] = {}
    words_of: dict[int, list[str]] = {}
    for place in order:
        words = words_in(texts[place])
        key = "".join(words) or texts[place].strip()
        if key in first_of:
            groups.join(first_of[key], place)
        else:
            first_of[key], words_of[place] = place, words
    for near in NEAR:
        kept = [place for place, words in words_of.items() if near.least <= len(words) <= near.most]
        for one, other in _near_pairs([words_of[place] for place in kept], near):
            groups.join(kept[one], kept[other])
    first: dict[int, int] = {}
    for place in order:
        first.setdefault(groups.of(place), place)
    return np.array([first[groups.of(place)] for place in range(len(ids))], dtype=np.int32)


class _Kept(dict[int, str]):
    """A translation of characters: letters, marks, digits and pictures are kept, everything else becomes a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] in "LMN":
            kept = f" {character} " if _has_no_spaces(code) else character
        else:
            kept = f" {character} " if category == "So" else " "
        self[code] = kept
        return kept


def _has_no_spaces(code: int) -> bool:
    """Scripts written without spaces between words: Thai, Lao, Khmer, Myanmar, kana, Han."""
    return (
        0x0E00 <= code < 0x0F00
        or 0x1000 <= code < 0x10A0
        or 0x1780 <= code < 0x1800
        or (0x3040 <= code < 0xA000 and not 0x3130 <= code < 0x3190)
        or 0xF900 <= code < 0xFB00
        or 0x20000 <= code < 0x30000
    )


_KEPT = _Kept()


def words_in(text: str) -> list[str]:
    """The words of a text as they are compared; apostrophes are removed, other punctuation becomes a space."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return plain.replace("'", "").replace("\u2019", "").translate(_KEPT).split()


class _Groups:
    """Sets that are merged, so that a copy of a copy is in the group."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def of(self, place: int) -> int:
        while self.parent[place] != place:
            self.parent[place] = place = self.parent[self.parent[place]]
        return place

    def join(self, one: int, other: int) -> None:
        self.parent[self.of(other)] = self.of(one)


def _near_pairs(words_of: list[list[str]], near: Nearness) -> Iterable[tuple[int, int]]:
    """Pairs of texts that are near copies; enough of them to connect each group."""
    if len(words_of) < 2:
        return
    shingles = _shingles(words_of, near.shingle)
    starts = np.cumsum([0, *(len(s) for s in shingles)])
    flat_S = np.concatenate(shingles)
    sets: dict[int, set[int]] = {}
    seen: set[tuple[int, int]] = set()

    def set_of(text: int) -> set[int]:
        if text not in sets:
            sets[text] = set(shingles[text].tolist())
        return sets[text]

    for band in range(near.bands):
        bucket_P = np.zeros(len(shingles), dtype=np.uint64)
        for row in range(near.rows):
            least_P = np.minimum.reduceat(_mixed(flat_S, band * near.rows + row), starts[:-1])
            bucket_P = _mixed(bucket_P ^ least_P, row)
        for bucket in _buckets(bucket_P):
            for place, text in enumerate(bucket):
                for earlier in bucket[max(0, place - _COMPARED_IN_A_BUCKET) : place]:
                    if (earlier, text) in seen:
                        continue
                    seen.add((earlier, text))
                    one, other = set_of(earlier), set_of(text)
                    both = len(one & other)
                    if both >= near.share * (len(one) + len(other) - both):
                        yield earlier, text


def _shingles(words_of: list[list[str]], size: int) -> list[Hashes]:
    """The distinct hashes of each text's `size` consecutive words."""
    codes: dict[str, int] = {}
    for words in words_of:
        for word in words:
            if word not in codes:
                codes[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    found: list[Hashes] = []
    for words in words_of:
        code_W = np.array([codes[word] for word in words], dtype=np.uint64)
        hashed = np.zeros(len(words) - size + 1, dtype=np.uint64)
        for step in range(size):
            hashed = _mixed(hashed ^ code_W[step : step + len(hashed)], step)
        found.append(np.unique(hashed))
    return found


def _mixed(values: Hashes, number: int) -> Hashes:
    """One of many fixed scramblings of 64 bits, the same on every machine (splitmix64's finalizer)."""
    mixed = values + np.uint64((number + 1) * _MIXERS[0] % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIXERS[1])
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIXERS[2])
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _buckets(bucket_P: Hashes) -> Iterable[list[int]]:
    """Places that share a bucket, in their order."""
    order = np.argsort(bucket_P, kind="stable")
    ordered = bucket_P[order]
    ends = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for part in np.split(order, ends) if len(ends) < len(order) - 1 else ():
        if len(part) > 1:
            yield part.tolist()
