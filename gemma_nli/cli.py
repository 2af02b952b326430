"""The command `gemma-nli`: argv in, exit status out, no logic of its own.

Exit status: 0 all went well; 1 some trials failed; 2 a mistake in what was asked (one message, no traceback);
130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_nli import __version__
from gemma_nli.errors import ConfigError, GemmaNliError

app = typer.Typer(
    name="gemma-nli",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Cross-validated sweeps of text-pair classifiers on Ray Tune and MLflow.",
    epilog="An override is key=value: a setting (training.batch_size=16) or a sweep file's key (search.num_trials=50).",
)
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "RAY_LOG_TO_STDERR": "0", "MLFLOW_LOGGING_LEVEL": "ERROR"}
"""Libraries that talk on their own: what matters of it is told by us."""

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


@app.command()
def sweep(
    file: Path,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would run, and run nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a sweep file; run it again to go on, or to see what is there."""
    from gemma_nli.sweep.spec import load_sweep

    spec = load_sweep(file, overrides or [])
    if not plan:
        _run_and_tell(spec, as_json)
    from gemma_nli.console import show_plan
    from gemma_nli.sweep.plan import plan_sweep

    planned = plan_sweep(spec)
    _print(as_json, planned)
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
    _print(as_json, {"sent": sent, "waiting": waiting}, f"{sent} trials are up to date in MLflow, {waiting} still wait")
    raise typer.Exit(1 if waiting else 0)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Option("--config", help="a config.yaml, as `best` and every run have it")
    ] = None,
    overrides: Overrides = None,
    storage: Annotated[Path | None, typer.Option(help="a sweep's storage folder, for its encoded texts")] = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate one configuration here, without Ray; gives a trial's numbers again."""
    from gemma_nli.config import home, load_config
    from gemma_nli.corpus.pairs import build_pairs
    from gemma_nli.corpus.redsm5 import load_corpus
    from gemma_nli.features import FeatureStore
    from gemma_nli.training.cross_validation import cross_validate

    run = load_config(config, overrides or [])
    corpus = load_corpus(run.data.data_dir)
    pairs = build_pairs(corpus, run.data)
    store = FeatureStore((storage or home() / "storage") / "features", run.features)
    result = cross_validate(run, corpus, pairs, store)
    from gemma_nli.console import show_cv

    _print(as_json, {"metrics": _finite(result.metrics()), "criteria": result.criteria, "seconds": result.seconds})
    if not as_json:
        show_cv(result)
    raise typer.Exit(1 if result.diverged else 0)


@app.command()
def best(
    experiment: Annotated[str, typer.Option(help="MLflow experiment")],
    metric: Annotated[str, typer.Option(help="what to rank by")] = "cv_aggregate/mean_f1",
    mode: Annotated[str, typer.Option(help="max or min")] = "max",
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store, if not the default one")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask MLflow which trial is best, and how to run it again."""
    from gemma_nli.tracking.queries import best_trial

    if mode not in ("max", "min"):
        raise ConfigError(f"--mode: must be max or min, got '{mode}'.")
    found = best_trial(experiment, metric=metric, mode="max" if mode == "max" else "min", tracking_uri=tracking_uri)
    from gemma_nli.console import show_best

    facts = {"run_id": found.run_id, "metric": metric, "value": found.value, "metrics": _finite(found.metrics)}
    facts |= {"config": found.config.model_dump(mode="json"), "command": found.command, "notes": list(found.notes)}
    _print(as_json, facts)
    if not as_json:
        show_best(found)


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


features = typer.Typer(no_args_is_help=True, help="List, verify and prune the store of encoded texts.")
app.add_typer(features, name="features")
Storage = Annotated[Path | None, typer.Option(help="a sweep's storage folder; else the default one")]


@features.command("list")
def features_list(storage: Storage = None, as_json: AsJson = False) -> None:
    """What the store holds, by encoder."""
    from gemma_nli.console import show_features

    entries = _store(storage).entries()
    _print(as_json, [_entry(entry) for entry in entries])
    if not as_json:
        show_features(entries)


@features.command("verify")
def features_verify(
    storage: Storage = None,
    repair: Annotated[bool, typer.Option(help="remove what is damaged; it is computed again when needed")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of the store and compare it with its checksum."""
    damaged = _store(storage).verify(repair=repair)
    lines = [f"{item.key}/{item.file}: {item.problem}{' (removed)' if item.repaired else ''}" for item in damaged]
    _print(
        as_json, {"damaged": [_entry(item) for item in damaged]}, "\n".join(lines) or "every file is as it was written"
    )
    raise typer.Exit(1 if damaged and not repair else 0)


@features.command("prune")
def features_prune(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="keys, as `list` shows them")] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="keys not used for so long")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every key")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and remove nothing")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Remove encoded texts that are no longer needed; a sweep that needs them encodes them again."""
    if not keys and older_than_days is None and not everything:
        raise ConfigError("features prune: name keys, --older-than-days or --all.")
    seconds = None if older_than_days is None else older_than_days * 86400
    pruned = _store(storage).prune(keys or (), seconds, everything, dry_run)
    lines = []
    for item in pruned:
        verb = "left (in use)" if item.busy else "would remove" if dry_run else "removed"
        lines.append(f"{verb} {item.entry.key} ({item.entry.size_bytes / 2**20:.1f} MiB)")
    _print(as_json, [_entry(item) for item in pruned], "\n".join(lines) or "nothing to remove")


def _store(storage: Path | None) -> Any:
    from gemma_nli.config import home
    from gemma_nli.features import FeatureStore

    return FeatureStore((storage or home() / "storage") / "features")


def _entry(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(entry).items()}


def _run_and_tell(spec: Any, as_json: bool) -> None:
    from gemma_nli.console import Progress, show_result
    from gemma_nli.sweep.engine import run_sweep

    with Progress(enabled=not as_json) as progress:
        result = run_sweep(spec, watch=progress.watch)
    _print(as_json, result.to_json())
    if not as_json:
        show_result(result, spec, progress.board)
    raise typer.Exit(result.exit_status)


def _print(as_json: bool, value: Any, text: str | None = None) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=1, allow_nan=False, default=str))
    elif text is not None:
        typer.echo(text)


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: (value if abs(value) < float("inf") else None) for name, value in metrics.items()}


def main() -> None:
    """Run the command; a GemmaNliError is its message on stderr and exit status 2."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except GemmaNliError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        sys.exit(130)
