"""The modules of a sentence-transformers folder that native pooling can apply, each read from its own files.

Source: sentence_transformers/sentence_transformer/modules and base/modules of sentence-transformers 6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gemma_nli.base.errors import EncoderError
from gemma_nli.model.loading.folder_files import is_within, read_header, read_mapping
from gemma_nli.model.loading.sentence_folder import LEGACY, Module, optional_mapping, pooling_modes

TOKENS, VECTOR = "token_embeddings", "sentence_embedding"
"""Their names of the states and of the pooled vector; a module may read or write others of its own."""
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = (
    "Identity", "Tanh", "ReLU", "ReLU6", "GELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "ELU", "SELU", "CELU",
    "LeakyReLU", "Softplus", "Softsign", "Hardtanh", "Hardswish", "Hardsigmoid", "Tanhshrink", "Softshrink",
    "Hardshrink",
)  # fmt: skip
"""Of torch.nn: those without weights of their own."""


@dataclass(frozen=True)
class Step:
    """One module. `settings` is all that it computes by, beside its weights, which lie in `weights`."""

    kind: str
    settings: dict[str, Any]
    weights: Path | None = None
    folder: str = ""

    @property
    def reads(self) -> str:
        return str(self.settings.get("reads", VECTOR))

    @property
    def writes(self) -> str:
        return str(self.settings.get("writes", self.reads))


def refuse(root: Path, why: str) -> NoReturn:
    """Raise the EncoderError that says why native pooling cannot be had."""
    raise EncoderError(
        f"model.pooling_strategy: native cannot do what {root} says: {why}; choose mean, cls, max or last, which take "
        "its token states alone."
    )


def _pooling(root: Path, module: Module) -> Step:
    settings = _config(root, module)
    modes = pooling_modes(settings)
    unknown = [mode for mode in modes if mode not in MODES]
    unknown += [key for key, on in settings.items() if key.startswith("pooling_mode_") and on and key not in LEGACY]
    include = settings.get("include_prompt", True)
    if unknown or not isinstance(include, bool):
        refuse(root, f"{module.path} asks for pooling {', '.join(unknown) or f'include_prompt {include!r}'}")
    return Step("Pooling", {"modes": modes, "include_prompt": include, "reads": TOKENS, "writes": VECTOR})


def _dense(root: Path, module: Module) -> Step:
    settings = _config(root, module)
    inner, outer = settings.get("in_features"), settings.get("out_features")
    bias, residual = settings.get("bias", True), settings.get("use_residual", False)
    kind = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = kind.rsplit(".", 1)[-1]
    if not kind.startswith("torch.nn.") or activation not in ACTIVATIONS:
        refuse(root, f"{module.path} has the activation function {kind[:80]}")
    if not (type(inner) is int and type(outer) is int and isinstance(bias, bool) and isinstance(residual, bool)):
        refuse(root, f"{module.path}/config.json does not say in_features, out_features and bias")
    shapes = {"linear.weight": [outer, inner]}
    if bias:
        shapes["linear.bias"] = [outer]
    if residual and inner != outer:
        shapes["residual.weight"] = [outer, inner]
    about = {"in_features": inner, "out_features": outer, "bias": bias, "activation": activation, "residual": residual}
    return Step("Dense", {**about, **_names(settings)}, _weights(root, module, shapes), module.path)


def _layer_norm(root: Path, module: Module) -> Step:
    size = _config(root, module).get("dimension")
    if type(size) is not int:
        refuse(root, f"{module.path}/config.json does not say its dimension")
    weights = _weights(root, module, {"norm.weight": [size], "norm.bias": [size]})
    return Step("LayerNorm", {"in_features": size, "out_features": size}, weights, module.path)


def _normalize(root: Path, module: Module) -> Step:
    settings = optional_mapping(root / module.path / "config.json") if module.path else {}
    return Step("Normalize", _names(settings), None, module.path)


def _nothing(root: Path, module: Module) -> None:
    """Dropout: encode() never drops."""


READERS = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _nothing,
}
"""How each kind of module is read; None where it changes no vector."""


def _names(settings: Mapping[str, Any]) -> dict[str, str]:
    reads = settings.get("module_input_name") or VECTOR
    return {"reads": str(reads), "writes": str(settings.get("module_output_name") or reads)}


def _config(root: Path, module: Module) -> dict[str, Any]:
    try:
        if module.path:
            return read_mapping(root / module.path / "config.json")
    except FileNotFoundError:
        pass
    refuse(root, f"{module.path or module.kind}/config.json is missing")


def _weights(root: Path, module: Module, shapes: Mapping[str, list[int]]) -> Path:
    """The file of a module's weights; it must hold exactly these tensors, in floats."""
    file = root / module.path / "model.safetensors"
    if not file.is_file():
        pickled = (root / module.path / "pytorch_model.bin").is_file()
        how = "; pickled weights are not read: save the model once with safe_serialization" if pickled else ""
        refuse(root, f"{module.path}/model.safetensors is missing{how}")
    if not is_within(file, root):
        raise EncoderError(f"model.name: {file}: is a link out of its folder; copy the file there.")
    header = read_header(file)
    held = {name: entry.get("shape") for name, entry in header.items()}
    if held != dict(shapes):
        odd = sorted(name for name in held.keys() | shapes.keys() if held.get(name) != shapes.get(name))
        refuse(root, f"{module.path} should hold {odd[0]} of {shapes.get(odd[0])}, its file has {held.get(odd[0])}")
    kinds = [str(entry["dtype"]) for entry in header.values()]
    if not set(kinds) <= {"F64", "F32", "F16", "BF16"}:
        refuse(root, f"the weights of {module.path} are {', '.join(sorted(set(kinds)))}, which are no plain floats")
    return file
