"""`gemma-nli report`: what a sweep, or several over one corpus, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemma_nli.cli.app import AsJson, app, print_json


@app.command()
def report(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP", help="names or ids of sweeps over one corpus")],
    out: Annotated[Path | None, typer.Option(help="folder to write to; by default the sweep's own")] = None,
    encode: Annotated[
        bool,
        typer.Option(
            "--encode",
            help="compute missing vectors for the cosine and zero-shot baselines (a pass over posts, and over pairs)",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the report of a sweep, or of several over one corpus.

    report.html and report.md have the answer, how certain it is, and the warnings.
    """
    from gemma_nli.sweep.records.make_report import report_sweeps, send_report

    found = report_sweeps(sweeps, out, encode)
    alone = len(dict.fromkeys(sweeps)) == 1 and out is None
    unsent = send_report(sweeps[0]) if alone else None
    print_json(as_json, {**found.to_json(), "unsent": unsent})
    if not as_json:
        from gemma_nli.console.report_lines import show_report

        show_report(found.to_json(), unsent)
