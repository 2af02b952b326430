"""A copy of the package with files added: what one new file of a newcomer changes, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gemma_nli

ROOT = Path(gemma_nli.__file__).parents[1]


def ask_copy(folder: Path, added: Mapping[str, str], script: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Run a script where `gemma_nli` is a copy that has these files as well; gives the JSON of its last line.

    Args:
        folder: an empty one, for the copy and the script's own files.
        added: text by path inside the package.
        script: is given the name of a JSON file of the facts, and says under `package` where it found the package.
    """
    copy = folder / "copy"
    shutil.copytree(ROOT / "gemma_nli", copy / "gemma_nli", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in added.items():
        file = copy / "gemma_nli" / name
        assert not file.exists(), f"{name} is no new file"
        file.write_text(text, encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(script), str(folder / "facts.json")],
        env={**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT}"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    answer: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    assert Path(answer["package"]).is_relative_to(copy)
    return answer
