"""Which of an encoder's weights are trained: none, LoRA adapters, the last n layers, or all; and their states."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError, did_you_mean
from gemma_nli.base.part_registry import Registry
from gemma_nli.config import LoraConfig, ModelConfig
from gemma_nli.model.encoder import Encoder
from gemma_nli.model.layers import FINAL_NORMS, layer_list

_AUTO_TARGETS = (
    ("q_proj", "v_proj"),  # Gemma, Llama, Mistral, Qwen
    ("query", "value"),  # BERT, RoBERTa, MiniLM
    ("query_proj", "value_proj"),  # DeBERTa
    ("q_lin", "v_lin"),  # DistilBERT
    ("q", "v"),  # MPNet
    ("Wqkv",),  # ModernBERT
    ("qkv_proj",),  # Phi
    ("c_attn",),  # GPT-2
    ("q_head", "v_head"),  # Funnel
    ("Wq", "Wv"),  # CTRL
    ("query_key_value",),  # Falcon, BLOOM, GPT-NeoX
    ("in_proj",),  # DeBERTa's query, key and value; what Mamba's running state is fed
)


TRAINED: Registry[Callable[[Encoder, ModelConfig, int], None]] = Registry("what is trained")
trains = TRAINED.part


def trainable_encoder(encoder: Encoder, model: ModelConfig, seed: int = 0) -> Encoder:
    """Mark, in place, which weights of the encoder the settings train; adapters are inserted, drawn from `seed`.

    A frozen encoder has nothing trainable. Dropout inside the encoder follows its own configuration (BERT has some,
    Gemma none); `model.dropout` is the head's. LoRA under a half-precision encoder keeps its adapters in float32.

    Raises:
        EncoderError: target modules or layers that the encoder does not have, or it already has adapters.
    """
    encoder.requires_grad_(False)
    TRAINED[model.trained](encoder, model, seed)
    for name, parameter in encoder.named_parameters():
        if ".pooler." in name:  # BERT's own pooler: no token state depends on it
            parameter.requires_grad_(False)
    return encoder


@trains("nothing", reads=())
def _nothing(encoder: Encoder, model: ModelConfig, seed: int) -> None:
    """A frozen encoder."""


@trains(
    "everything",
    reads=(
        "training.encoder_learning_rate",
        "training.gradient_accumulation",
        "device.gradient_checkpointing",
        "device.compile",
    ),
)
def _everything(encoder: Encoder, model: ModelConfig, seed: int) -> None:
    encoder.requires_grad_(True)


@trains(
    "last_layers",
    reads=(
        "training.encoder_learning_rate",
        "training.gradient_accumulation",
        "device.gradient_checkpointing",
        "device.compile",
    ),
)
def _some_layers(encoder: Encoder, model: ModelConfig, seed: int) -> None:
    assert model.unfreeze_last_n is not None
    for module in _last_layers(encoder, model.unfreeze_last_n):
        module.requires_grad_(True)


@trains(
    "adapters",
    reads=(
        "training.encoder_learning_rate",
        "training.gradient_accumulation",
        "device.gradient_checkpointing",
        "device.compile",
    ),
)
def _adapters(encoder: Encoder, model: ModelConfig, seed: int) -> None:
    assert model.lora is not None
    _add_lora(encoder, model.lora, seed)


def _add_lora(encoder: Encoder, lora: LoraConfig, seed: int) -> None:
    import peft

    if has_adapters(encoder):
        raise EncoderError("model.lora: this encoder already has adapters; load it again.")
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=_targets(encoder.model, lora)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, encoder.model)
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def _targets(model: nn.Module, lora: LoraConfig) -> list[str]:
    """Full names of the modules to adapt."""
    linear = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and "pooler" not in name
    ]
    leaves = {name.rsplit(".", 1)[-1] for name in linear}
    if not leaves:
        raise EncoderError(
            "model.lora: this encoder has no linear layers for adapters; train all of it (model.lora=null)."
        )
    if lora.target_modules == "all-linear":
        return linear
    wanted: tuple[str, ...] = ()
    if lora.target_modules == "auto":
        wanted = next((names for names in _AUTO_TARGETS if set(names) <= leaves), ())
        if not wanted:
            raise EncoderError(
                "model.lora.target_modules: auto does not know this encoder's attention modules; "
                f"name some of {', '.join(sorted(leaves))}."
            )
    else:
        wanted = lora.target_modules
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise EncoderError(f"model.lora.target_modules: unknown name '{target}'{did_you_mean(target, leaves)}")
    return [name for name in linear if any(name == t or name.endswith(f".{t}") for t in wanted)]


def _last_layers(encoder: Encoder, count: int) -> list[nn.Module]:
    """The last layers up to the highest that is read, and the norm after them, if there is one and it is used."""
    model, depth, highest = encoder.model, int(encoder.model.config.num_hidden_layers), encoder.choice.highest
    found = layer_list(model, encoder.reader.kept or depth)
    if found is not None:
        name, layers = found
        if count > highest:
            read = "" if highest == depth else f", of which model.layers reads the first {highest}"
            raise EncoderError(f"model.unfreeze_last_n: {count}, but the encoder has {depth} layers{read}.")
        parent = model.get_submodule(name.rpartition(".")[0])
        after = [m for n, m in parent.named_children() if n in FINAL_NORMS and highest == depth]
        return [*list(layers)[highest - count : highest], *after]
    raise EncoderError(
        "model.unfreeze_last_n: the encoder's layers were not found; train all of it, or use model.lora."
    )


def has_adapters(encoder: Encoder) -> bool:
    return any("lora_" in name for name, _ in encoder.named_parameters())


def trainable_state(encoder: Encoder) -> dict[str, Tensor]:
    """Copies, on the CPU, of exactly what is trained: adapters, some layers or all, by kind."""
    return {n: p.detach().cpu().clone() for n, p in encoder.named_parameters() if p.requires_grad}


def load_trainable_state(encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Load what `trainable_state` gave.

    Raises:
        EncoderError: the state belongs to another encoder or other settings.
    """
    own = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    odd = sorted(own.keys() ^ state.keys()) or sorted(n for n in own if own[n].shape != state[n].shape)
    if odd:
        raise EncoderError(f"trained weights: {len(odd)} do not fit this encoder and its settings, first {odd[0]}.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def merged_state(encoder: Encoder) -> dict[str, Tensor]:
    """The network's weights on the CPU with adapters added into them, under the names of a plain network.

    The encoder itself is not touched.
    """
    from peft.tuners.lora import LoraLayer

    deltas: dict[str, Tensor] = {}
    for name, module in encoder.model.named_modules():
        if isinstance(module, LoraLayer):
            delta = sum(module.get_delta_weight(adapter).detach().float() for adapter in module.active_adapters)
            deltas[f"{name}.base_layer.weight"] = torch.as_tensor(delta)
    state: dict[str, Tensor] = {}
    for name, weight in encoder.model.state_dict().items():
        if "lora_" in name:
            continue
        whole = (weight.float() + deltas[name]).to(weight.dtype) if name in deltas else weight
        state[name.replace(".base_layer.", ".")] = whole.detach().cpu().contiguous().clone()
    return state
