"""Settings with their defaults, bounds and meaning, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.spec.every_setting import Setting


def show_settings(settings: Sequence[Setting]) -> None:
    """A setting per paragraph: name and default, then its meaning, its type and its bounds."""
    console = Console()
    for setting in settings:
        console.print(Text.assemble((setting.name, "bold"), f" = {setting.default}"))
        limits = f"{setting.kind}{', ' if setting.bounds else ''}{setting.bounds}".replace("`", "")
        for line in filter(None, (setting.meaning, limits)):
            console.print(Padding(Text(line), (0, 0, 0, 4)))
