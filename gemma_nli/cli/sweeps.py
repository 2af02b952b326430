"""`gemma-nli sweep`, `resume`, `flush` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_nli.cli.app import AsJson, Overrides, Tags, app, parse_tags, print_json


@app.command()
def sweep(
    file: Path,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would run, and run nothing")] = False,
    tag: Tags = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep file; run it again to go on, or to see what is there."""
    from gemma_nli.spec.spec import SweepSpec, load_sweep

    spec = load_sweep(file, overrides or [])
    if tag:
        spec = SweepSpec.model_validate({**dict(spec), "tags": spec.tags | parse_tags(tag)})
    if not plan:
        _run_and_tell(spec, as_json)
    from gemma_nli.console.results import show_plan
    from gemma_nli.sweep.plan import plan_sweep

    planned = plan_sweep(spec)
    print_json(as_json, planned)
    if not as_json:
        show_plan(planned)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")], as_json: AsJson = False
) -> None:
    """Go on with a sweep from any folder."""
    from gemma_nli.sweep.resume import stored_spec

    _run_and_tell(stored_spec(name), as_json)


@app.command()
def flush(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")], as_json: AsJson = False
) -> None:
    """Send MLflow what it could not be given while it was away."""
    from gemma_nli.sweep.resume import flush_sweep

    sent, waiting = flush_sweep(name)
    print_json(
        as_json, {"sent": sent, "waiting": waiting}, f"{sent} trials are up to date in MLflow, {waiting} still wait"
    )
    raise typer.Exit(1 if waiting else 0)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="where to write corpus and sweep; else under $GEMMA_NLI_HOME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a synthetic corpus and run a real sweep over it with a small pretrained encoder."""
    from gemma_nli.config import home
    from gemma_nli.demo import demo_spec

    _run_and_tell(demo_spec(folder or home() / "demo"), as_json)


def _run_and_tell(spec: Any, as_json: bool) -> None:
    from gemma_nli.console.progress import Progress
    from gemma_nli.console.results import show_result
    from gemma_nli.sweep.engine import run_sweep

    with Progress(enabled=not as_json) as progress:
        result = run_sweep(spec, watch=progress.watch)
    print_json(as_json, result.to_json())
    if not as_json:
        show_result(result, spec, progress.board)
    raise typer.Exit(result.exit_status)
