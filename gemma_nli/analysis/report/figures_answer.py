"""Figures of the answer: compared values, budget, learning curves, criteria, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from gemma_nli.analysis.findings import Findings, LearningCurve
from gemma_nli.analysis.report.figure_parts import COLORS, WINNER, Figure, color, label, lay_out


def answer_figure(findings: Findings) -> Figure | None:
    """Honest scores of the compared values with intervals, the raw bests beside them, baselines as lines."""
    variants, score = findings.answer.variants, findings.metric_name
    if not variants:
        return None
    shown = variants[:24]
    names = [label(variant.name) for variant in shown]
    honest = [variant.honest for variant in shown]
    figure = go.Figure()
    low, high = [h.value - h.low for h in honest], [h.high - h.value for h in honest]
    figure.add_scatter(
        x=[h.value for h in honest],
        y=names,
        mode="markers",
        name="honest score, 95% interval",
        error_x={"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 2, "width": 6},
        marker={"size": 11, "color": color(0)},
        hovertemplate=f"%{{y}}: %{{x:.3f}} {score}<extra>honest</extra>",
    )
    figure.add_scatter(
        x=[h.raw for h in honest],
        y=names,
        mode="markers",
        name="raw score of the best trial",
        marker={"size": 11, "symbol": "circle-open", "color": WINNER, "line": {"width": 2}},
        hovertemplate=f"%{{y}}: %{{x:.3f}} {score}<extra>raw</extra>",
    )
    figure.add_scatter(
        x=[baseline.score for baseline in findings.baselines],
        y=[label(baseline.name) for baseline in findings.baselines],
        mode="markers",
        name="baseline",
        marker={"size": 10, "symbol": "diamond", "color": color(7)},
        hovertemplate=f"%{{y}}: %{{x:.3f}} {score}<extra>baseline</extra>",
    )
    figure.update_yaxes(autorange="reversed", type="category")
    rows: list[tuple[str, ...]] = [("value", "trials", "honest", "low", "high", "raw best")]
    rows += [
        (variant.name, str(len(variant.places)), *(f"{v:.3f}" for v in (h.value, h.low, h.high, h.raw)))
        for variant, h in zip(shown, honest, strict=True)
    ]
    alt = f"Honest {score} of each {findings.answer.setting}: " + "; ".join(
        f"{variant.name} {h.value:.3f} ({h.low:.3f} to {h.high:.3f})" for variant, h in zip(shown, honest, strict=True)
    )
    lay_out(figure, 110 + 40 * (len(shown) + len(findings.baselines)), score, legend=True)
    note = (
        "Filled: what the best trial of this value is worth when the luck of being chosen is taken off. Open: its own "
        "score. Diamonds: baselines."
    )
    return Figure("answer", "The compared values", alt, (figure,), tuple(rows), note)


def budget_figure(findings: Findings) -> Figure | None:
    """The expected best score of each compared value by number of trials; of two trials it would be a mere line."""
    variants, score = findings.answer.variants[: len(COLORS)], findings.metric_name
    if not variants or max(len(variant.places) for variant in variants) < 3:
        return None
    figure = go.Figure()
    rows: list[tuple[str, ...]] = [("value", "trials", f"expected best {score}", "10%", "90%")]
    for index, variant in enumerate(variants):
        n, curve = np.arange(1, len(variant.places) + 1), variant.curve
        figure.add_scatter(
            x=np.r_[n, n[::-1]],
            y=np.r_[curve.high, curve.low[::-1]],
            fill="toself",
            fillcolor=color(index, 0.15),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            mode="lines",
        )
        figure.add_scatter(
            x=n,
            y=curve.expected,
            name=label(variant.name),
            mode="lines+markers",
            line={"color": color(index), "width": 2.5},
            marker={"size": 5},
            hovertemplate="%{x} trials: %{y:.3f}<extra>" + label(variant.name) + "</extra>",
        )
        for at in sorted({1, max(1, len(n) // 4), max(1, len(n) // 2), len(n)}):
            values = (curve.expected[at - 1], curve.low[at - 1], curve.high[at - 1])
            rows.append((variant.name, str(at), *(f"{v:.3f}" for v in values)))
    ends = "; ".join(
        f"{variant.name} from {variant.curve.expected[0]:.3f} to {variant.curve.expected[-1]:.3f}"
        for variant in variants
    )
    alt = f"Expected best {score} by number of trials, for each {findings.answer.setting}: {ends}."
    lay_out(figure, 340, "trials", score, legend=True)
    note = (
        "A line that overtakes another only after many trials won by tuning. Bands cover 80% of random orders of the "
        "trials."
    )
    return Figure("budget", "What tuning buys", alt, (figure,), tuple(rows), note)


def curves_figure(findings: Findings) -> Figure | None:
    """F1 by epoch: mean over folds with the folds' range."""
    curves = [curve for curve in findings.curves if curve.val_f1_KE.shape[1] > 1]
    if not curves:
        return None
    panels = (go.Figure(), go.Figure())
    rows = [("trial", "epochs", "F1 at the first", "F1 at the last", "measured at epochs")]
    for index, curve in enumerate(curves):
        for panel, values in zip(panels, (curve.val_f1_KE, curve.train_loss_KE), strict=True):
            _band(panel, curve, values, index)
        f1 = curve.val_f1_KE.mean(0)
        chosen = ", ".join(map(str, curve.selected))
        rows.append((curve.name, str(curve.val_f1_KE.shape[1]), f"{f1[0]:.3f}", f"{f1[-1]:.3f}", chosen))
    alt = "Learning curves: " + "; ".join(
        f"{c.name}: mean validation F1 from {c.val_f1_KE.mean(0)[0]:.3f} to {c.val_f1_KE.mean(0)[-1]:.3f} in "
        f"{c.val_f1_KE.shape[1]} epochs"
        for c in curves
    )
    for panel, title in zip(panels, ("validation F1", "training loss"), strict=True):
        lay_out(panel, 340, "epoch", legend=len(curves) > 1, title=title)
        panel.update_xaxes(dtick=max(1, max(curve.val_f1_KE.shape[1] for curve in curves) // 6))
    note = (
        "Lines: mean of the folds; bands: their lowest and highest. F1 is at the threshold that each epoch would be "
        "decided by, as the scores are."
    )
    earlier = [curve.name for curve in curves if curve.at_half]
    if earlier:
        note += f" At threshold 0.5, since their journals are older than that: {', '.join(earlier)}."
    return Figure("curves", "Learning curves", alt, panels, tuple(rows), note)


def _band(figure: go.Figure, curve: LearningCurve, values_KE: np.ndarray, index: int) -> None:
    epochs = np.arange(1, values_KE.shape[1] + 1)
    low, high = values_KE.min(0).round(4), values_KE.max(0).round(4)
    figure.add_scatter(
        x=np.r_[epochs, epochs[::-1]],
        y=np.r_[high, low[::-1]],
        fill="toself",
        fillcolor=color(index, 0.15),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=epochs,
        y=values_KE.mean(0).round(4),
        name=label(curve.name),
        mode="lines",
        line={"color": color(index), "width": 2.5},
        hovertemplate="epoch %{x}: %{y:.3f}<extra>" + label(curve.name) + "</extra>",
    )


def criteria_figure(findings: Findings) -> Figure | None:
    """The winner's F1 by criterion with support; of a single criterion the table says it."""
    items = [item for item in findings.mistakes.criteria if item.support][::-1]
    if len(items) < 2:
        return None
    names = [f"{label(item.name)} ({item.support})" for item in items]
    figure = go.Figure(
        go.Scatter(
            x=[item.f1 for item in items],
            y=names,
            mode="markers",
            marker={"size": 10, "color": color(0)},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [item.high - item.f1 for item in items],
                "arrayminus": [item.f1 - item.low for item in items],
            },
            customdata=[[item.scores["precision"], item.scores["recall"]] for item in items],
            hovertemplate="%{y}: F1 %{x:.3f}, precision %{customdata[0]:.2f}, recall %{customdata[1]:.2f}"
            "<extra></extra>",
        )
    )
    figure.update_yaxes(type="category")
    lay_out(figure, 110 + 30 * len(items), "F1")
    alt = "F1 by criterion: " + "; ".join(f"{i.name} {i.f1:.3f} with {i.support} positive pairs" for i in items[::-1])
    return Figure(
        "criteria", "F1 by criterion (positive pairs)", alt, (figure,), note="The table below has all scores."
    )


def calibration_figure(findings: Findings) -> Figure | None:
    """Stated probability against the observed share of positives; None where every pair gets the same probability."""
    calibration = findings.calibration
    if len(calibration.bins) < 2:
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"dash": "dot", "color": "rgba(128,128,128,.8)"},
        hoverinfo="skip",
        showlegend=False,
    )
    rows: list[tuple[str, ...]] = [("", "stated", "true", "low", "high", "pairs")]
    named: Sequence[tuple[str, Any]] = (
        ("as trained", calibration.bins),
        ("temperature scaled", calibration.scaled_bins),
    )
    for index, (name, bins) in enumerate(named):
        figure.add_scatter(
            x=[b.stated for b in bins],
            y=[b.share for b in bins],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [b.high - b.share for b in bins],
                "arrayminus": [b.share - b.low for b in bins],
            },
            customdata=[b.pairs for b in bins],
            name=name,
            mode="lines+markers",
            line={"color": color(index)},
            hovertemplate="stated %{x:.2f}, observed %{y:.2f}, %{customdata} pairs<extra>" + name + "</extra>",
        )
        rows += [(name, *(f"{v:.2f}" for v in (b.stated, b.share, b.low, b.high)), str(b.pairs)) for b in bins]
    lay_out(figure, 380, "stated probability", "share matched", legend=True)
    alt = f"Calibration: expected error {calibration.error:.3f} as trained, {calibration.scaled_error:.3f} after a "
    alt += "temperature from the other folds."
    note = f"Expected calibration error {calibration.error:.3f}; with a temperature learned on the other folds "
    note += f"{calibration.scaled_error:.3f}. On the dotted line, stated probability equals the observed share."
    return Figure("calibration", "Calibration", alt, (figure,), tuple(rows), note)
