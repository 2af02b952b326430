"""What `encode()` of a sentence-transformers folder does to a text beside running the transformer, as its files say it.

modules.json                         the modules in order: Transformer, Pooling, Dense, LayerNorm, Normalize
sentence_bert_config.json            max_seq_length, do_lower_case
config_sentence_transformers.json    prompts, default_prompt_name, truncate_dim

Whatever these files ask for and `model.pooling_strategy: native` does not do is refused by name: a vector that is
nearly the folder's would pass for it.

Source: sentence_transformers/{base,sentence_transformer}/modules of sentence-transformers 6.2.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import EncoderError, did_you_mean
from gemma_nli.config import ModelConfig
from gemma_nli.config.templates import PLACES, PROMPT, read_template
from gemma_nli.model.loading.sentence_folder import (
    modules_of,
    optional_mapping,
    sentence_root,
    transformer_settings,
)
from gemma_nli.model.loading.sentence_steps import READERS, TOKENS, VECTOR, Step, refuse

NATIVE = "native"
MODULES, MODEL_SETTINGS = "modules.json", "config_sentence_transformers.json"
_KNOWN_OF_TRANSFORMER = {"max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length"}
_LOADING = {"attn_implementation", "torch_dtype", "dtype", "device_map", "low_cpu_mem_usage", "use_safetensors"}
_LOADING |= {"use_fast", "padding_side", "use_cache", "trust_remote_code"}
"""Settings of loading that change no number; trust_remote_code is not granted, there as here."""


@dataclass(frozen=True)
class SentenceModules:
    """What a folder says of its own vectors.

    Args:
        root: the folder of modules.json.
        steps: what follows the transformer, in order.
        max_length: tokens of a text, special ones included; None: the tokenizer's own.
        prompts: texts that may stand before a text, by name; `default_prompt` is the name of encode()'s own choice.
        truncate_dim: how many of a vector's numbers are kept.
    """

    root: Path
    steps: tuple[Step, ...]
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    truncate_dim: int | None = None

    @property
    def leaves_prompt_out(self) -> bool:
        """Whether some pooling looks past the prompt's tokens."""
        return any(step.kind == "Pooling" and not step.settings["include_prompt"] for step in self.steps)

    def width(self, hidden_size: int) -> int:
        """Numbers in a vector made of states of `hidden_size`.

        Raises:
            EncoderError: a module takes another number than the one before it gives, or something nobody gives.
        """
        widths = {TOKENS: hidden_size}
        for step in self.steps:
            if step.reads not in widths:
                refuse(self.root, f"{step.kind} reads {step.reads}, which no module before it gives")
            given, taken = widths[step.reads], step.settings.get("in_features", widths[step.reads])
            if given != taken:
                refuse(self.root, f"{step.folder or step.kind} takes {taken} numbers and is given {given}")
            modes = len(step.settings.get("modes", ["one"]))
            widths[step.writes] = step.settings.get("out_features", given * modes)
        if VECTOR not in widths:
            refuse(self.root, "its modules give no vector of a text (there is no Pooling)")
        whole = widths[VECTOR]
        return whole if self.truncate_dim is None else min(whole, self.truncate_dim)

    def prompt(self, name: str | None, setting: str) -> str:
        """The text of a prompt; of encode()'s own where none is named, and nothing for the empty name.

        Raises:
            EncoderError: no prompt of that name.
        """
        if name is None:
            return "" if self.default_prompt is None else self.prompts[self.default_prompt]
        if name and name not in self.prompts:
            raise EncoderError(f"{setting}: {self.root} has no prompt '{name}'{did_you_mean(name, self.prompts)}")
        return self.prompts[name] if name else ""

    def described(self) -> str:
        """Everything that a vector depends on, but for the weights' bytes, as text: equal where these are equal."""
        steps = [{"kind": step.kind, **step.settings} for step in self.steps]
        about = {k: v for k, v in asdict(self).items() if k not in ("root", "steps")}
        return json.dumps({**about, "steps": steps}, sort_keys=True)


def is_native(model: ModelConfig) -> bool:
    return model.pooling_strategy == NATIVE


def native_way(model: ModelConfig) -> tuple[str | None, ...] | None:
    """Which of the folder's own words are read: its prompts, by native pooling or by a template's `prompt:NAME`; None
    for none. Equal ways share their encoder's fingerprint."""
    named = tuple(str(text) for text in (getattr(model, setting) for setting in PLACES) if text.startswith(PROMPT))
    return (model.premise_prompt, model.hypothesis_prompt, *named) if is_native(model) else named or None


def native_modules(model: ModelConfig, transformer: Path) -> SentenceModules | None:
    """What the folder of a transformer says of its vectors, where the settings ask for them; None where they do not.

    Raises:
        EncoderError: the settings ask for it, and it is not said, or is nothing that can be done here.
    """
    if not is_native(model):
        return None
    found = read_sentence_modules(transformer)
    found.prompt(model.premise_prompt, "model.premise_prompt")
    found.prompt(model.hypothesis_prompt, "model.hypothesis_prompt")
    return found


