"""Addresses of artifacts: from a folder on this machine and back, as MLflow reads them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from gemma_nli.config import quoted_path


def local_folder(uri: str) -> Path | None:
    """The folder of a local artifact address, None for one that is elsewhere.

    MLflow decodes percent forms in a plain path as well as behind `file://`.
    """
    if uri.startswith("file:"):
        path = uri.removeprefix("file:")
        return Path(unquote("/" + path.partition("//")[2].partition("/")[2] if path.startswith("//") else path))
    return Path(unquote(uri)) if uri.startswith("/") else None


def is_elsewhere(uri: str) -> bool:
    """Whether an address is a bucket's, a server's or another reference that is not on this disk."""
    try:
        scheme = urlsplit(uri).scheme.lower()
    except ValueError:
        return False
    return len(scheme) > 1 and scheme != "file"


def folder_address(folder: Path, like: str = "") -> str:
    """The address of a folder, as a plain path, or behind `file://` where `like` is."""
    return ("file://" if like.startswith("file:") else "") + quoted_path(folder)
