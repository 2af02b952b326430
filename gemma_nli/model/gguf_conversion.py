"""A GGUF file of a Gemma 3 language model as a folder that every encoder here is read from: safetensors, bfloat16.

The file's quantized numbers are multiplied out, which loses nothing more; what quantization lost stays lost, and the
folder's config.json says so (`dequantized_from`), as do the configurations of all that is made from it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.folder_files import one_line, read_mapping
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.network import quietly

ORIGIN = "dequantized_from"
_OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path", "dtype")


def convert_gguf(source: Path, folder: Path, origin: str) -> None:
    """Write config.json, model.safetensors and the tokenizer of a GGUF file into an existing folder.

    Takes about four times the file in memory: its numbers as float32 while they are multiplied out.

    Args:
        origin: what the file is, as `Gemma 3 270M, quantized to Q4_K_M`; noted in config.json.
    Raises:
        EncoderError: the file cannot be read, does not hold Gemma 3's text model, or the package gguf is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    if importlib.util.find_spec("gguf") is None:
        raise EncoderError(f"{source.name}: reading GGUF needs the package gguf: {install_line('gemma-nli[gemma]')}")
    try:
        with quietly():
            options: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
            read = AutoModelForCausalLM.from_pretrained(str(source.parent), dtype=torch.bfloat16, **options)
            tokenizer = AutoTokenizer.from_pretrained(str(source.parent), **options)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise EncoderError(f"{source}: not a GGUF file that can be read: {one_line(error)}") from None
    if read.config.model_type != "gemma3_text":
        raise EncoderError(f"{source}: holds a model of type {read.config.model_type}, expected gemma3_text.")
    settings = {name: value for name, value in read.config.to_dict().items() if name not in _OF_THE_FILE}
    config = Gemma3TextConfig(**settings, **{ORIGIN: origin})
    config.architectures = ["Gemma3ForCausalLM"]
    with torch.device("meta"):
        model: Any = Gemma3ForCausalLM(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    with quietly():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def quantization_notes(models: Iterable[ModelConfig]) -> list[str]:
    """A sentence for each encoder whose weights were once quantized; one that is not on this machine has none."""
    origins: dict[str, str] = {}
    for model in models:
        if model.name not in origins:
            origins[model.name] = _origin(model)
    return [
        f"The encoder is {origin}: its numbers may differ from those of the original weights."
        for origin in dict.fromkeys(origins.values())
        if origin
    ]


def _origin(model: ModelConfig) -> str:
    try:
        return str(read_mapping(encoder_folder(model) / "config.json").get(ORIGIN) or "")
    except EncoderError:  # a report is also made where the encoder is not
        return ""