def read_sentence_modules(transformer: Path) -> SentenceModules:
    """What stands in the files around a transformer.

    Args:
        transformer: as `transformer_folder` gives it.
    Raises:
        EncoderError: no folder of sentence-transformers, damaged files, or something that cannot be applied.
    """
    root = sentence_root(transformer)
    if root is None:
        raise EncoderError(
            f"model.pooling_strategy: native does what a folder of sentence-transformers says, and {transformer} is "
            "none (no modules.json names it); choose mean, cls, max or last."
        )
    modules = modules_of(root)
    refused = [module for module in modules[:1] if not module.is_theirs or module.kind != "Transformer"]
    refused += [module for module in modules[1:] if not module.is_theirs or module.kind not in READERS]
    if refused:
        names = ", ".join(dict.fromkeys(module.type or module.path for module in refused))
        refuse(root, f"modules.json asks for {names}, and only Transformer, {', '.join(READERS)} can be applied")
    length, lower = _transformer(root, transformer)
    steps = [step for module in modules[1:] for step in [READERS[module.kind](root, module)] if step is not None]
    prompts, default, truncate = _model_settings(root)
    return SentenceModules(root, tuple(steps), length, lower, prompts, default, truncate)


def _transformer(root: Path, transformer: Path) -> tuple[int | None, bool]:
    """(max_seq_length, do_lower_case) of the transformer's own settings."""
    file, found = transformer_settings(transformer)
    length = found.get("max_seq_length")
    odd = [key for key in found if key not in _KNOWN_OF_TRANSFORMER and key not in _CHECKED]
    for key, check in _CHECKED.items():
        value = found.get(key)
        if value is not None and not check(value):
            odd.append(key)
    processor = found.get("processor_kwargs") or found.get("tokenizer_args") or {}
    if isinstance(processor, dict) and processor.get("model_max_length") is not None:
        length = processor["model_max_length"]
    if length is not None and (type(length) is not int or length < 1):
        odd.append("max_seq_length")
    lower = found.get("do_lower_case", False)
    if not isinstance(lower, bool):
        odd.append("do_lower_case")
    if odd:
        shown = ", ".join(f"{key} {json.dumps(found.get(key))[:60]}" for key in dict.fromkeys(odd))
        refuse(root, f"{file} sets {shown}")
    return length, lower


def _plain_text(value: Any) -> bool:
    """Whether the transformer is given text itself (no chat template), and its last states are taken."""
    text = value.get("text") if isinstance(value, dict) else None
    method = (text.get("method"), text.get("method_output_name")) if isinstance(text, dict) else None
    return method in (("forward", "last_hidden_state"), ("forward", ["last_hidden_state"])) and "message" not in value


def _only_loading(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() <= _LOADING


_CHECKED: dict[str, Callable[[Any], bool]] = {
    "transformer_task": lambda value: value == "feature-extraction",
    "modality_config": _plain_text,
    "module_output_name": lambda value: value == TOKENS,
    "processing_kwargs": lambda value: not (isinstance(value, dict) and value.keys() - {"chat_template", "image"}),
    "query_expansion": lambda value: False,
    "tokenizer_name_or_path": lambda value: False,
    **dict.fromkeys(("model_args", "model_kwargs", "config_args", "config_kwargs"), _only_loading),
    **dict.fromkeys(
        ("tokenizer_args", "processor_kwargs"),
        lambda value: isinstance(value, dict) and value.keys() <= _LOADING | {"model_max_length"},
    ),
}
"""Settings of the transformer that may stand there with some values only."""


def _model_settings(root: Path) -> tuple[dict[str, str], str | None, int | None]:
    """(prompts, default_prompt_name, truncate_dim)"""
    settings = optional_mapping(root / MODEL_SETTINGS)
    prompts, default, truncate = (settings.get(key) for key in ("prompts", "default_prompt_name", "truncate_dim"))
    prompts = prompts or {}
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        refuse(root, "its prompts are no texts by name")
    texts = {str(name): text or "" for name, text in prompts.items()}
    if default is not None and default not in texts:
        refuse(root, f"its default_prompt_name {str(default)[:80]!r} is none of its prompts")
    if truncate is not None and (type(truncate) is not int or truncate < 1):
        refuse(root, f"truncate_dim is {str(truncate)[:40]}")
    return texts, default, truncate


def named_prompt(transformer: Path, name: str, setting: str) -> str:
    """The text of a prompt of the folder around a transformer, whatever its other modules are.

    Raises:
        EncoderError: no prompt of that name, or no folder of sentence-transformers.
    """
    root = sentence_root(transformer)
    if root is None:
        raise EncoderError(
            f"{setting}: prompt:{name} names a prompt of a sentence-transformers folder, and {transformer} is none (no "
            "modules.json names it); write the prompt's text itself."
        )
    return SentenceModules(root, (), prompts=_model_settings(root)[0]).prompt(name, setting)


def named_prompts(model: ModelConfig, transformer: Path) -> dict[str, str]:
    """The prompts that the settings' templates name, by setting; none under native pooling, which has them all."""
    if is_native(model):
        return {}
    named = {setting: read_template(getattr(model, setting), places) for setting, places in PLACES.items()}
    return {s: named_prompt(transformer, name, f"model.{s}") for s, name in named.items() if isinstance(name, str)}


def copy_modules(modules: SentenceModules, transformer: Path, target: Path) -> None:
    """Write what the folder says of its vectors to another one, in which the transformer lies at the top."""
    listed = []
    for place, module in enumerate(modules_of(modules.root)):
        path = module.path if module.kind != "Transformer" else ""
        listed.append({"idx": place, "name": str(place), "path": path, "type": module.type})
        if not path:
            continue
        (target / path).mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            if (modules.root / path / name).is_file():
                shutil.copyfile(modules.root / path / name, target / path / name)
    (target / MODULES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    settings = [modules.root / MODEL_SETTINGS, transformer / transformer_settings(transformer)[0]]
    for file in settings:
        if file.is_file():
            shutil.copyfile(file, target / file.name)
