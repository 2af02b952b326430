"""A variable of the environment for as long as something needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def set_in_environment(name: str, value: str) -> Iterator[None]:
    """Set a variable, and afterwards leave it as it was found."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
