"""Runs pytest again and again without importing torch and the like each time: a process of its own, in the copy.

A line of pytest's arguments on stdin, its exit status on stdout; what pytest says goes to stderr where it is neither
"all passed" nor "a test failed". Each run is a fork of a process that has imported the libraries and nothing of ours.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile

LIBRARIES = (
    "torch",
    "transformers",
    "sklearn.linear_model",
    "scipy.stats",
    "pandas",
    "optuna",
    "mlflow",
    "ray.tune",
    "peft",
)


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported, as in the tests' conftest
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as said:
            status = _forked(line.split(), said.fileno())
            if status not in (0, 1):
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace")[-4000:])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _forked(words: list[str], said: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    import pytest

    os._exit(pytest.main(words))


if __name__ == "__main__":
    main()
