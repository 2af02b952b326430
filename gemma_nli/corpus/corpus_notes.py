"""Notes on a corpus that matter for numbers measured on it: copies, and conflicting annotations."""

from __future__ import annotations

import numpy as np

from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus

SHOWN = 3


def corpus_notes(corpus: Corpus, pairs: PairTable) -> list[str]:
    """One sentence per note; none if there is nothing to note. No sentence contains a text."""
    return [*corpus.notes, *_copies(pairs), *_sealed_with_others(corpus), *unmatched_criteria(pairs)]


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


def _sealed_with_others(corpus: Corpus) -> list[str]:
    count = corpus.seal.with_copies if corpus.seal is not None else 0
    if not count:
        return []
    what = "1 post that data.test.ids does not name is a copy of one that it names, and is"
    what = (
        what if count == 1 else f"{count} posts that data.test.ids does not name are copies of posts it names, and are"
    )
    return [f"{what} sealed too: a copy in training would give its twin away."]


def unmatched_criteria(pairs: PairTable) -> list[str]:
    """Where the criterion alone still says something of the label, too few posts being without it; at most one note."""
    if pairs.negatives != "matched" or pairs.eval_negative_ratio == "all":
        return []
    rows = np.concatenate([pairs.evaluation_rows(fold) for fold in range(1, pairs.num_folds + 1)])
    count_C = [
        np.bincount(pairs.criterion_N[rows][pairs.label_N[rows] == label], minlength=len(pairs.criterion_ids))
        for label in (1, 0)
    ]
    wanted_C = float(pairs.eval_negative_ratio) * count_C[0]
    short = [int(c) for c in np.flatnonzero(count_C[1] + pairs.num_folds <= wanted_C)]
    if not short:
        return []
    first = ", ".join(f"{pairs.criterion_ids[c]} {count_C[1][c]} of {wanted_C[c]:.0f}" for c in short[:SHOWN])
    more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
    return [
        f"{len(short)} of {len(pairs.criterion_ids)} criteria have fewer negative pairs than data.eval_negative_ratio "
        f"asks for ({first}{more}): a model that knows only the criterion scores above chance there."
    ]
