"""The store of encoded texts, as a table."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_nli.console.terminal import Sheet, Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gemma_nli.features.verify_and_prune import StoreEntry


def show_features(entries: Sequence[StoreEntry]) -> None:
    """One row per key, the least recently used first."""
    console = Terminal()
    table = Sheet("key", "encoder", "texts", "tokens", "MiB", "last used", right={"texts", "tokens", "MiB"})
    for entry in entries:
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        encoder = f"{Path(entry.encoder).name} {entry.about.get('template', '')}"
        mib = f"{entry.size_bytes / 2**20:.1f}"
        table.add(entry.key[:12], encoder, str(entry.texts), str(entry.with_tokens), mib, used)
        table.add("", f"views: {', '.join(entry.views)}", "", "", "", "")
    if entries:
        console.print(table)
    else:
        console.say("the store is empty")
