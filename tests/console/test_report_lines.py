"""What the terminal says of a report: the answer whole, the most serious warnings, where the others are."""

from __future__ import annotations

import pytest

from gemma_nli.console.command_results import show_cv
from gemma_nli.console.report_lines import show_report
from gemma_nli.training.results import CvResult

BEATEN = "The TF-IDF baseline beats the best trial by 0.064 F1 (95% interval 0.031 to 0.098)."


def lines(capsys: pytest.CaptureFixture[str], warnings: list[str]) -> str:
    show_report({"answer": [BEATEN, "One training per trial."], "warnings": warnings, "html": "/tmp/report.html"})
    return " ".join(capsys.readouterr().out.split())


def test_three_warnings_are_shown_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    out = lines(capsys, [f"reason {place}." for place in range(5)])
    assert "warning: reason 2." in out
    assert "reason 3" not in out
    assert "2 more warnings in the report" in out


def test_what_the_answer_says_is_not_said_again_as_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    out = lines(capsys, [BEATEN, "reason 0."])
    assert out.count("TF-IDF") == 1
    assert "warning: reason 0." in out
    assert "more warning" not in out


def test_what_a_note_says_beside_the_report_is_no_warning_too(capsys: pytest.CaptureFixture[str]) -> None:
    quantized = "The encoder is quantized: its numbers may differ."
    show_report({"answer": ["A."], "warnings": [quantized, "reason 0."], "html": "/tmp/r.html"}, notes=[quantized])
    out = " ".join(capsys.readouterr().out.split())
    assert "quantized" not in out
    assert "warning: reason 0." in out


def test_the_answer_ends_in_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    steps = {"use": "the best trial.", "try_next": "dropout above 0.5.", "not_settled": "whether dropout matters."}
    show_report({"answer": [BEATEN], "conclusion": steps, "warnings": ["reason 0."], "html": "/tmp/report.html"})
    said = capsys.readouterr().out.splitlines()
    at = said.index("Use: the best trial.")
    assert said[at - 1 : at + 5] == [
        "",
        "Use: the best trial.",
        "Try next: dropout above 0.5.",
        "Not settled: whether dropout matters.",
        "",
        "warning: reason 0.",
    ]


def test_a_single_run_says_what_its_scores_were_measured_on(capsys: pytest.CaptureFixture[str]) -> None:
    show_cv(CvResult([], {"cv_aggregate/mean_f1": 0.7}, {}), "at 3 pooled negatives per positive")
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said[-2:]] == [
        ["mean_f1", "0.7000"],
        ["measured", "at", "3", "pooled", "negatives", "per", "positive"],
    ]


def test_what_trainings_differ_by_is_in_the_terminal_too(capsys):
    sd = {"posts": 0.011, "folds": 0.004, "seeds": 0.02}
    values = {name: {"swept": 0.7, "confirmed": 0.69, "low": 0.65, "high": 0.73, "sd": sd} for name in ("mean", "cls")}
    confirmed = {"seeds": 3, "fold_drawings": 2, "values": values, "missing": []}
    show_report({"answer": ["A."], "warnings": [], "html": "/tmp/report.html", "confirmed": confirmed})
    out = " ".join(capsys.readouterr().out.split())
    assert "Trained again, 3 seeds on each of 2 fold drawings" in out
    assert "mean 0.700 0.690 0.650 to 0.730 0.011 0.020 0.004" in out
