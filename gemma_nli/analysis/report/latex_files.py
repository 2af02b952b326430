"""The report for a paper: a LaTeX file per table, a PDF per figure, its numbers as macros, and a document of them all.

DIR/report.tex          a document that shows everything, to be compiled as it is
    numbers.tex         \\gnliHonest and the like, for a paper's own sentences
    leaderboard.tex     and the other tables, each for \\input
    figures/answer.pdf  and the other figures

Numbers are the report's: the tables' own cells and the figures' own points. No text of a post is among them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.from_journals import comparable
from gemma_nli.analysis.report.confirmation_tables import confirmed_table
from gemma_nli.analysis.report.figure_parts import Figure
from gemma_nli.analysis.report.latex_tables import cell, escaped, latex_table
from gemma_nli.analysis.report.report_tables import (
    TableOf,
    baseline_table,
    baseline_tests_table,
    contrast_table,
    criteria_table,
    effect_table,
    leaderboard_table,
    word,
)
from gemma_nli.base.errors import ReportError
from gemma_nli.base.files import write_whole
from gemma_nli.base.private_texts import PrivateTexts, texts_of
from gemma_nli.base.what_was_measured import REFIT
from gemma_nli.spec.domain import shown


def write_latex(findings: Findings, figures: dict[str, Figure], folder: Path) -> Path:
    """Write all files; the document's path.

    Raises:
        ReportError: the folder cannot be written to.
    """
    from gemma_nli.analysis.report.figure_pdf import figure_pdf  # matplotlib takes a second to import

    files: dict[str, bytes] = {}
    for name, caption, table in tables(findings):
        files[f"{name}.tex"] = latex_table(table, caption, name).encode()
    drawn = []
    for name, figure in figures.items():
        pdf = figure_pdf(figure)
        if pdf is not None:
            files[f"figures/{name}.pdf"] = pdf
            drawn.append(figure)
    files["numbers.tex"] = numbers(findings).encode()
    files["report.tex"] = _document(findings, drawn).encode()
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_whole(folder / file, content)
    except OSError as error:
        raise ReportError(f"--latex {folder}: cannot be written: {error.strerror}; name another folder.") from error
    return folder / "report.tex"


def tables(findings: Findings) -> Iterator[tuple[str, str, TableOf]]:
    """(name of the file and label, caption, table) of each table with content."""
    measured = _measured(findings)
    makers: list[tuple[str, str, Callable[[Findings], TableOf], bool]] = [
        ("leaderboard", f"Trials by {findings.metric_name}, means over folds. {measured}", leaderboard_table, True),
        (
            "compared",
            "Compared values, each at its best: the leader against the others. Intervals and p hold for all of them at "
            f"once. {measured}",
            contrast_table,
            bool(findings.answer.contrasts),
        ),
        (
            "baselines",
            "The best trial, the luck of its choice taken off, against each baseline. Intervals and p hold for all "
            f"rows at once. {measured}",
            baseline_table,
            True,
        ),
        (
            "baseline_tests",
            f"The best trial as it is against each baseline, by every test. {measured}",
            baseline_tests_table,
            True,
        ),
        (
            "effects",
            "What each setting did, the others held equal. Intervals and p hold for all settings at once.",
            effect_table,
            bool(findings.effects),
        ),
        (
            "criteria",
            f"The best trial by criterion, over all folds; intervals of F1 resample posts. {measured}",
            criteria_table,
            True,
        ),
        (
            "confirmed",
            f"The compared values trained again, on fresh folds and seeds. {measured}",
            lambda found: confirmed_table(found.confirmation) if found.confirmation else TableOf((), ()),
            findings.confirmation is not None,
        ),
        ("settings", "The best trial's settings, as far as they decide its numbers.", settings_table, True),
    ]
    private = PrivateTexts(partial(texts_of, findings.evidence.corpus))
    yield from ((name, caption, _public(make(findings), private)) for name, caption, make, there in makers if there)


def _public(table: TableOf, private: PrivateTexts) -> TableOf:
    """Without text of posts, wherever data.log_text let it into a cell (an error that quotes one)."""
    rows = [tuple(dataclasses.replace(each, text=private.left_out(each.text)) for each in row) for row in table.rows]
    return dataclasses.replace(table, rows=tuple(rows))


def settings_table(findings: Findings) -> TableOf:
    """The winner's settings; of a folder on a disk only the name."""
    evidence = findings.evidence
    settings = comparable(evidence.complete[evidence.winner].config)
    rows = []
    for key, value in settings.items():
        named = Path(value).name if key == "model.name" and Path(value).is_absolute() else value
        rows.append((word(key), word(shown(named)), word("varied" if key in evidence.varied else "")))
    return TableOf(("setting", "value", "in the sweep"), tuple(rows), scored=False)


def numbers(findings: Findings) -> str:
    """`\\newcommand` lines: the numbers of the headline, as the report writes them."""
    honest, evidence = findings.honest, findings.evidence
    within = findings.within.auc
    macros = {
        "Metric": findings.metric_name,
        "Honest": f"{honest.value:.3f}",
        "HonestLow": f"{honest.low:.3f}",
        "HonestHigh": f"{honest.high:.3f}",
        "Raw": f"{honest.raw:.3f}",
        "MacroAuc": "-" if math.isnan(within) else f"{within:.3f}",
        "Trials": str(len(evidence.complete)),
        "Posts": str(len(np.unique(evidence.post_N))),
        "Pairs": str(len(evidence.rows_N)),
        "Folds": str(evidence.pairs.num_folds),
        "Negatives": findings.evidence.measured_at,
    }
    lines = [rf"\newcommand{{\gnli{name}}}{{{cell(value)}}}" for name, value in macros.items()]
    return "\n".join([f"% {json.dumps(findings.evidence.names)[1:-1]}", *lines]) + "\n"


def _measured(findings: Findings) -> str:
    evidence = findings.evidence
    posts = len(np.unique(evidence.post_N))
    return f"{len(evidence.rows_N)} pairs of {posts} posts in {evidence.pairs.num_folds} folds, {evidence.measured_at}."


def _document(findings: Findings, drawn: list[Figure]) -> str:
    answer = findings.answer
    said = [answer.first, answer.second, findings.within.sentence, f"A registered model is {REFIT}."]
    said += [f"{heading}: {sentence}" for heading, sentence in findings.conclusion.lines]
    private = PrivateTexts(partial(texts_of, findings.evidence.corpus))
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{textcomp}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\input{numbers}",
        rf"\title{{{escaped(', '.join(findings.evidence.names))}}}",
        r"\date{}",
        r"\begin{document}",
        r"\maketitle",
        *(f"{cell(private.left_out(sentence))}\n" for sentence in said),
    ]
    if findings.warnings:
        lines += [
            r"\begin{itemize}",
            *(rf"\item {cell(private.left_out(line))}" for line in findings.warnings),
            r"\end{itemize}",
        ]
    lines += [rf"\input{{{name}}}" for name, _, _ in tables(findings)]
    for figure in drawn:
        lines += [
            r"\begin{figure}[htbp]",
            r"\centering",
            rf"\includegraphics[width=\linewidth]{{figures/{figure.name}.pdf}}",
            rf"\caption{{{cell(f'{figure.title}. {figure.note}'.strip())}}}",
            rf"\label{{fig:{figure.name}}}",
            r"\end{figure}",
        ]
    return "\n".join([*lines, r"\end{document}"]) + "\n"
