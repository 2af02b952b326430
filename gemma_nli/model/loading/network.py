"""A Hugging Face network from a folder's safetensors, or the reason why the result would not be that model.

transformers initializes missing weights at random and drops those that the network has no place for: the scales of
8-bit weights, layers past the configured number, another family's names. Both are checked here before any state is
used. Heads on the encoder (a language model's, a classifier's, BERT's pooler) are not needed here and are ignored.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.folder_files import one_line, read_header
from gemma_nli.model.loading.identity import weight_files

MOST_LAYERS = 10_000
_FLOATS = {"F64", "F32", "F16", "BF16"}
_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|(original_)?inv_freq|masked_bias|num_batches_tracked|version|causal_mask"
    r"|relative_position_index|(cos|sin)_cached|_float_tensor|(attn|attention)\.bias)$"
)  # in old files: tables that a network computes itself, and the masks that GPT-2 and GPT-NeoX kept as `bias`
_SCALES = re.compile(
    r"(^|[._])(scales?|scale_inv|scb|absmax|amax|quant_map|quant_state\S*|nested_\S+|qweight|qzeros|zero_points?|g_idx"
    r"|weight_(packed|shape|format)|codebooks?|blocks)$",
    re.IGNORECASE,
)
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
_TEXT_PARTS = ("language_model", "text_model")
_ALIKE = ({"roberta", "xlm_roberta", "camembert"}, {"llama", "mistral"})
"""Families with the same network: weights of either may be read as the other."""


@dataclass(frozen=True)
class Network:
    """The part of a model that encodes text, and its dotted name within the whole model that config.json describes."""

    module: Any
    part: str = ""


def load_network(model: ModelConfig, folder: Path, dtype: torch.dtype) -> Network:
    """The network of `folder` with exactly the weights of its files.

    Of an encoder-decoder (T5, T5Gemma, BART) this is the encoder; of a model that also sees images, the text part.

    Raises:
        EncoderError: the files cannot be read, or do not contain the weights of the network that config.json describes.
    """
    from transformers import AutoModel

    if model.attn_implementation == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise EncoderError(
            "model.attn_implementation: flash_attention_2 needs the package flash-attn; install it or set auto."
        )
    config = read_config(model.name, folder)
    _check_depth(model.name, config)
    _check_kinds_of_numbers(model.name, folder, config)
    attn = None if model.attn_implementation == "auto" else model.attn_implementation
    options = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    with quietly():
        try:
            whole, info = AutoModel.from_pretrained(
                str(folder), dtype=dtype, attn_implementation=attn, output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except SafetensorError as error:
            raise EncoderError(f"model.name: {model.name}: damaged weights in {folder}: {one_line(error)}") from None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - each family's configuration and loading code raises its own kinds
            raise EncoderError(f"model.name: {model.name} cannot be loaded: {one_line(error)}") from None
    found = _text_part(whole)
    _check_names(model.name, whole, found.part, info)
    _check_family(model.name, whole, found.module, config)
    return found


def _check_depth(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a number of layers that no encoder has: transformers would create them one by one, for hours."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in part.items():
            if "layer" in key and isinstance(value, int) and value > MOST_LAYERS:
                raise EncoderError(
                    f"model.name: {name}: config.json says {key} {value:,}, but no encoder has more than "
                    f"{MOST_LAYERS:,} layers; use the config.json that was saved with these weights."
                )


def _text_part(whole: Any) -> Network:
    module, part = whole, ""
    if getattr(whole.config, "is_encoder_decoder", False) and hasattr(whole, "encoder"):
        module, part = whole.encoder, "encoder"
    names = _TEXT_PARTS if part else _TEXT_PARTS[:1]
    inner = next((name for name in names if isinstance(getattr(module, name, None), nn.Module)), None)
    if inner is not None:
        module, part = getattr(module, inner), f"{part}.{inner}".lstrip(".")
    return Network(module, part)


def _check_kinds_of_numbers(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse integers and 8-bit floats that no `quantization_config` explains: they would be read as plain numbers."""
    if config.get("quantization_config") or config.get("compression_config"):
        return
    odd = [
        (tensor, kind)
        for path in weight_files(folder)
        for tensor, kind in tensor_kinds(path).items()
        if kind not in _FLOATS and kind != "BOOL" and not _BUFFERS.search(tensor)
    ]
    if odd:
        tensor, kind = odd[0]
        raise EncoderError(
            f"model.name: {name}: {len(odd)} of its tensors are {kind}, first {tensor}, but config.json has no "
            "quantization_config to say how to read them; save the model in float32 or bfloat16, or restore its "
            "config.json."
        )


