"""`gemma-nli models`, `promote` and `demote`: the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from gemma_nli.cli.app import AsJson, app, print_json, say
from gemma_nli.cli.store_commands import Uri

Name = Annotated[str, typer.Argument(metavar="NAME", help="a registered model, as listed by `gemma-nli models`")]


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="show one model, with its promotion decisions")
    ] = None,
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """List registered models, or one with its promotion decisions."""
    from gemma_nli.console.store_tables import records, show_models
    from gemma_nli.tracking.read.frames import list_models as table_of
    from gemma_nli.tracking.registry.registered_models import registered_versions

    table = table_of(tracking_uri, name)
    rows = {(row.name, row.version): row for row in registered_versions(tracking_uri, name)}
    facts = records(table)
    for fact in facts:
        fact["decisions"] = rows[fact["name"], fact["version"]].decisions
    print_json(as_json, facts)
    if not as_json:
        show_models(table, list(rows.values()) if name else [])


@app.command()
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1)],
    to: Annotated[str, typer.Option("--to", help="production, staging or champion")],
    tracking_uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Give a version a role: production, staging or champion.

    Moves the alias and, for those who load by stage, the stage.
    """
    from gemma_nli.config import MlflowConfig
    from gemma_nli.tracking.registry.promotion import check_role
    from gemma_nli.tracking.registry.promotion import promote as give
    from gemma_nli.tracking.store.mlflow_store import resolve_store

    done = give(resolve_store(MlflowConfig(tracking_uri=tracking_uri)), name, version, check_role(to))
    text = f"{name} version {version} is {to}: models:/{name}@{to}"
    if done.before is not None and done.before != version:
        text += f" (before: version {done.before})"
    print_json(as_json, {"name": name, "version": version, "role": to, "before": done.before}, text)


@app.command()
def demote(
    name: Name,
    role: Annotated[str, typer.Option("--from", help="production, staging or champion")],
    tracking_uri: Uri = None,
) -> None:
    """Take a role away from the version that holds it.

    Then a model of another corpus or metric can have it.
    """
    from gemma_nli.config import MlflowConfig
    from gemma_nli.tracking.registry.promotion import check_role
    from gemma_nli.tracking.registry.promotion import demote as take
    from gemma_nli.tracking.store.mlflow_store import resolve_store

    version = take(resolve_store(MlflowConfig(tracking_uri=tracking_uri)), name, check_role(role))
    say(f"{name} version {version} is no longer {role}")
