"""The files that CONTRIBUTING.md shows, as they would be written."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
_CODE = re.compile(r"^`gemma_nli/(?P<path>[\w/]+\.py)`:\n+```python\n(?P<code>.*?)^```", re.M | re.S)


def shown_files() -> dict[str, str]:
    """Content of each file that the page shows whole, by its path in the package."""
    return {found["path"]: found["code"] for found in _CODE.finditer(PAGE)}