def tensor_kinds(path: Path) -> dict[str, str]:
    """Names of a safetensors file's tensors and their types (F32, BF16, I8 ...), from its header alone."""
    return {name: str(entry["dtype"]) for name, entry in read_header(path).items()}


def _check_names(name: str, whole: Any, part: str, info: Mapping[str, Any]) -> None:
    """Refuse weights that are missing, unknown to the network, or of another shape; heads are ignored."""
    prefix = f"{part}." if part else ""
    unexpected = [str(key) for key in info["unexpected_keys"]]
    missing = sorted(key for key in info["missing_keys"] if key.startswith(prefix) and "pooler" not in key)
    if missing:
        raise EncoderError(
            f"model.name: {name}: its files lack {len(missing)} of its weights, first {missing[0]}{_why(unexpected)}."
        )
    base = f"{whole.base_model_prefix}."
    plain = {key: key.removeprefix(base) for key in unexpected}
    own = {key.split(".", 1)[0] for key in whole.state_dict() if key.startswith(prefix)}
    extra = sorted(
        key for key, short in plain.items()
        if short.split(".", 1)[0] in own and short.startswith(prefix) and not _ignorable(short)
    )  # fmt: skip
    if extra:
        scales = [key for key in extra if _SCALES.search(key)]
        how = "correct config.json (num_hidden_layers, model_type), or save the network again with save_pretrained"
        if scales:
            how = (
                "they are scales of quantized weights, and config.json has no quantization_config that uses them; save "
                "the model in float32 or bfloat16, or restore its config.json"
            )
        elif any("lora_" in key for key in extra):
            how = "they are adapters; merge them into the weights and save the full model"
        raise EncoderError(
            f"model.name: {name}: its files contain {len(extra)} weights that the network of config.json has no place "
            f"for, first {(scales or extra)[0]}; {how}."
        )
    mismatched = sorted((tuple(entry) for entry in info["mismatched_keys"]), key=str)
    mismatched = [entry for entry in mismatched if str(entry[0]).removeprefix(base).startswith(prefix)]
    if mismatched:
        key, held, wanted = mismatched[0]
        raise EncoderError(
            f"model.name: {name}: {len(mismatched)} weights have a different shape from config.json's, first {key}: "
            f"{list(held)}, not {list(wanted)}; use the config.json that was saved with these weights."
        )


def _ignorable(key: str) -> bool:
    return bool(_BUFFERS.search(key)) or "pooler" in key.split(".")[0]


def _why(unexpected: Iterable[str]) -> str:
    """What the names of unknown weights say about the missing ones."""
    names = sorted(unexpected)
    if not names:
        return ""
    wrapper = next((w for w in _WRAPPERS if names[0].startswith(w)), None)
    if wrapper is not None:
        return f"; all names begin with {wrapper!r}: save the module inside that wrapper (adapters merged)"
    return f", but contain others, first {names[0]}: they belong to a different model than config.json says"


