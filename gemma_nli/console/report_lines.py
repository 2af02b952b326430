"""A report in the terminal: its answer, what follows, what varied among trainings, and the warnings that count most."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gemma_nli.console.terminal import Sheet, Terminal

WARNINGS = 3


def show_report(report: dict[str, Any], unsent: str | None = None, notes: Collection[str] = ()) -> None:
    """The answer, its warnings, and where the rest is.

    Args:
        notes: what is said beside it, and so is no warning too.
    """
    console = Terminal()
    console.say()
    for place, sentence in enumerate(report["answer"]):
        console.say(sentence, "bold" if place == 0 else "")
    if report.get("within_criteria"):  # a report of an older version is without
        console.say(report["within_criteria"])
    console.say()
    for name, sentence in report.get("conclusion", {}).items():
        console.say(f"{name.replace('_', ' ').capitalize()}: {sentence}")
    if report.get("confirmed"):
        console.print(confirmed_table(report["confirmed"]))
    for sealed in report.get("sealed", []):
        console.say(sealed["sentence"])
    said = " ".join(report["answer"])
    console.say()
    warnings = [each for each in report["warnings"] if each not in said and each not in notes]  # most serious first
    for warning in warnings[:WARNINGS]:
        console.say(f"warning: {warning}", "yellow")
    if (more := len(warnings) - WARNINGS) > 0:
        console.say(f"{more} more warning{'s' if more > 1 else ''} in the report", "yellow")
    if unsent:
        console.say_all(f"note: {unsent}", "yellow")
    console.say(f"report: {report['html']}", whole=True)


def confirmed_table(confirmed: dict[str, Any]) -> Sheet:
    """Each value's score trained again, and its standard deviations by posts, seeds and folds."""
    seeds, drawings = confirmed["seeds"], confirmed["fold_drawings"]
    sources = [
        name for name in ("posts", "seeds", "folds") if all(name in v["sd"] for v in confirmed["values"].values())
    ]
    header = ("value", "swept", "confirmed", "95% interval", *(f"sd {name}" for name in sources))
    title = f"Trained again, {seeds} seed{'s' if seeds > 1 else ''} on each of {drawings} fold drawings"
    table = Sheet(*header, right=set(header) - {"value", "95% interval"}, title=title)
    for name, value in confirmed["values"].items():
        interval = f"{value['low']:.3f} to {value['high']:.3f}"
        sds = [f"{value['sd'][source]:.3f}" for source in sources]
        table.add(name, f"{value['swept']:.3f}", f"{value['confirmed']:.3f}", interval, *sds)
    return table
