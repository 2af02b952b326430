"""Which device and which precision the settings come to on this machine."""

from __future__ import annotations

import torch

from gemma_nli.base.errors import ConfigError
from gemma_nli.config import DeviceConfig


def resolve_device(device: DeviceConfig) -> torch.device:
    """The device that `device.device` names; auto takes a GPU if there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if device.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = torch.device(device.device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device.device: {device.device}, but this process sees {torch.cuda.device_count()} GPUs; set auto."
        )
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device.device: mps is not available here; set auto.")
    return found


def resolve_precision(device: DeviceConfig, torch_device: torch.device) -> torch.dtype:
    """float32 for `none`; auto is bfloat16 on a GPU that supports it and float32 elsewhere.

    Raises:
        ConfigError: the device cannot compute in the requested precision.
    """
    asked = device.mixed_precision
    has_bf16 = torch_device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return torch.bfloat16 if torch_device.type == "cuda" and has_bf16 else torch.float32
    if asked == "bf16" and not has_bf16:
        raise ConfigError("device.mixed_precision: this GPU does not support bf16; set fp16, none or auto.")
    if asked == "fp16" and torch_device.type == "cpu":
        raise ConfigError("device.mixed_precision: fp16 needs a GPU; set none or auto on the CPU.")
    return {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]
