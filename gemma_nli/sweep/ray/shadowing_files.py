"""Files that would keep workers from starting: Ray puts the driver's working folder first on their import path.

A `torch.py` or a package `yaml/` there is then imported instead of the library. The worker dies before it can report
this, and Ray starts the next one, forever.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder, all_suffixes
from pathlib import Path

from gemma_nli.base.errors import SweepError

SHOWN = 5
LATER: tuple[str, ...] = (
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "peft",
    "accelerate",
    "sklearn",
    "scipy",
    "pandas",
    "torch",
)
LATER += ("safetensors", "boto3", "botocore", "google", "mlflow", "optuna", "ray", "numpy", "yaml", "psutil")
"""What workers always import, and this process perhaps not yet."""


def check_shadows(folders: list[Path] | None = None) -> None:
    """
    Args:
        folders: where workers look first; else the working folder and $PYTHONPATH.
    Raises:
        SweepError: one of them contains a module with the name of one that this process loaded from elsewhere.
    """
    found = [line for folder in folders or first_folders() for line in _shadows(folder)]
    if found:
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        lines = "\n".join(f"  {line}" for line in found[:SHOWN])
        raise SweepError(
            "Ray's workers cannot start: they import from the working folder and $PYTHONPATH first, and there\n"
            f"{lines}{more}\nRename it, or run the command from another folder."
        )


def first_folders() -> list[Path]:
    """The working folder, then those of $PYTHONPATH."""
    listed = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return list(dict.fromkeys(folder.absolute() for folder in (Path.cwd(), *listed)))


def _shadows(folder: Path) -> Iterator[str]:
    for entry in _entries(folder):
        name = _module_of(entry)
        if name is None:
            continue
        origin = _origin(name, folder)
        if origin is not None and not _same(origin, entry):
            yield f"{entry} hides the library '{name}' ({_place(origin)})"


def _origin(name: str, folder: Path) -> Path | None:
    """Where the library of that name lies, if there is one: as loaded here, or as it would be without the folder."""
    module = sys.modules.get(name)
    if name == __name__.partition(".")[0] and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None  # a job brings its code along in its working folder, and its workers should use it
    if module is not None:
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        return Path(file) if file and name != "__main__" else None  # without a file: a part of the interpreter
    if name not in LATER:
        return None
    spec = PathFinder.find_spec(name, [path for path in sys.path if Path(path).absolute() != folder])
    return Path(spec.origin) if spec is not None and spec.origin else None


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _module_of(entry: Path) -> str | None:
    """The module that an import would find in the entry; a folder without `__init__.py` gives way to later entries."""
    if entry.is_dir():
        return entry.name if any((entry / f"__init__{suffix}").exists() for suffix in all_suffixes()) else None
    return next((entry.name.removesuffix(suffix) for suffix in all_suffixes() if entry.name.endswith(suffix)), None)


def _same(origin: Path, entry: Path) -> bool:
    origin, entry = origin.resolve(), entry.resolve()
    return origin == entry or origin.parent == entry or origin == entry.parent


def _place(origin: Path) -> Path:
    return origin.parent if origin.name.startswith("__init__.") else origin
