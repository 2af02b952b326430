"""The table of `gemma-nli jobs`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from gemma_nli.console.words import duration

if TYPE_CHECKING:
    from gemma_nli.sweep.submit import Job


def show_jobs(jobs: Sequence[Job]) -> None:
    """A job a line: id, sweep, status, when it began (UTC), how long it has run or ran."""
    console = Console()
    if not jobs:
        console.print("no jobs")
        return
    table = Table(box=None, pad_edge=False, header_style="underline")
    table.add_column("job", overflow="fold")
    for name in ("sweep", "status", "began (UTC)"):
        table.add_column(name)
    table.add_column("ran", justify="right")
    for job in jobs:
        began = time.strftime("%m-%d %H:%M", time.gmtime(job.started)) if job.started else "-"
        ran = duration(job.seconds) if job.seconds is not None else "-"
        table.add_row(job.id, job.sweep, job.status.lower(), began, ran)
    console.print(table, highlight=False)
