"""On the path of Ray's workers: a trial's process dies just before its journal begins, twice, as often as asked for.

Python imports this file by its name. `$CHAOS_DEATHS` names a folder that gets a file per death; `$CHAOS_DEATHS_LIMIT`
is how many there may be.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

PER_TRIAL = 2


class Finder:
    """Puts the death in front of `TrialJournal.start` once that module is imported."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "gemma_nli.trial.journal" else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            start = module.TrialJournal.start

            def dying(journal: Any, *args: Any, **more: Any) -> None:
                die_if_due(journal.key)
                start(journal, *args, **more)

            module.TrialJournal.start = dying  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def die_if_due(key: str) -> None:
    folder = Path(os.environ["CHAOS_DEATHS"])
    before = len(list(folder.glob(f"{key}-*")))
    if before < PER_TRIAL and len(list(folder.iterdir())) < int(os.environ["CHAOS_DEATHS_LIMIT"]):
        (folder / f"{key}-{before}").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


if "CHAOS_DEATHS" in os.environ:
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
