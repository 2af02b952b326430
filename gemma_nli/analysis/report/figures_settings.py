"""Figures of the settings: effects, importance, interaction, parallel coordinates, score by setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from gemma_nli.analysis.effects import Effect, edge_of
from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.paired_tests import ROPE
from gemma_nli.analysis.report.figure_parts import Figure, color, label, lay_out
from gemma_nli.analysis.wording import short
from gemma_nli.spec.domain import Range

MAX_POINTS = 2000
ABOUT = {"fANOVA": "what changes the score over all trials", "PED-ANOVA": "what distinguishes the best tenth of them"}
FEW = 5
"""Fewer trials than these are read faster from the leaderboard than from a figure."""


def effects_figure(findings: Findings) -> Figure | None:
    """Marginal means of every setting's values; None where each is one trial, which the compared values show."""
    effects, score = findings.effects[:9], findings.metric_name
    if not effects or _trials_per_value(effects) < 2:
        return None
    ends = [value for effect in effects for level in effect.levels for value in (level.low, level.high)]
    panels = []
    rows: list[tuple[str, ...]] = [("setting", "value", "trials", "mean", "low", "high", "best")]
    for index, effect in enumerate(effects):
        levels, figure = effect.levels, go.Figure()
        figure.add_scatter(
            x=[label(level.name).replace(" to ", "<br>to ") for level in levels],
            y=[level.mean for level in levels],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [level.high - level.mean for level in levels],
                "arrayminus": [level.mean - level.low for level in levels],
            },
            mode="lines+markers",
            line={"color": color(index), "width": 1, "dash": "dot"},
            marker={"size": 9, "color": color(index)},
            customdata=[len(level.places) for level in levels],
            hovertemplate="%{x}: %{y:.3f}, %{customdata} trials<extra></extra>",
        )
        figure.update_xaxes(
            type="category", **({"tickangle": 0} if any(" to " in level.name for level in levels) else {})
        )
        panels.append(_panel(figure, effect, score, ends))
        for level in levels:
            values = (level.mean, level.low, level.high, level.best)
            rows.append((effect.key, level.name, str(len(level.places)), *(f"{v:.3f}" for v in values)))
    alt = f"Mean {score} over the trials of each value, with 95% intervals. " + "; ".join(
        f"{short(effect.key)}: {effect.spread.value:.3f} between best and worst value" for effect in effects
    )
    note = "Means over the trials of a value, adjusted for their other settings. Intervals: over resampled posts."
    return Figure("effects", "What each setting did", alt, tuple(panels), tuple(rows), note)


def importance_figure(findings: Findings) -> Figure | None:
    """Shares of the score's variance by setting."""
    effects = [effect for effect in findings.effects if effect.importance][::-1]
    if len(effects) < 2:
        return None
    figure = go.Figure()
    methods = list(effects[-1].importance)
    for index, method in enumerate(methods):
        figure.add_bar(
            y=[label(short(effect.key)) for effect in effects],
            x=[effect.importance.get(method, 0.0) for effect in effects],
            name=method,
            orientation="h",
            marker={"color": color(index)},
            hovertemplate="%{y}: %{x:.0%}<extra>" + method + "</extra>",
        )
    rows = [("setting", *methods)]
    rows += [(e.key, *(f"{e.importance.get(m, 0.0):.2f}" for m in methods)) for e in effects[::-1]]
    alt = "Importance of the settings: " + "; ".join(
        f"{short(e.key)} {e.importance.get(methods[0], 0):.0%}" for e in effects[::-1]
    )
    lay_out(figure, 120 + 44 * len(effects), "share of importance", legend=len(methods) > 1)
    figure.update_xaxes(tickformat=".0%")
    figure.update_layout(barmode="group")
    note = " ".join(f"{method}: {ABOUT[method]}." for method in methods)
    return Figure("importance", "Importance of the settings", alt, (figure,), tuple(rows), note, scored=False)


