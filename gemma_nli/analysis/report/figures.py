"""The report's figures, drawn by plotly; each with a text alternative, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Callable

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.figure_parts import Figure
from gemma_nli.analysis.report.figures_answer import (
    answer_figure,
    budget_figure,
    calibration_figure,
    criteria_figure,
    curves_figure,
)
from gemma_nli.analysis.report.figures_settings import (
    effects_figure,
    importance_figure,
    interaction_figure,
    parallel_figure,
    scatter_figure,
)


def draw(findings: Findings) -> dict[str, Figure]:
    """Every figure that these findings have data for, by name."""
    makers: list[Callable[[Findings], Figure | None]] = [
        answer_figure,
        budget_figure,
        effects_figure,
        importance_figure,
        interaction_figure,
        parallel_figure,
        scatter_figure,
        curves_figure,
        criteria_figure,
        calibration_figure,
    ]
    return {figure.name: figure for figure in (maker(findings) for maker in makers) if figure is not None}
