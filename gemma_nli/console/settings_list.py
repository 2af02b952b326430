"""Settings with their defaults, bounds and meaning, in 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from gemma_nli.console.terminal import Terminal, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.spec.every_setting import Setting


def show_settings(settings: Sequence[Setting]) -> None:
    """One paragraph per setting: name and default, then its meaning, its type and its bounds."""
    console = Terminal()
    for setting in settings:
        console.print(Text.assemble(line(setting.name, "bold"), line(f" = {setting.default}")))
        limits = f"{setting.kind}{', ' if setting.bounds else ''}{setting.bounds}".replace("`", "")
        for remark in filter(None, (setting.meaning, limits)):
            console.print(Padding(line(remark), (0, 0, 0, 4)))