def interaction_figure(findings: Findings) -> Figure | None:
    """The cell means of the two settings that interact most; None where that is too little to matter."""
    if not findings.interactions or findings.interactions[0].size < ROPE:
        return None
    top = findings.interactions[0]
    first, second = top.names
    figure = go.Figure(
        go.Heatmap(
            z=top.mean_IJ,
            x=[label(name) for name in second],
            y=[label(name) for name in first],
            texttemplate="%{z:.3f}",
            colorscale="Viridis",
            colorbar={"title": {"text": findings.metric_name}, "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    a, b = (short(key) for key in top.keys)
    rows = [(f"{a} \\ {b}", *second)]
    rows += [(name, *(f"{v:.3f}" for v in line)) for name, line in zip(first, top.mean_IJ, strict=True)]
    alt = f"Mean {findings.metric_name} for each combination of {a} and {b}; beyond the sum of both effects the cells "
    alt += f"differ by {top.size:.3f} (root mean square, noise subtracted)."
    lay_out(figure, 130 + 44 * len(first), label(b), label(a))
    listed = "; ".join(f"{short(i.keys[0])} x {short(i.keys[1])} {i.size:.3f}" for i in findings.interactions[:5])
    note = f"Size of interactions, in {findings.metric_name}: {listed}."
    return Figure("interaction", "The strongest interaction", alt, (figure,), tuple(rows), note)


def parallel_figure(findings: Findings) -> Figure | None:
    """Every complete trial as a line through its settings; of one setting the scores by setting show the same."""
    evidence, keys = findings.evidence, [effect.key for effect in findings.effects][:10]
    if len(keys) < 2 or len(evidence.complete) < FEW:
        return None
    score_T = findings.draws.score_T
    dimensions: list[dict[str, Any]] = []
    for key in keys:
        values = [trial.settings.get(key) for trial in evidence.complete]
        dimensions.append(_dimension(short(key), values, evidence.spec.space.domain(key)))
    low, high = float(score_T.min()), float(score_T.max())
    dimensions.append({"label": findings.metric_name, "values": score_T.round(5), "range": [low, high]})
    figure = go.Figure(
        go.Parcoords(
            line={"color": score_T.round(5), "colorscale": "Viridis", "showscale": False},
            dimensions=dimensions,
            labelside="top",
        )
    )
    figure.update_layout(height=380, margin={"l": 90, "r": 50, "t": 64, "b": 24})
    alt = f"Parallel coordinates of {len(score_T)} trials over {', '.join(short(k) for k in keys)}; their "
    alt += f"{findings.metric_name} goes from {low:.3f} to {high:.3f}. The leaderboard has the same numbers."
    note = "Drag along an axis to keep only the trials there; drag an axis's name to move it."
    return Figure("parallel", "All trials, side by side", alt, (figure,), note=note)


def _dimension(name: str, values: list[Any], domain: Any) -> dict[str, Any]:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numbers and (isinstance(domain, Range) or len(set(values)) > 12):
        if isinstance(domain, Range) and domain.log:
            exponents = np.log10(np.array(values, dtype=np.float64))
            ticks = np.linspace(exponents.min(), exponents.max(), 5)
            texts = [f"{10**tick:.2g}" for tick in ticks]
            return {"label": label(name), "values": exponents.round(5), "tickvals": ticks, "ticktext": texts}
        return {"label": label(name), "values": values}
    order = sorted(set(values), key=float) if numbers else list(dict.fromkeys(sorted(map(str, values))))
    texts = [f"{v:g}" if numbers else ("does not apply" if v == "None" else label(v)) for v in order]
    index = {value: place for place, value in enumerate(order)}
    places = [index[v if numbers else str(v)] for v in values]
    spread = [-0.3, max(len(order) - 0.7, 0.3)]
    ticks_at = list(range(len(order)))
    return {"label": label(name), "values": places, "tickvals": ticks_at, "ticktext": texts, "range": spread}


def scatter_figure(findings: Findings) -> Figure | None:
    """Score against each setting, one point per trial; None of few trials, which the leaderboard shows as well."""
    evidence, effects, score = findings.evidence, findings.effects[:9], findings.metric_name
    if not effects or len(evidence.complete) < FEW:
        return None
    score_T = findings.draws.score_T
    places = np.argsort(-score_T)[:MAX_POINTS]
    ends = [float(score_T[places].min()), float(score_T[places].max())]
    panels = []
    for index, effect in enumerate(effects):
        values = [evidence.complete[place].settings.get(effect.key) for place in places]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        domain = evidence.spec.space.domain(effect.key)
        many = numeric and isinstance(domain, Range)
        x = values if many else [label("does not apply" if v is None else v) for v in values]
        figure = go.Figure()
        figure.add_scatter(
            x=x,
            y=score_T[places].round(4),
            mode="markers",
            marker={"size": 7, "color": color(index, 0.6)},
            customdata=[f"#{rank}" for rank in range(1, len(places) + 1)],
            hovertemplate="%{x}: %{y:.3f}, rank %{customdata}<extra></extra>",
        )
        if many and isinstance(domain, Range) and domain.log:
            figure.update_xaxes(type="log")
        elif not many:
            order = [label(level.name) for level in effect.levels]
            figure.update_xaxes(type="category", categoryorder="array", categoryarray=order)
        panels.append(_panel(figure, effect, score, ends))
    alt = f"{findings.metric_name} of every trial against each of {', '.join(short(e.key) for e in effects)}; the "
    alt += "leaderboard has the same numbers."
    edges = [short(e.key) for e in effects if edge_of(evidence, e.key)]
    note = f"The best lies at the end of what was tried for {', '.join(edges)}." if edges else ""
    return Figure("scatter", "Score by setting", alt, tuple(panels), note=note)


def _panel(figure: go.Figure, effect: Effect, score: str, ends: Sequence[float]) -> go.Figure:
    """One setting's panel; all panels are on one scale, that of `ends`."""
    lay_out(figure, 280, y=score, title=label(short(effect.key)))
    room = 0.08 * (max(ends) - min(ends)) or 0.01
    figure.update_yaxes(range=[min(ends) - room, max(ends) + room])
    return figure


def _trials_per_value(effects: Sequence[Effect]) -> int:
    """Of the value with the most."""
    return max(len(level.places) for effect in effects for level in effect.levels)
