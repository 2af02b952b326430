"""A fault planted in processes that a test does not start itself, such as Ray's workers."""

from __future__ import annotations

import textwrap
from pathlib import Path

_HOOK = """
import importlib.abc, importlib.machinery, sys


def change(module):
{change}


class Planted(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (run(module), change(module))
        return spec


sys.meta_path.insert(0, Planted())
"""


def plant(site: Path, module: str, change: str) -> None:
    """Each Python process that has `site` on its PYTHONPATH runs `change` once it has imported `module`.

    Args:
        change: statements about `module`, the name under which they have it.
    """
    site.mkdir(exist_ok=True)
    body = textwrap.indent(textwrap.dedent(change).strip(), "    ")
    (site / "sitecustomize.py").write_text(_HOOK.format(change=body, module=module))
