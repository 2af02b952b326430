"""Which tokens a token attends to: the probe that finds out, and the switch that changes it.

`config.is_causal = False` makes transformers' mask builders give full (and full sliding-window) masks, for Gemma2 and
Gemma3 alike, while `use_bidirectional_attention` silently does nothing on Gemma2. So no flag is trusted: the probe
changes the last token and checks whether an earlier state changes. It checks with and without padding, because without
it the kernels get no mask at all and use a flag of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError

States = Callable[[Tensor, Tensor], Tensor]
"""(input_ids_BT, attention_mask_BT) -> last hidden states h_BTH."""

_LENGTH, _ROWS, _TOLERANCE = 6, 4, 1e-6


def sees_ahead(states: States, usable_ids: list[int]) -> bool:
    """Whether a later token changes an earlier position's state; tested on full, right- and left-padded rows.

    Args:
        usable_ids: ids of ordinary tokens, at least two different ones.
    Raises:
        EncoderError: the answers depend on the padding, or states are not finite.
    """
    ids_BT, changed_BT = _probe_ids(usable_ids)
    answers = {}
    for name, left, right in (("without padding", 0, 0), ("padded on the right", 0, 2), ("padded on the left", 2, 0)):
        mask_BT = nn.functional.pad(torch.ones_like(ids_BT), (left, right))
        a_BTH = states(nn.functional.pad(ids_BT, (left, right), value=usable_ids[0]), mask_BT)
        b_BTH = states(nn.functional.pad(changed_BT, (left, right), value=usable_ids[0]), mask_BT)
        early = slice(left, left + _LENGTH - 1)
        a_BTH, b_BTH = a_BTH[:, early].float(), b_BTH[:, early].float()
        if not (torch.isfinite(a_BTH).all() and torch.isfinite(b_BTH).all()):
            raise EncoderError(
                "model.name: the encoder's states are not finite in this precision; "
                "set device.mixed_precision=bf16 or none."
            )
        answers[name] = bool((a_BTH - b_BTH).abs().max() > _TOLERANCE * a_BTH.abs().max().clamp(min=1e-6))
    if len(set(answers.values())) > 1:
        found = ", ".join(f"{'both ways' if sees else 'backwards only'} {name}" for name, sees in answers.items())
        raise EncoderError(f"model.attention: the encoder sees {found}; try another model.attn_implementation.")
    return answers["without padding"]


def _probe_ids(usable_ids: list[int]) -> tuple[Tensor, Tensor]:
    """Two batches that differ in the last token of each row only; several rows, because some tokens may be nearly
    identical.
    """
    step = max(1, len(usable_ids) // (_LENGTH * _ROWS))
    picked = [usable_ids[(i * step) % len(usable_ids)] for i in range(_LENGTH * _ROWS)]
    ids_BT = torch.tensor(picked).view(_ROWS, _LENGTH)
    changed_BT = ids_BT.clone()
    for row in range(_ROWS):
        changed_BT[row, -1] = next(i for i in usable_ids if i not in (int(ids_BT[row, -1]), picked[row]))
    return ids_BT, changed_BT


def set_attention(
    model: nn.Module, asked: Literal["auto", "causal", "bidirectional"], is_causal: Callable[[], bool]
) -> None:
    """Make the model attend as requested, and verify it with the probe `is_causal`.

    BERT-like models are bidirectional by construction: `bidirectional` changes nothing there, `causal` is refused. A
    model that already attends as requested is left as it is.

    Raises:
        EncoderError: the model cannot attend as requested.
    """
    if asked == "auto" or is_causal() == (asked == "causal"):
        return
    if asked == "bidirectional":
        _switch(model, causal=False)
        if is_causal():
            raise EncoderError(
                "model.attention: bidirectional was requested, but a probe shows that this model still attends only "
                "backwards; use a model whose masks follow config.is_causal (Gemma2, Gemma3, Llama, ...) or set causal."
            )
        return
    if not _was_opened(model):
        raise EncoderError(
            "model.attention: this encoder is bidirectional by construction (BERT-like) and cannot be causal; "
            "set model.attention=auto or bidirectional."
        )
    _switch(model, causal=True)
    if not is_causal():
        raise EncoderError(
            "model.attention: causal was requested, but a probe shows that this model attends to later tokens; set "
            "bidirectional."
        )


def _was_opened(model: nn.Module) -> bool:
    config: Any = model.config
    return bool(getattr(config, "use_bidirectional_attention", False)) or getattr(config, "is_causal", True) is False


def _switch(model: nn.Module, causal: bool) -> None:
    config: Any = model.config
    config.is_causal = causal
    if causal and getattr(config, "use_bidirectional_attention", False):
        config.use_bidirectional_attention = False
