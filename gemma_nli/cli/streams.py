"""Terminals, pipes and files that cannot write every character: none may cost a command its result."""

from __future__ import annotations

import io
import os
import sys


def prepare_streams() -> None:
    """Let stdout and stderr, here and in every process started from here, write `\\xe9` for what they have no code of.

    The encoding itself stays the one that the terminal or `$PYTHONIOENCODING` asks for.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
