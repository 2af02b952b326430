"""Configurations that ship with the package, by name: `gemma-nli train experiment=nli_full_5fold`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

from gemma_nli.base.errors import ConfigError, did_you_mean
from gemma_nli.config import parse_yaml


def experiment_names() -> list[str]:
    files = (entry.name for entry in resources.files(__package__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def experiment_tree(name: str) -> dict[str, Any]:
    """The settings of a shipped experiment, as in a config file.

    Raises:
        ConfigError: no such experiment; with the nearest name.
    """
    names = experiment_names()
    if name not in names:
        raise ConfigError(f"experiment: unknown name '{name}'{did_you_mean(name, names)}")
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = parse_yaml(text, name)
    return tree


def split_experiment(overrides: Iterable[str]) -> tuple[str | None, list[str]]:
    """The `experiment=NAME` among `key=value` words, the last one, and the other words."""
    name, others = None, []
    for word in overrides:
        if word.startswith("experiment="):
            name = word.removeprefix("experiment=").strip()
        else:
            others.append(word)
    return name, others
