"""What a benchmark gives, and the one table of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 80


@dataclass(frozen=True)
class Mark:
    """A measured value; with a bound it has to be `at least` or `at most` that, without it only tells."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        if self.at_least is None and self.at_most is None:
            return None
        enough = self.at_least is None or self.value >= self.at_least
        return enough and (self.at_most is None or self.value <= self.at_most)

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {number(self.at_least)}"
        return "" if self.at_most is None else f"<= {number(self.at_most)}"


@dataclass
class Outcome:
    """The marks, the first of them the benchmark's ratio; every figure they were made of; what a reader must know."""

    marks: list[Mark]
    figures: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        first = self.marks[0]
        judged = [mark.reached for mark in self.marks if mark.reached is not None]
        return {
            "ratio": first.value,
            "mark": first.bound,
            "reached": all(judged) if judged else None,
            "marks": [
                {"what": m.what, "value": m.value, "unit": m.unit, "mark": m.bound, "reached": m.reached}
                for m in self.marks
            ],
            "figures": self.figures,
            "notes": self.notes,
        }


def show(results: list[dict[str, Any]], failed: dict[str, str], console: Console | None = None) -> None:
    """The table, the notes under it, and which benchmarks did not end."""
    console = console or Console(width=WIDTH, highlight=False)
    table = Table(pad_edge=False, width=WIDTH)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("measured", ratio=1)
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("mark", justify="right", no_wrap=True)
    table.add_column("reached", no_wrap=True)
    for result in results:
        for place, mark in enumerate(result["marks"]):
            figure = f"{number(mark['value'])}{' ' + mark['unit'] if mark['unit'] else ''}"
            reached = {True: "yes", False: "NO", None: ""}[mark["reached"]]
            table.add_row(result["name"] if place == 0 else "", mark["what"], figure, mark["mark"], reached)
        table.add_section()
    console.print(table)
    for result in results:
        for note in result["notes"]:
            console.print(f"{result['name']}: {note}", markup=False)
    for name, why in failed.items():
        console.print(f"{name}: FAILED: {why}", markup=False)


def number(value: float) -> str:
    """Three digits that matter: 0.0123, 1.23, 150, 12,300."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
