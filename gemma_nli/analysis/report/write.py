"""`report.html` and `report.md` of a sweep, or of several over one corpus."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import Findings, find
from gemma_nli.analysis.report.figures import draw
from gemma_nli.analysis.report.html import page
from gemma_nli.analysis.report.latex_files import write_latex
from gemma_nli.analysis.report.markdown import markdown
from gemma_nli.base.errors import ReportError
from gemma_nli.base.files import write_whole


@dataclass(frozen=True)
class Report:
    """The findings, and the files they are written to."""

    findings: Findings
    html: Path
    markdown: Path
    latex: Path | None = None


def write_report(evidence: Evidence, folder: Path, encode: bool = False, latex: Path | None = None) -> Report:
    """Analyse, draw and write; the same evidence gives the same files.

    Args:
        encode: compute the vectors that the cosine and zero-shot baselines lack.
        latex: folder for tables and figures for a paper (`latex_files.py`).
    Raises:
        ReportError: the folder cannot be written to.
    """
    findings = find(evidence, encode)
    figures = draw(findings)
    report = Report(findings, folder / "report.html", folder / "report.md")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(report.html, page(findings, figures).encode())
        write_whole(report.markdown, markdown(findings, figures).encode())
    except OSError as error:
        raise ReportError(f"{folder}: the report cannot be written: {error.strerror}; name another folder.") from error
    if latex is not None:
        report = dataclasses.replace(report, latex=write_latex(findings, figures, latex))
    return report
