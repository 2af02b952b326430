from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.base.errors import CorpusError
from gemma_nli.corpus.redsm5 import ANNOTATION_COLUMNS, Annotation, Corpus, load_corpus, write_corpus

POSTS = "post_id,text\np1,first\np2,second\n"
HEADER = ",".join(ANNOTATION_COLUMNS) + "\n"
ANNOTATIONS = HEADER + "p1,p1_1,first,FATIGUE,1,why\n"
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "reddit_emotions"
SECRET = "the private words of somebody"


@pytest.fixture
def folder(tmp_path):
    def write(posts=POSTS, annotations=ANNOTATIONS, criteria=None):
        named = {"redsm5_posts.csv": posts, "redsm5_annotations.csv": annotations, "criteria.json": criteria}
        for name, content in named.items():
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def refusal(folder) -> str:
    with pytest.raises(CorpusError) as caught:
        load_corpus(folder)
    return str(caught.value)


def test_texts_come_back_as_they_are_with_commas_quotes_and_line_breaks(folder):
    text = '“Curly” apostrophes’, a "quote",\r\nand\nbreaks\r '
    quoted = text.replace('"', '""')
    corpus = load_corpus(folder(posts=f'\ufeffpost_id,text\r\np1,"{quoted}"\r\n'))
    assert corpus.posts == {"p1": text}
    assert corpus.annotations == (Annotation("p1", "p1_1", "first", "FATIGUE", 1, "why"),)


def test_without_a_criteria_file_the_ten_dsm5_criteria_are_known(folder):
    criteria = load_corpus(folder()).criteria
    assert len(criteria) == len(set(criteria.values())) == 10
    assert {"DEPRESSED_MOOD", "SPECIAL_CASE"} <= set(criteria)


def test_the_dsm5_criteria_have_three_wordings_each_with_texts_of_its_own(folder):
    corpus = load_corpus(folder())
    texts = [corpus.in_words(wording).criteria for wording in ("full", "short", "question")]
    assert texts[0] == corpus.criteria
    assert len({text for each in texts for text in each.values()}) == 30
    assert all(len(short) < len(full) for short, full in zip(texts[1].values(), texts[0].values(), strict=True))
    assert all(question.endswith("?") for question in texts[2].values())
    with pytest.raises(CorpusError, match=r"data.wording is 'long', .*'DEPRESSED_MOOD' \(nor of 9 more\)"):
        corpus.in_words("long")


def test_with_a_criteria_file_only_its_ids_are_known(folder):
    criteria = json.dumps([{"id": "JOY", "text": "The writer is glad."}])
    assert "unknown symptom 'FATIGUE'" in refusal(folder(criteria=criteria))


def test_every_problem_of_every_file_comes_at_once_with_its_physical_line(folder):
    posts = 'post_id,text\np1,"two\nlines"\np2, \np1,again\n,x\np3,a,b\np4,ok\n'
    annotations = HEADER + (
        'p9,s,"sentence\nof two lines",FATIGUE,1,\np1,s,x,FATIGE,1,\np1,s,x,FATIGUE,2,\n\np1,s,x,,0,\n,s,x,FATIGUE,,\n'
    )
    criteria = (
        '[{"id": "FATIGUE", "text": "tired"},\n {"id": "FATIGUE", "text": "other"},\n\n {"id": " ", "text": "x"}]'
    )
    text = refusal(folder(posts, annotations, criteria))
    assert text.splitlines()[0].endswith(": 10 problems")
    for line in [
        "redsm5_posts.csv:4: post_id 'p2': text is empty",
        "redsm5_posts.csv:5: duplicate post_id 'p1', first at line 2",
        "redsm5_posts.csv:6: post_id is empty",
        "redsm5_posts.csv:7: has 3 fields, the header has 2",
        "redsm5_annotations.csv:5: status must be 0 or 1, got a value '2'",
        "redsm5_annotations.csv:7: DSM5_symptom is empty",
        "redsm5_annotations.csv:8: post_id is empty",
        "redsm5_annotations.csv:8: status must be 0 or 1, got nothing",
        "criteria.json:2: duplicate criterion 'FATIGUE', first at line 1",
        "criteria.json:4: a criterion's 'id' is empty",
    ]:
        assert line in text


