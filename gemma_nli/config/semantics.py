"""The version of what a configuration's numbers mean, and settings as an earlier version stored them.

Version 1: negatives pooled within a fold. Version 2: negatives matched within each criterion (`data.negatives`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemma_nli.config.run import RunConfig, build_config

SEMANTICS_VERSION = 2
"""Increased when the same configuration would give different numbers than before; part of every trial's key."""

_BEFORE_THEY_WERE = {("data", "negatives"): "pooled", ("model", "head_norm"): "none"}
"""Settings added since version 1 whose default is not what the code did before them."""


def build_stored_config(tree: Mapping[str, Any], source: str, prefix: str = "") -> RunConfig:
    """As `build_config`, of settings that this package has written whole: in a journal, a bundle, a run's config.yaml.

    Raises:
        ConfigError: with every problem of `source`.
    """
    return build_config(completed(tree), source, prefix)


def completed(tree: Any) -> Any:
    """Stored settings with what was not a setting yet, as the code then had it; anything but a mapping as it is."""
    if not isinstance(tree, Mapping):
        return tree
    whole = dict(tree)
    for (section, name), value in _BEFORE_THEY_WERE.items():
        if isinstance(whole.get(section), Mapping):
            whole[section] = {name: value, **whole[section]}
    return whole


def version_of(tree: Any) -> int:
    """The semantics that stored settings were run by."""
    section = tree.get("data") if isinstance(tree, Mapping) else None
    return 1 if isinstance(section, Mapping) and "negatives" not in section else SEMANTICS_VERSION
