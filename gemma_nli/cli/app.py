"""The command's frame: its options, what every subcommand shares, how it prints JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Annotated, Any

import typer

from gemma_nli import __version__

app = typer.Typer(
    name="gemma-nli",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Cross-validated sweeps of text-pair classifiers on Ray Tune and MLflow.",
    epilog="An override is key=value: a setting (training.batch_size=16) or a sweep file's key (search.num_trials=50).",
)
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings to change", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gemma-nli {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="show the log")] = False,
) -> None:
    level = logging.INFO if verbose else logging.ERROR
    if verbose:
        os.environ["MLFLOW_LOGGING_LEVEL"] = "INFO"
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def print_json(as_json: bool, value: Any, text: str | None = None) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=1, allow_nan=False, default=str))
    elif text is not None:
        typer.echo(text)


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: (value if abs(value) < float("inf") else None) for name, value in metrics.items()}
