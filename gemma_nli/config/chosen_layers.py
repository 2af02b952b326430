"""`model.layers`: as it may be written, as it is stored, and as numbers of one encoder's layers.

Written: `last`, a number, a list of numbers, `mix`, or `{mix: [numbers]}`, which is stored as `[mix, numbers]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gemma_nli.base.errors import EncoderError

LAST: Literal["last"] = "last"
MIX: Literal["mix"] = "mix"
Layers: TypeAlias = int | Literal["last", "mix"] | tuple[int | Literal["mix"], ...]
WRITTEN = "write last, a number, a list of numbers, mix, or {mix: [numbers]}"


@dataclass(frozen=True)
class LayerChoice:
    """Layers of one encoder, from 0 (the embeddings) to its last, `depth`; mixed, or side by side in this order."""

    numbers: tuple[int, ...]
    depth: int
    mixed: bool = False

    @property
    def highest(self) -> int:
        return max(self.numbers)

    @property
    def only_last(self) -> bool:
        return self.numbers == (self.depth,)


def as_stored(value: Any) -> Any:
    """What was written, checked as far as no encoder is needed.

    Raises:
        ValueError: quotes it.
    """
    listed = value
    if isinstance(value, Mapping):
        if set(value) != {MIX} or not isinstance(value[MIX], (list, tuple)):
            raise ValueError(f"must say which layers, got {_shown(value)}; {WRITTEN}")
        listed = [MIX, *value[MIX]]
    if isinstance(listed, (list, tuple)):
        mixed = len(listed) > 0 and listed[0] == MIX
        numbers = [_number(item, value) for item in listed[mixed:]]
        if mixed and len(set(numbers)) < 2:
            raise ValueError(f"mix needs two layers or more, got {_shown(value)}; write the number, or mix for all")
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"must name each layer once and one at least, got {_shown(value)}; {WRITTEN}")
        return (MIX, *numbers) if mixed else numbers[0] if len(numbers) == 1 else tuple(numbers)
    return value if isinstance(value, str) and value in (LAST, MIX) else _number(value, value)


def _number(item: Any, value: Any) -> int:
    if isinstance(item, str) and item.removeprefix("-").isdecimal():
        item = int(item)
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, bool) or not isinstance(item, int):
        raise ValueError(f"must be layers' whole numbers, got {_shown(value)}; {WRITTEN}")
    return item


def _shown(value: Any) -> str:
    text = str(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def choose_layers(layers: Layers, depth: int, encoder: str) -> LayerChoice:
    """The layers of an encoder of `depth` layers.

    Raises:
        EncoderError: it lacks one, or two of the numbers are one layer of it; quotes the setting and the depth.
    """
    if layers == LAST:
        return LayerChoice((depth,), depth)
    mixed = layers == MIX or (isinstance(layers, tuple) and layers[0] == MIX)
    if layers == MIX:
        asked = list(range(1, depth + 1))
    else:
        asked = [int(item) for item in (layers if isinstance(layers, tuple) else (layers,)) if item != MIX]
    written = str(layers) if not isinstance(layers, tuple) else f"{{mix: {asked}}}" if mixed else str(asked)
    lacking = [number for number in asked if not -depth <= number <= depth]
    if lacking:
        raise EncoderError(
            f"model.layers: {written} asks for layer {lacking[0]}, but {encoder} has {depth} layers: 1 to {depth}, or "
            f"-1 to -{depth} from the last; 0 is the embeddings."
        )
    numbers = tuple(number if number >= 0 else depth + 1 + number for number in asked)
    if mixed and len(set(numbers)) < 2:
        raise EncoderError(
            f"model.layers: {written} mixes one layer of {encoder}, which has {depth}; mix needs two or more."
        )
    if len(set(numbers)) < len(numbers):
        raise EncoderError(f"model.layers: {written} names a layer of {encoder} twice, which has {depth}.")
    return LayerChoice(numbers, depth, mixed)
