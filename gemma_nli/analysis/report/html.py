"""The report as one HTML file that makes no network request; all user text is escaped."""

from __future__ import annotations

import html
import json
import math
from importlib import resources

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.figure_parts import Figure
from gemma_nli.analysis.report.report_sections import Section, sections
from gemma_nli.analysis.report.report_tables import TableOf
from gemma_nli.base.masking import mask_credentials

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""No address may be requested; plotly's parallel coordinates compile their shaders' code."""

LONG = 40
"""Rows; a longer table scrolls by itself."""


def esc(text: object) -> str:
    return html.escape(mask_credentials(str(text)), quote=True)


def page(findings: Findings, figures: dict[str, Figure]) -> str:
    """The whole file."""
    parts = sections(findings)
    name = ", ".join(findings.evidence.names)
    links = "".join(f'<a href="#{part.name}">{esc(part.title)}</a>' for part in parts)
    drawn = {place: _plain(panel) for figure in figures.values() for place, panel in _places(figure)}
    body = "".join(_section(part, figures, findings.evidence.measured_at) for part in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{esc(name)}: {esc(findings.answer.first)}</title>
<link rel="icon" href="data:,">
<style>{_asset("report.css")}</style>
</head>
<body>
<header><div class="bar"><strong>{esc(name)}</strong><nav aria-label="sections">{links}</nav>
<button id="theme" type="button">Dark</button></div></header>
<main>
{_top(findings)}
{body}
</main>
<script type="application/json" id="figures">{_script_json(drawn)}</script>
<script>{get_plotlyjs()}</script>
<script>{_asset("report.js")}</script>
</body>
</html>
"""


def _top(findings: Findings) -> str:
    """The question, the answer, the winner's honest score, the warnings."""
    questions = "".join(f'<p class="question">{esc(q)}</p>' for q in findings.evidence.questions if q)
    honest, score = findings.honest, esc(findings.metric_name)
    between = f"{honest.low:.3f} to {honest.high:.3f}"
    if honest.candidates == 1:
        cards = [(f"{honest.value:.3f}", f"{score} of the only trial, {between}")]
    else:
        cards = [(f"{honest.value:.3f}", f"honest {score} of the winner, {between}")]
        cards.append((f"{honest.raw:.3f}", f"cross-validated {score}, {findings.among}"))
        cards.append((f"{findings.draws.score_T.mean():.3f}", f"{score} of the average trial"))
    if not math.isnan(findings.within.auc):
        cards.append((f"{findings.within.auc:.3f}", f"macro AUC of the winner: {findings.within.over}"))
    for test in findings.evidence.sealed:
        if test.last is not None and test.last.scores:
            found, last = test.last.scores[0].score, test.last
            cards.append((f"{found.value:.3f}", f"{last.label} on the sealed set, look {last.number}: {found.text}"))
    best = max(findings.baselines, key=lambda baseline: baseline.score)
    cards.append((f"{best.score:.3f}", f"{score} of the best baseline, {best.name}"))
    shown = "".join(f'<div class="card"><b>{value}</b><span>{esc(words)}</span></div>' for value, words in cards)
    warned = ""
    if findings.warnings:
        lines = "".join(f"<li>{esc(line)}</li>" for line in findings.warnings)
        warned = f'<aside class="warnings" aria-label="warnings"><h2>Before you rely on it</h2><ul>{lines}</ul></aside>'
    steps = "".join(f"<dt>{esc(head)}</dt><dd>{esc(text)}</dd>" for head, text in findings.conclusion.lines)
    answer = findings.answer
    more = "".join(f"<p class='sure'>{esc(words)}</p>" for words in (answer.sure, answer.score) if words)
    return (
        f"{questions}<h1>{esc(answer.first)}</h1>{more}"
        f'<dl class="conclusion">{steps}</dl><div class="cards">{shown}</div>'
        f'<p class="at">Scores {esc(findings.evidence.measured_at)}.</p>{warned}'
    )


def _section(part: Section, figures: dict[str, Figure], measured_at: str) -> str:
    content = []
    for item in part.items:
        if isinstance(item, str):
            content.append(_figure(figures[item], measured_at) if item in figures else "")
        elif isinstance(item, tuple):
            title, table = item
            heading = f"<h3>{esc(title)}</h3>" if title else ""
            content.append(heading + _table(table, title or part.title, measured_at))
        else:
            content.append(item.html(esc))
    said = " ".join(words for words in (part.lead, part.on_page) if words)
    lead = f'<p class="lead">{esc(said)}</p>' if said else ""
    return f'<section id="{part.name}"><h2>{esc(part.title)}</h2>{lead}{"".join(content)}</section>'


def _places(figure: Figure) -> list[tuple[str, go.Figure]]:
    """Each panel with the name of the place where it is drawn."""
    return [(figure.name if i == 0 else f"{figure.name}-{i + 1}", panel) for i, panel in enumerate(figure.panels)]


def _figure(figure: Figure, measured_at: str) -> str:
    table = ""
    if figure.rows:
        head = "".join(f"<th>{esc(cell)}</th>" for cell in figure.rows[0])
        lines = "".join("<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>" for row in figure.rows[1:])
        table = "<details><summary>The numbers</summary><div class='scroll'><table>"
        table += f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></details>"
    plots = "".join(
        f'<div class="plot" id="plot-{place}" style="min-height:{int(panel.layout.height)}px"></div>'
        for place, panel in _places(figure)
    )
    at = f' <span class="at">{esc(measured_at)}</span>' if figure.scored else ""
    return (
        f"<figure><figcaption>{esc(figure.title)}{at}</figcaption>"
        f'<div class="panels" role="img" aria-label="{esc(figure.alt)}">{plots}</div>'
        + (f"<p>{esc(figure.note)}</p>" if figure.note else "")
        + f"{table}</figure>"
    )


def _table(table: TableOf, title: str, measured_at: str) -> str:
    numeric = [all(row[i].number for row in table.rows) and bool(table.rows) for i in range(len(table.header))]
    kinds = [" class=n" if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th aria-sort="none" scope="col"{kind}><button type="button">{_breakable(name)}</button></th>'
        for kind, name in zip(kinds, table.header, strict=True)
    )
    lines = []
    for place, row in enumerate(table.rows):
        cells = "".join(
            f"<td{' class=n' if cell.number else ' class=wrap' if len(cell.text) > 32 else ''}"
            + (f' data-v="{esc(cell.by)}"' if cell.number or cell.by else "")
            + f">{esc(cell.text)}</td>"
            for cell in row
        )
        lines.append(f"<tr{' class=tie' if place in table.marked else ''}>{cells}</tr>")
    at = f"<caption>{esc(title)}, {esc(measured_at)}</caption>" if table.scored else ""
    note = f'<p class="lead">{esc(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll{" long" if len(table.rows) > LONG else ""}" tabindex="0" role="region" '
        f'aria-label="{esc(title)}"><table class="sortable">{at}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{note}"
    )


def _breakable(name: str) -> str:
    """A setting's name may be broken after an underscore, so that its column is as wide as its values."""
    return esc(name).replace("_", "_<wbr>")


def _plain(panel: go.Figure) -> object:
    """A panel as plotly.js reads it, without the Python library's own look."""
    panel.update_layout(template="none")
    return json.loads(panel.to_json())


def _script_json(value: object) -> str:
    """JSON that cannot end its own script element, whatever a user's words hold."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return resources.files("gemma_nli.analysis.report").joinpath(name).read_text(encoding="utf-8")
