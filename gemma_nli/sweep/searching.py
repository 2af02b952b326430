"""Which searcher a sweep's spec asks for, and what it is told of trials that are done already."""

from __future__ import annotations

from collections.abc import Callable

from gemma_nli.sweep.board import Board
from gemma_nli.sweep.folder import SweepFolder
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.search import CellSearcher


def build_searcher(ready: Prepared, folder: SweepFolder, board: Board, post: Callable[[str], None]) -> CellSearcher:
    return CellSearcher([{"key": key, "settings": cell.settings} for key, cell in ready.waiting.items()])
