"""`gemma-nli report`: what sweeps over one corpus show; `folds`: pairs for another tool; `test`: on sealed posts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, Overrides, app, print_json, say


class _ReportCommand(TyperCommand):
    """Takes the FILE of `--model-card [FILE]` if the next word ends in .md; typer knows no option whose value may be
    left out.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = []
        for place, word in enumerate(args):
            following = args[place + 1] if place + 1 < len(args) else ""
            words.append("--model-card=" if word == "--model-card" and not following.endswith(".md") else word)
        return super().parse_args(ctx, words)


@app.command(cls=_ReportCommand)
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
    outside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=FILE", help="another tool's out-of-fold predictions (CSV or Parquet)"),
    ] = None,
    latex: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also write LaTeX tables and PDF figures, for a paper")
    ] = None,
    model_card: Annotated[
        str | None,
        typer.Option(metavar="[FILE]", help="also write a model card of the registered version (FILE ends in .md)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a sweep, or of several over one corpus.

    report.html and report.md have the answer, how certain it is, and the warnings.
    """
    from gemma_nli.sweep.records.make_report import report_sweeps, send_report

    card = Path(model_card) if model_card is not None else None
    found = report_sweeps(sweeps, out, encode, _named_files(outside or []), latex, card)
    alone = len(dict.fromkeys(sweeps)) == 1 and out is None
    unsent = send_report(sweeps[0]) if alone else None
    print_json(as_json, {**found.to_json(), "unsent": unsent})
    if not as_json:
        from gemma_nli.console.report_lines import show_report

        show_report(found.to_json(), unsent)
        for what, path in (("LaTeX", found.latex), ("model card", found.card)):
            if path is not None:
                say(f"{what}: {path}")


def _named_files(words: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals or not name.strip() or not file.strip():
            raise ConfigError(f"--with: expected NAME=FILE, as in --with tfidf=predictions.csv; got '{word}'.")
        if name in files:
            raise ConfigError(f"--with: the name '{name}' is given twice; choose another for one of the files.")
        files[name] = Path(file)
    return files


@app.command()
def folds(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")],
    to: Annotated[Path, typer.Option(help="file to write: .csv or .parquet")],
    overrides: Overrides = None,
    replace: Annotated[bool, typer.Option("--replace", help="overwrite an existing file")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a sweep's pairs and folds for another tool.

    One row per pair: a fold trains on train = 1 of the other folds and is measured on its own evaluate = 1.
    data.log_text=true adds the texts; data.negative_ratio=R takes R training negatives per positive.
    """
    from gemma_nli.config import parse_overrides
    from gemma_nli.sweep.records.write_folds import write_folds

    done = write_folds(sweep, to, parse_overrides(overrides or []), replace)
    print_json(as_json, done.to_json(), "\n".join(done.lines))


@app.command("test")
def open_test(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's name or id")],
    best: Annotated[int, typer.Option(min=0, max=50, help="also the K best trials, refitted at their settings")] = 0,
    compared: Annotated[bool, typer.Option("--compared", help="also the best trial of each compared value")] = False,
    as_json: AsJson = False,
) -> None:
    """Score a sweep's model on its sealed posts (data.test).

    Each look is counted before it shows a score, in the report, in MLflow and on the model version.
    """
    from gemma_nli.console.sealed_results import show_opened
    from gemma_nli.console.sweep_progress import Steps
    from gemma_nli.sweep.open_sealed import open_sealed

    with Steps("testing", enabled=not as_json) as steps:
        opened = open_sealed(name, best, compared, steps.report)
    print_json(as_json, opened.to_json())
    if not as_json:
        show_opened(opened)
