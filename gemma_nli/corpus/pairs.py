"""Every (post, criterion) pair: its label, fold and place among the negatives, fixed once by corpus and seed.

Ratios only choose how many of the ordered negatives are used, so trials of a sweep are measured on the same pairs.
Shape letters: N all pairs, post-major (row = post index * C + criterion index), P posts, C criteria, K folds, B kinds
of negatives (corpus/negatives.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from gemma_nli.base.errors import CorpusError
from gemma_nli.config import DataConfig
from gemma_nli.corpus.folds import assign_folds
from gemma_nli.corpus.negatives import Negatives, draws_of, kinds_of, quotas, rank_negatives
from gemma_nli.corpus.redsm5 import Corpus

POSITIVE, ANNOTATED, SAMPLED = 0, 1, 2
SOURCES = ("positive", "annotated", "sampled")
INNER_SLOTS = 5
Ratio = float | Literal["all"]
"""Negatives per positive, or every one."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """All pairs of a corpus. Rows are int64 indices into the columns; the columns must not be written to."""

    post_ids: list[str]
    criterion_ids: list[str]
    group_P: np.ndarray  # int32, equal for posts that are copies of one another (corpus/copies.py)
    post_N: np.ndarray  # int32
    criterion_N: np.ndarray  # int32
    label_N: np.ndarray  # int8, 1 matched
    source_N: np.ndarray  # int8, index into SOURCES
    fold_N: np.ndarray  # int16, 1..K
    inner_N: np.ndarray  # int16, 0..INNER_SLOTS - 1: the post's slot within its fold
    rank_N: np.ndarray  # int32, place among the negatives of its kind, annotated ones first; -1 for positives
    num_folds: int
    fold_seed: int
    eval_negative_ratio: Ratio
    negatives: Negatives
    corpus_fingerprint: str

    def __len__(self) -> int:
        return len(self.label_N)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides which pairs a fold evaluates: if equal, comparable pair by pair."""
        ratio = self.eval_negative_ratio if self.eval_negative_ratio == "all" else float(self.eval_negative_ratio)
        decided = [self.corpus_fingerprint, self.num_folds, self.fold_seed, ratio]
        if self.negatives != "pooled":  # which had no name of its own at first
            decided.append(self.negatives)
        digest = hashlib.sha256(json.dumps(decided).encode())
        for column in (self.label_N, self.source_N, self.fold_N, self.inner_N, self.rank_N):
            digest.update(column.astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def group_N(self) -> np.ndarray:
        """(N,) int32: the independent unit: a post, or a group of copies. Tests and bootstraps use it."""
        return np.asarray(self.group_P[self.post_N])

    @property
    def copies(self) -> tuple[int, int]:
        """(posts that have a copy, groups they make)."""
        _, size_G = np.unique(self.group_P, return_counts=True)
        return int(size_G[size_G > 1].sum()), int((size_G > 1).sum())

    @cached_property
    def positives_K(self) -> np.ndarray:
        """(K,) positive pairs per fold; fold k is at k - 1."""
        return np.bincount(self.fold_N[self.label_N == 1] - 1, minlength=self.num_folds)

    def evaluation_rows(self, fold: int) -> np.ndarray:
        """The fold's pairs that measure every trial, whatever its negative_ratio."""
        return np.flatnonzero(self._taken_N(self.eval_negative_ratio) & self.in_fold_N(fold))

    def training_rows(self, fold: int, negative_ratio: Ratio) -> np.ndarray:
        """Pairs of the other folds: their positives and the first of each one's negatives."""
        return np.flatnonzero(self._taken_N(negative_ratio) & ~self.in_fold_N(fold))

    def inner_split(self, fold: int, negative_ratio: Ratio) -> tuple[np.ndarray, np.ndarray]:
        """(fit rows, selection rows) within the other folds, no post in both; `fold` itself is untouched.

        The selection side has the evaluation's ratio of negatives, so that an epoch or threshold chosen there suits the
        evaluation. In a corpus with fewer posts per fold than inner slots it can be empty or of one class.
        """
        held_out_N = self.inner_N == (fold - 1) % INNER_SLOTS
        other_N = ~self.in_fold_N(fold)
        fit_N = self._taken_N(negative_ratio) & other_N & ~held_out_N
        return np.flatnonzero(fit_N), np.flatnonzero(self._taken_N(self.eval_negative_ratio) & other_N & held_out_N)

    def all_rows(self, negative_ratio: Ratio) -> np.ndarray:
        """Training pairs of all folds together, for a refit."""
        return np.flatnonzero(self._taken_N(negative_ratio))

    def rows_used(self, negative_ratio: float) -> np.ndarray:
        """Every pair that some fold trains on or evaluates."""
        return np.flatnonzero(self._taken_N(negative_ratio) | self._taken_N(self.eval_negative_ratio))

    def in_fold_N(self, fold: int) -> np.ndarray:
        """(N,) bool: the fold's pairs, used or not."""
        if not 1 <= fold <= self.num_folds:
            raise ValueError(f"folds are 1 to {self.num_folds}, got {fold}")
        return np.asarray(self.fold_N == fold)

    def _taken_N(self, negative_ratio: Ratio) -> np.ndarray:
        """Positives, and of each kind of negatives the first ratio * positives."""
        if negative_ratio == "all":
            return np.ones(len(self), dtype=bool)
        positives_B, available_B = self._counts_B
        quota_B = quotas(negative_ratio, positives_B, available_B, self._draw_B, self.num_folds)
        return np.asarray(self.rank_N < quota_B[self._kind_N])

    @cached_property
    def _draw_B(self) -> np.ndarray:
        return draws_of(self.negatives, self.criterion_ids, self.num_folds, self.fold_seed)

    @cached_property
    def _kind_N(self) -> np.ndarray:
        return kinds_of(self.negatives, self.fold_N, self.criterion_N, len(self.criterion_ids))

    @cached_property
    def _counts_B(self) -> tuple[np.ndarray, np.ndarray]:
        """Positives and negatives of each kind."""
        kinds = self.num_folds * (len(self.criterion_ids) if self.negatives == "matched" else 1)
        counted = [np.bincount(self._kind_N[self.label_N == label], minlength=kinds) for label in (1, 0)]
        return counted[0], counted[1]

    def pair_ids(self, rows: np.ndarray) -> list[str]:
        """The pair id of each row (`pair_id`)."""
        criteria = [pair_id("", criterion) for criterion in self.criterion_ids]
        return [
            self.post_ids[post] + criteria[criterion]
            for post, criterion in zip(self.post_N[rows].tolist(), self.criterion_N[rows].tolist(), strict=True)
        ]

    def frame(self, rows: np.ndarray) -> pd.DataFrame:
        """The rows without any text: pair_id, post_id, criterion_id, label, source, fold."""
        return pd.DataFrame(
            {
                "pair_id": self.pair_ids(rows),
                "post_id": [self.post_ids[i] for i in self.post_N[rows]],
                "criterion_id": [self.criterion_ids[i] for i in self.criterion_N[rows]],
                "label": self.label_N[rows].astype(np.int64),
                "source": [SOURCES[i] for i in self.source_N[rows]],
                "fold": self.fold_N[rows].astype(np.int64),
            }
        )

    def summary(self, negative_ratio: float) -> dict[str, int]:
        """Counts of the pairs in use, by the names that MLflow params have."""
        label_R = self.label_N[self.rows_used(negative_ratio)]
        positives = int((label_R == 1).sum())
        return {
            "dataset/total_pairs": len(label_R),
            "dataset/positive_pairs": positives,
            "dataset/negative_pairs": len(label_R) - positives,
            "dataset/num_criteria": len(self.criterion_ids),
        }


def pair_id(post_id: str, criterion_id: str) -> str:
    """`post::criterion`; colons in the criterion's id are escaped by a backslash, so that an id names one pair.

    The last two unescaped colons separate post and criterion, whatever a post's id contains.
    """
    return f"{post_id}::" + criterion_id.replace(":", r"\:")


def build_pairs(corpus: Corpus, data: DataConfig) -> PairTable:
    """All pairs of a corpus, folds grouped by post (copies together) and stratified, negatives in seeded order.

    A post's fold and a negative's place depend on ids and the seed, not on the order of the files' rows.

    Raises:
        CorpusError: some fold would have no positive or no negative pair.
    """
    source_PC = sources_of(corpus)
    fold_P, inner_P = _folds_of_posts(corpus, source_PC, data)
    table = _table(corpus, data, source_PC, fold_P, inner_P, data.num_folds, data.fold_seed)
    _check_folds(table, corpus, data)
    return table


def build_pairs_in_one_fold(corpus: Corpus, data: DataConfig, seed: int) -> PairTable:
    """All pairs of a corpus that is measured on as a whole, its negatives in the order of `seed`."""
    source_PC = sources_of(corpus)
    fold_P = np.ones(len(corpus.posts), dtype=np.int16)
    return _table(corpus, data, source_PC, fold_P, np.zeros_like(fold_P), 1, seed)


def _table(
    corpus: Corpus,
    data: DataConfig,
    source_PC: np.ndarray,
    fold_P: np.ndarray,
    inner_P: np.ndarray,
    num_folds: int,
    seed: int,
) -> PairTable:
    num_posts, num_criteria = source_PC.shape
    source_N, fold_N = source_PC.reshape(-1), np.repeat(fold_P, num_criteria)
    label_N = (source_N == POSITIVE).astype(np.int8)
    criterion_N = np.tile(np.arange(num_criteria, dtype=np.int32), num_posts)
    kind_N = kinds_of(data.negatives, fold_N, criterion_N, num_criteria)
    posts, criteria = list(corpus.posts), list(corpus.criteria)
    columns = {
        "post_N": np.repeat(np.arange(num_posts, dtype=np.int32), num_criteria),
        "criterion_N": criterion_N,
        "label_N": label_N,
        "source_N": source_N,
        "fold_N": fold_N,
        "inner_N": np.repeat(inner_P, num_criteria),
        "rank_N": rank_negatives(posts, criteria, label_N, source_N, kind_N, seed),
    }
    for column in columns.values():
        column.setflags(write=False)
    return PairTable(
        post_ids=posts,
        criterion_ids=criteria,
        group_P=corpus.group_P,
        **columns,
        num_folds=num_folds,
        fold_seed=seed,
        eval_negative_ratio=data.eval_negative_ratio,
        negatives=data.negatives,
        corpus_fingerprint=corpus.fingerprint,
    )


def pair_texts(corpus: Corpus, pairs: PairTable, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """(premises, hypotheses) of the rows: posts and criteria as in the files."""
    assert corpus.fingerprint == pairs.corpus_fingerprint, "these pairs were built from another corpus"
    premises, hypotheses = list(corpus.posts.values()), list(corpus.criteria.values())
    return [premises[i] for i in pairs.post_N[rows]], [hypotheses[i] for i in pairs.criterion_N[rows]]


def sources_of(corpus: Corpus) -> np.ndarray:
    """(P, C) int8: positive with any status-1 sentence, else annotated with any status-0 one, else sampled."""
    post_index = {name: i for i, name in enumerate(corpus.posts)}
    criterion_index = {name: i for i, name in enumerate(corpus.criteria)}
    source_PC = np.full((len(post_index), len(criterion_index)), SAMPLED, dtype=np.int8)
    for annotation in corpus.annotations:
        place = post_index[annotation.post_id], criterion_index[annotation.criterion_id]
        source_PC[place] = min(source_PC[place], POSITIVE if annotation.status == 1 else ANNOTATED)
    return source_PC


def _folds_of_posts(corpus: Corpus, source_PC: np.ndarray, data: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Fold 1..K and inner slot of each post; strata are the criteria it is positive for, then annotated against."""
    strata = np.hstack([source_PC == POSITIVE, source_PC == ANNOTATED])
    by_id_P = np.array(sorted(range(len(corpus.posts)), key=list(corpus.posts).__getitem__), dtype=np.int64)
    fold_P, inner_P = np.zeros(len(by_id_P), dtype=np.int16), np.zeros(len(by_id_P), dtype=np.int16)
    num_leading = source_PC.shape[1]
    group_P = corpus.group_P
    fold_P[by_id_P] = assign_folds(strata[by_id_P], data.num_folds, data.fold_seed, num_leading, group_P[by_id_P])
    for fold in range(1, data.num_folds + 1):
        members = by_id_P[fold_P[by_id_P] == fold]
        slots = assign_folds(strata[members], INNER_SLOTS, data.fold_seed + fold, num_leading, group_P[members])
        inner_P[members] = slots - 1
    return fold_P, inner_P


def _check_folds(table: PairTable, corpus: Corpus, data: DataConfig) -> None:
    label_N, fold_N, group_P = table.label_N, table.fold_N, corpus.group_P
    kind_N = kinds_of(data.negatives, fold_N, table.criterion_N, len(table.criterion_ids))
    lines, unmatched = [], False
    for fold in range(1, data.num_folds + 1):
        label_R, kind_R = label_N[fold_N == fold], kind_N[fold_N == fold]
        positives = int(label_R.sum())
        serving = np.isin(kind_R[label_R == 0], kind_R[label_R == 1])  # negatives of a kind that has positives
        if not serving.any():
            what = f"{positives} positive and {len(label_R) - positives} negative pairs"
            matched = positives > 0 and not label_R.all()
            unmatched |= matched
            lines.append(
                f"  fold {fold}: {what}" + (", none of a criterion that has positives there" if matched else "")
            )
    if lines:
        positives, groups = int(label_N.sum()), len(np.unique(group_P))
        alone = f" ({groups} apart from copies, which stay in one fold)" if groups < len(group_P) else ""
        sealed = f" ({len(corpus.seal.post_ids)} more are sealed by data.test)" if corpus.seal is not None else ""
        other = ", or data.negatives=pooled to take negatives of any criterion" if unmatched else ""
        raise CorpusError(
            f"{data.data_dir}: {len(group_P)} posts{alone}{sealed} with {positives} positive and "
            f"{len(label_N) - positives} negative pairs cannot be split into {data.num_folds} folds that each have "
            "both:\n"
            + "\n".join(lines)
            + f"\n  Set data.num_folds below {data.num_folds} (at least 2){other}, or add more annotated posts."
        )
