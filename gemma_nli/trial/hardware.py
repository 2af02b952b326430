"""Tags for the hardware and software of a trial: its own GPUs only, the code's commit, the core stack's versions."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import gemma_nli

if TYPE_CHECKING:
    import torch

STACK = (
    "ray",
    "torch",
    "transformers",
    "mlflow",
    "optuna",
    "peft",
    "pandas",
    "scikit-learn",
    "safetensors",
    "pydantic",
)
GIT_SECONDS = 5.0


def hardware_tags(device: torch.device | None = None) -> dict[str, str]:
    """For the training device: one of this process's GPUs, or the CPU; without a device, for all of them.

    `supports_bfloat16` is whether the device computes it in hardware; on a CPU that is AVX512-BF16 or AMX.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    indices = list(range(count))
    if device is not None:
        indices = [device.index or 0] if device.type == "cuda" else []
    tags = {"device": device.type if device is not None else "cuda" if indices else "cpu"}
    if not indices:
        able = torch.cpu.get_capabilities()
        return tags | {
            "cpu_name": str(able.get("cpu_name") or platform.processor() or "unknown"),
            "cpu_count": str(psutil.cpu_count() or 1),
            "memory_gb": f"{psutil.virtual_memory().total / 1024**3:.1f}",
            "has_gpu": "false",
            "gpu_name": "none",
            "gpu_count": "0",
            "gpu_memory_gb": "0",
            "supports_bfloat16": str(bool(able.get("avx512_bf16") or able.get("amx_bf16"))).lower(),
            "supports_tf32": "false",
        }
    gpus = [torch.cuda.get_device_properties(index) for index in indices]
    ampere = all(gpu.major >= 8 for gpu in gpus)  # the first with both number formats in hardware
    return tags | {
        "has_gpu": "true",
        "gpu_name": ", ".join(dict.fromkeys(str(gpu.name) for gpu in gpus)),
        "gpu_count": str(len(indices)),
        "gpu_memory_gb": f"{sum(gpu.total_memory for gpu in gpus) / 1024**3:.1f}",
        "supports_bfloat16": str(ampere).lower(),
        "supports_tf32": str(ampere).lower(),
    }


def environment_tags(folder: Path | None = None) -> dict[str, str]:
    """The git commit of `folder` (else the working directory, else this package's repository) and versions.

    Git missing, or no repository: the commit tags are left out.
    """
    tags = {"version.gemma-nli": gemma_nli.__version__, "version.python": platform.python_version()}
    for name in STACK:
        try:
            tags[f"version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for place in (folder or Path.cwd(), Path(gemma_nli.__file__).parent):
        commit = _git(place, "rev-parse", "HEAD")
        if commit:
            changes = _git(place, "status", "--porcelain", "--untracked-files=no")
            tags |= {"mlflow.source.git.commit": commit, "gemma_nli.git_commit": commit}
            tags["gemma_nli.git_dirty"] = "unknown" if changes is None else str(bool(changes)).lower()
            break
    return tags


def _git(folder: Path, *words: str) -> str | None:
    """Git's output, stripped; None if git is missing, slow or fails."""
    command = ["git", "-C", str(folder), *words]
    try:
        answer = subprocess.run(  # noqa: S603
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
