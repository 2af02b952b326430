"""The sealed test set (`data.test`): posts that no trial, baseline, store or report sees before `gemma-nli test`.

A corpus is cut in two when it is read, so that whatever is given the training part cannot look at the other. Which
posts are sealed depends on `data.test` and the corpus alone, never on the folds. A post and its copies are on one side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np

from gemma_nli.base.errors import CorpusError
from gemma_nli.config import DataConfig, SealedConfig, expanded
from gemma_nli.corpus.file_problems import FileProblems, named
from gemma_nli.corpus.folds import draw_share
from gemma_nli.corpus.pairs import ANNOTATED, POSITIVE, PairTable, build_pairs_in_one_fold, sources_of
from gemma_nli.corpus.redsm5 import Corpus, Seal, load_corpus


def training_corpus(data: DataConfig) -> Corpus:
    """The corpus of `data.data_dir` without its sealed posts: what trials train on and are measured on.

    Raises:
        CorpusError: every problem of its files and of `data.test.ids`, or a sealed part that cannot measure anything.
    """
    whole = load_corpus(data.data_dir, data.log_text)
    if data.test is None:
        return whole
    sealed, seal = _sealed_part(whole, data)
    sealed_pairs(sealed, data)
    rest = _part(whole, whole.posts.keys() - sealed.posts.keys())
    if not rest.posts:
        raise CorpusError(f"data.test seals all {len(whole.posts)} posts of {data.data_dir}; leave some to train on.")
    return dataclasses.replace(rest, seal=seal)


def sealed_corpus(data: DataConfig) -> Corpus:
    """The sealed posts alone: only `gemma-nli test` reads them, after it has counted the look."""
    return _sealed_part(load_corpus(data.data_dir, data.log_text), data)[0]


def sealed_pairs(sealed: Corpus, data: DataConfig) -> PairTable:
    """The pairs that measure a model on the sealed posts: one fold, negatives as `data` has them for evaluation.

    Raises:
        CorpusError: no pair is positive, or none can serve as a negative.
    """
    assert data.test is not None, "without data.test nothing is sealed"
    pairs = build_pairs_in_one_fold(sealed, data, data.test.seed)
    labels = pairs.label_N[pairs.evaluation_rows(1)] if pairs.positives_K[0] else pairs.label_N[:0]
    if len(np.unique(labels)) < 2:
        positives, every = int(pairs.label_N.sum()), len(pairs)
        raise CorpusError(
            f"data.test: the {len(sealed.posts)} sealed posts of {data.data_dir} have {positives} positive and "
            f"{every - positives} negative pairs, of which none can be measured on (data.negatives={data.negatives}); "
            "seal more posts."
        )
    return pairs


def _sealed_part(whole: Corpus, data: DataConfig) -> tuple[Corpus, Seal]:
    assert data.test is not None, "without data.test nothing is sealed"
    sealed, with_copies = _sealed_ids(whole, data.test)
    part = _part(whole, sealed)
    return part, Seal(tuple(sorted(sealed)), part.fingerprint, with_copies)


def _sealed_ids(whole: Corpus, test: SealedConfig) -> tuple[set[str], int]:
    """The sealed posts, and how many are sealed only as copies of others."""
    posts = list(whole.posts)
    if test.share is not None:
        by_id_P = np.array(sorted(range(len(posts)), key=posts.__getitem__), dtype=np.int64)
        source_PC = sources_of(whole)[by_id_P]
        strata = np.hstack([source_PC == POSITIVE, source_PC == ANNOTATED])
        drawn_P = draw_share(strata, test.share, test.seed, source_PC.shape[1], whole.group_P[by_id_P])
        if not drawn_P.any():
            raise CorpusError(f"data.test.share ({test.share:g}) of {len(posts)} posts is not one post; seal more.")
        return {posts[place] for place in by_id_P[drawn_P]}, 0
    assert test.ids is not None
    listed = read_ids(expanded(test.ids), posts)
    at_P = np.array([post in listed for post in posts])
    grown_P = np.isin(whole.group_P, whole.group_P[at_P])
    return {post for post, is_in in zip(posts, grown_P, strict=True) if is_in}, int(grown_P.sum() - at_P.sum())


def read_ids(path: Path, posts: Collection[str]) -> set[str]:
    """The ids that a text file lists, one per line; blank lines, and a first line `post_id`, are passed over.

    Raises:
        CorpusError: the file cannot be read, is empty, or has ids that are not the corpus's or occur twice.
    """
    problems, known = FileProblems(path.name), set(posts)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CorpusError(f"data.test.ids: {path} cannot be read: {why}; name a text file of post ids.") from None
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or (number == 1 and name == "post_id" and name not in known):
            continue
        if name in first:
            problems.add(number, f"post_id {named(name)} is listed twice, first in line {first[name]}.", "listed twice")
            continue
        first[name] = number
        if name not in known:
            problems.add(number, f"post_id {named(name)} is not in the corpus.", "unknown post_id")
    if not first:
        problems.add(0, "lists no post.")
    if problems.count:
        count = f"{problems.count} problem{'s' if problems.count != 1 else ''}"
        raise CorpusError("\n".join([f"data.test.ids: {path}: {count}", *(f"  {line}" for line in problems.shown())]))
    return set(first)


def _part(whole: Corpus, kept: Collection[str]) -> Corpus:
    """The posts named, with all that is known of them; criteria stay."""
    return Corpus(
        {post: text for post, text in whole.posts.items() if post in kept},
        whole.criteria,
        tuple(one for one in whole.annotations if one.post_id in kept),
        tuple(one for one in whole.contradictions if one.post_id in kept),
        whole.wordings,
    )
