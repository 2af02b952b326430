"""The table of `gemma-nli jobs`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gemma_nli.console.formatting import duration
from gemma_nli.console.terminal import Sheet, Terminal

if TYPE_CHECKING:
    from gemma_nli.sweep.cluster.jobs import Job


def show_jobs(jobs: Sequence[Job]) -> None:
    """One line per job: id, sweep, status, start (UTC), running time."""
    console = Terminal()
    if not jobs:
        console.say("no jobs")
        return
    table = Sheet("job", "sweep", "status", "began (UTC)", "ran", right={"ran"})
    for job in jobs:
        began = time.strftime("%m-%d %H:%M", time.gmtime(job.started)) if job.started else "-"
        ran = duration(job.seconds) if job.seconds is not None else "-"
        table.add(job.id, job.sweep, job.status.lower(), began, ran)
    console.print(table)
