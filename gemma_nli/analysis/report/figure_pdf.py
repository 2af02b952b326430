"""A figure of the report as a vector PDF: its own points, drawn by matplotlib.

What plotly is given (lines, points, bands, error bars, bars, a heat map) is drawn again from the same object, so that a
paper's figure has the report's numbers. The same figure gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure as Canvas

from gemma_nli.analysis.report.figure_parts import Figure

WIDTH_INCHES, INCHES_PER_PIXEL, COLUMNS = 6.5, 1 / 110, 3
_NOT_DRAWN = ("parcoords",)
_DASHES = {"dot": ":", "dash": "--"}
_SYMBOLS = {"diamond": "D", "circle-open": "o"}


def figure_pdf(figure: Figure) -> bytes | None:
    """The PDF, or None for a figure that is of use only where it can be moved (parallel coordinates)."""
    panels = figure.panels
    if any(trace.type in _NOT_DRAWN for panel in panels for trace in panel.data):
        return None
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = lines * max(2.0, float(panels[0].layout.height) * INCHES_PER_PIXEL)
    canvas = Canvas(figsize=(WIDTH_INCHES, height), layout="constrained")
    for place, panel in enumerate(panels, start=1):
        ax = canvas.add_subplot(lines, columns, place)
        bars = [trace for trace in panel.data if trace.type == "bar"]
        for trace in panel.data:
            _draw(ax, trace, bars)
        _lay_out(ax, panel.layout)
    target = io.BytesIO()
    FigureCanvasPdf(canvas).print_pdf(target, metadata={"CreationDate": None, "Title": figure.title})
    return target.getvalue()


def _lay_out(ax: Axes, layout: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7)
    ax.set_xlabel(_words(layout.xaxis.title.text), fontsize=8)
    ax.set_ylabel(_words(layout.yaxis.title.text), fontsize=8)
    ax.set_title(_words(layout.title.text), fontsize=8)
    if layout.xaxis.type == "log":
        ax.set_xscale("log")
    if layout.yaxis.range:
        ax.set_ylim(*layout.yaxis.range)
    if layout.yaxis.autorange == "reversed":
        ax.invert_yaxis()
    if layout.showlegend and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=7)


def _draw(ax: Axes, trace: Any, bars: list[Any]) -> None:
    if trace.type == "bar":
        place, size = bars.index(trace), 0.8 / len(bars)
        at = np.arange(len(trace.y)) + (place - (len(bars) - 1) / 2) * size
        ax.barh(at, list(trace.x), size, color=_color(trace.marker.color), label=_words(trace.name))
        ax.set_yticks(range(len(trace.y)), [_words(name) for name in trace.y])
        return
    if trace.type == "heatmap":
        z = np.asarray(trace.z, dtype=np.float64)
        ax.imshow(z, aspect="auto", cmap="viridis")
        ax.set_xticks(range(z.shape[1]), [_words(name) for name in trace.x])
        ax.set_yticks(range(z.shape[0]), [_words(name) for name in trace.y])
        for i, j in np.argwhere(np.isfinite(z)):
            ax.text(j, i, f"{z[i, j]:.3f}", ha="center", va="center", fontsize=7, color="white")
        return
    x, y = _values(trace.x), _values(trace.y)
    if trace.fill == "toself":
        ax.fill(x, y, color=_color(trace.fillcolor), linewidth=0)
        return
    lined, dotted = "lines" in trace.mode, "markers" in trace.mode
    color = _color(trace.line.color or trace.marker.color)
    hollow = trace.marker.symbol == "circle-open"
    ax.errorbar(
        x,
        y,
        xerr=_errors(trace.error_x),
        yerr=_errors(trace.error_y),
        linestyle=_DASHES.get(trace.line.dash, "-") if lined else "none",
        linewidth=1.2,
        marker=_SYMBOLS.get(trace.marker.symbol, "o") if dotted else "none",
        markersize=4,
        markerfacecolor="none" if hollow else color,
        color=color,
        label=_words(trace.name) if trace.showlegend is not False and trace.name else None,
    )


def _values(values: Any) -> list[Any]:
    return [_words(value) if isinstance(value, str) else value for value in values]


def _errors(error: Any) -> list[list[float]] | None:
    return None if error.array is None else np.maximum([list(error.arrayminus), list(error.array)], 0.0).tolist()


def _words(text: object) -> str:
    """Of plotly's HTML the text; nothing in it is mathematics to matplotlib."""
    return html.unescape(str(text or "").replace("<br>", "\n")).replace("$", r"\$")


def _color(code: str | None) -> Any:
    """`rgba(1,2,3,.5)` or `#010203` as matplotlib has it."""
    found = re.fullmatch(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", code or "")
    return code if found is None else (*(int(found[i]) / 255 for i in (1, 2, 3)), float(found[4]))
