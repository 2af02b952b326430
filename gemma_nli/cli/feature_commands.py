"""`gemma-nli features`: list, verify and prune the store of encoded texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gemma_nli.base.errors import ConfigError
from gemma_nli.cli.app import AsJson, app, print_json, storage_place
from gemma_nli.cli.command_groups import CommandGroup

features = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="List, verify and prune the store of encoded texts."
)
app.add_typer(features, name="features")
Storage = Annotated[str | None, typer.Option(help="a sweep's storage folder; by default the default storage")]


@features.command("list")
def features_list(storage: Storage = None, as_json: AsJson = False) -> None:
    """List what the store holds, by encoder."""
    from gemma_nli.cli.feature_table import show_features

    entries = _store(storage).entries()
    print_json(as_json, [_entry(entry) for entry in entries])
    if not as_json:
        show_features(entries)


@features.command("verify")
def features_verify(
    storage: Storage = None,
    repair: Annotated[bool, typer.Option(help="remove damaged files; they are recomputed when needed")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of the store and compare it with its checksum."""
    damaged = _store(storage).verify(repair=repair)
    lines = [f"{item.key}/{item.file}: {item.problem}{' (removed)' if item.repaired else ''}" for item in damaged]
    print_json(
        as_json, {"damaged": [_entry(item) for item in damaged]}, "\n".join(lines) or "every file matches its checksum"
    )
    raise typer.Exit(1 if damaged and not repair else 0)


@features.command("prune")
def features_prune(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="keys, as `list` shows them")] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="keys not used for this many days")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every key")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be removed, and remove nothing")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Remove encoded texts that are no longer needed.

    A sweep that needs them again encodes them again.
    """
    if not keys and older_than_days is None and not everything:
        raise ConfigError("features prune: give keys, --older-than-days or --all.")
    seconds = None if older_than_days is None else older_than_days * 86400
    pruned = _store(storage).prune(keys or (), seconds, everything, dry_run)
    lines = []
    for item in pruned:
        verb = "left (in use)" if item.busy else "would remove" if dry_run else "removed"
        lines.append(f"{verb} {item.entry.key} ({item.entry.size_bytes / 2**20:.1f} MiB)")
    print_json(as_json, [_entry(item) for item in pruned], "\n".join(lines) or "nothing to remove")


def _store(storage: str | None) -> Any:
    from gemma_nli.config import home
    from gemma_nli.features import FeatureStore

    return FeatureStore((storage_place(storage) or home() / "storage") / "features")


def _entry(entry: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(entry).items()}
