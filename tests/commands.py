"""Runs the command line in this process, as `gemma-nli` would."""

from __future__ import annotations

import sys
from unittest import mock

from gemma_nli import cli


def run_command(*words: str) -> int:
    """Its exit status."""
    with mock.patch.object(sys, "argv", ["gemma-nli", *words]):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
