from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from gemma_nli.config import DataConfig
from gemma_nli.corpus.pairs import ANNOTATED, build_pairs
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus, write_synthetic

CORPUS = synthetic_corpus()


def test_the_same_arguments_give_the_same_corpus_and_another_seed_another():
    assert synthetic_corpus() == CORPUS
    assert synthetic_corpus(seed=8).fingerprint != CORPUS.fingerprint


def test_what_is_written_loads_again_and_is_marked_synthetic(tmp_path):
    written = write_synthetic(tmp_path / "new" / "folder", num_posts=30, seed=1)
    assert load_corpus(tmp_path / "new" / "folder") == written == synthetic_corpus(30, 1)
    readme = (tmp_path / "new" / "folder" / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC" in readme
    assert "30 posts" in readme


def test_symptoms_have_redsm5s_order_of_frequency_and_posts_several_of_them():
    positive = {(a.post_id, a.criterion_id) for a in CORPUS.annotations if a.status == 1}
    posts_a_symptom = Counter(criterion for _, criterion in positive)
    symptoms_a_post = Counter(Counter(post for post, _ in positive).values())
    assert set(posts_a_symptom) == set(CORPUS.criteria)
    assert {name for name, _ in posts_a_symptom.most_common(2)} == {"DEPRESSED_MOOD", "WORTHLESSNESS"}
    assert min(posts_a_symptom.values()) >= 5
    assert symptoms_a_post[2] + symptoms_a_post[3] > 100
    assert 0.15 < 1 - sum(symptoms_a_post.values()) / len(CORPUS.posts) < 0.35


def test_hard_negatives_are_annotated_and_explained_and_none_is_also_positive():
    negatives = [a for a in CORPUS.annotations if a.status == 0]
    positive = {(a.post_id, a.criterion_id) for a in CORPUS.annotations if a.status == 1}
    assert len(negatives) > 80
    assert all(a.explanation for a in CORPUS.annotations)
    assert not positive & {(a.post_id, a.criterion_id) for a in negatives}
    assert {a.criterion_id for a in negatives} == set(CORPUS.criteria)


def test_sentences_stand_in_their_posts_and_no_slot_stays_open():
    for annotation in CORPUS.annotations:
        assert annotation.sentence_text in CORPUS.posts[annotation.post_id]
        assert annotation.sentence_id.startswith(annotation.post_id + "_")
    assert not any("{" in text for text in CORPUS.posts.values())
    assert len(set(CORPUS.posts.values())) == len(CORPUS.posts)


def test_a_symptoms_words_alone_do_not_tell_its_posts():
    """`sleep`, `tired` and the like stand in many posts without the symptom: a word rule is right too seldom."""
    rules = {
        "SLEEP_ISSUES": r"sleep|insomnia|awake",
        "FATIGUE": r"energy|tired|exhaust|drain",
        "APPETITE_CHANGE": r"eat|weight|meal",
    }
    for criterion, words in rules.items():
        positive = {a.post_id for a in CORPUS.annotations if a.criterion_id == criterion and a.status == 1}
        found = {post for post, text in CORPUS.posts.items() if re.search(words, text)}
        f1 = 2 * len(found & positive) / (len(found) + len(positive))
        assert 0.2 < f1 < 0.85, (criterion, f1)


def test_five_folds_hold_every_symptom_and_some_annotated_negatives():
    table = build_pairs(CORPUS, DataConfig())
    for fold in range(1, 6):
        rows = table.evaluation_rows(fold)
        assert len(set(table.criterion_N[rows][table.label_N[rows] == 1])) == len(CORPUS.criteria)
        assert (table.source_N[rows] == ANNOTATED).sum() >= 5
        assert np.isclose(table.label_N[rows].mean(), 0.5, atol=0.01)


def test_no_posts_are_refused():
    with pytest.raises(ValueError, match="num_posts"):
        synthetic_corpus(0)
