"""Where this package keeps its own files on a machine, and paths as their users write them."""

from __future__ import annotations

import os
from pathlib import Path

from gemma_nli.base.errors import ConfigError


def home() -> Path:
    """Where stores are kept by default: $GEMMA_NLI_HOME, else ~/.gemma_nli.

    Raises:
        ConfigError: neither exists, as in a container whose user has no entry in its passwd file.
    """
    return Path(os.environ.get("GEMMA_NLI_HOME") or expanded("~/.gemma_nli")).absolute()


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced; raises ConfigError where there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: there is no such home directory here; set $GEMMA_NLI_HOME to a folder for stored data, and "
            "write other paths in full."
        ) from None
