"""A Hugging Face encoder or decoder as text -> token states: loading, tokenising, padding, one forward.

Shapes: B rows, T tokens, H hidden.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.config.chosen_layers import LAST, LayerChoice, choose_layers
from gemma_nli.model.attention import sees_ahead, set_attention
from gemma_nli.model.devices import resolve_device, resolve_precision
from gemma_nli.model.layers import LayerReader, read_layers
from gemma_nli.model.loading import tokenizer as vocabulary
from gemma_nli.model.loading.folder_files import one_line
from gemma_nli.model.loading.identity import EncoderIdentity, encoder_folder, identify_encoder, identify_folder
from gemma_nli.model.loading.network import check_finite, load_network
from gemma_nli.model.loading.sentence_folder import left_aside
from gemma_nli.model.loading.sentence_modules import SentenceModules, named_prompts, native_modules
from gemma_nli.model.probing.encoding_manner import FAILURES, SIDES, Manner, find_manner, unchanged
from gemma_nli.model.probing.probe_notes import ProbeNotes
from gemma_nli.model.prompts import Prompt, Prompts, prompts_of, read_natively, text_length, tokenize_prompted
from gemma_nli.model.text_frames import Frame
from gemma_nli.model.tokens import PROMPT_TOKENS, Tokens, fill

__all__ = [
    "PROMPT_TOKENS",
    "Encoder",
    "EncoderIdentity",
    "Tokens",
    "identify_encoder",
    "load_encoder",
    "resolve_device",
    "resolve_precision",
]


class Encoder(nn.Module):
    """Tokenizer and model together. Padding, on either side, never changes the states of real tokens."""

    model: Any

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        max_length: int,
        identity: EncoderIdentity,
        folder: Path,
        part: str = "",
        modules: SentenceModules | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.sentence_modules, self.prompts = modules, prompts or Prompts()
        self.max_length, self.identity, self.folder, self.part = max_length, identity, folder, part
        self.notes: ProbeNotes | None = None
        self.depth = int(getattr(model.config, "num_hidden_layers", None) or 0)
        self.reader, self.choice = LayerReader(self.depth), LayerChoice((self.depth,), self.depth)
        self.takes = frozenset(inspect.signature(self.model.forward).parameters)
        try:
            self.rows = int(self.model.get_input_embeddings().weight.shape[0])
        except (NotImplementedError, AttributeError):
            raise EncoderError(
                f"model.name: {identity.name} has no table of token embeddings (CANINE reads characters); use "
                "a token-based encoder."
            ) from None
        self.pad_id = next(
            i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None and i < self.rows
        )

    @cached_property
    def manner(self) -> Manner:
        """How the model is given its texts, found by testing it."""
        return find_manner(self)

    @property
    def hidden_size(self) -> int:
        return self.manner.width

    @property
    def segments(self) -> bool:
        """Whether texts have segment ids; under native pooling only where the tokenizer gives them unasked."""
        unasked = self.sentence_modules is None or "token_type_ids" in self.tokenizer.model_input_names
        return self.manner.segments and unasked

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, which is that of the states outside autocast."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def is_causal(self) -> bool:
        """Whether a token attends only to itself and earlier ones; found by a probe of the model as it is now, not by
        a flag.
        """
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return not sees_ahead(lambda i, m: self({"input_ids": i, "attention_mask": m}), self.ordinary_ids())
        except FAILURES as error:
            name, kind = self.identity.name, type(error).__name__
            raise EncoderError(
                f"model.attention: {name} cannot be run with the requested attention: {kind}: {one_line(error)}"
            ) from None
        finally:
            self.train(was_training)

    def ordinary_ids(self) -> list[int]:
        """Ids that stand for text."""
        special = set(self.tokenizer.all_special_ids)
        return [i for i in range(min(len(self.tokenizer), self.rows)) if i not in special]

    def tokenize(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str] | None = None,
        prompts: Sequence[Prompt] | None = None,
    ) -> Tokens:
        """Ids of each text, or of each pair, at most `max_length` of them; a pair's post (premise) is cut first.

        If the criterion alone fills the sequence both are cut, the longer one first. A row has at least one token.

        Args:
            prompts: what precedes each premise, or the frame that its text or pair is set into, as `self.prompts`
                gives it.
        Raises:
            EncoderError: a template and its criterion exceed `max_length`.
        """
        if prompts is not None:
            return tokenize_prompted(self, premises, hypotheses, prompts)
        if hypotheses is None:
            return self._tokens(list(premises), None, "longest_first")
        if len(premises) != len(hypotheses):
            raise ValueError(f"{len(premises)} premises, {len(hypotheses)} hypotheses")
        names = sorted(set(hypotheses))
        alone = self.tokenizer(names, add_special_tokens=False)["input_ids"] if names else []
        room = self.max_length - int(self.tokenizer.num_special_tokens_to_add(pair=True))
        long = {name for name, ids in zip(names, alone, strict=True) if len(ids) >= room}
        if not long:
            return self._tokens(list(premises), list(hypotheses), "only_first")
        rows_by_way: dict[str, list[int]] = {"only_first": [], "longest_first": []}
        for row, hypothesis in enumerate(hypotheses):
            rows_by_way["longest_first" if hypothesis in long else "only_first"].append(row)
        return Tokens.merged(
            (rows, self._tokens([premises[r] for r in rows], [hypotheses[r] for r in rows], way))
            for way, rows in rows_by_way.items()
        )

    def prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens that a prompt takes at the beginning of a text: its own, and the special ones before it."""
        if not prompt or isinstance(prompt, Frame):
            return 0
        (ids,) = self._tokens([prompt], None, "longest_first").ids
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def _tokens(self, first: list[str], second: list[str] | None, truncation: str) -> Tokens:
        if not first:
            return Tokens([], [] if self.segments else None)
        out = self.tokenizer(
            first, second, truncation=truncation, max_length=self.max_length, padding=False,
            return_attention_mask=False, return_token_type_ids=self.segments, verbose=False,
        )  # fmt: skip
        return self.usable(out["input_ids"], out["token_type_ids"] if self.segments else None)

    def usable(self, ids: list[list[int]], types: list[list[int]] | None) -> Tokens:
        """Every id within the embedding table, and at least one per row."""
        if len(self.tokenizer) > self.rows:
            ids = [row if not row or max(row) < self.rows else [self._known(i) for i in row] for row in ids]
        for row, row_ids in enumerate(ids):
            if not row_ids:  # an empty text and a tokenizer without special tokens; an all-padding row would give NaN
                ids[row] = [self._filler()]
                if types is not None:
                    types[row] = [0]
        return Tokens(ids, types)

    def _known(self, token: int) -> int:
        """The unknown token for ids past the embedding table: a tokenizer may have more tokens than its model."""
        unknown = self.tokenizer.unk_token_id
        return token if token < self.rows else unknown if unknown is not None and unknown < self.rows else self.pad_id

    def _filler(self) -> int:
        options = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((i for i in options if i is not None and i < self.rows), self.pad_id)

    def collate(
        self, tokens: Tokens, rows: Sequence[int] | np.ndarray | None = None, side: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """Some rows (all without `rows`) padded to the longest of them, on the encoder's device.

        Returns:
            input_ids, attention_mask and, if the encoder has segments, token_type_ids; (B, T) int64. And
            prompt_tokens, (B,), if the pooling leaves them out.
        """
        picked = range(len(tokens)) if rows is None else [int(r) for r in rows]
        lengths_B = np.fromiter((len(tokens.ids[r]) for r in picked), dtype=np.int64, count=len(picked))
        width = int(lengths_B.max(initial=0))
        steps_T = np.arange(width)
        real_BT = steps_T < lengths_B[:, None] if side == "right" else steps_T >= width - lengths_B[:, None]
        batch = {"input_ids": fill(real_BT, [tokens.ids[r] for r in picked], self.pad_id)}
        batch["attention_mask"] = real_BT.astype(np.int64)
        if tokens.types is not None:
            batch["token_type_ids"] = fill(real_BT, [tokens.types[r] for r in picked], 0)
        if tokens.prompts is not None:
            batch[PROMPT_TOKENS] = np.array([tokens.prompts[r] for r in picked], dtype=np.int64)
        return {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states h_BTH of a padded batch, or those of several layers side by side, as `reader` says.

        States of padding tokens are meaningless.

        If padding or other rows would change a row's states, rows of equal length run together, or each alone.
        """
        batch = {name: tensor for name, tensor in batch.items() if name != PROMPT_TOKENS}
        if self._takes_padding(batch["attention_mask"]):
            return self.run(batch, self.manner)
        mask_BT = batch["attention_mask"].bool()
        lengths_B = mask_BT.sum(1)
        parts = [torch.nonzero(lengths_B == length).flatten() for length in sorted(set(lengths_B.tolist())) if length]
        if not self.manner.together:
            parts = [row.view(1) for part in parts for row in part]
        found = []
        for rows in parts:
            real_BT = mask_BT[rows]
            found.append(self.run({n: t[rows][real_BT].view(len(rows), -1) for n, t in batch.items()}, self.manner))
        h_BTH = found[0].new_zeros(*mask_BT.shape, found[0].shape[-1])
        for rows, part_BTH in zip(parts, found, strict=True):
            places = torch.nonzero(mask_BT[rows], as_tuple=True)
            h_BTH[rows[places[0]], places[1]] = part_BTH.flatten(0, 1)
        return h_BTH

    def _takes_padding(self, mask_BT: Tensor) -> bool:
        padding, together = self.manner.padding, self.manner.together
        if torch.compiler.is_compiling() and "right" in padding:
            return True
        if mask_BT.shape[1] > self.manner.longest:
            return bool(mask_BT.all()) and (together or len(mask_BT) == 1)
        if len(padding) == len(SIDES):
            return True
        if not together and len(mask_BT) > 1:
            return False
        return bool(mask_BT.all() or ("right" in padding and mask_BT[:, 0].all()))

    def run(self, batch: Mapping[str, Tensor], manner: Manner) -> Tensor:
        """One pass of the model over a batch as it is."""
        inputs: dict[str, Any] = {name: tensor.to(self.device) for name, tensor in batch.items()}
        if not manner.segments:
            inputs.pop("token_type_ids", None)
        if manner.first_position is not None and "position_ids" not in inputs:
            mask_BT = inputs["attention_mask"]
            inputs["position_ids"] = (mask_BT.cumsum(-1) - 1).clamp(min=0) + manner.first_position
        if "use_cache" in self.takes:
            inputs["use_cache"] = False
        untried = (
            self.max_length > manner.longest
        )  # state that a short text leaves in the model may change a longer one
        with unchanged(self.model) if manner.put_back or untried else nullcontext():
            return self.reader.read(self.model(**inputs, **self.reader.options, return_dict=True))


def load_encoder(model: ModelConfig, device: DeviceConfig) -> Encoder:
    """The encoder of `model.name`, in eval mode, attending as `model.attention` requests, verified by a probe.

    Weights are read only from safetensors and no code from the model's folder is run. A frozen encoder, and one under
    LoRA, is held in the run's precision; one whose own weights are trained is held in float32.

    Raises:
        EncoderError: it cannot be found, read, or used as the settings require.
    """
    folder = encoder_folder(model)
    modules = native_modules(model, folder)
    identity = identify_folder(model.name, folder, modules, named_prompts(model, folder))
    torch_device = resolve_device(device)
    precision = resolve_precision(device, torch_device)
    own_weights_trained = not model.freeze_encoder and model.lora is None
    found = load_network(model, folder, torch.float32 if own_weights_trained else precision)
    network, tokenizer = found.module, vocabulary.load_tokenizer(model.name, folder)
    length, prompts = text_length(model, modules, tokenizer, network), prompts_of(model)
    network.to(torch_device)
    encoder = Encoder(network, tokenizer, length, identity, folder, found.part, modules, prompts).eval()
    encoder.notes = notes = _notes(encoder, model)
    notes.recall("finite weights", lambda: check_finite(model.name, network, folder))
    remarks = notes.recall(
        "vocabulary", lambda: vocabulary.check_vocabulary(model.name, tokenizer, encoder.rows, folder)
    )
    vocabulary.report_remarks(model.name, [*remarks, *left_aside(folder, model.pooling_strategy)])
    encoder.manner = _manner(encoder, encoder.notes, "as made")
    positions = encoder.manner.positions
    if positions is not None and length > positions:
        raise EncoderError(f"model.max_length: {model.max_length} tokens, but {model.name} has {positions} positions.")
    set_attention(network, model.attention, lambda: encoder.is_causal)
    if model.attention != "auto":
        encoder.manner = _manner(encoder, encoder.notes, model.attention)
    if modules is not None:
        read_natively(encoder, modules)
    if model.layers != LAST:
        read_layers(encoder, choose_layers(model.layers, encoder.depth, model.name))
    return encoder


def _notes(encoder: Encoder, model: ModelConfig) -> ProbeNotes:
    kernel = getattr(encoder.model.config, "_attn_implementation", None)
    about = {"encoder": encoder.identity.fingerprint, "attention": model.attention, "kernel": kernel}
    device = {"device": encoder.device.type, "precision": str(encoder.dtype), "max_length": model.max_length}
    return ProbeNotes({**about, **device})


def _manner(encoder: Encoder, notes: ProbeNotes, attention: str) -> Manner:
    return Manner.from_json(notes.recall(f"manner, {attention}", lambda: find_manner(encoder).to_json()))


def load_tokenizer(model: ModelConfig) -> Any:
    """The encoder's tokenizer alone, without its weights."""
    return vocabulary.load_tokenizer(model.name, encoder_folder(model))
