"""The command's frame: its options, what every subcommand shares, how it prints JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemma_nli.base.errors import ConfigError
from gemma_nli.base.masking import mask_tree
from gemma_nli.base.outgoing import shown
from gemma_nli.base.version import __version__
from gemma_nli.cli.command_groups import CommandGroup

if TYPE_CHECKING:
    from gemma_nli.storage import Place


class _Commands(CommandGroup):
    """The command line; its usage errors pass the gate, like any other message."""

    def make_context(self, *words: Any, **named: Any) -> Any:
        with _usage_shown():
            return super().make_context(*words, **named)

    def invoke(self, ctx: Any) -> Any:
        with _usage_shown():
            return super().invoke(ctx)


@contextmanager
def _usage_shown() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # an error of click's, which quotes the word as typed
            error.message = shown(str(error.message))  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="gemma-nli",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Cross-validated sweeps of text-pair classifiers on Ray Tune and MLflow.",
    epilog="An override is key=value: a setting (training.batch_size=16) or a sweep file's key (search.num_trials=50).",
)
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="settings to change", show_default=False)
]
SweepFile = Annotated[Path, typer.Argument(metavar="FILE", help="a sweep file", show_default=False)]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="K=V", help="a tag of the run, such as researcher=ann; note=... describes it"),
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
        typer.echo(json.dumps(mask_tree(value), indent=1, allow_nan=False, default=str))
    elif text is not None:
        say(text)


def say(text: str, err: bool = False, end: str = "\n") -> None:
    """Print text, with private text and control characters removed."""
    typer.echo(shown(text) + end, err=err, nl=False)


def parse_tags(words: list[str] | None) -> dict[str, str]:
    """`--tag k=v` words to tags; raises ConfigError for one that is not a tag."""
    from gemma_nli.spec.sweep_sections import checked_tags

    tags: dict[str, str] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--tag: invalid tag '{word}': expected key=value, as in --tag researcher=ann.")
        tags[name.strip()] = value
    try:
        return checked_tags(tags)
    except ValueError as error:
        raise ConfigError(f"--tag: {error}.") from None


def storage_place(storage: str | None) -> Place | None:
    """What `--storage` names; raises ConfigError if it is not a valid address."""
    from gemma_nli.storage import place_of

    try:
        return place_of(storage) if storage is not None else None
    except ValueError as error:
        raise ConfigError(f"--storage: {error}.") from None


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: (value if abs(value) < float("inf") else None) for name, value in metrics.items()}
