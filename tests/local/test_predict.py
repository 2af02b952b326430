"""A file of pairs or posts scored batch by batch: order, columns, memory, mistakes."""

from __future__ import annotations

import csv
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gemma_nli.config import DeviceConfig
from gemma_nli.errors import GemmaNliError
from gemma_nli.local.predict import count_rows, predict_file
from gemma_nli.serving import PairScorer
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


def test_posts_alone_get_a_column_a_criterion(scorer, tmp_path):
    pd.DataFrame({"post_id": ["x", "y"], "text": ["so tired", "fine"]}).to_csv(tmp_path / "posts.csv", index=False)
    done = predict_file(scorer, tmp_path / "posts.csv", tmp_path / "out.csv")
    assert done.columns == tuple(CRITERIA)
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["post_id", "text", *CRITERIA]
    expected = scorer.score_posts(pd.DataFrame({"premise": ["so tired", "fine"]}))
    np.testing.assert_allclose(written[list(CRITERIA)], expected, atol=1e-6)


def test_the_command_names_its_output(bundle, pairs_csv, tmp_path, capsys):
    words = ["--model", str(bundle), "--input", str(pairs_csv), "--output", str(tmp_path / "out.csv")]
    assert run_command("predict", *words) == 0
    assert "3 rows with probability, label" in capsys.readouterr().out
    assert run_command("predict", *words) == 2
    assert "is there already" in capsys.readouterr().err
    assert run_command("predict", *words, "--replace", "--batch-rows", "1") == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("premis,hypothesis\nprivate words,b\n", "did you mean 'premis'"),
        ("premise,hypothesis\n", "no rows"),
        ("premise,hypothesis,label\nprivate words,b,1\n", "'label' already"),
        ("premise,hypothesis\nprivate words,b\n  ,c\n", "row 2 has an empty premise"),
        ("text,post\nprivate words,b\n", "mean the same"),
        ('premise,hypothesis\n"private words,b\n', "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_bad_file_is_told_without_its_text_and_leaves_no_output(scorer, tmp_path, content, told):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(GemmaNliError, match=told) as caught:
        predict_file(scorer, tmp_path / "in.csv", tmp_path / "out.csv")
    assert "private" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if "out.csv" in path.name] == []


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
        from gemma_nli.serving import PairScorer
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
