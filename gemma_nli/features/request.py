"""What a trial requests from the feature store: which texts, encoded how, by which encoder; and the resulting key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from gemma_nli.base.errors import FeatureError, did_you_mean
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.encoder import EncoderIdentity, resolve_device, resolve_precision
from gemma_nli.model.loading.sentence_modules import NATIVE, SentenceModules, is_native
from gemma_nli.model.pooling import POOLERS, Pooler, build_pooler, uses_k
from gemma_nli.model.prompts import Prompt
from gemma_nli.model.text_frames import Frame

T = TypeVar("T")
DIGEST_BYTES = 32
TEMPLATES = {"joint": "joint/1", "framed": "framed/1", "single": "single/1"}
"""How texts become one sequence; the number rises when Encoder.tokenize changes what it makes of the same texts."""

_MIXED_PRECISION = {"float32": "none", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class FeatureRequest:
    """Texts and the views wanted of them. Sent between processes: its precision is resolved where it was created.

    Args:
        premises: posts; with `hypotheses` None each is encoded alone.
        hypotheses: criteria, one per premise: each pair is one sequence.
        prompts: what precedes each premise, or the frame it is set into, if anything does (templates, native pooling).
        views: pooled vectors, as `view_name` of model/pooling/ names them: `mean`, `first_k:4`, `mean@9` of layer 9.
        with_tokens: whether token states are wanted too (learned poolings).
        token_layers: whose token states, side by side; None is the last layer.
        precision: the compute dtype, such as `float32`; resolved from `device` when empty.
    """

    model: ModelConfig
    device: DeviceConfig
    identity: EncoderIdentity
    premises: tuple[str, ...]
    hypotheses: tuple[str, ...] | None = None
    views: tuple[str, ...] = ("mean",)
    with_tokens: bool = False
    precision: str = field(default="")
    prompts: tuple[Prompt, ...] | None = None
    token_layers: tuple[int | None, ...] = (None,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "premises", tuple(self.premises))
        object.__setattr__(self, "views", tuple(self.views))
        if self.hypotheses is not None:
            object.__setattr__(self, "hypotheses", tuple(self.hypotheses))
            assert len(self.hypotheses) == len(self.premises), "a pair needs both its texts"
        if not self.precision:
            dtype = resolve_precision(self.device, resolve_device(self.device))
            object.__setattr__(self, "precision", str(dtype).removeprefix("torch."))
        for view in self.views:
            split_view(view)

    def __len__(self) -> int:
        return len(self.premises)

    @property
    def template(self) -> str:
        if self.hypotheses is None:
            return TEMPLATES["single"]
        framed = self.prompts is not None and any(isinstance(prompt, Frame) for prompt in self.prompts)
        return TEMPLATES["framed" if framed else "joint"]

    @property
    def facts(self) -> dict[str, Any]:
        """Everything a vector depends on except the text itself. Prefix reuse and batch sizes are not part of it."""
        return {
            "encoder": self.identity.fingerprint,
            "template": self.template,
            "max_length": self.model.max_length,
            "precision": self.precision,
            "attention": self.model.attention,
        }

    @cached_property
    def key(self) -> str:
        """Names the store's folder of these features: requests that differ in texts, views or tokens only share it."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def digests(self) -> list[bytes]:
        """A text's (or pair's) content address, one per row; behind a prompt or in a frame a text has another."""
        own = text_digests(self.premises, self.hypotheses)
        if self.prompts is None:
            return own
        known = {prompt: _digest(prompt) for prompt in set(self.prompts)}
        before = [known[prompt] for prompt in self.prompts]
        return [hashlib.sha256(prompt + text).digest() for prompt, text in zip(before, own, strict=True)]

    @cached_property
    def beginnings(self) -> list[str]:
        """What each joint pair begins with up to the end of its first text: pairs of one beginning share its tokens."""
        assert self.hypotheses is not None, "a text alone shares its beginning with no other"
        prompts = self.prompts or ("",) * len(self)
        rows = zip(prompts, self.premises, self.hypotheses, strict=True)
        return [prompt.beginning(*texts) if isinstance(prompt, Frame) else texts[0] for prompt, *texts in rows]

    @cached_property
    def unique_rows(self) -> list[int]:
        """The first row of each distinct text, in order."""
        first: dict[bytes, int] = {}
        for row, digest in enumerate(self.digests):
            first.setdefault(digest, row)
        return list(first.values())

    @property
    def dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.precision)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def pinned_device(self) -> DeviceConfig:
        """The device settings with the precision that the key names, whatever this machine's `auto` would be."""
        tree = self.device.model_dump()
        return DeviceConfig.model_validate({**tree, "mixed_precision": _MIXED_PRECISION[self.precision]})

    @property
    def layers(self) -> tuple[int | None, ...]:
        """The encoder's layers that are read; None for its last."""
        of_tokens = self.token_layers if self.with_tokens else ()
        return in_order({*map(layer_of, self.stored_views()), *of_tokens})

    @property
    def token_parts(self) -> tuple[str, ...]:
        """What the store calls the token states that are wanted, a part for each layer."""
        return tuple(token_part(layer) for layer in self.token_layers) if self.with_tokens else ()

    @property
    def token_places(self) -> tuple[int, ...]:
        """Where each of `token_parts` stands among `layers`, which a pass gives side by side."""
        return tuple(self.layers.index(layer) for layer in self.token_layers) if self.with_tokens else ()

    def subset(self, rows: Sequence[int]) -> FeatureRequest:
        """The same request for some of its texts."""
        hypotheses = None if self.hypotheses is None else tuple(self.hypotheses[row] for row in rows)
        prompts = None if self.prompts is None else tuple(self.prompts[row] for row in rows)
        premises = tuple(self.premises[row] for row in rows)
        return replace(self, premises=premises, hypotheses=hypotheses, prompts=prompts)

    @classmethod
    def merged(cls, requests: Sequence[FeatureRequest]) -> FeatureRequest:
        """One request for what several of the same key ask for: each text once, and every view of any of them."""
        first = requests[0]
        assert all(request.key == first.key for request in requests), "only texts that are read the same way"
        by_digest = {digest: (request, row) for request in requests for row, digest in enumerate(request.digests)}
        rows = list(by_digest.values())

        def taken(texts: Callable[[FeatureRequest], tuple[T, ...] | None]) -> tuple[T, ...] | None:
            found = [(texts(request), row) for request, row in rows]
            kept = tuple(each[row] for each, row in found if each is not None)
            assert len(kept) in (0, len(rows)), "texts with prompts and without have digests of different kinds"
            return kept or None

        return replace(
            first.united(requests),
            premises=tuple(request.premises[row] for request, row in rows),
            hypotheses=taken(lambda request: request.hypotheses),
            prompts=taken(lambda request: request.prompts),
        )

    def united(self, others: Sequence[FeatureRequest]) -> FeatureRequest:
        """The same texts, with every view and all token states that any of the others asks for."""
        views = tuple(sorted({view for request in others for view in request.views}))
        layers = {layer for request in others if request.with_tokens for layer in request.token_layers}
        token_layers = in_order(layers) or self.token_layers
        return replace(self, views=views, with_tokens=bool(layers), token_layers=token_layers)

    def stored_views(self) -> tuple[str, ...]:
        """The views one forward pass gives: poolings without parameters, at each k asked for and our own.

        A pooling of the folder's reads texts in a way of its own, so nothing is made beside it but what is asked for.
        """
        if is_native(self.model):
            return tuple(sorted({NATIVE, *self.views}))
        of_layers = tuple(view for view in self.views if layer_of(view) is not None)
        if of_layers == self.views and None not in (self.token_layers if self.with_tokens else ()):
            return of_layers
        widths = sorted({self.model.pooling_k} | {k for _, k in map(split_view, self.views) if k is not None})
        names: list[str] = []
        for name, kind in POOLERS.items():
            if not kind.learned and not kind.of_folder:
                names += [f"{name}:{k}" for k in widths] if uses_k(name) else [name]
        return (*names, *of_layers)


