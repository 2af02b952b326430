"""The package's version: pyproject.toml's, which a test holds equal."""

from __future__ import annotations

__version__ = "0.1.0"
