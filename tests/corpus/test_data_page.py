"""docs/data.md: every file it shows is read as it stands, and it names every column and criterion there is."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from gemma_nli.corpus.criteria import dsm5_criteria
from gemma_nli.corpus.csv_files import SEPARATORS, read_header, read_rows
from gemma_nli.corpus.file_problems import FileProblems
from gemma_nli.corpus.redsm5 import (
    ANNOTATION_COLUMNS,
    ANNOTATIONS_FILE,
    CRITERIA_FILE,
    POST_COLUMNS,
    POSTS_FILE,
    load_corpus,
)

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^`(\w+\.\w+)`,.*?:\n\n```\w+\n(.*?)^```", PAGE, flags=re.M | re.S)
POSTS = [text for name, text in SHOWN if name == POSTS_FILE]
ANNOTATIONS = [text for name, text in SHOWN if name == ANNOTATIONS_FILE]
CRITERIA = [text for name, text in SHOWN if name == CRITERIA_FILE]


def write(folder: Path, posts: str, annotations: str, criteria: str | None = None) -> Path:
    (folder / POSTS_FILE).write_text(posts, encoding="utf-8")
    (folder / ANNOTATIONS_FILE).write_text(annotations, encoding="utf-8")
    if criteria is not None:
        (folder / CRITERIA_FILE).write_text(criteria, encoding="utf-8")
    return folder


def test_each_form_of_each_file_is_shown():
    assert (len(POSTS), len(ANNOTATIONS), len(CRITERIA)) == (2, 1, 2)
    assert {name for name, _ in SHOWN} == {POSTS_FILE, ANNOTATIONS_FILE, CRITERIA_FILE, "pairs.csv", "posts.csv"}
    for column in (*POST_COLUMNS, *ANNOTATION_COLUMNS):
        assert f"`{column}`" in PAGE
    for criterion in dsm5_criteria():
        assert f"`{criterion}`" in PAGE


@pytest.mark.parametrize("annotations", ANNOTATIONS)
def test_the_files_shown_are_a_corpus(tmp_path, annotations):
    corpus = load_corpus(write(tmp_path, POSTS[0], annotations))
    assert list(corpus.posts) == ["p1", "p2", "p3"]
    assert corpus.posts["p2"] == 'He said "get up", so I tried.\nI went back to bed.'
    assert [a.status for a in corpus.annotations] == [1, 1, 0]
    assert list(corpus.criteria) == list(dsm5_criteria())


@pytest.mark.parametrize("separator", SEPARATORS)
def test_columns_may_stand_in_any_order_and_case_with_every_separator(tmp_path, separator):
    posts = POSTS[1].replace(";", separator)
    annotations = separator.join(ANNOTATION_COLUMNS) + f"\np2{separator * 3}ANHEDONIA{separator}1{separator}\n"
    corpus = load_corpus(write(tmp_path, posts, annotations))
    assert corpus.posts == {
        "p1": "I have not slept for a week.",
        "p2": f"Everything is grey{separator} nothing is fun.",
    }


def test_criteria_of_your_own_are_read_with_their_ids(tmp_path):
    criteria = json.loads(CRITERIA[0])
    rows = [f"p{n},,,{item['id']},1,\n" for n, item in zip(itertools.count(1), criteria, strict=False)]
    corpus = load_corpus(write(tmp_path, POSTS[0], ",".join(ANNOTATION_COLUMNS) + "\n" + "".join(rows), CRITERIA[0]))
    assert corpus.criteria == {item["id"]: item["text"] for item in criteria}


def test_criteria_with_several_texts_are_read_in_each_wording(tmp_path):
    criteria = json.loads(CRITERIA[1])
    rows = [f"p{n},,,{item['id']},1,\n" for n, item in zip(itertools.count(1), criteria, strict=False)]
    corpus = load_corpus(write(tmp_path, POSTS[0], ",".join(ANNOTATION_COLUMNS) + "\n" + "".join(rows), CRITERIA[1]))
    for wording in ("full", "short", "question"):
        worded = corpus.in_words(wording)
        assert worded.criteria == {item["id"]: item["texts"][wording] for item in criteria}
        assert worded.fingerprint == corpus.fingerprint


@pytest.mark.parametrize(("name", "columns"), [("pairs.csv", ["premise", "hypothesis"]), ("posts.csv", ["premise"])])
def test_the_tables_for_predict_are_sound(tmp_path, name, columns):
    path = tmp_path / name
    path.write_text(dict(SHOWN)[name], encoding="utf-8")
    problems = FileProblems(name)
    header = read_header(path, columns, problems)
    assert header is not None
    assert set(columns) <= set(header.folded)
    assert len(list(read_rows(path, header, problems))) == 1
    assert not problems.count
