"""The report as markdown: the same text and tables, with descriptions in place of the figures."""

from __future__ import annotations

import re

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.figure_parts import Figure
from gemma_nli.analysis.report.report_sections import Code, Facts, Section, sections
from gemma_nli.analysis.report.report_tables import TableOf, Words
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
        f"Honest {findings.metric_name} of the winner {findings.evidence.measured_at}: **{honest.value:.3f}** "
        f"({honest.low:.3f} to {honest.high:.3f}); its cross-validated score, {findings.among}: {honest.raw:.3f}.",
        "",
        findings.within.sentence,
        "",
        *(line for test in findings.evidence.sealed for line in (test.sentence, "")),
    ]
    if findings.warnings:
        lines += ["**Before you rely on it:**", "", *(f"- {esc(line)}" for line in findings.warnings), ""]
    for part in sections(findings):
        lines += _section(part, figures, findings.evidence.measured_at)
    return "\n".join(lines).rstrip() + "\n"


def esc(text: str) -> str:
    """A user's words as text: no markup, no table bars, one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(mask_credentials(text).split()))


def _section(part: Section, figures: dict[str, Figure], measured_at: str) -> list[str]:
    """`measured_at` stands beside every figure and table of scores."""
    lines = [f"## {part.title}", ""]
    if part.lead:
        lines += [part.lead, ""]
    for item in part.items:
        if isinstance(item, str):
            if item in figures:
                figure = figures[item]
                at = f", {measured_at}" if figure.scored else ""
                lines += [f"*{figure.title}{at}.* {esc(figure.alt)}", ""]
        elif isinstance(item, tuple):
            title, table = item
            at = f", {measured_at}" if table.scored else ""
            lines += [f"### {esc(title)}", ""] if title else []
            lines += [markdown_table(table, f"*{(title or part.title)}{at}*"), ""]
        elif isinstance(item, (Facts, Code)):
            lines += [item.markdown(), ""]
    return lines


def markdown_table(table: TableOf, caption: str = "") -> str:
    head = "| " + " | ".join(esc(name) or " " for name in table.header) + " |"
    rule = "|" + "|".join("---:" if _numeric(table, i) else "---" for i in range(len(table.header))) + "|"
    rows = [_row(row, place in table.marked) for place, row in enumerate(table.rows[:MAX_ROWS])]
    left = len(table.rows) - MAX_ROWS
    notes = ["\\*: marked."] if any(place < MAX_ROWS for place in table.marked) else []
    notes += [esc(table.note)] if table.note else []
    notes += [f"{left} more rows are in report.html."] if left > 0 else []
    above, below = [caption, ""] if caption else [], ["", " ".join(notes)] if notes else []
    return "\n".join([*above, head, rule, *rows, *below])


def _row(row: tuple[Words, ...], marked: bool) -> str:
    """A marked one has an asterisk in its first cell."""
    first, *others = (esc(cell.text) for cell in row)
    return "| " + " | ".join([first + (r" \*" if marked else ""), *others]) + " |"


def _numeric(table: TableOf, column: int) -> bool:
    return bool(table.rows) and all(row[column].number for row in table.rows)
