"""The one place where text becomes what a terminal shows: nothing that came from outside is read as markup.

Names of experiments, runs, sweeps and tags, params, files and errors come from other programs and people. Square
brackets in them are brackets, escapes and direction marks are written out, and a line break starts no second row.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from gemma_nli.base.outgoing import one_line, shown

PADDING = 2
"""Blanks after a cell."""


def line(text: object, style: str = "") -> Text:
    """A text on one line; its content is shown as it is and never interpreted."""
    return Text(one_line(text), style=style)


class Terminal(Console):
    """stdout or stderr without markup, emoji codes and highlighting."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def say(self, text: object = "", style: str = "", whole: bool = False) -> None:
        """Print one line, wrapped between words if it is too long.

        Args:
            whole: never wrapped or shortened: a command or an address, which is copied.
        """
        self.print(line(text, style), soft_wrap=whole, overflow="ignore" if whole else "fold")

    def say_all(self, text: str, style: str = "") -> None:
        """The same for a text with lines of its own, such as an error's list of problems; none of them is wrapped."""
        self.print(Text(shown(text), style=style), soft_wrap=True)


class Sheet(Table):
    """A table without frames whose cells are shown as they are; long cells are wrapped, never shortened.

    Args:
        columns: their names; none for a table without a header.
        right: those that are right-aligned.
    """

    def __init__(self, *columns: object, right: frozenset[str] | set[str] = frozenset(), title: object = None) -> None:
        super().__init__(
            title=None if title is None else line(title),
            title_justify="left",
            title_style="bold",
            box=None,
            show_header=bool(columns),
            padding=(0, PADDING, 0, 0),
            header_style="underline",
        )
        for name in columns:
            self.add_column(line(name), overflow="fold", justify="right" if name in right else "left")

    def fit(self, console: Console) -> Sheet:
        """The same; while it is wider than the console, the widest heading is broken after its underscores, so that
        no word is.
        """

        def width(column: Column) -> int:
            return max(console.measure(cell).maximum for cell in (column.header, *column.cells)) + PADDING

        for column in sorted(self.columns, key=width, reverse=True):
            if sum(map(width, self.columns)) <= console.width:
                break
            column.header = Text(str(column.header).replace("_", "_\n"))
        return self

    def add(self, *cells: object) -> None:
        """A row; new cells get a column."""
        while len(self.columns) < len(cells):
            self.add_column(overflow="fold")
        self.add_row(*(line(cell) for cell in cells))


def bars(console: Console, live: bool, transient: bool) -> Progress:
    """Progress bars, if `live`."""
    description: Any = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not live, transient=transient)
