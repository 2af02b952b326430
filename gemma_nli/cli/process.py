"""What this process and its children need from the machine: streams that can write everything, a home, a user."""

from __future__ import annotations

import getpass
import io
import os
import sys
from pathlib import Path

from gemma_nli.config import home


def prepare_streams() -> None:
    """Let stdout and stderr, here and in every process started from here, write `\\xe9` for characters they cannot
    encode.

    The encoding itself stays the terminal's or `$PYTHONIOENCODING`'s.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"


def stand_in_for_home() -> None:
    """For a user without a home and without an entry in the passwd file, give libraries $GEMMA_NLI_HOME and a name
    instead.

    Ray, torch and MLflow ask for both; MLflow cannot even be imported without a home.

    Raises:
        ConfigError: there is no $GEMMA_NLI_HOME either.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(home())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"
