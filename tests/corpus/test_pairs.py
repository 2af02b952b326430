from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from math import floor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import CorpusError
from gemma_nli.base.metrics.auc import roc_auc
from gemma_nli.config import DataConfig
from gemma_nli.corpus.folds_metadata import folds_metadata
from gemma_nli.corpus.pairs import ANNOTATED, INNER_SLOTS, POSITIVE, SAMPLED, build_pairs, pair_id, pair_texts
from gemma_nli.corpus.redsm5 import Annotation, Corpus
from gemma_nli.corpus.synthetic import synthetic_corpus

ratios = st.one_of(st.sampled_from([0.1, 0.5, 1, 1.0, 1.5, 2, 4.0, 1000]), st.floats(0.01, 20))
EVAL_RATIOS = ratios | st.just("all")
BOTH = st.sampled_from(["matched", "pooled"])
CORPUS = synthetic_corpus(120, seed=3)
FIRST_VERSION = "d1f4899c566a78ed6c74ea70224eb10162e3f4144821601f22670ff9056d6715"


def make_corpus(num_posts, num_criteria, rate, seed) -> Corpus:
    lots = random.Random(seed)
    posts = {f"p{i}": f"text of {i}" for i in range(num_posts)}
    criteria = {f"C{i}": f"criterion {i}" for i in range(num_criteria)}
    annotations = [
        Annotation(post, f"{post}_{n}", "x", criterion, lots.randint(0, 1), "")
        for post in posts
        for criterion in criteria
        if lots.random() < rate
        for n in range(lots.randint(1, 2))
    ]
    return Corpus(posts, criteria, tuple(annotations))


@st.composite
def tables(draw, eval_ratios=EVAL_RATIOS, kinds=BOTH):
    corpus = make_corpus(
        draw(st.integers(4, 50)), draw(st.integers(1, 5)), draw(st.floats(0.1, 0.8)), draw(st.integers(0, 999))
    )
    data = DataConfig(
        num_folds=draw(st.integers(2, 7)),
        fold_seed=draw(st.integers(0, 2**70)),
        eval_negative_ratio=draw(eval_ratios),
        negatives=draw(kinds),
    )
    try:
        return corpus, data, build_pairs(corpus, data)
    except CorpusError:
        assume(False)


folds_of = lambda table: range(1, table.num_folds + 1)  # noqa: E731
properties = settings(deadline=None, max_examples=40)


@properties
@given(tables())
def test_every_pair_stands_once_with_the_label_of_its_sentences(drawn):
    corpus, _, table = drawn
    assert len(table) == len(corpus.posts) * len(corpus.criteria)
    statuses: dict[str, set[int]] = {}
    for a in corpus.annotations:
        statuses.setdefault(f"{a.post_id}::{a.criterion_id}", set()).add(a.status)
    for row, name in enumerate(table.pair_ids(np.arange(len(table)))):
        found = statuses.get(name, set())
        assert table.source_N[row] == (POSITIVE if 1 in found else ANNOTATED if found else SAMPLED)
        assert table.label_N[row] == (1 in found)


@properties
@given(tables())
def test_a_post_is_in_one_fold_and_one_inner_slot(drawn):
    _, _, table = drawn
    for column in (table.fold_N, table.inner_N):
        assert len(set(zip(table.post_N, column, strict=True))) == len(table.post_ids)
    assert set(table.inner_N) <= set(range(INNER_SLOTS))


@properties
@given(tables(), ratios)
def test_training_never_holds_a_post_of_its_fold(drawn, ratio):
    _, _, table = drawn
    for fold in folds_of(table):
        theirs = set(table.post_N[table.evaluation_rows(fold)]) | set(table.post_N[table.fold_N == fold])
        assert not theirs & set(table.post_N[table.training_rows(fold, ratio)])


@properties
@given(tables(), ratios)
def test_evaluation_rows_do_not_depend_on_the_training_ratio(drawn, ratio):
    corpus, data, table = drawn
    other = build_pairs(corpus, data.model_copy(update={"negative_ratio": ratio}))
    assert other.fingerprint == table.fingerprint
    for fold in folds_of(table):
        np.testing.assert_array_equal(other.evaluation_rows(fold), table.evaluation_rows(fold))


