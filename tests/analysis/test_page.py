"""What stands beside a score, which figures are drawn, and what the markdown does not speak of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.importance import LEAST, importances
from gemma_nli.analysis.report.figures import draw
from gemma_nli.analysis.report.write import Report, write_report
from gemma_nli.spec.spec import SweepSpec
from tests.analysis.conftest import evidence_over, skill_of

AT = "at 1 matched negative per positive"
Make = Callable[..., Evidence]
POOLING, RATE, DROPOUT = "model.pooling_strategy", "training.learning_rate", "model.dropout"


@pytest.fixture
def make(analysis_corpus: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))

    def skill(settings: Mapping[str, Any]) -> float:
        return skill_of({POOLING: "mean", RATE: 1e-3, **settings})

    def evidence(**values: list[Any]) -> Evidence:
        space = {key: {"grid": tried} for key, tried in values.items()}
        return evidence_over(tmp_path, analysis_corpus, tiny_bert, space, skill)

    return evidence


def test_each_figure_and_table_of_scores_says_what_they_were_measured_on(simulated_report: Report) -> None:
    page = simulated_report.html.read_text(encoding="utf-8").split('<script type="application/json"')[0]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert [text for text in captions if AT not in text] == ["Importance of the settings"]
    tables = re.findall(r'(?s)<table class="sortable">(.*?)</table>', page)
    without = [table for table in tables if f"{AT}</caption>" not in table]
    assert ["called matched" in table or "probability of" in table for table in without] == [True, True]
    assert f'<p class="at">Scores {AT}.</p>' in page
    text = simulated_report.markdown.read_text(encoding="utf-8")
    captions = re.findall(r"(?m)^\*(.*?)\*(?: .*)?\n\n\|", text)
    assert len(captions) == len(tables)
    assert [caption for caption in captions if AT not in caption] == ["Decisions", "Most confident mistakes"]
    answer = simulated_report.findings.answer
    assert f"F1 {AT}" in answer.first
    assert f"F1 {AT}" in answer.second


def test_the_markdown_speaks_of_nothing_that_only_a_page_can_do(simulated_report: Report) -> None:
    text = simulated_report.markdown.read_text(encoding="utf-8")
    assert re.findall(r"(?i)\b(click|drag|hover|shaded|dark|scroll)\w*", text) == []
    rows = simulated_report.findings.rows
    marked = [row.rank for row in rows if row.level_with_winner and row.rank != 1]
    assert [int(rank) for rank in re.findall(r"(?m)^\| (\d+) \\\*", text)] == marked
    assert marked


def test_one_trial_has_no_figure_of_trials_and_no_luck_of_being_chosen(make: Make, tmp_path: Path) -> None:
    report = write_report(make(**{POOLING: ["mean"]}), tmp_path / "report")
    assert list(draw(report.findings)) == ["curves", "criteria", "calibration"]
    page, text = report.html.read_text(encoding="utf-8"), report.markdown.read_text(encoding="utf-8")
    for said in (page.split("<script")[0], text):
        assert "best of 1" not in said
        assert "luck" not in re.split(r'id="baselines"|## Baselines', said)[0]
    assert f"The trial (pooling_strategy mean) scores {report.findings.honest.raw:.3f} F1 {AT} (" in page


def test_two_trials_have_no_figure_that_shows_what_another_one_does(make: Make, tmp_path: Path) -> None:
    report = write_report(make(**{POOLING: ["mean", "max"]}), tmp_path / "report")
    assert list(draw(report.findings)) == ["answer", "curves", "criteria", "calibration"]


def test_importance_is_not_drawn_from_few_trials(make: Make, simulated: tuple[SweepSpec, Evidence]) -> None:
    eight = make(**{POOLING: ["mean", "max"], RATE: ["1e-4", "1e-3"], DROPOUT: [0.0, 0.1]})
    assert len(eight.complete) == 8 < LEAST["fANOVA"]
    assert importances(eight) == {}
    assert len(simulated[1].complete) == 18 < LEAST["PED-ANOVA"]
    assert list(importances(simulated[1])) == ["fANOVA"]
