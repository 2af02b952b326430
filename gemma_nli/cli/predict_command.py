"""`gemma-nli predict`: score a file with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemma_nli.cli.app import AsJson, app, print_json
from gemma_nli.cli.store_commands import Uri


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="models:/NAME@production, models:/NAME/3, or a bundle's folder")],
    source: Annotated[Path, typer.Option("--input", help="CSV with premise and hypothesis, or with premise alone")],
    output: Annotated[
        Path, typer.Option(help="the same rows with probability and label (per criterion, for posts alone)")
    ],
    batch_rows: Annotated[int, typer.Option(min=1, help="rows held in memory at a time")] = 2000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    replace: Annotated[bool, typer.Option("--replace", help="overwrite an existing file")] = False,
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Score a CSV file of pairs, or of posts, with a model.

    Without a hypothesis column, each post is scored on every criterion.
    """
    from gemma_nli.base.files import check_target
    from gemma_nli.console.training_progress import RowProgress
    from gemma_nli.local.predict import count_rows, predict_file
    from gemma_nli.tracking.registry.registered_models import load_scorer

    check_target(output, replace, "--output")
    total = count_rows(source)  # refuses a bad file before the model is downloaded
    scorer = load_scorer(model, tracking_uri, device)
    with RowProgress(total, enabled=not as_json) as progress:
        done = predict_file(scorer, source, output, batch_rows, progress.rows_done, replace)
    facts = {"rows": done.rows, "columns": list(done.columns), "output": str(output), "note": done.note}
    note = f"\nnote: {done.note}" if done.note else ""
    print_json(as_json, facts, f"{output}: {done.rows} rows with {', '.join(done.columns)}{note}")
