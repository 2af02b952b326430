"""`gemma-nli train` and `best`: one configuration, and the best of those that were run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemma_nli.cli.app import AsJson, Overrides, app, finite, print_json
from gemma_nli.errors import ConfigError


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
    from gemma_nli.console.results import show_cv

    print_json(as_json, {"metrics": finite(result.metrics()), "criteria": result.criteria, "seconds": result.seconds})
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
    from gemma_nli.console.results import show_best

    facts = {"run_id": found.run_id, "metric": metric, "value": found.value, "metrics": finite(found.metrics)}
    facts |= {
        "config": found.config.model_dump(mode="json"),
        "command": found.command,
        "notes": list(found.notes),
        "honest": found.honest,
    }
    print_json(as_json, facts)
    if not as_json:
        show_best(found)
