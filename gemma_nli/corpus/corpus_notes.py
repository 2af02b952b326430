"""Notes on a corpus that matter for numbers measured on it: copies, and conflicting annotations."""

from __future__ import annotations

import numpy as np

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus


def corpus_notes(corpus: Corpus, pairs: PairTable) -> list[str]:
    """One sentence per note; none if there is nothing to note. No sentence contains a text."""
    return [*corpus.notes, *_copies(pairs)]


def _copies(pairs: PairTable) -> list[str]:
    posts, groups = pairs.copies
    if not posts:
        return []
    label_PC = pairs.label_N.reshape(len(pairs.post_ids), -1)
    _, group_P = np.unique(pairs.group_P, return_inverse=True)
    shows_GC = np.zeros((group_P.max() + 1, label_PC.shape[1]), dtype=np.int64)
    np.add.at(shows_GC, group_P, label_PC)
    split = int(((shows_GC > 0) & (shows_GC < np.bincount(group_P)[:, None])).any(1).sum())
    note = (
        f"{posts} of {len(pairs.post_ids)} posts are copies or near copies of one another ({groups} "
        f"group{'s' if groups != 1 else ''}): a group stays in one fold and counts as one post in intervals and tests"
    )
    return [note + (f"; the annotations of copies differ in {split}." if split else ".")]
