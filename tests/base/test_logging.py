"""The package configures logging for its own commands alone: as a library it leaves the caller's as it is."""

from __future__ import annotations

import subprocess
import sys

IMPORTED = """
import importlib, logging, pkgutil
root = logging.getLogger()
import gemma_nli
for module in pkgutil.walk_packages(gemma_nli.__path__, "gemma_nli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from gemma_nli.tracking.registry.model_folder import pytorch_flavor
assert pytorch_flavor().save_model
assert root.level == logging.WARNING, root.level
assert root.handlers == [], root.handlers
assert logging.root.manager.disable == 0
silent = [n for n, log in root.manager.loggerDict.items() if n.startswith("gemma_nli") and getattr(log, "disabled", 0)]
assert silent == [], silent
"""


def test_importing_every_module_leaves_the_callers_logging_alone():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
