"""An encoder's layers: which of them are read, poolings of several at once, and the encoder cut above the highest.

Layer l is transformers' `hidden_states[l]`: 0 the embeddings, L the last state, with the encoder's final norm where it
has one (Gemma, Llama, GPT-2, T5); the layers below are without it.

Shapes: K models, B rows, T tokens, H hidden, L layers read, M = L * H, W pooled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.config.chosen_layers import LAST, LayerChoice, choose_layers
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.network import sizes
from gemma_nli.model.loading.sentence_modules import SentenceModules
from gemma_nli.model.pooling import POOLERS, Pooler, build_pooler
from gemma_nli.model.probing.encoding_manner import FAILURES, distance, tolerance

if TYPE_CHECKING:
    from gemma_nli.model.encoder import Encoder

log = logging.getLogger(__name__)

FINAL_NORMS = ("norm", "final_norm", "ln_f", "final_layer_norm")
"""What encoders call the norm behind their last layer."""


def layers_of(model: ModelConfig) -> LayerChoice:
    """The layers that a configuration reads, found without loading the encoder.

    Raises:
        EncoderError: the encoder is not found or lacks one, or more layers are to be trained than are read.
    """
    depth = sizes(model.name, encoder_folder(model))[1]
    choice = choose_layers(model.layers, depth, model.name)
    if model.unfreeze_last_n is not None and model.unfreeze_last_n > choice.highest and model.layers != LAST:
        raise EncoderError(
            f"model.unfreeze_last_n: {model.unfreeze_last_n}, but model.layers {model.layers} uses {choice.highest} "
            f"layers of {model.name}: what is trained is counted from the highest of them."
        )
    return choice


class SideBySide(Pooler):
    """Each layer's states pooled, one vector after the other; a learned pooling is learned for each by itself."""

    def __init__(self, poolers: list[Pooler]) -> None:
        first = poolers[0]
        super().__init__(first.hidden_size, None, first.num_models)
        self.each = nn.ModuleList(poolers)

    @property
    def width(self) -> int:
        return sum(pool.width for pool in self.each)  # type: ignore[misc]

    def reset(self, model: int, generator: torch.Generator) -> None:
        for pool in self.each:
            pool.reset(model, generator)  # type: ignore[operator]

    def forward(self, h_BTM: Tensor, mask_BT: Tensor) -> Tensor:
        parts = h_BTM.chunk(len(self.each), -1)
        return torch.cat([pool(h_BTH, mask_BT) for pool, h_BTH in zip(self.each, parts, strict=True)], dim=-1)


