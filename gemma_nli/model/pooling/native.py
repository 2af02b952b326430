"""The pooling that a folder of sentence-transformers brings with it: its modules, one after the other.

Shapes: B rows, T tokens, H hidden, W pooled, I and O what a Dense takes and gives; any leading dimensions.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gemma_nli.model.loading.sentence_modules import SentenceModules
from gemma_nli.model.loading.sentence_steps import TOKENS, VECTOR, Step
from gemma_nli.model.pooling.pooler import Pooler, pooler


@pooler("native", reads=("model.premise_prompt", "model.hypothesis_prompt"))
class Native(Pooler):
    """What `SentenceTransformer(folder).encode()` makes of token states. Its weights stay as they are: no parameters.

    Raises:
        EncoderError: a module does not take what the one before it gives.
    """

    of_folder = True

    def __init__(
        self, hidden_size: int, k: int | None = None, num_models: int = 1, modules: SentenceModules | None = None
    ) -> None:
        super().__init__(hidden_size, k, num_models)
        if modules is None:
            raise TypeError("native pooling is made of what a folder says")
        self._width = modules.width(hidden_size)
        self.places = [(step.reads, step.writes) for step in modules.steps]
        self.steps = nn.ModuleList([_MADE[step.kind](step) for step in modules.steps])

    @property
    def width(self) -> int:
        return self._width

    def forward(self, h_BTH: Tensor, mask_BT: Tensor, prompt_B: Tensor | None = None) -> Tensor:
        """
        Args:
            prompt_B: tokens at a row's beginning that its prompt takes, for modules that leave them out.
        """
        found = {TOKENS: h_BTH}
        for (reads, writes), step in zip(self.places, self.steps, strict=True):
            found[writes] = step(found[reads], mask_BT.bool(), prompt_B)
        x_BW = found[VECTOR][..., : self.width]
        return x_BW.masked_fill(~mask_BT.bool().any(-1, keepdim=True), 0)


class _Pool(nn.Module):
    """Several poolings of the real tokens side by side."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.modes, self.include_prompt = step.settings["modes"], step.settings["include_prompt"]

    def forward(self, h_BTH: Tensor, real_BT: Tensor, prompt_B: Tensor | None) -> Tensor:
        place_BT = real_BT.cumsum(-1)
        take_BT = real_BT
        if prompt_B is not None and not self.include_prompt:
            take_BT = real_BT & (place_BT > prompt_B.unsqueeze(-1))
        parts = [_MODES[mode](h_BTH, take_BT, place_BT) for mode in self.modes]
        return torch.cat(parts, dim=-1)


def _sum(h_BTH: Tensor, weight_BT: Tensor) -> Tensor:
    """Weighted sum of states; what has no weight may be anything."""
    weight_BT1 = weight_BT.unsqueeze(-1)
    return (h_BTH.masked_fill(weight_BT1 == 0, 0) * weight_BT1.to(h_BTH.dtype)).sum(-2)


def _count(take_BT: Tensor, h_BTH: Tensor) -> Tensor:
    return take_BT.sum(-1, keepdim=True).clamp(min=1).to(h_BTH.dtype)


def _cls(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    return _sum(h_BTH, take_BT & (take_BT.cumsum(-1) == 1))


def _last(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    return _sum(h_BTH, take_BT & (take_BT.flip(-1).cumsum(-1).flip(-1) == 1))


def _max(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    top_BH = h_BTH.masked_fill(~take_BT.unsqueeze(-1), torch.finfo(h_BTH.dtype).min).amax(-2)
    return top_BH.masked_fill(~take_BT.any(-1, keepdim=True), 0)


def _mean(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    return _sum(h_BTH, take_BT) / _count(take_BT, h_BTH)


def _root_mean(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    return _sum(h_BTH, take_BT) / _count(take_BT, h_BTH).sqrt()


def _weighted_mean(h_BTH: Tensor, take_BT: Tensor, place_BT: Tensor) -> Tensor:
    """By a token's place in its text, prompt included: later ones count for more (SGPT)."""
    weight_BT = place_BT * take_BT
    return _sum(h_BTH, weight_BT) / weight_BT.sum(-1, keepdim=True).clamp(min=1).to(h_BTH.dtype)


_MODES = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _root_mean,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


class _Weighted(nn.Module):
    """A module's weights as buffers: gradients pass through them and leave them as they are."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        assert step.weights is not None
        self.names = {}
        for name, tensor in load_file(step.weights).items():
            self.names[name] = name.replace(".", "_")
            self.register_buffer(self.names[name], tensor.float())

    def held(self, name: str) -> Tensor | None:
        found: Tensor | None = getattr(self, self.names[name]) if name in self.names else None
        return found


class _Dense(_Weighted):
    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.activation: nn.Module = getattr(nn, step.settings["activation"])()
        self.residual = step.settings["residual"]

    def forward(self, x_BI: Tensor, real_BT: Tensor, prompt_B: Tensor | None) -> Tensor:
        weight_OI, bias_O, skip_OI = (self.held(name) for name in ("linear.weight", "linear.bias", "residual.weight"))
        assert weight_OI is not None
        y_BO: Tensor = self.activation(F.linear(x_BI, weight_OI, bias_O))
        if not self.residual:
            return y_BO
        return y_BO + (x_BI if skip_OI is None else F.linear(x_BI, skip_OI))


class _LayerNorm(_Weighted):
    def forward(self, x_BH: Tensor, real_BT: Tensor, prompt_B: Tensor | None) -> Tensor:
        return F.layer_norm(x_BH, x_BH.shape[-1:], self.held("norm.weight"), self.held("norm.bias"))


class _Normalize(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()

    def forward(self, x_BH: Tensor, real_BT: Tensor, prompt_B: Tensor | None) -> Tensor:
        return F.normalize(x_BH, dim=-1)


_MADE = {"Pooling": _Pool, "Dense": _Dense, "LayerNorm": _LayerNorm, "Normalize": _Normalize}
