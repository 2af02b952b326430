"""Which kinds of address MLflow accepts, and what to do about a folder of files, which it no longer accepts."""

from __future__ import annotations

import shlex
from importlib.metadata import entry_points
from urllib.parse import unquote

from gemma_nli.base.advice import command_line
from gemma_nli.base.errors import TrackingError
from gemma_nli.base.masking import mask_address
from gemma_nli.config import expanded, sqlite_address

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_REMOTE = ("http", "https", "databricks", "databricks-uc", "uc")


def check_scheme(scheme: str) -> None:
    """Raises TrackingError for a kind of address that MLflow and its plugins do not know."""
    known = ("", "file", *DATABASES, *_REMOTE)
    if scheme in known or scheme in {point.name for point in entry_points(group="mlflow.tracking_store")}:
        return
    raise TrackingError(
        f"mlflow.tracking_uri: '{mask_address(scheme)}:' is not a kind of MLflow store; write "
        "sqlite:///path/to/mlflow.db, postgresql://USER@HOST/DATABASE, or http://HOST:PORT."
    )


def file_store_advice(uri: str) -> str:
    """What to do about a `./mlruns`: two lines that keep its runs, if it has any."""
    message = f"mlflow.tracking_uri: '{mask_address(uri)}' is a file store, which MLflow no longer accepts; "
    folder = expanded(unquote(uri.removeprefix("file://").removeprefix("file:"))).absolute()
    if not folder.is_dir():
        return message + "write sqlite:///path/to/mlflow.db, the address of a server, or leave it out."
    names = ("mlflow.db", *(f"mlflow-migrated{n or ''}.db" for n in range(100)))
    target = next(path for name in names if not (path := folder.parent / name).exists())
    address = sqlite_address(target)
    return (
        f"{message}to keep its runs (its artifacts stay where they are):\n"
        f"  {command_line('mlflow', 'migrate-filestore', '--source', folder, '--target', address)}\n"
        f"  export MLFLOW_TRACKING_URI={shlex.quote(address)}"
    )