def _check_family(name: str, whole: Any, network: Any, config: Mapping[str, Any]) -> None:
    """Refuse weights of a family with the same names and shapes as another's, such as BERT and RoBERTa."""
    kind, made = str(config.get("model_type")), config.get("architectures") or []
    other = _family_of(str(made[0])) if isinstance(made, list) and made else None
    here = _folder_of(type(whole))  # InternLM 3 is read by Llama's classes
    if other is not None and other != here and not any({other, here} <= alike for alike in _ALIKE):
        raise EncoderError(
            f"model.name: {name}: config.json says model_type {kind}, but architectures {made[0]}; "
            "correct the one that is wrong."
        )
    tables = dict(network.named_modules())
    positions = next((m for n, m in tables.items() if n.endswith("embeddings.position_embeddings")), None)
    segments = next((m for n, m in tables.items() if n.endswith("embeddings.token_type_embeddings")), None)
    if not isinstance(positions, nn.Embedding) or positions.num_embeddings < 4 or network.config.model_type != kind:
        return
    empty = (positions.weight[:4] == 0).all(1)
    padding = positions.padding_idx
    if padding is None and bool(empty.any()) and not bool(empty.all()):
        raise EncoderError(
            f"model.name: {name}: model_type {kind} counts positions from 0, but position {int(empty.int().argmax())} "
            "of its weights is empty, as in RoBERTa; correct model_type in config.json."
        )
    many = isinstance(segments, nn.Embedding) and segments.num_embeddings > 1
    if padding is not None and many and bool(positions.weight[padding].abs().max() > 0):
        raise EncoderError(
            f"model.name: {name}: model_type {kind} leaves position {padding} empty, but these weights use it and "
            "distinguish segments, as in BERT; correct model_type in config.json."
        )


def _family_of(architecture: str) -> str | None:
    """The transformers module that has a class of this name; None if none has."""
    import transformers

    try:
        return _folder_of(getattr(transformers, architecture))
    except (AttributeError, ImportError, RuntimeError):
        return None


def _folder_of(kind: type) -> str | None:
    parts = kind.__module__.split(".")
    return parts[2] if parts[:2] == ["transformers", "models"] else None


def check_finite(name: str, network: nn.Module, folder: Path) -> None:
    """Refuse NaN and infinity among the weights.

    Raises:
        EncoderError: names the first tensor, and whether it is so in its file or from half precision.
    """
    odd = [key for key, weight in network.named_parameters() if not bool(torch.isfinite(weight).all())]
    if not odd:
        return
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                tensor = file.get_tensor(key)
                if key.endswith(odd[0]) and tensor.is_floating_point():
                    count = int((~torch.isfinite(tensor)).sum())
                    if count:
                        raise EncoderError(
                            f"model.name: {name}: {count} of {tensor.numel()} numbers of {key} in {path.name} are NaN "
                            "or infinite: the file is damaged, or was saved by a failed training; "
                            "copy or download it again."
                        )
    raise EncoderError(
        f"model.name: {name}: {odd[0]} overflows in half precision; set device.mixed_precision=bf16 or none."
    )


def sizes(name: str, folder: Path) -> tuple[int, int, int]:
    """Hidden units, layers and attention heads of the part that encodes text, whatever its family calls them.

    Raises:
        EncoderError: config.json cannot be read, or does not give them.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        part = getattr(config, "encoder", config) if config.is_encoder_decoder else config.get_text_config()
        part = getattr(part, "text_config", part)
        return int(part.hidden_size), int(part.num_hidden_layers), int(part.num_attention_heads)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, StrictDataclassError) as error:
        raise EncoderError(f"model.name: {name}: config.json does not give its sizes: {one_line(error)}") from None


def read_config(name: str, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"model.name: {name}: config.json cannot be read: {one_line(error)}") from None
    return content if isinstance(content, dict) else {}


@contextmanager
def quietly(level: int = logging.ERROR) -> Iterator[None]:
    """Without transformers' bars and what it logs below `level`: unused and missing weights are judged here."""
    from transformers.utils import logging as hf_logging

    had_bars, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(level)
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if had_bars:
            hf_logging.enable_progress_bar()