@properties
@given(tables(), ratios, ratios)
def test_a_higher_ratio_only_adds_negatives_to_training_and_evaluation(drawn, low, high):
    corpus, data, _ = drawn
    low, high = sorted([low, high])
    less, more = (build_pairs(corpus, data.model_copy(update={"eval_negative_ratio": r})) for r in (low, high))
    for fold in folds_of(less):
        assert set(less.evaluation_rows(fold)) <= set(more.evaluation_rows(fold))
        assert set(less.training_rows(fold, low)) <= set(less.training_rows(fold, high))
        np.testing.assert_array_equal(less.training_rows(fold, low), more.training_rows(fold, low))
    assert set(less.all_rows(low)) <= set(less.all_rows(high))


POOLED, MATCHED = st.just("pooled"), st.just("matched")


@properties
@given(tables(kinds=POOLED), ratios)
def test_each_fold_has_its_ratio_of_pooled_negatives_or_all_there_are(drawn, ratio):
    _, _, table = drawn
    rows = table.all_rows(ratio)
    for fold in folds_of(table):
        in_fold, taken = table.fold_N == fold, rows[table.fold_N[rows] == fold]
        positives, available = int(table.label_N[in_fold].sum()), int((table.label_N[in_fold] == 0).sum())
        assert table.label_N[taken].sum() == positives
        assert (table.label_N[taken] == 0).sum() == min(available, max(1, floor(ratio * positives + 0.5)))


def counted(table, rows, fold, criterion):
    """(positives, negatives) among the rows, and the negatives that the corpus has."""
    here = (table.fold_N == fold) & (table.criterion_N == criterion)
    taken = table.label_N[rows[here[rows]]]
    return int(taken.sum()), int((taken == 0).sum()), int((table.label_N[here] == 0).sum())


@properties
@given(tables(kinds=MATCHED), ratios)
def test_each_criterion_of_each_fold_has_its_own_ratio_of_matched_negatives_or_all_there_are(drawn, ratio):
    _, _, table = drawn
    rows = table.all_rows(ratio)
    for fold in folds_of(table):
        cells = [counted(table, rows, fold, criterion) for criterion in range(len(table.criterion_ids))]
        for positives, negatives, available in cells:
            wanted = ratio * positives
            assert negatives == min(available, round(wanted)) or abs(min(available, wanted) - negatives) < 1
        assert sum(negatives for _, negatives, _ in cells) >= 1


@pytest.mark.parametrize("ratio", [1, 2.0, 5])
@properties
@given(drawn=tables(st.just(1.0), MATCHED))
def test_where_negatives_suffice_a_whole_ratio_makes_the_criterion_say_nothing(drawn, ratio):
    """The criterion's share of positives ranks evaluation and training pairs at AUC .5, fold by fold."""
    _, _, table = drawn
    for fold in folds_of(table):
        for rows, asked in ((table.training_rows(fold, ratio), ratio), (table.evaluation_rows(fold), 1.0)):
            label_R, criterion_R = table.label_N[rows], table.criterion_N[rows]
            every = np.arange(len(table.criterion_ids))
            positives_C = np.bincount(criterion_R[label_R == 1], minlength=len(every))
            negatives_C = np.bincount(criterion_R[label_R == 0], minlength=len(every))
            enough = negatives_C == asked * positives_C
            kept = enough[criterion_R]
            if kept.any() and positives_C[enough].any():
                share_C = positives_C / np.maximum(1, positives_C + negatives_C)
                assert roc_auc(share_C[criterion_R[kept]][None], label_R[kept])[0] == 0.5


def test_a_broken_ratio_is_rounded_for_rare_criteria_as_often_up_as_it_should_be():
    """One positive per fold and criterion: of 1.25 negatives asked for, a quarter of the cells get two."""
    posts = {f"p{i}": f"text {i}" for i in range(400)}
    annotations = tuple(Annotation(f"p{i}", f"s{i}", "x", f"C{i % 40}", 1, "") for i in range(400))
    corpus = Corpus(posts, {f"C{c}": f"criterion {c}" for c in range(40)}, annotations)
    table = build_pairs(corpus, DataConfig(num_folds=10))
    rows = table.all_rows(1.25)
    counts = [counted(table, rows, fold, criterion)[:2] for fold in folds_of(table) for criterion in range(40)]
    assert {positives for positives, _ in counts} == {1}
    assert {negatives for _, negatives in counts} == {1, 2}
    assert 1.18 < np.mean([negatives for _, negatives in counts]) < 1.32


@properties
@given(tables(), ratios)
def test_annotated_negatives_come_before_sampled_ones(drawn, ratio):
    _, data, table = drawn
    taken = set(table.all_rows(ratio))
    of_N = table.fold_N * 100 + (table.criterion_N if data.negatives == "matched" else 0)
    for kind in np.unique(of_N):
        in_kind = of_N == kind
        ranks = np.sort(table.rank_N[in_kind & (table.label_N == 0)])
        np.testing.assert_array_equal(ranks, np.arange(len(ranks)))
        if any(row in taken for row in np.flatnonzero(in_kind & (table.source_N == SAMPLED))):
            assert set(np.flatnonzero(in_kind & (table.source_N == ANNOTATED))) <= taken
    assert (table.rank_N[table.label_N == 1] == -1).all()


