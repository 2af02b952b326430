"""The report as markdown: the same text and tables, with descriptions in place of the figures."""

from __future__ import annotations

import re

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.figure_parts import Figure
from gemma_nli.analysis.report.report_sections import Code, Facts, Section, sections
from gemma_nli.analysis.report.report_tables import TableOf
from gemma_nli.base.masking import mask_credentials

MAX_ROWS = 30


def markdown(findings: Findings, figures: dict[str, Figure]) -> str:
    """The whole file; long tables show their first rows."""
    names, honest = ", ".join(findings.evidence.names), findings.honest
    lines = [f"# {esc(names)}", ""]
    lines += [f"*{esc(question)}*\n" for question in findings.evidence.questions if question]
    lines += [f"**{esc(findings.answer.first)}** {esc(findings.answer.second)}", ""]
    lines += [*(f"- **{head}:** {esc(text)}" for head, text in findings.conclusion.lines), ""]
    lines += [
        f"Honest {findings.metric_name} of the winner: **{honest.value:.3f}** ({honest.low:.3f} to "
        f"{honest.high:.3f}); its cross-validated score, the best of {honest.candidates} trials: {honest.raw:.3f}.",
        "",
        findings.within.sentence,
        "",
    ]
    if findings.warnings:
        lines += ["**Before you rely on it:**", "", *(f"- {esc(line)}" for line in findings.warnings), ""]
    for part in sections(findings):
        lines += _section(part, figures)
    return "\n".join(lines).rstrip() + "\n"


def esc(text: str) -> str:
    """A user's words as text: no markup, no table bars, one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(mask_credentials(text).split()))


def _section(part: Section, figures: dict[str, Figure]) -> list[str]:
    lines = [f"## {part.title}", ""]
    if part.lead:
        lines += [part.lead, ""]
    for item in part.items:
        if isinstance(item, str):
            if item in figures:
                lines += [f"*{figures[item].title}.* {esc(figures[item].alt)}", ""]
        elif isinstance(item, tuple):
            title, table = item
            lines += [f"### {esc(title)}", ""] if title else []
            lines += [*_table(table), ""]
        elif isinstance(item, (Facts, Code)):
            lines += [item.markdown(), ""]
    return lines


def _table(table: TableOf) -> list[str]:
    head = "| " + " | ".join(esc(name) or " " for name in table.header) + " |"
    rule = "|" + "|".join("---:" if _numeric(table, i) else "---" for i in range(len(table.header))) + "|"
    rows = ["| " + " | ".join(esc(cell.text) for cell in row) + " |" for row in table.rows[:MAX_ROWS]]
    left = len(table.rows) - MAX_ROWS
    return [head, rule, *rows, *([f"\n{left} more rows are in report.html."] if left > 0 else [])]


def _numeric(table: TableOf, column: int) -> bool:
    return bool(table.rows) and all(row[column].number for row in table.rows)
