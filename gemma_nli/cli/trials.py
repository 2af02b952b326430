"""`gemma-nli train` and `best`: one configuration, and the best of those that were run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_nli.cli.app import AsJson, Overrides, Tags, app, finite, parse_tags, print_json
from gemma_nli.errors import ConfigError


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Option("--config", help="a config.yaml, as `best` and every run have it")
    ] = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="folder of the run's journal; else $GEMMA_NLI_HOME/runs")] = None,
    storage: Annotated[Path | None, typer.Option(help="a sweep's storage folder, for its encoded texts")] = None,
    tag: Tags = None,
    again: Annotated[bool, typer.Option("--again", help="train anew what was trained before")] = False,
    as_json: AsJson = False,
) -> None:
    """Cross-validate one configuration here, without Ray, and record it in MLflow.

    experiment=NAME takes a configuration that ships with the package; gives a trial's numbers again.
    """
    from gemma_nli.config import build_config, load_config, parse_overrides
    from gemma_nli.experiments import experiment_tree, split_experiment
    from gemma_nli.local.trial import run_here

    name, changes = split_experiment(overrides or [])
    if name is not None and config is not None:
        raise ConfigError(f"experiment={name} and --config {config}: give one of them.")
    if name is None:
        run = load_config(config, changes)
    else:
        run = build_config(experiment_tree(name), name)
        run = run.with_settings(parse_overrides(changes), source="command line") if changes else run
    from gemma_nli.console.training import FoldProgress

    with FoldProgress(enabled=not as_json) as progress:
        done = run_here(run, output, storage, parse_tags(tag), again, [progress])
    from gemma_nli.console.results import show_run

    facts: dict[str, Any] = {
        "run_id": done.run_id,
        "experiment": done.experiment,
        "key": done.record.key,
        "folder": str(done.folder),
    }
    facts |= {"state": done.record.state, "reused": done.reused, "error": done.record.error, "notes": done.notes}
    facts |= {"metrics": finite(done.result.metrics()), "criteria": done.result.criteria, "seconds": done.seconds}
    print_json(as_json, facts)
    if not as_json:
        show_run(done)
    raise typer.Exit(1 if done.failed else 0)


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
    from gemma_nli.console.results import show_best

    facts = {"run_id": found.run_id, "metric": metric, "value": found.value, "metrics": finite(found.metrics)}
    facts |= {"config": found.config.model_dump(mode="json"), "command": found.command, "notes": list(found.notes)}
    print_json(as_json, facts)
    if not as_json:
        show_best(found)
