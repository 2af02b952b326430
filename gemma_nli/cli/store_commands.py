"""`gemma-nli ui`, `experiments`, `runs`, `compare`, `clean`, `backup`, `restore`, `export`: the MLflow store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, app, print_json, say

Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow store, if not the default one")]
Csv = Annotated[bool, typer.Option("--csv", help="print CSV with every param, metric and tag")]


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 5000,
    host: Annotated[str, typer.Option(help="address to listen on; loopback by default")] = "127.0.0.1",
    address: Annotated[bool, typer.Option("--address", help="print the store's address and start nothing")] = False,
    tracking_uri: Uri = None,
) -> None:
    """Open MLflow's web pages on the store of these commands."""
    from gemma_nli.tracking.store.ui import address_of, serve_ui

    if address:
        say(address_of(tracking_uri))
        return
    say(f"the store is a server: open {serve_ui(port, host, tracking_uri)}")


@app.command()
def experiments(tracking_uri: Uri = None, as_json: AsJson = False) -> None:
    """List the experiments of the store."""
    from gemma_nli.console.store_tables import records, show_experiments
    from gemma_nli.tracking.read.frames import list_experiments as table_of

    table = table_of(tracking_uri)
    print_json(as_json, records(table))
    if not as_json:
        show_experiments(table)


@app.command()
def runs(
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment; by default all")] = None,
    where: Annotated[
        str | None, typer.Option(help="a filter, such as \"params.model.pooling_strategy = 'mean'\"")
    ] = None,
    since: Annotated[str | None, typer.Option(help="2026-11-01, or an age: 12h, 7d, 2w")] = None,
    kind: Annotated[str, typer.Option(help="trial, sweep or all (other programs' runs too)")] = "trial",
    limit: Annotated[int, typer.Option(min=1, help="most rows to show")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="show every row")] = False,
    as_csv: Csv = False,
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """List runs, best F1 first."""
    from gemma_nli.console.store_tables import cut_line, records, show_runs
    from gemma_nli.tracking.read.frames import list_runs as table_of

    if kind not in ("trial", "sweep", "all"):
        raise ConfigError(f"--kind: must be trial, sweep or all, got '{kind}'.")
    table = table_of(
        experiment, where, since, tracking_uri, None if kind == "all" else kind, None if everything else limit
    )
    cut = cut_line(table) if as_csv or as_json else None
    if cut:
        say(cut, err=True)
    if as_csv:
        say(table.to_csv(index=False), end="")
        return
    print_json(as_json, records(table))
    if not as_json:
        show_runs(table)


@app.command()
def compare(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN", help="runs, as listed by `gemma-nli runs`")],
    everything: Annotated[bool, typer.Option("--all", help="show every metric, not only the main ones")] = False,
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: params that differ, metrics, fold by fold."""
    from gemma_nli.console.store_tables import show_comparison
    from gemma_nli.tracking.read.frames import compare_runs

    found = compare_runs(run_ids, tracking_uri)
    if as_json:
        from gemma_nli.console.store_tables import comparison_json

        print_json(True, comparison_json(found))
    else:
        show_comparison(found, everything)


@app.command()
def clean(
    experiment: Annotated[str | None, typer.Option(help="one experiment; by default the whole store")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
    tracking_uri: Uri = None,
) -> None:
    """Delete runs and their files permanently, after asking.

    Shows first what would be deleted. Runs behind registered models are kept.
    """
    from gemma_nli.console.store_tables import clean_lines
    from gemma_nli.tracking.store.clean_and_export import clean as remove
    from gemma_nli.tracking.store.clean_and_export import plan_clean

    plan = plan_clean(experiment, tracking_uri)
    for line in clean_lines(plan):
        say(line)
    if not plan.runs and not plan.whole:
        return
    if not yes and not typer.confirm("delete them?", default=False):
        say("nothing was deleted")
        raise typer.Exit(1)
    say(remove(plan))


@app.command()
def backup(
    file: Annotated[Path | None, typer.Argument(help="the archive; by default ./mlflow-backup-DATE.tar.gz")] = None,
    without: Annotated[
        str | None, typer.Option(help="leave out what can be recreated: weights, exports, models (comma-separated)")
    ] = None,
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Back up a SQLite store, even one in use, to one archive.

    The archive has the database and all artifacts; identical files are stored once.
    """
    from gemma_nli.tracking.archives.backup import backup as pack

    archive = pack(file, tracking_uri, [name.strip() for name in without.split(",")] if without else ())
    facts = {"file": str(archive.path), "runs": archive.runs, "files": archive.files, "megabytes": archive.megabytes}
    facts |= {"left_out": archive.left_out}
    text = f"{archive.path}: {archive.runs} runs, {archive.files} files, {archive.megabytes:.1f} MB"
    for name, part in archive.left_out.items():
        text += f"\nleft out: {name}, {part['files']:.0f} files, {part['megabytes']:.1f} MB"
    print_json(as_json, facts, text)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="an archive written by `backup`")],
    replace: Annotated[bool, typer.Option("--replace", help="move an existing store aside")] = False,
    tracking_uri: Uri = None,
) -> None:
    """Restore a backup, identical to the original store."""
    from gemma_nli.config import sqlite_address
    from gemma_nli.tracking.archives.restore import restore_archive

    done = restore_archive(file, tracking_uri, replace)
    say(f"restored to {sqlite_address(done.database)}")
    for path in done.moved_aside:
        say(f"moved aside: {path}")
    for name, what in done.left_out.items():
        say(f"not in this backup: {name}, {what}")


@app.command()
def export(
    experiment: Annotated[str, typer.Argument(help="MLflow experiment")],
    to: Annotated[Path | None, typer.Option(help="folder; by default ./export-EXPERIMENT")] = None,
    tracking_uri: Uri = None,
) -> None:
    """Write an experiment's runs as JSON, CSV and artifact files."""
    from gemma_nli.tracking.store.clean_and_export import export_experiment

    target = to or Path(f"export-{experiment.replace('/', '_')}")
    count = export_experiment(experiment, target, tracking_uri)
    say(f"{target}: {count} runs")