class Mixed(Pooler):
    """A learned mixture of layers, softmax of one weight per layer, times one learned scale; equal shares at first.

    Of pooled vectors where the pooling learns nothing, else of token states, which the learned pooling then reads.

    Source: Peters et al. 2018, "Deep contextualized word representations", equation 1.
    """

    def __init__(self, pool: Pooler, layers: int) -> None:
        super().__init__(pool.hidden_size, None, pool.num_models)
        self.pool, self.layers = pool, layers
        self.weight_KL = nn.Parameter(torch.zeros(pool.num_models, layers))
        self.scale_bias_K = nn.Parameter(torch.zeros(pool.num_models))

    @property
    def width(self) -> int:
        return self.pool.width

    def reset(self, model: int, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.weight_KL[model] = 0.0
            self.scale_bias_K[model] = 0.0
        self.pool.reset(model, generator)

    def shares(self) -> Tensor:
        """(K, L), which sum to the scale: 1 at first."""
        return self.weight_KL.softmax(-1) * (1 + self.scale_bias_K).unsqueeze(-1)

    def mix(self, x_KBM: Tensor) -> Tensor:
        """(K, B, ..., H) of the layers' vectors, or of their token states, side by side."""
        x_KBLH = x_KBM.view(*x_KBM.shape[:-1], self.layers, -1)
        share_KL = self.shares().to(x_KBM.dtype)
        return torch.einsum("k...lh,kl->k...h", x_KBLH, share_KL)

    def forward(self, h_KBTM: Tensor, mask_KBT: Tensor) -> Tensor:
        if self.pool.learned:
            pooled: Tensor = self.pool(self.mix(h_KBTM), mask_KBT)
            return pooled
        parts = h_KBTM.chunk(self.layers, -1)
        return self.mix(torch.cat([self.pool(h_KBTH, mask_KBT) for h_KBTH in parts], dim=-1))


def build_layers_pooler(
    model: ModelConfig, choice: LayerChoice, hidden: int, num_models: int = 1, modules: SentenceModules | None = None
) -> Pooler:
    """The pooling of states as an encoder gives them that reads `choice`: (B, T, H), or M where it reads several."""

    def pool() -> Pooler:
        return build_pooler(model.pooling_strategy, hidden, model.pooling_k, num_models, modules)

    if choice.mixed:
        return Mixed(pool(), len(choice.numbers))
    return pool() if len(choice.numbers) == 1 else SideBySide([pool() for _ in choice.numbers])


def is_learned(model: ModelConfig) -> bool:
    """Whether token states are needed: vectors of a learned pooling cannot be computed before it is."""
    return POOLERS[model.pooling_strategy].learned


class LayerReader:
    """What an encoder's passes give: its last states, or those of some layers side by side."""

    def __init__(self, depth: int) -> None:
        self.depth, self.kept = depth, depth
        self.numbers: tuple[int, ...] = ()
        self.top: Tensor | None = None  # of a cut encoder: what its highest layer gave in the present pass

    @property
    def options(self) -> dict[str, Any]:
        """What a pass of the network is asked for beside its last states."""
        return {"output_hidden_states": True} if self.numbers else {}

    def read(self, output: Any) -> Tensor:
        """(B, T, H), or M."""
        if not self.numbers:
            last: Tensor = output.last_hidden_state
            return last
        found = [self._state(output, number) for number in self.numbers]
        self.top = None
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def _state(self, output: Any, number: int) -> Tensor:
        if number == self.depth:
            state = output.last_hidden_state
        else:
            state = self.top if number == self.kept else output.hidden_states[number]
        assert isinstance(state, Tensor)
        return state


@contextmanager
def reading(encoder: Encoder, numbers: tuple[int, ...]) -> Iterator[None]:
    """The encoder gives these layers' states side by side; its last alone where they are none or the last."""
    before = encoder.reader.numbers
    if max(numbers, default=0) > encoder.reader.kept:
        raise ValueError(f"layers {numbers} of an encoder that was cut above layer {encoder.reader.kept}")
    encoder.reader.numbers = () if numbers == (encoder.choice.depth,) else numbers
    try:
        yield
    finally:
        encoder.reader.numbers = before


def read_layers(encoder: Encoder, choice: LayerChoice) -> None:
    """Make the encoder give the layers of `choice`, and cut it above the highest of them.

    Raises:
        EncoderError: it does not give its layers' states as other encoders do.
    """
    encoder.choice = choice
    if choice.only_last:
        return
    _check_states(encoder)
    if choice.highest < choice.depth:
        _cut(encoder, choice)
    encoder.reader.numbers = choice.numbers


@torch.no_grad()
def _check_states(encoder: Encoder) -> None:
    """Refuse an encoder whose `hidden_states` are not one state per layer, token and text (Funnel pools tokens)."""
    name, depth = encoder.identity.name, encoder.depth
    try:
        options = {"use_cache": False} if "use_cache" in encoder.takes else {}
        output = encoder.model(**_texts(encoder), **options, output_hidden_states=True, return_dict=True)
        states, last_BTH = output.hidden_states, output.last_hidden_state
        why = f"it gives {len(states)} states" if len(states) != depth + 1 else ""
        if not why and any(state.shape != last_BTH.shape for state in states):
            why = "some of its states have another shape than its last"
    except FAILURES as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    if why:
        raise EncoderError(f"model.layers: {name} of {depth} layers does not show them ({why}); set model.layers=last.")


def _texts(encoder: Encoder) -> dict[str, Tensor]:
    """Two texts of ordinary tokens."""
    ids = encoder.ordinary_ids()
    ids_BT = torch.tensor([[ids[(7 * place + row) % len(ids)] for place in range(9)] for row in range(2)])
    ids_BT = ids_BT.to(encoder.device)
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def layer_list(network: nn.Module, depth: int) -> tuple[str, nn.ModuleList] | None:
    """The network's layers and their dotted name; None where it has no such list (ALBERT runs one layer many times)."""
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    return None


@torch.no_grad()
def _cut(encoder: Encoder, choice: LayerChoice) -> None:
    """Drop the layers above the highest that is read, where that changes no state that is; else leave them."""
    network, reader = encoder.model, encoder.reader
    found = layer_list(network, choice.depth)
    if found is None or choice.highest == 0:
        return
    name, layers = found
    parent_name, _, leaf = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    with reading(encoder, choice.numbers):
        wanted = encoder.run(_texts(encoder), encoder.manner)
    kept = nn.ModuleList(list(layers)[: choice.highest])
    hook = kept[-1].register_forward_hook(lambda module, args, output: setattr(reader, "top", _first(output)))
    setattr(parent, leaf, kept)
    reader.kept = choice.highest
    try:
        with reading(encoder, choice.numbers):
            off = distance(encoder.run(_texts(encoder), encoder.manner), wanted)
    except FAILURES as error:
        log.debug("%s is not cut: %s: %s", encoder.identity.name, type(error).__name__, error)
        off = float("inf")
    if off > tolerance(encoder.dtype, 0.0):
        hook.remove()
        setattr(parent, leaf, layers)
        reader.kept = choice.depth


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output