def test_pooled_pairs_are_those_of_the_first_version_to_the_fingerprint():
    pairs = build_pairs(synthetic_corpus(60, seed=1), DataConfig(negatives="pooled"))
    assert pairs.fingerprint == FIRST_VERSION
    assert build_pairs(synthetic_corpus(60, seed=1), DataConfig()).fingerprint != FIRST_VERSION


def test_a_fold_whose_negatives_are_all_of_criteria_without_a_positive_is_refused_with_a_way_out():
    """Every post shows A and none shows B: B's negatives tell nothing of A."""
    annotations = tuple(Annotation(f"p{i}", f"s{i}", "x", "A", 1, "") for i in range(6))
    corpus = Corpus({f"p{i}": f"text {i}" for i in range(6)}, {"A": "a", "B": "b"}, annotations)
    with pytest.raises(CorpusError, match="none of a criterion that has positives there") as caught:
        build_pairs(corpus, DataConfig(num_folds=3))
    assert "data.negatives=pooled" in str(caught.value)
    build_pairs(corpus, DataConfig(num_folds=3, negatives="pooled"))


@properties
@given(tables(st.just("all")))
def test_all_evaluates_every_pair_of_the_fold(drawn):
    _, _, table = drawn
    for fold in folds_of(table):
        np.testing.assert_array_equal(table.evaluation_rows(fold), np.flatnonzero(table.fold_N == fold))


@properties
@given(tables(), ratios)
def test_the_inner_split_shares_no_post_and_leaves_the_fold_out(drawn, ratio):
    _, _, table = drawn
    for fold in folds_of(table):
        fit, selection = table.inner_split(fold, ratio)
        assert not set(table.post_N[fit]) & set(table.post_N[selection])
        assert set(fit) <= set(table.training_rows(fold, ratio))
        others = [table.evaluation_rows(other) for other in folds_of(table) if other != fold]
        assert set(selection) <= set(np.concatenate(others))
        assert fold not in table.fold_N[selection]
        assert set(table.inner_N[selection]) <= {(fold - 1) % INNER_SLOTS}


@properties
@given(tables(), ratios)
def test_rows_used_are_the_union_of_training_and_evaluation(drawn, ratio):
    _, _, table = drawn
    parts = [rows for f in folds_of(table) for rows in (table.evaluation_rows(f), table.training_rows(f, ratio))]
    used = table.rows_used(ratio)
    assert used.dtype == np.int64
    np.testing.assert_array_equal(used, np.unique(np.concatenate(parts)))
    summary = table.summary(ratio)
    assert summary["dataset/total_pairs"] == len(used) == sum(list(summary.values())[1:3])


@properties
@given(tables(), st.randoms())
def test_the_order_of_the_files_rows_changes_no_label_fold_or_rank(drawn, lots):
    corpus, data, table = drawn
    annotations, posts = list(corpus.annotations), list(corpus.posts.items())
    lots.shuffle(annotations)
    same = build_pairs(Corpus(corpus.posts, corpus.criteria, tuple(annotations)), data)
    assert same.fingerprint == table.fingerprint
    lots.shuffle(posts)
    moved = build_pairs(Corpus(dict(posts), corpus.criteria, tuple(annotations)), data)

    def places(pairs):
        columns = (pairs.label_N, pairs.source_N, pairs.fold_N, pairs.inner_N, pairs.rank_N)
        return dict(zip(pairs.pair_ids(np.arange(len(pairs))), zip(*map(list, columns), strict=True), strict=True))

    assert places(moved) == places(table)


