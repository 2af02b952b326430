"""The commands in the groups and the order that `gemma-nli --help` shows, each with an example for its own help."""

from __future__ import annotations

import shlex
from typing import Any

from typer.core import TyperGroup

from gemma_nli.base.advice import command_line

GROUPS: dict[str, dict[str, str]] = {
    "Sweep: compare configurations": {
        "sweep": "sweep sweeps/pooling.yaml training.num_epochs=30",
        "demo": "demo",
        "best": "best --experiment demo",
        "report": "report demo",
        "folds": "folds demo --to folds.csv --replace",
        "test": "test SWEEP",
        "plan": "plan sweeps/pooling.yaml --price 1.2",
        "resume": "resume demo",
        "flush": "flush demo",
    },
    "Train: one configuration": {
        "train": "train experiment=nli_cpu data.data_dir=data/redsm5",
        "baseline": "baseline zero-shot experiment=gemma3_270m data.data_dir=data/redsm5",
        "train-simple": "train-simple experiment=nli_cpu --epochs 10 --mlflow",
        "reproduce": "reproduce RUN_ID",
    },
    "Ask: what ran, what can be set": {
        "runs": "runs --experiment demo --since 7d",
        "compare": "compare RUN_A RUN_B",
        "experiments": "experiments",
        "ui": "ui --port 5001",
        "settings": "settings training.batch_size",
    },
    "Registry: models in use": {
        "models": "models gemma_nli_demo",
        "predict": "predict --model models:/gemma_nli_demo@candidate --input pairs.csv --output scored.csv",
        "promote": "promote gemma_nli_demo 1 --to production",
        "demote": "demote gemma_nli_demo --from production",
    },
    "Cluster: sweeps as Ray jobs": {
        "submit": "submit sweeps/pooling.yaml storage=/shared/gemma_nli --follow",
        "jobs": "jobs",
        "logs": "logs --follow JOB",
        "stop": "stop JOB",
        "check": "check sweeps/pooling.yaml storage=/shared/gemma_nli",
    },
    "Keep: stored data and backups": {
        "features": "features list",
        "features list": "features list",
        "features verify": "features verify --repair",
        "features prune": "features prune --older-than-days 30 --dry-run",
        "backup": "backup mlflow-backup.tar.gz",
        "restore": "restore mlflow-backup.tar.gz --replace",
        "export": "export demo --to export",
        "clean": "clean --experiment demo",
    },
}
"""Title of a group -> command -> the words of an example, which works after `gemma-nli demo` if it names the demo."""

_PANELS = {name: title for title, commands in GROUPS.items() for name in commands}
_EXAMPLES = {name: example for commands in GROUPS.values() for name, example in commands.items()}


class CommandGroup(TyperGroup):
    """Lists its commands by GROUPS and ends each one's help with its example."""

    def list_commands(self, ctx: Any) -> list[str]:
        places = {name: place for place, name in enumerate(_PANELS)}
        return sorted(super().list_commands(ctx), key=lambda name: places.get(_full(ctx, name), len(places)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command: Any = super().get_command(ctx, cmd_name)
        name = _full(ctx, cmd_name)
        if command is not None and name in _EXAMPLES:
            command.epilog = f"Example: {command_line('gemma-nli', *shlex.split(_EXAMPLES[name]))}"
            command.rich_help_panel = _PANELS[name] if ctx.parent is None else None
        return command


def _full(ctx: Any, name: str) -> str:
    """`features list` of a command within a command."""
    return name if ctx.parent is None else f"{ctx.info_name} {name}"
