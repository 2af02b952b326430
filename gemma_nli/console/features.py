"""The store of encoded texts, as a table."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.features.upkeep import StoreEntry


def show_features(entries: Sequence[StoreEntry]) -> None:
    """A key a row, the least recently used first."""
    console = Console()
    table = Table(box=None)
    table.padding, table.header_style = (0, 2, 0, 0), "underline"
    for name in ("key", "encoder", "texts", "tokens", "MiB", "last used"):
        table.add_column(name, overflow="fold", justify="right" if name in ("texts", "tokens", "MiB") else "left")
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        encoder = f"{Path(entry.encoder).name} {entry.about.get('template', '')}"
        mib = f"{entry.size_bytes / 2**20:.1f}"
        table.add_row(entry.key[:12], encoder, str(entry.texts), str(entry.with_tokens), mib, used)
        table.add_row("", f"views: {', '.join(entry.views)}", "", "", "", "")
    console.print(table if entries else "the store is empty")
