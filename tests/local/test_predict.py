"""A file of pairs or posts scored batch by batch: order, columns, memory, mistakes."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gemma_nli.base.errors import GemmaNliError
from gemma_nli.config import DeviceConfig
from gemma_nli.corpus.csv_files import csv_line, read_header, read_rows
from gemma_nli.corpus.file_problems import FileProblems
from gemma_nli.local.predict import count_rows, predict_file
from gemma_nli.model.bundles.scorer import PairScorer
from tests.commands import run_command
from tests.tracking.test_torch_models import CRITERIA, make_bundle

ROWS = [
    {"id": "a", "premise": 'so "tired", every\nday', "hypothesis": "fatigue"},
    {"id": "b", "premise": "fine", "hypothesis": "depressed mood"},
    {"id": "007", "premise": "NA", "hypothesis": "fatigue"},
]


@pytest.fixture(scope="module")
def bundle(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("predict") / "bundle", tiny_bert, max_length=48)


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> PairScorer:
    return PairScorer.from_bundle(bundle, DeviceConfig(device="cpu"))


@pytest.fixture
def pairs_csv(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_rows_keep_order_columns_and_text_whatever_the_batch(scorer, pairs_csv, tmp_path, chunk):
    done = predict_file(scorer, pairs_csv, tmp_path / "out.csv", chunk)
    assert (done.rows, done.columns) == (3, ("probability", "label"))
    with (tmp_path / "out.csv").open(newline="") as lines:
        written = list(csv.DictReader(lines))
    assert [{k: row[k] for k in ROWS[0]} for row in written] == ROWS
    expected = scorer.score(pd.DataFrame(ROWS))
    np.testing.assert_allclose([float(r["probability"]) for r in written], expected["probability"], atol=1e-6)
    assert [int(r["label"]) for r in written] == expected["label"].tolist()


def test_posts_alone_get_a_probability_and_a_label_per_criterion_and_the_threshold(scorer, tmp_path):
    pd.DataFrame({"post_id": ["x", "y"], "text": ["so tired", "fine"]}).to_csv(tmp_path / "posts.csv", index=False)
    done = predict_file(scorer, tmp_path / "posts.csv", tmp_path / "out.csv")
    names = [name for criterion in CRITERIA for name in (criterion, f"{criterion}_label")]
    assert done.columns == (*names, "threshold")
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["post_id", "text", *names, "threshold"]
    expected = scorer.score_posts(pd.DataFrame({"premise": ["so tired", "fine"]}))
    np.testing.assert_array_equal(written[names], expected[names])
    assert (written["threshold"] == scorer.bundle.threshold).all()
    for criterion, text in CRITERIA.items():
        pairs = pd.DataFrame({"premise": ["so tired", "fine"], "hypothesis": text})
        alone = scorer.score(pairs)
        np.testing.assert_allclose(written[criterion], alone["probability"], atol=1e-6)
        assert written[f"{criterion}_label"].tolist() == alone["label"].tolist()


def test_labels_of_posts_alone_follow_the_models_threshold_not_a_half(scorer):
    posts = pd.DataFrame({"premise": ["so tired", "fine"]})
    likely = scorer.score_posts(posts)[list(CRITERIA)].to_numpy()
    for threshold, label in ((likely.min() / 2, 1), ((1 + likely.max()) / 2, 0)):
        moved = PairScorer(dataclasses.replace(scorer.bundle, threshold=float(threshold))).score_posts(posts)
        assert (moved[[f"{name}_label" for name in CRITERIA]] == label).all(axis=None)
        assert (moved["threshold"] == threshold).all()


def test_a_criterion_that_has_the_name_of_a_score_keeps_it(scorer):
    criteria = {"A": "first", "A_label": "second", "threshold": "third"}
    metadata = {**scorer.bundle.metadata, "criteria": criteria}
    crossed = PairScorer(dataclasses.replace(scorer.bundle, metadata=metadata))
    columns = ["A", "A_label_", "A_label", "A_label_label", "threshold", "threshold_label", "threshold_"]
    assert list(crossed.score_posts(pd.DataFrame({"premise": ["fine"]})).columns) == columns


def test_the_command_names_its_output(bundle, pairs_csv, tmp_path, capsys):
    words = ["--model", str(bundle), "--input", str(pairs_csv), "--output", str(tmp_path / "out.csv")]
    assert run_command("predict", *words) == 0
    assert "3 rows with probability, label" in capsys.readouterr().out
    assert run_command("predict", *words) == 2
    assert "already exists" in capsys.readouterr().err
    assert run_command("predict", *words, "--replace", "--batch-rows", "1") == 0


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        ("premis,hypothesis\nprivate words,b\n", "did you mean 'premis'"),
        ("premise,hypothesis\n", "no rows"),
        ("premise,hypothesis,label\nprivate words,b,1\n", "'label' already"),
        ("premise,hypothesis,Label\nprivate words,b,1\n", "'label' already"),
        ("premise,hypothesis\nprivate words,b\n  ,c\n", "in.csv:3: has an empty premise"),
        ("premise,hypothesis\nprivate words,b\nprivate words,\n", "in.csv:3: has an empty hypothesis"),
        ("premise\nprivate words\n\nmore\n", "in.csv:3: has an empty premise"),
        ("premise,hypothesis\nprivate words,b\nprivate words\n", "in.csv:3: has 1 field, the header has 2"),
        ("post_id,text\n1,private words,\n2,more,\n", r"in.csv:2: has 3 fields, .*\(2 times: lines 2, 3\)"),
        ("premise\nprivate words, and tired\n", "in.csv:2: has 2 fields, the header has 1"),
        ('premise,hypothesis\n"private" words,b\n', "in.csv:2: broken quoting"),
        ('premise,hypothesis\nmy "private" words,b\n', "in.csv:2: broken quoting"),
        ("premise,hypothesis\nprivate\rwords,b\n", "in.csv:2: broken quoting, or a line break"),
        ("premise,hypothesis\nprivate\0words,b\n", "in.csv:2: contains a NUL"),
        ("premise,Premise\nprivate words,b\n", "column 'premise' occurs 2 times"),
        ("text,post\nprivate words,b\n", "mean the same"),
        ('premise,hypothesis\n"private words,b\n', "in.csv:2: a quote is never closed"),
        ("premise,hypotesis\nprivate words,b\n", "column 'hypotesis' is not read; name it hypothesis"),
        ("Premise,Hypothesis text\nprivate words,b\n", "column 'hypothesis text' is not read"),
        ("private words of mine;fine\nprivate words;b\n", "column 'premise' is missing"),
        ("", "in.csv:1: is empty"),
    ],
)
def test_a_bad_file_is_told_without_its_text_and_leaves_no_output(scorer, tmp_path, content, reported):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(GemmaNliError, match=reported) as caught:
        predict_file(scorer, tmp_path / "in.csv", tmp_path / "out.csv")
    assert "private" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if "out.csv" in path.name] == []


def test_an_output_that_cannot_be_is_told_before_the_model_is_fetched(pairs_csv, tmp_path, capsys):
    for output, reported in ((tmp_path, "is a folder"), (pairs_csv / "out.csv", "cannot be created")):
        words = ["--model", "models:/none@production", "--input", str(pairs_csv), "--output", str(output)]
        assert run_command("predict", *words, "--replace") == 2
        assert reported in capsys.readouterr().err


def test_every_problem_comes_at_once_and_before_a_row_is_scored(tmp_path):
    rows = ["fine,b"] * 10 + [",b", "one", "fine,b,c", 'a "b",c'] + ["fine,b"] * 10
    (tmp_path / "in.csv").write_bytes(("premise,hypothesis\n" + "\n".join(rows)).encode() + b"\ncaf\xe9,b\n")
    with pytest.raises(GemmaNliError) as caught:
        count_rows(tmp_path / "in.csv")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("in.csv: 5 problems")
    assert [line.split(":")[1] for line in lines[1:]] == ["12", "13", "14", "15", "26"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("names", [("ID", " Premise ", "HYPOTHESIS"), ("id", "Text", "Criterion")])
def test_what_is_written_is_read_back_equal_whatever_the_names_case_or_the_separator(
    scorer, tmp_path, names, separator
):
    rows = [
        ("\ufeffa", "lone\rreturn", 'quo"te'),
        (" b ", "semi;colon\tand, comma", "two\r\nlines\n"),
        ("", "\ufeffmark", "'x'"),
    ]
    (tmp_path / "in.csv").write_bytes("".join(csv_line(row, separator) for row in [names, *rows]).encode("utf-8-sig"))
    done = predict_file(scorer, tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as lines:
        header, *written = list(csv.reader(lines, delimiter=separator, strict=True))
    assert header == [*(name.strip() for name in names), "probability", "label"]
    assert [tuple(row[:3]) for row in written] == rows
    expected = scorer.score(pd.DataFrame(rows, columns=["id", "premise", "hypothesis"]))
    np.testing.assert_array_equal([float(row[3]) for row in written], expected["probability"])
    header = read_header(tmp_path / "out.csv", ["id"], FileProblems("out.csv"))
    assert header is not None
    again = [tuple(row[:3]) for _, row in read_rows(tmp_path / "out.csv", header, FileProblems("out.csv"))]
    assert (again, done.rows) == (rows, 3)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n", "\r\n\r\n"])
def test_a_file_may_end_with_or_without_a_line_end_or_with_empty_lines(tmp_path, end):
    (tmp_path / "in.csv").write_bytes(f"premise\nfine\nso tired{end}".encode())
    assert count_rows(tmp_path / "in.csv") == 2


def test_rows_are_records_not_lines(pairs_csv):
    assert count_rows(pairs_csv) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_rows_need_no_more_memory_than_a_few(bundle, tmp_path):
    """Peak memory of the process over 20,000 and over 1,000,000 rows."""
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from gemma_nli.config import DeviceConfig
        from gemma_nli.local.predict import predict_file
        from gemma_nli.model.bundles.scorer import PairScorer
        scorer = PairScorer.from_bundle(sys.argv[1], DeviceConfig(device="cpu"))
        done = predict_file(scorer, Path(sys.argv[2]), Path(sys.argv[3]))
        print(done.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)
    peaks = []
    for count in (20_000, 1_000_000):
        source = tmp_path / f"{count}.csv"
        with source.open("w") as out:
            out.write("premise,hypothesis\n")
            out.writelines(f"so tired {row % 977},fatigue\n" for row in range(count))
        command = [sys.executable, "-c", code, str(bundle), str(source), str(tmp_path / f"{count}.out.csv")]
        rows, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(rows) == count
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + 60_000  # KiB
