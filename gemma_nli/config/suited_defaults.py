"""Defaults that follow from what is trained: a head on a frozen encoder, adapters, or the encoder's own weights.

A setting that is left out, or null, has the value that suits the rest of its configuration. It stays left out when the
configuration is changed, so that a sweep over `model.freeze_encoder` gives each trial its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemma_nli.config.sections import ModelConfig

HEAD_RATE, ADAPTER_RATE, ENCODER_RATE = 1e-3, 2e-4, 2e-5
"""Peak AdamW rates that suit a head alone, LoRA (Hu et al. 2021, table 12) and a whole encoder (Devlin et al. 2019)."""
FROZEN_NORM, TRAINED_NORM = "standardize", "none"
"""What did best over encoders and corpora (`benchmarks/head_norms.py`); an encoder that learns was tried without."""

SUITED = {"training": "learning_rate", "model": "head_norm"}


def suited(model: ModelConfig) -> dict[str, Any]:
    """Of each section in `SUITED`, what its setting is where it is left out."""
    rate = HEAD_RATE if model.freeze_encoder else ADAPTER_RATE if model.lora else ENCODER_RATE
    return {"training": rate, "model": FROZEN_NORM if model.freeze_encoder else TRAINED_NORM}


def without_null(tree: Any, name: str) -> Any:
    """A section as it was given, where `name: null` asks for the suited value as leaving it out does."""
    if isinstance(tree, dict) and tree.get(name, 0) is None:
        return {key: value for key, value in tree.items() if key != name}
    return tree
