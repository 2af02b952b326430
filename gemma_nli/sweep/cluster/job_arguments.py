"""The arguments of `gemma-nli submit`, checked before anything is asked of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gemma_nli.base.errors import SweepError
from gemma_nli.base.masking import mask_credentials, names_secret


def host_and_port(address: str) -> tuple[str, int]:
    """Of a dashboard's address; raises SweepError if it is not one."""
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # a port that is not a number up to 65535, or an unclosed bracket
        pass
    raise SweepError(f"--address: must be a dashboard's address, such as http://127.0.0.1:8265, got '{address}'.")


def check_secrets(overrides: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise SweepError for an override or a variable that holds a secret: both are shown to others."""
    for word in overrides:
        if mask_credentials(word) != word:
            raise SweepError(
                f"{word.partition('=')[0]}: contains a password, and everyone who reaches the dashboard sees a job's "
                "command; set it on the nodes (MLFLOW_TRACKING_USERNAME and _PASSWORD, PGPASSWORD)."
            )
    for name, value in environment.items():
        if value and (names_secret(name) or mask_credentials(f"{name}={value}") != f"{name}={value}"):
            raise SweepError(
                f"--env {name}: contains a secret, and a job's variables are shown in Ray's log, in its workers' "
                "command lines and on the dashboard; set it in the environment of the nodes (cluster.yaml or what "
                "starts them)."
            )


def inside(file: Path, working_dir: Path) -> str:
    """The sweep file as the job finds it; raises SweepError for one that is not uploaded with it."""
    try:
        return file.resolve().relative_to(working_dir.resolve()).as_posix()
    except ValueError:
        raise SweepError(f"{file}: must be inside the job's working folder {working_dir}; set --working-dir.") from None
