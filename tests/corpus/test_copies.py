"""Copies and near copies of posts are found, stay together, and are found fast."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import CorpusError
from gemma_nli.config import DataConfig
from gemma_nli.corpus.copies import groups_of_copies, words_in
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.folds import assign_folds
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Annotation, Corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from tests.growth import growth

LONG = "i have not slept for weeks and the days run together like water on glass while nobody at home says a word of it"
OTHER = "my sister sings in a choir on sundays and they travel by train to small towns where people bring them cake"


def same(one: str, other: str) -> bool:
    group_P = groups_of_copies(["a", "b"], [one, other])
    return bool(group_P[0] == group_P[1])


@pytest.mark.parametrize(
    "copy",
    [
        LONG.upper(),
        f"  {LONG}\r\n\r\n",
        LONG.replace(" ", "\n\n"),
        f'"{LONG}!!!"',
        LONG.replace("water", "w\u200bater"),
        LONG.replace("a", "\uff41"),  # full width
        LONG.replace("glass", "glasses"),
        f"EDIT: thanks all. {LONG}",
        f"{LONG} Has anybody else had this?",
        LONG.replace("weeks", "months"),
        LONG.replace("weeks", "months").replace("a word", "anything"),
    ],
)
def test_a_repost_is_found_whatever_its_case_spacing_punctuation_or_a_few_words(copy):
    assert same(LONG, copy)
    assert not same(OTHER, copy)


@pytest.mark.parametrize(
    ("one", "other", "copies"),
    [
        ("yes", "Yes!", True),
        ("yes", "no", False),
        ("I don't know.", "i dont know", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("...", "...", True),
        ("...", "!!!", False),  # nothing but punctuation is compared as it stands
        ("\U0001f622", "\U0001f62d", False),
        ("i am fine \U0001f622", "i am fine \U0001f600", False),
        ("i feel so sad today my friend", "i feel so glad today my friend", False),  # short: a word is much
        ("sorry for your loss today, my dear old friend", "sorry for your loss, my dear old friend", True),
        ("我今天很难过不想起床也不想吃东西真的很累", "我今天很难过不想起床也不想吃东西真的好累", True),
        ("我今天很难过", "他昨天很高兴", False),
        ("मैं दुखी हूँ की", "मैं दुखी हूँ कि", False),  # vowel signs are letters, not punctuation
    ],
)
def test_short_texts_and_other_scripts(one, other, copies):
    assert same(one, other) is copies


def test_a_copy_of_a_copy_is_in_the_group_whatever_the_order_of_the_rows():
    words = LONG.split()
    chain = [" ".join([f"new{i}" for i in range(step)] + words[step:]) for step in (0, 3, 6)]
    assert not same(chain[0], chain[2])
    texts = [chain[0], OTHER, chain[2], chain[1]]
    assert groups_of_copies(["p1", "p2", "p3", "p4"], texts).tolist() == [0, 1, 0, 0]
    assert groups_of_copies(["p4", "p3", "p2", "p1"], texts[::-1]).tolist() == [3, 3, 2, 3]


def test_posts_of_a_made_up_corpus_are_no_copies_so_its_folds_are_todays():
    corpus = synthetic_corpus(240)
    assert len(set(corpus.group_P.tolist())) == 240
    assert corpus_notes(corpus, build_pairs(corpus, DataConfig())) == []
    pairs = build_pairs(corpus, DataConfig(negatives="pooled"))
    assert corpus_notes(corpus, pairs) == []
    assert pairs.fingerprint == "809365996d295d965e562046d597ca30e21d10531e237825817ae535b1885781"


@settings(deadline=None, max_examples=60)
@given(num_posts=st.integers(1, 60), num_folds=st.integers(1, 6), seed=st.integers(0, 99))
def test_groups_stay_whole_and_groups_of_one_change_nothing(num_posts, num_folds, seed):
    rng = np.random.default_rng(seed)
    labels_PC = rng.random((num_posts, 3)) < 0.3
    alone_P = assign_folds(labels_PC, num_folds, seed)
    np.testing.assert_array_equal(alone_P, assign_folds(labels_PC, num_folds, seed, group_P=np.arange(num_posts)[::-1]))
    group_P = rng.integers(0, max(1, num_posts // 2), num_posts)
    fold_P = assign_folds(labels_PC, num_folds, seed, group_P=group_P)
    assert all(len(set(fold_P[group_P == group])) == 1 for group in group_P)
    sizes_K = np.bincount(fold_P, minlength=num_folds + 1)[1:]
    assert np.ptp(sizes_K) <= 1 + np.bincount(group_P).max()


def doubled(corpus: Corpus, change=str.upper) -> Corpus:
    posts = {**corpus.posts, **{f"copy of {name}": change(text) for name, text in corpus.posts.items()}}
    twins = [Annotation(f"copy of {a.post_id}", *list(vars(a).values())[1:]) for a in corpus.annotations]
    return Corpus(posts, corpus.criteria, (*corpus.annotations, *twins))


def test_a_corpus_given_twice_has_each_post_and_its_copy_on_one_side_of_every_split():
    once = synthetic_corpus(120, seed=3)
    twice = doubled(once)
    pairs = build_pairs(twice, DataConfig())
    assert pairs.copies == (240, 120)
    group_N = pairs.group_N
    for fold in range(1, 6):
        held = set(group_N[pairs.evaluation_rows(fold)])
        assert not held & set(group_N[pairs.training_rows(fold, 4.0)])
        fit, selection = pairs.inner_split(fold, 1.0)
        assert not set(group_N[fit]) & set(group_N[selection])
    posts_of_fold = [len(set(pairs.post_N[pairs.fold_N == fold])) for fold in range(1, 6)]
    assert posts_of_fold == [48] * 5
    (note,) = corpus_notes(twice, pairs)
    assert note == (
        "240 of 240 posts are copies or near copies of one another (120 groups): a group stays in one fold and counts "
        "as one post in intervals and tests."
    )


def test_copies_that_are_annotated_differently_are_counted():
    once = synthetic_corpus(60, seed=3)
    twice = doubled(once)
    kept = tuple(a for a in twice.annotations if not a.post_id.startswith("copy"))
    split = Corpus(twice.posts, twice.criteria, kept)
    (note,) = corpus_notes(split, build_pairs(split, DataConfig()))
    shown = {a.post_id for a in once.annotations if a.status == 1}
    assert note.endswith(f"the annotations of copies differ in {len(shown)}.")


def random_texts(count: int, words: int, vocabulary: int) -> list[str]:
    lots = random.Random(0)
    return [" ".join(f"w{int(vocabulary * lots.random() ** 2)}" for _ in range(words)) for _ in range(count)]


def test_many_posts_cost_time_by_their_words_and_not_by_their_pairs():
    texts = random_texts(8_000, 15, 5_000)
    ids = [str(number) for number in range(8_000)]
    assert growth(lambda count: groups_of_copies(ids[:count], texts[:count]), 1_000, 8_000) < 8 * 2.5  # pairs: 64 times


def test_thousands_of_near_copies_are_one_group_in_linear_time():
    texts = [f"{LONG} number {number}" for number in range(3_000)]
    assert set(groups_of_copies([str(n) for n in range(3_000)], texts).tolist()) == {0}


def test_words_are_those_that_are_compared():
    assert words_in("Don\u2019t  STOP (now)...\n42% \U0001f622日本") == [
        "dont",
        "stop",
        "now",
        "42",
        "\U0001f622",
        "日",
        "本",
    ]


def test_a_corpus_of_one_post_many_times_is_refused_with_how_many_there_really_are():
    annotations = tuple(Annotation(f"p{i}", "s", "x", "A", i % 2, "") for i in range(8))
    corpus = Corpus({f"p{i}": "the same words" for i in range(8)}, {"A": "a"}, annotations)
    with pytest.raises(CorpusError, match=r"8 posts \(1 apart from copies, which stay in one fold\)"):
        build_pairs(corpus, DataConfig(num_folds=2))