def test_the_same_seed_gives_the_same_table_and_another_another():
    first, again = build_pairs(CORPUS, DataConfig()), build_pairs(CORPUS, DataConfig())
    other = build_pairs(CORPUS, DataConfig(fold_seed=43))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (first.fold_N != other.fold_N).any()
    assert (first.rank_N != other.rank_N).any()
    assert build_pairs(CORPUS, DataConfig(eval_negative_ratio=2)).fingerprint != first.fingerprint
    assert build_pairs(CORPUS, DataConfig(eval_negative_ratio=1)).fingerprint == first.fingerprint


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_fresh_process_with_another_hash_seed_gives_the_same_table(hash_seed):
    code = (
        "from gemma_nli.config import DataConfig; from gemma_nli.corpus.pairs import build_pairs\n"
        "from gemma_nli.corpus.synthetic import synthetic_corpus as make\n"
        "print(build_pairs(make(120, seed=3), DataConfig()).fingerprint)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == build_pairs(CORPUS, DataConfig()).fingerprint


def test_posts_enough_for_the_folds_always_give_folds():
    corpus = make_corpus(40, 3, 0.3, seed=1)
    positive_posts = {a.post_id for a in corpus.annotations if a.status == 1}
    assert set(build_pairs(corpus, DataConfig(num_folds=len(positive_posts))).fold_N) == set(
        range(1, len(positive_posts) + 1)
    )


@pytest.mark.parametrize(
    ("statuses", "counts"),
    [([1, 1, 0, 0, 0, 0], "fold 3: 0 positive"), ([1] * 6, "1 positive and 0 negative"), ([0] * 6, "0 positive")],
)
def test_folds_without_both_classes_are_refused_with_counts_and_a_way_out(statuses, counts):
    annotations = tuple(Annotation(f"p{i}", "s", "x", "A", status, "") for i, status in enumerate(statuses))
    corpus = Corpus({f"p{i}": f"secret text {i}" for i in range(6)}, {"A": "a"}, annotations)
    with pytest.raises(CorpusError) as caught:
        build_pairs(corpus, DataConfig(num_folds=6))
    assert counts in str(caught.value)
    assert "data.num_folds" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_texts_and_frames_belong_to_their_rows():
    table = build_pairs(CORPUS, DataConfig())
    rows = table.evaluation_rows(2)[::-7]
    premises, hypotheses = pair_texts(CORPUS, table, rows)
    frame = table.frame(rows)
    assert list(frame.columns) == ["pair_id", "post_id", "criterion_id", "label", "source", "fold"]
    assert premises == [CORPUS.posts[name] for name in frame["post_id"]]
    assert hypotheses == [CORPUS.criteria[name] for name in frame["criterion_id"]]
    assert frame["pair_id"].tolist() == table.pair_ids(rows)
    assert ((frame["label"] == 1) == (frame["source"] == "positive")).all()
    assert set(frame["fold"]) == {2}


def test_the_folds_metadata_is_json_without_text_and_counts_what_is_there():
    table = build_pairs(CORPUS, DataConfig(eval_negative_ratio=1000))
    metadata = folds_metadata(table)
    text = json.dumps(metadata)
    assert not any(post in text for post in CORPUS.posts.values())
    for fold, reported in enumerate(metadata["folds"], start=1):
        frame = table.frame(table.evaluation_rows(fold))
        assert (
            reported["positives"]
            == (frame["label"] == 1).sum()
            == sum(c["positives"] for c in reported["support"].values())
        )
        assert reported["negatives"] == reported["negatives_available"]
        assert sum(reported["negatives"].values()) == (frame["label"] == 0).sum()
        assert sorted(reported["post_ids"]) == sorted(set(frame["post_id"]))


@pytest.mark.parametrize("fold", [0, 6, -1])
def test_a_fold_that_is_not_there_is_refused(fold):
    with pytest.raises(ValueError, match="folds are 1 to 5"):
        build_pairs(CORPUS, DataConfig()).evaluation_rows(fold)


def test_every_column_that_decides_who_is_chosen_or_measured_is_in_the_fingerprint():
    pairs = build_pairs(synthetic_corpus(60, seed=1), DataConfig())
    for column in ("label_N", "source_N", "fold_N", "inner_N", "rank_N"):
        changed = getattr(pairs, column).copy()
        changed[0] += 1
        assert dataclasses.replace(pairs, **{column: changed}).fingerprint != pairs.fingerprint, column


names = st.text(st.sampled_from("ab:\\\\/ %"), min_size=1, max_size=5)


@settings(deadline=None, max_examples=400)
@given(one=st.tuples(names, names), other=st.tuples(names, names))
def test_a_pair_id_names_one_pair_whatever_colons_its_ids_have(one, other):
    assert (pair_id(*one) == pair_id(*other)) == (one == other)


def test_ids_without_a_colon_make_the_pair_ids_they_always_made():
    assert pair_id("p::1", "LOW_MOOD") == "p::1::LOW_MOOD"
    assert pair_id("p1", "A1: Depressed mood") == r"p1::A1\: Depressed mood"
    table = build_pairs(CORPUS, DataConfig())
    assert table.pair_ids(np.array([0]))[0] == f"{table.post_ids[0]}::{table.criterion_ids[0]}"