def test_unknown_names_come_with_the_nearest_one_and_their_line(folder):
    annotations = HEADER + 'p1,s,"a\nb",FATIGUE,1,\np9,s,x,FATIGE,1,\n'
    text = refusal(folder(annotations=annotations))
    assert "redsm5_annotations.csv:4: post_id 'p9' is not in redsm5_posts.csv" in text
    assert "redsm5_annotations.csv:4: unknown symptom 'FATIGE'; did you mean 'FATIGUE'?" in text


@pytest.mark.parametrize("name", ["redsm5_posts.csv", "redsm5_annotations.csv"])
def test_a_missing_file_is_named_and_blamed_alone(folder, name):
    place = folder()
    (place / name).unlink()
    text = refusal(place)
    assert f"{name}: no such file" in text
    assert "1 problem" in text.splitlines()[0]


def test_a_missing_folder_is_named(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("column", ANNOTATION_COLUMNS)
def test_a_missing_column_is_named_with_the_nearest_one_there(folder, column):
    text = refusal(folder(annotations=HEADER.replace(column, column + "X")))
    assert f"redsm5_annotations.csv:1: column '{column}' is missing; did you mean '{column}X'?" in text


@pytest.mark.parametrize(
    ("posts", "what"),
    [
        (b"post_id,text\np1,ok\np2,caf\xe9\n", "redsm5_posts.csv:3: not UTF-8 (0xe9 at byte 7"),
        (POSTS.encode("utf-16"), "redsm5_posts.csv:1: not UTF-8 (this is UTF-16)"),
        (POSTS + "p3,a\0b\n", "redsm5_posts.csv:4: contains a NUL"),
        (POSTS + 'p3,"never closed\nmore\n', "redsm5_posts.csv:4: a quote is never closed"),
        (POSTS + 'p3,"closed" early\n', "redsm5_posts.csv:4: broken quoting"),
        ("", "redsm5_posts.csv:1: is empty"),
        ("post_id,text\n", "redsm5_posts.csv:1: has a header but no posts"),
        ("post_id,text,text\np1,a,b\n", "column 'text' occurs 2 times"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(folder, posts, what):
    assert what in refusal(folder(posts=posts))


@pytest.mark.parametrize(
    ("criteria", "what"),
    [
        ('[{"id": "A",\n "text" "x"}]', "criteria.json:2: not valid JSON at column 9"),
        ('{"A": "x"}', "criteria.json:1: expected a list"),
        ("[]", "got an empty list"),
        ('[{"id": "A", "text": "x"},\n"B"]', "criteria.json:2: expected a list of"),
        ('[{"id": "A", "txt": "x"}]', "has no 'text'; did you mean 'txt'?"),
        ('[{"id": "A", "text": 3}]', "'text' must be text, got int"),
        ('[{"id": "A", "text": "x"}, {"id": "B", "text": "x"}]', "has the same text as another"),
        ('[{"id": "A\\nB", "text": "x"}]', "control character"),
        ('[{"id": "A\\u2028B", "text": "x"}]', "control character"),
        ('[{"id": "A", "text": "\\ud800"}]', "not valid Unicode"),
        ("[" * 100_000, "not valid JSON"),
        ('[{"id": "A", "texts": {}}]', "'texts' must be a mapping of names to texts, got an empty one"),
        ('[{"id": "A", "texts": ["x"]}]', "'texts' must be a mapping of names to texts, got list"),
        ('[{"id": "A", "texts": {"full": " "}}]', "'texts.full' is empty"),
        ('[{"id": "A", "texts": {"full": 3}}]', "'texts.full' must be text, got int"),
        ('[{"id": "A", "texts": {"a long name": "x"}}]', "a name in a criterion's 'texts' is of 11 characters"),
        ('[{"id": "A", "text": "x", "texts": {"full": "x"}}]', "has both 'text' and 'texts'"),
        ('[{"id": "A", "texts": {"q": "x"}}, {"id": "B", "texts": {"q": "x"}}]', "has the same text 'q' as another"),
    ],
)
def test_a_malformed_criteria_file_is_refused_in_a_sentence(folder, criteria, what):
    assert what in refusal(folder(criteria=criteria))


@pytest.mark.parametrize(
    "files",
    [
        {"posts": f"p1,{SECRET}\np2,{SECRET}\n"},  # no header: the first post stands in its place
        {"posts": f"post_id,text\n{SECRET},p1\n{SECRET},p2\n"},  # columns swapped
        {"posts": f"post_id,text\np1,{SECRET}, and more\n"},
        {"posts": f'post_id,text\np1,"{SECRET}\n'},
        {"annotations": HEADER + f"p1,s,FATIGUE,{SECRET},1,\np1,s,x,FATIGUE,{SECRET},1\n{SECRET},s,x,FATIGUE,1,\n"},
        {"criteria": json.dumps([{"id": SECRET, "text": "x"}, {"id": SECRET, "text": "y"}])},
    ],
)
def test_a_posts_text_never_stands_in_an_error(folder, files):
    text = refusal(folder(**files))
    assert "private" not in text
    assert "somebody" not in text


def test_equal_problems_are_one_line_with_a_count_and_the_first_places(folder):
    text = refusal(folder(annotations=HEADER + "p1,s,x,FATIGUE,7,\n" * 1234))
    assert text.splitlines()[0].endswith(": 1234 problems")
    assert text.splitlines()[1:] == [
        "  redsm5_annotations.csv:2: status must be 0 or 1, got a value '7'. (1234 times: lines 2, 3, 4, 5, 6, ...)"
    ]


def test_of_problems_that_differ_in_a_name_three_are_shown_and_the_others_counted(folder):
    rows = "".join(f"q{number},s,x,FATIGUE,1,\n" for number in range(40))
    lines = refusal(folder(annotations=HEADER + rows)).splitlines()
    assert lines[0].endswith(": 40 problems")
    assert len(lines) == 5
    assert lines[3] == "  redsm5_annotations.csv:4: post_id 'q2' is not in redsm5_posts.csv."
    assert lines[4] == "  redsm5_annotations.csv:5: ... and 37 more: unknown post_id (lines 5, 6, 7, 8, 9, ...)"


def test_a_post_longer_than_the_csv_modules_limit_is_read_whole(folder):
    limit, text = csv.field_size_limit(), "long " * 100_000
    assert load_corpus(folder(posts=f"post_id,text\np1,{text}\n")).posts["p1"] == text
    assert csv.field_size_limit() == limit


def test_the_fingerprint_follows_content_and_not_the_order_of_annotations(folder):
    rows = ["p1,a,x,FATIGUE,1,why\n", "p2,b,y,ANHEDONIA,0,because\n"]
    first = load_corpus(folder(annotations=HEADER + "".join(rows))).fingerprint
    assert load_corpus(folder(annotations=HEADER + "".join(rows[::-1]))).fingerprint == first
    assert load_corpus(folder(annotations=HEADER + rows[0])).fingerprint != first
    assert load_corpus(folder(annotations=HEADER + rows[0] + rows[1].replace(",0,", ",1,"))).fingerprint != first
    changed = POSTS.replace("second", "2nd")
    assert load_corpus(folder(posts=changed, annotations=HEADER + "".join(rows))).fingerprint != first


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
ids = st.text("abcdefgh_0123", min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(posts=st.dictionaries(ids, texts, min_size=1, max_size=5), data=st.data())
def test_what_is_written_is_read_back_equal(tmp_path_factory, posts, data):
    criteria = {"A": "first", "B": "second"}
    annotation = st.builds(
        Annotation, st.sampled_from(sorted(posts)), ids, texts, st.sampled_from("AB"), st.integers(0, 1), texts
    )
    corpus = Corpus(posts, criteria, tuple(data.draw(st.lists(annotation, max_size=4))))
    place = tmp_path_factory.mktemp("corpus")
    write_corpus(corpus, place)
    assert load_corpus(place) == corpus


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/reddit_emotions is not beside this repository")
def test_the_real_reddit_comments_load_whole():
    corpus = load_corpus(REAL)
    assert (len(corpus.posts), len(corpus.criteria), len(corpus.annotations)) == (1587, 9, 1292)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_semicolons_tabs_and_bars_are_read(folder, separator):
    posts = f'POST_ID{separator} Text \np1{separator}"first, {separator} and ""more"""\np2{separator}second, plain\n'
    annotations = ANNOTATIONS.replace(",", separator)
    assert load_corpus(folder(posts, annotations)).posts == {
        "p1": f'first, {separator} and "more"',
        "p2": "second, plain",
    }


def test_a_file_without_a_header_is_one_problem(folder):
    text = refusal(folder(annotations=ANNOTATIONS.removeprefix(HEADER)))
    assert text.splitlines()[0].endswith(": 1 problem")
    assert "redsm5_annotations.csv:1: names none of the columns post_id, sentence_id" in text


def test_own_criteria_without_their_file_are_one_problem_that_shows_its_form(folder):
    rows = "".join(f"p1,s,x,C{number % 30},1,\n" for number in range(500))
    text = refusal(folder(annotations=HEADER + rows))
    assert text.splitlines()[0].endswith(": 1 problem")
    assert (
        "redsm5_annotations.csv:2: 30 different symptoms are not among the package's DSM-5 criteria ('C0', 'C1',"
        in text
    )
    assert 'criteria.json in the same folder: [{"id": "C0", "text": ' in text
    assert len(text) < 600


def test_a_sentence_judged_both_ways_is_noted_with_its_lines_and_counts_as_positive(folder):
    rows = [
        "p1,a,x,FATIGUE,0,\n",
        "p1,a,x,FATIGUE,1,\n",
        "p1,b,y,FATIGUE,0,\n",
        "p1,a,x,ANHEDONIA,0,\n",
        "p2,a,z,FATIGUE,1,\n",
    ]
    corpus = load_corpus(folder(annotations=HEADER + "".join(rows)))
    assert corpus.notes == (
        "1 sentence has status 1 and status 0 for one criterion (redsm5_annotations.csv, lines 2 and 3); any status 1 "
        "counts, so the pair is positive.",
    )
    assert load_corpus(folder(annotations=HEADER + "".join(rows[1:]))).notes == ()


ODD_IDS = [
    "USE::MONITOR", "A1: Depressed mood", "a/b/../c", "../x", "50% :: of\\days", "müde 😴", "a,b;c", 'say "so"', "=1+1",
    "::", ":", "\\:", "[bold]x[/bold]", "<b>", "x" * 300, "nbsp\u00a0here", "A1 Depressed mood",
]  # fmt: skip


def test_any_id_without_control_characters_is_taken_and_read_back(tmp_path):
    posts = {f"{name} post": f"text {place}" for place, name in enumerate(ODD_IDS)}
    criteria = {name: f"hypothesis {place}" for place, name in enumerate(ODD_IDS)}
    annotations = tuple(Annotation(post, "s", "x", name, 1, "") for post in posts for name in criteria)
    corpus = Corpus(posts, criteria, annotations)
    write_corpus(corpus, tmp_path)
    assert load_corpus(tmp_path) == corpus


def test_a_post_id_with_a_control_character_is_refused(folder):
    assert "redsm5_posts.csv:2: post_id contains a control character" in refusal(
        folder(posts='post_id,text\n"p\t1",x\n')
    )


def test_equal_sentences_under_two_ids_are_one_sentence_judged_both_ways(folder):
    rows = "p1,a_1,first,FATIGUE,1,why\np1,b_1, first ,FATIGUE,0,why\np1,b_2,other,FATIGUE,0,why\n"
    (note,) = load_corpus(folder(annotations=HEADER + rows)).notes
    assert note.startswith(
        "1 sentence has status 1 and status 0 for one criterion (redsm5_annotations.csv, lines 2 and 3)"
    )


@pytest.mark.parametrize(("written", "meant"), [("fatigue", "FATIGUE"), ("Depressed mood", "DEPRESSED_MOOD")])
def test_a_symptom_in_another_case_is_answered_with_the_one_that_is_meant(folder, written, meant):
    message = refusal(folder(annotations=HEADER + f"p1,p1_1,first,{written},1,why\n"))
    assert f"did you mean '{meant}'?" in message
    assert "criteria.json" not in message
