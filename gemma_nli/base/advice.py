"""Commands in messages: each works in a shell as printed, whether or not its environment was activated."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

MODULES = {"gemma-nli": "gemma_nli"}
"""Programs whose module has another name than they have."""


def command_line(program: str, *words: object) -> str:
    """`program words`, quoted for a shell.

    A program of this environment that is not on the PATH (.venv/bin/gemma-nli after `make demo`) is given by
    its path: relative to the working folder if it is inside it, else absolute.

    >>> command_line("gemma-nli", "best", "--experiment", "my sweep")
    "gemma-nli best --experiment 'my sweep'"
    """
    return " ".join([*map(shlex.quote, _program(program)), *(shlex.quote(str(word)) for word in words)])


def install_line(*requirements: str) -> str:
    """The command that installs packages or extras into this environment, whichever one `pip` belongs to."""
    return f"{shlex.quote(_shortest(Path(sys.executable)))} -m pip install {shlex.join(requirements)}"


def _program(name: str) -> list[str]:
    own, found = Path(sys.executable).with_name(name), shutil.which(name)
    if own.is_file():
        return [name if found is not None and os.path.samefile(found, own) else _shortest(own)]
    if found is not None:
        return [name]
    return [_shortest(Path(sys.executable)), "-m", MODULES.get(name, name)]


def _shortest(path: Path) -> str:
    try:
        inside = path.relative_to(Path.cwd())
    except (ValueError, OSError):  # elsewhere, or the working folder no longer exists
        return str(path)
    return str(inside) if len(inside.parts) > 1 else f"./{inside}"
