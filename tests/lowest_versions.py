"""The lowest version that pyproject.toml allows of each dependency, as pip's constraints: `make lowest`.

python tests/lowest_versions.py > lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_LOWEST = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?(?:>=|==)(?P<version>[\w.]+)")


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements() -> list[str]:
    """Every requirement of pyproject.toml, extras included, each once."""
    extras = project()["optional-dependencies"].values()
    return list(dict.fromkeys([*project()["dependencies"], *(each for extra in extras for each in extra)]))


def lowest_versions() -> dict[str, str]:
    """Each dependency's lowest allowed version.

    Raises:
        ValueError: a requirement without a lower bound.
    """
    found = {}
    for requirement in requirements():
        bound = _LOWEST.match(requirement)
        if bound is None:
            raise ValueError(f"pyproject.toml: {requirement} has no lower bound; write {requirement}>=VERSION.")
        found[bound["name"].lower()] = bound["version"]
    return found


if __name__ == "__main__":
    for name, version in lowest_versions().items():
        print(f"{name}=={version}")
