"""What the report's figures share: colours, layout and text alternatives."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from gemma_nli.base.masking import mask_credentials

COLORS = ("#2f7fc1", "#d9822b", "#3a9d5d", "#b8529f", "#c44e4e", "#7c6bc4", "#8c8c3b", "#3aa6a6")
WINNER = "#d9822b"


@dataclass(frozen=True)
class Figure:
    """`panels` stand side by side where there is room, else one below another.

    `alt`: what it shows, in words. `rows`: its numbers, the first row being the header. `scored`: whether it shows
    scores, beside which stands what they were measured on.
    """

    name: str
    title: str
    alt: str
    panels: tuple[go.Figure, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    scored: bool = True


def label(text: Any) -> str:
    """A user's word as plotly shows it: its labels read HTML."""
    return html.escape(mask_credentials(str(text)))


def color(index: int, alpha: float = 1.0) -> str:
    code = COLORS[index % len(COLORS)]
    red, green, blue = (int(code[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def lay_out(
    figure: go.Figure, height: int, x: str = "", y: str = "", legend: bool = False, title: str = ""
) -> go.Figure:
    figure.update_layout(height=height, margin={"l": 8, "r": 12, "t": 28, "b": 8}, showlegend=legend)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    if legend:
        figure.update_layout(margin={"t": 44})
    if title:
        figure.update_layout(title={"text": title, "x": 0.5, "y": 0.98, "yanchor": "top", "font": {"size": 14}})
        figure.update_layout(margin={"t": 68 if legend else 32})
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    if x:
        figure.update_xaxes(title_text=x)
    if y:
        figure.update_yaxes(title_text=y)
    return figure
