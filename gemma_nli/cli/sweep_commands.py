"""`gemma-nli sweep`, `resume`, `flush` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gemma_nli.cli.app import AsJson, Overrides, SweepFile, Tags, app, parse_tags, print_json, say

Notify = Annotated[
    str | None,
    typer.Option(
        "--notify", metavar="URL", envvar="GEMMA_NLI_NOTIFY", help="webhook to notify when the sweep ends or fails"
    ),
]


@app.command()
def sweep(
    file: SweepFile,
    overrides: Overrides = None,
    notify: Notify = None,
    plan: Annotated[bool, typer.Option("--plan", help="show what would run, and run nothing")] = False,
    tag: Tags = None,
    as_json: AsJson = False,
) -> None:
    """Run a sweep file, or continue it.

    The same command runs only what has not run yet, and shows the results of a finished sweep.
    """
    from gemma_nli.spec.spec import SweepSpec, load_sweep

    spec = load_sweep(file, overrides or [])
    if tag:
        spec = SweepSpec.model_validate({**dict(spec), "tags": spec.tags | parse_tags(tag)})
    if not plan:
        _run_and_report(spec, as_json, notify)
    from gemma_nli.console.command_results import show_plan
    from gemma_nli.sweep.forecast.plan import plan_sweep

    planned = plan_sweep(spec)
    print_json(as_json, planned)
    if not as_json:
        show_plan(planned)


@app.command("plan")
def plan_command(
    file: SweepFile,
    overrides: Overrides = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="price per GPU-hour, or per machine-hour without GPUs")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate a sweep's time and cost from short measurements.

    Measures on this machine for a minute or two; nothing of it is kept.
    """
    from gemma_nli.console.command_results import show_forecast, show_plan
    from gemma_nli.console.sweep_progress import Steps
    from gemma_nli.spec.spec import load_sweep
    from gemma_nli.sweep.forecast.forecast import forecast
    from gemma_nli.sweep.forecast.plan import plan_sweep

    spec = load_sweep(file, overrides or [])
    planned = plan_sweep(spec)
    if not as_json:
        show_plan(planned)
    with Steps("measuring", enabled=not as_json) as steps:
        measured = forecast(spec, steps.report)
    print_json(as_json, {**planned, "forecast": measured.to_json(price)})
    if not as_json:
        show_forecast(measured, price)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")],
    notify: Notify = None,
    as_json: AsJson = False,
) -> None:
    """Continue a sweep, from any folder."""
    from gemma_nli.sweep.resume import stored_spec

    _run_and_report(stored_spec(name), as_json, notify)


@app.command()
def flush(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")], as_json: AsJson = False
) -> None:
    """Send MLflow what it missed while it was unreachable."""
    from gemma_nli.sweep.resume import flush_sweep

    sent, waiting = flush_sweep(name)
    print_json(
        as_json, {"sent": sent, "waiting": waiting}, f"{sent} trials are up to date in MLflow, {waiting} still waiting"
    )
    raise typer.Exit(1 if waiting else 0)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="where to write corpus and sweep; by default under $GEMMA_NLI_HOME")
    ] = None,
    model: Annotated[
        Literal["minilm", "gemma"], typer.Option(help="gemma: a real Gemma 3 270M, in some minutes (extra gemma)")
    ] = "minilm",
    as_json: AsJson = False,
) -> None:
    """Run a real sweep on synthetic data, in about a minute.

    12 configurations of a small pretrained encoder (MiniLM) over a synthetic corpus; no GPU and no download needed.
    """
    from gemma_nli.config import home
    from gemma_nli.sweep.demo_sweep import demo_spec

    _run_and_report(demo_spec(folder or home() / "demo", model, lambda line: say(line, err=True)), as_json)


def _run_and_report(spec: Any, as_json: bool, notify: str | None = None) -> None:
    from gemma_nli.console.command_results import show_result
    from gemma_nli.console.sweep_progress import Progress
    from gemma_nli.sweep.engine import run_sweep
    from gemma_nli.sweep.records.webhook import Notifier

    notifier = Notifier(notify, spec.name) if notify else None
    try:
        with Progress(enabled=not as_json) as progress:
            result = run_sweep(spec, watch=progress.watch)
    except BaseException as error:
        _report_undelivered(notifier.failed(error) if notifier else None)
        raise
    print_json(as_json, result.to_json())
    if not as_json:
        show_result(result, spec)
    _report_undelivered(notifier.ended(result) if notifier else None)
    raise typer.Exit(result.exit_status)


def _report_undelivered(undelivered: str | None) -> None:
    if undelivered:
        say(f"note: {undelivered}", err=True)
