"""The command `gemma-nli`: argv in, exit status out, no logic of its own.

Exit status: 0 all went well; 1 some trials failed; 2 a mistake in the request (one message, no traceback);
130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import GemmaNliError
from gemma_nli.base.outgoing import guard_process, shown, shown_traceback
from gemma_nli.cli import feature_commands as features
from gemma_nli.cli import job_commands as jobs
from gemma_nli.cli import predict_command as predicting
from gemma_nli.cli import registry_commands as registry
from gemma_nli.cli import report_commands as report
from gemma_nli.cli import settings_command as settings
from gemma_nli.cli import store_commands as stores
from gemma_nli.cli import sweep_commands as sweeps
from gemma_nli.cli import trial_commands as trials
from gemma_nli.cli.app import app
from gemma_nli.cli.process import prepare_streams, stand_in_for_home

__all__ = [
    "app",
    "features",
    "jobs",
    "main",
    "predicting",
    "registry",
    "report",
    "settings",
    "stores",
    "sweeps",
    "trials",
]
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "RAY_LOG_TO_STDERR": "0", "MLFLOW_LOGGING_LEVEL": "ERROR"}
"""Libraries that print on their own: we report what matters ourselves."""
SPARED_COLLECTIONS = 50_000
"""New objects between two garbage collections. At Python's default of 700, a sixth of the time to import torch, Ray and
MLflow goes into collecting."""
PACKAGES = ("mlflow", "ray", "torch", "transformers", "optuna")
"""Dependencies that an incomplete environment may lack; other missing modules are our own mistakes, and keep their
traceback.
"""


def main() -> None:
    """Run the command; a GemmaNliError is its message on stderr and exit status 2.

    Any other exception prints its traceback, private text removed, and gives exit status 1.
    """
    prepare_streams()
    guard_process()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    gc.set_threshold(SPARED_COLLECTIONS, 20, 20)
    try:
        if not {"--help", "--version"} & set(sys.argv):
            stand_in_for_home()
        app()
    except GemmaNliError as error:
        sys.stderr.write(f"{shown(str(error))}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command again to continue from here\n")
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - shown, as far as it may be
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package not in PACKAGES:
            sys.stderr.write(shown_traceback(error))
            sys.exit(1)
        sys.stderr.write(
            f"{package} is not installed in {sys.prefix}; {install_line(package)} (or reinstall this package)\n"
        )
        sys.exit(2)
    finally:
        gc.freeze()  # the process ends: a last garbage collection through all of torch would take a second