def token_part(layer: int | None) -> str:
    """What the store calls a layer's token states: `tokens` of the last, `tokens@9` of layer 9."""
    return "tokens" if layer is None else f"tokens@{layer}"


def is_token_part(part: str) -> bool:
    return part.partition("@")[0] == "tokens"


def in_order(layers: Collection[int | None]) -> tuple[int | None, ...]:
    """Layers from the lowest to the last, which is None."""
    return (*sorted(layer for layer in layers if layer is not None), *([None] if None in layers else []))


def split_view(view: str) -> tuple[str, int | None]:
    """`first_k:4` and `first_k:4@9` to ("first_k", 4), `mean` to ("mean", None).

    Raises:
        FeatureError: no such pooling, a learned one, or a k that is missing or wrong.
    """
    name, colon, text = view.partition("@")[0].partition(":")
    kinds = {known: kind for known, kind in POOLERS.items() if not kind.learned}
    if name not in kinds:
        raise FeatureError(f"view '{view}': unknown pooling '{name}'{did_you_mean(name, kinds)}")
    if not uses_k(name):
        if colon:
            raise FeatureError(f"view '{view}': {name} takes no k; write '{name}'.")
        return name, None
    if not text.isdecimal() or int(text) < 1:
        raise FeatureError(f"view '{view}': {name} needs a k of 1 or more; write '{name}:4'.")
    return name, int(text)


def layer_of(view: str) -> int | None:
    """`mean@4` to 4; None for the last layer's, whose views are named without it."""
    number = view.partition("@")[2]
    return int(number) if number else None


def view_of_layer(view: str, number: int, depth: int) -> str:
    """`mean` of layer 4 to `mean@4`; of the last layer it is `mean`."""
    return view if number == depth else f"{view}@{number}"


def view_pooler(view: str, hidden_size: int, modules: SentenceModules | None = None) -> Pooler:
    """The pooler that makes a view's vectors from token states; `modules` are the encoder's own, for native pooling."""
    name, k = split_view(view)
    if k is None:
        return build_pooler(name, hidden_size, modules=modules)
    return build_pooler(name, hidden_size, k)


def _digest(prompt: Prompt) -> bytes:
    if isinstance(prompt, Frame):
        return prompt.digest
    return text_digests([prompt], None)[0]


def text_digests(premises: Sequence[str], hypotheses: Sequence[str] | None) -> list[bytes]:
    """One sha256 per row: of the premise, or of both texts' digests; each distinct text is read once."""
    known: dict[str, bytes] = {}

    def digest(text: str) -> bytes:
        found = known.get(text)
        if found is None:
            found = known[text] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return found

    if hypotheses is None:
        return [digest(text) for text in premises]
    sha256 = hashlib.sha256
    pairs = zip(premises, hypotheses, strict=True)
    return [sha256(digest(premise) + digest(hypothesis)).digest() for premise, hypothesis in pairs]


def digest_array(digests: Sequence[bytes]) -> np.ndarray:
    """(n, 32) uint8."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def digest_list(digests_N: np.ndarray) -> list[bytes]:
    raw = np.ascontiguousarray(digests_N).tobytes()
    return [raw[start : start + DIGEST_BYTES] for start in range(0, len(raw), DIGEST_BYTES)]
