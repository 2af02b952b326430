"""`gemma-nli train`, `baseline`, `train-simple`, `reproduce` and `best`: one configuration, and the best of many."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, Overrides, Tags, app, finite, parse_tags, print_json, storage_place

if TYPE_CHECKING:
    from gemma_nli.config import RunConfig

RunName = Annotated[str | None, typer.Option("--name", help="the run's name in MLflow (output.run_name)")]


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Option("--config", help="a config.yaml, as printed by `best` and stored with every run")
    ] = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="folder of the run's journal; by default $GEMMA_NLI_HOME/runs")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="a sweep's storage, to reuse its encoded texts")] = None,
    tag: Tags = None,
    name: RunName = None,
    again: Annotated[bool, typer.Option("--again", help="train again even if the run is already finished")] = False,
    as_json: AsJson = False,
) -> None:
    """Cross-validate one configuration on this machine.

    Needs no Ray; the run is recorded in MLflow. experiment=NAME takes a configuration that ships with the package.
    The numbers equal those of a sweep's trial.
    """
    from gemma_nli.local.train import run_here

    run = _named(_configuration(config, overrides), name)
    from gemma_nli.console.training_progress import FoldProgress

    with FoldProgress(run.data.measured_at, enabled=not as_json) as progress:
        done = run_here(run, output, storage_place(storage), parse_tags(tag), again, [progress])
    from gemma_nli.console.command_results import show_run

    facts: dict[str, Any] = {
        "run_id": done.run_id,
        "experiment": done.experiment,
        "key": done.record.key,
        "folder": str(done.folder),
    }
    facts |= {"state": done.record.state, "reused": done.reused, "error": done.record.error, "notes": done.notes}
    facts |= {"metrics": finite(done.result.metrics()), "criteria": done.result.criteria, "seconds": done.seconds}
    facts |= {"criterion_only": done.criterion_only, "measured_at": run.data.measured_at}
    print_json(as_json, facts)
    if not as_json:
        show_run(done)
    raise typer.Exit(1 if done.failed else 0)


def _named(run: RunConfig, name: str | None) -> RunConfig:
    return run if name is None else run.with_settings({"output.run_name": name}, "--name")


def _configuration(config: Path | None, overrides: list[str] | None) -> RunConfig:
    """A config file or a shipped experiment, with the changes of the command line over it."""
    from gemma_nli.config import build_config, load_config, parse_overrides
    from gemma_nli.config.experiments import experiment_tree, split_experiment

    name, changes = split_experiment(overrides or [])
    if name is not None and config is not None:
        raise ConfigError(f"experiment={name} and --config {config}: give only one of them.")
    if name is None:
        return load_config(config, changes)
    run = build_config(experiment_tree(name), name)
    return run.with_settings(parse_overrides(changes), source="command line") if changes else run


@app.command()
def baseline(
    name: Annotated[Literal["zero-shot"], typer.Argument(help="zero-shot: the encoder's own yes or no")],
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", help="a config.yaml")] = None,
    storage: Annotated[str | None, typer.Option(help="a sweep's storage, to reuse its encoded texts")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a baseline alone, on a trial's own folds and pairs.

    zero-shot needs an encoder with a language-model head (Gemma, Qwen, Llama); nothing is trained.
    """
    from gemma_nli.local.baseline import zero_shot_here

    found = zero_shot_here(_configuration(config, overrides), storage_place(storage))
    print_json(
        as_json, {**asdict(found), "scores": finite(found.scores), "criterion_only": finite(found.criterion_only)}
    )
    if not as_json:
        from gemma_nli.console.baseline_scores import show_baseline

        show_baseline(found)


@app.command("train-simple")
def train_simple(
    overrides: Overrides = None,
    data_dir: Annotated[Path | None, typer.Option(help="folder of the post and annotation files")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the training pairs")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="record the run in MLflow")] = False,
    wandb: Annotated[str | None, typer.Option(metavar="PROJECT", help="record it in this W&B project")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="a config.yaml")] = None,
    storage: Annotated[str | None, typer.Option(help="a sweep's storage, to reuse its encoded texts")] = None,
    tag: Tags = None,
    name: RunName = None,
    as_json: AsJson = False,
) -> None:
    """Train once on a train/validation/test split by post."""
    from gemma_nli.local.train_simple import run_simple

    given = {"data.data_dir": str(data_dir) if data_dir else None, "training.num_epochs": epochs}
    run = _named(_configuration(config, overrides), name)
    run = run.with_settings({name: value for name, value in given.items() if value is not None}, "command line")
    done, run_id = run_simple(run, storage_place(storage), mlflow, wandb, parse_tags(tag))
    from gemma_nli.console.command_results import show_simple

    facts = {"metrics": finite(done.metrics), "best_epoch": done.best_epoch, "pairs": done.pairs, "run_id": run_id}
    print_json(as_json, {**facts, "history": done.history})
    if not as_json:
        show_simple(done, run_id, run.data.measured_at)


@app.command()
def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="a run, as listed by `gemma-nli runs`")],
    overrides: Overrides = None,
    storage: Annotated[str | None, typer.Option(help="a sweep's storage, to reuse its encoded texts")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store, if not the default one")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a recorded run again and compare the numbers.

    The configuration comes from MLflow alone. Exit status 1 if the numbers differ.
    """
    from gemma_nli.config import parse_overrides
    from gemma_nli.console.training_progress import FoldProgress
    from gemma_nli.local.reproduce import reproduce as run_again

    with FoldProgress(enabled=not as_json) as progress:
        reproduction = run_again(
            run_id, tracking_uri, parse_overrides(overrides or []), storage_place(storage), [progress]
        )
    from gemma_nli.console.command_results import show_reproduction

    rows = [{"metric": r.metric, **finite({"recorded": r.recorded, "now": r.now})} for r in reproduction.rows]
    print_json(
        as_json,
        {"run_id": reproduction.run_id, "equal": reproduction.equal, "metrics": rows, "notes": reproduction.notes},
    )
    if not as_json:
        show_reproduction(reproduction)
    raise typer.Exit(0 if reproduction.equal else 1)


@app.command()
def best(
    experiment: Annotated[str, typer.Option(help="MLflow experiment")],
    metric: Annotated[str, typer.Option(help="what to rank by")] = "cv_aggregate/mean_f1",
    mode: Annotated[str, typer.Option(help="max or min")] = "max",
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store, if not the default one")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the best trial, and the command that runs it again."""
    from gemma_nli.tracking.read.queries import best_trial

    if mode not in ("max", "min"):
        raise ConfigError(f"--mode: must be max or min, got '{mode}'.")
    found = best_trial(experiment, metric=metric, mode="max" if mode == "max" else "min", tracking_uri=tracking_uri)
    from gemma_nli.console.command_results import show_best

    facts = {"run_id": found.run_id, "metric": metric, "value": found.value, "metrics": finite(found.metrics)}
    facts |= {
        "measured_at": found.config.data.measured_at,
        "config": found.config.model_dump(mode="json"),
        "command": found.command,
        "notes": list(found.notes),
        "honest": found.honest,
    }
    print_json(as_json, facts)
    if not as_json:
        show_best(found)
