"""The report for a paper has the report's own numbers, and nobody's name is a command in it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.figures import draw
from gemma_nli.analysis.report.latex_files import tables, write_latex
from gemma_nli.analysis.report.latex_tables import cell, escaped, latex_table
from gemma_nli.analysis.report.report_tables import TableOf, word
from gemma_nli.analysis.report.write import Report
from gemma_nli.spec.spec import SweepSpec
from tests.analysis.latex_reader import cells, check, plain
from tests.commands import run_command

NASTY = r"a_b & 50% of $x^2$ {~#1} \input{x} [1] *2* <b>|`q`--'' " + '"'


@pytest.fixture(scope="module")
def findings(simulated_report: Report) -> Findings:
    """With a trial whose note quotes a post, and criteria, sweeps and values of nasty names."""
    found = simulated_report.findings
    post = next(iter(found.evidence.corpus.posts.values()))
    rows = (dataclasses.replace(found.rows[0], note=f"ValueError: {post}"), *found.rows[1:])
    criteria = tuple(dataclasses.replace(c, name=f"{c.name} {NASTY}") for c in found.mistakes.criteria)
    mistakes = dataclasses.replace(found.mistakes, criteria=criteria)
    evidence = dataclasses.replace(found.evidence, names=[NASTY])
    return dataclasses.replace(found, rows=rows, mistakes=mistakes, evidence=evidence)


@pytest.fixture(scope="module")
def folder(findings: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("paper") / "tables"
    assert write_latex(findings, draw(findings), target) == target / "report.tex"
    return target


def test_every_file_is_sound_and_is_shown_by_the_document(folder):
    names = {path.stem for path in folder.glob("*.tex")}
    assert names >= {"leaderboard", "compared", "baselines", "effects", "criteria", "settings", "numbers", "report"}
    for path in folder.glob("*.tex"):
        check(path.read_text(encoding="utf-8"))
    document = (folder / "report.tex").read_text(encoding="utf-8")
    assert set(re.findall(r"\\input\{(\w+)\}", document)) == names - {"report"}
    shown = re.findall(r"\{figures/(\w+)\.pdf\}", document)
    assert sorted(shown) == sorted(path.stem for path in (folder / "figures").glob("*.pdf"))
    assert {"answer", "effects", "criteria", "calibration"} <= set(shown)


def test_each_cell_is_the_reports(folder, findings):
    for name, _, table in tables(findings):
        header, rows = cells((folder / f"{name}.tex").read_text(encoding="utf-8"))
        kept = table.without_empty_columns()
        assert header == list(kept.header)
        assert rows == [[" ".join(each.text.split()) for each in row] for row in kept.rows[:40]]
    assert NASTY.strip() in plain((folder / "criteria.tex").read_text(encoding="utf-8"))


def test_the_numbers_for_a_papers_sentences_are_the_headlines(folder, findings):
    macros = dict(re.findall(r"\\newcommand\{\\gnli(\w+)\}\{(.*)\}", (folder / "numbers.tex").read_text()))
    honest = findings.honest
    assert macros["Honest"] == f"{honest.value:.3f}"
    assert macros["HonestHigh"] == f"{honest.high:.3f}"
    assert macros["Raw"] == f"{honest.raw:.3f}"
    assert macros["Posts"] == str(len(np.unique(findings.evidence.post_N)))
    assert macros["Negatives"] == "at 1 matched negative per positive"


def test_no_text_of_a_post_is_in_any_file(folder, findings):
    written = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.tex"))
    for post in findings.evidence.corpus.posts.values():
        for sentence in re.split(r"[.!?\n]+", post):
            assert len(sentence.split()) < 5 or escaped(sentence.strip()) not in written
    assert "left out" in (folder / "leaderboard.tex").read_text(encoding="utf-8")


def test_the_same_findings_give_the_same_bytes(folder, findings, tmp_path):
    write_latex(findings, draw(findings), tmp_path)
    for path in folder.rglob("*.*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30))
def test_any_words_are_read_back_as_they_are(text):
    row = latex_table(TableOf(("a", "b"), ((word(text), word("x")),)), text, "any")
    check(row)
    _, rows = cells(row)
    assert rows[0][-1] == "x"
    if text.strip() not in ("", "-"):  # else a column that says nothing
        assert rows[0][0] == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("-0.012 to 0.050", "$-0.012$ to 0.050"),
        ("0.1 (-0.2 to -0.1)", "0.1 ($-0.2$ to $-0.1$)"),
        ("last-2 and 1e-5", "last-2 and 1e-5"),
        ("-", "-"),
    ],
)
def test_a_minus_stands_before_negative_numbers_only(text, written):
    assert cell(text) == written


def test_the_command_writes_them_beside_the_report(
    simulated: tuple[SweepSpec, Evidence], tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(Path(simulated[0].storage).parent / "home"))
    words = ["report", "simulated", "--out", str(tmp_path / "out"), "--latex", str(tmp_path / "paper"), "--model-card"]
    assert run_command(*words, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["latex"] == str(tmp_path / "paper" / "report.tex")
    assert facts["model_card"] == str(tmp_path / "out" / "model_card.md")
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    _, rows = cells((tmp_path / "paper" / "baselines.tex").read_text(encoding="utf-8"))
    for row in rows:
        assert f"| {' | '.join(row)} |" in page
    (tmp_path / "file").write_text("")
    assert run_command("report", "simulated", "--out", str(tmp_path / "out"), "--latex", str(tmp_path / "file")) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")
def test_pdflatex_sets_the_document(folder):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "report.pdf").stat().st_size > 20_000
