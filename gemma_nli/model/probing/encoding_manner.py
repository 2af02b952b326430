"""How an encoder has to be given its texts, found by running it; signatures, table names and flags are not trusted.

The reference is plain transformers on one text without padding, directly after loading. A text must have the same
states beside a longer one, with padding on either side, in another order, after short and long texts, and again. Where
it does not, `Encoder` gives the model rows of equal length, or one at a time, and undoes a pass's changes to it.

Shapes: B rows, T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError
from gemma_nli.model.probing.position_tables import position_table

if TYPE_CHECKING:
    from gemma_nli.model.encoder import Encoder, Tokens

Side = Literal["right", "left"]
SIDES: tuple[Side, Side] = ("right", "left")
AFFORDABLE_WORK = 6e10
"""Weights times tokens of a test pass on a CPU: a second or two. A GPU takes any."""
LENGTHS = (5, 9, 17, 17, 33)
_ROUNDING = {torch.float32: (2e-5, 1e-3), torch.float16: (5e-3, 4e-2), torch.bfloat16: (3e-2, 8e-2)}
"""Share of the largest value that rounding explains: always, and at most, if rows of equal length differ that much."""


FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
)
"""What third-party models raise if they cannot compute their input."""


@dataclass(frozen=True)
class Manner:
    """What an encoder is passed, and which rows may share a batch.

    Args:
        first_position: the first of the position_ids that are passed; None: none are passed.
        segments: whether token_type_ids are passed.
        padding: sides of a batch on which padding changes no real token's state.
        together: whether rows of equal length may share a batch.
        put_back: whether a pass changes the results of later ones, so that the change is undone.
        width: H of the states.
        positions: how many positions the encoder has; None if unlimited.
        longest: tokens of the longest text that was tested; padding is not trusted in wider batches.
    """

    first_position: int | None = None
    segments: bool = False
    padding: tuple[str, ...] = SIDES
    together: bool = True
    put_back: bool = False
    width: int = 0
    positions: int | None = None
    longest: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "padding": list(self.padding)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Manner:
        return cls(**{**content, "padding": tuple(content["padding"])})


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Undo what passes change in a model besides its weights: plain attributes, modules and buffers that are replaced.

    BigBird switches to full attention permanently once it has seen a short text; dynamic rotary embeddings keep the
    frequencies of a long one.
    """
    kinds = (str, int, float, bool, type(None))
    before = [
        (m, {name: value for name, value in vars(m).items() if isinstance(value, kinds)}) for m in model.modules()
    ]
    parts: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module, _ in before:
        parts += [(module._modules, dict(module._modules)), (module._buffers, dict(module._buffers))]
    try:
        yield
    finally:
        for module, plain in before:
            vars(module).update(plain)
        for part, was in parts:
            part.clear()
            part.update(was)


def find_manner(encoder: Encoder) -> Manner:
    """Test the encoder, in eval mode, on a few texts of different lengths.

    Raises:
        EncoderError: it cannot encode a text, gives a text different states each time, or gives all texts the same.
    """
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), unchanged(encoder.model):
        return _Trial(encoder).manner()


class _Trial:
    """One encoder under test; `wanted` holds the states that each row of `tokens` has alone."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.plain = encoder, Manner(put_back=True)
        self.least, self.most = _ROUNDING[encoder.dtype]
        ids, draw = encoder.ordinary_ids(), torch.Generator().manual_seed(0)
        lengths = [min(length, encoder.max_length) for length in LENGTHS]
        rows = [[ids[int(i)] for i in torch.randint(len(ids), (length,), generator=draw)] for length in lengths]
        self.tokens = _tokens(rows)
        self.table = position_table(lambda: self._alone(1), lengths[1])
        positions = None if self.table is None else self.table[1] - self.table[0]
        longest = affordable_tokens(encoder, min(encoder.max_length, positions or encoder.max_length))
        if longest > lengths[-1]:
            rows.append([ids[int(i)] for i in torch.randint(len(ids), (longest,), generator=draw)])
            self.tokens = _tokens(rows)
        self.plain = replace(self.plain, segments=self._takes_segments())
        self.wanted = [self._alone(place) for place in range(len(rows))]
        width = self.wanted[0].shape[-1]
        self.plain = replace(self.plain, width=width, positions=positions, longest=len(rows[-1]))

    def manner(self) -> Manner:
        """The one that lets most rows share a batch, of those that give each row the same states as alone."""
        if torch.equal(self.wanted[2], self.wanted[3]):
            raise EncoderError(
                f"model.name: {self.encoder.identity.name} gives all texts the same states: its weights are zero or "
                "damaged; copy or download the model again."
            )
        with unchanged(self.encoder.model):
            put_back = not self._again(replace(self.plain, put_back=False))
        if put_back and not self._again(self.plain):
            raise EncoderError(
                f"model.name: {self.encoder.identity.name} gives a text different states each time it is "
                "encoded (it is random); use another encoder."
            )
        manner = replace(self.plain, put_back=put_back)
        rounding = self._off([2, 3], manner)
        if rounding > self.most:
            return replace(manner, padding=(), together=False)
        self.least = tolerance(self.encoder.dtype, rounding)
        found = [self._padded(replace(manner, first_position=first)) for first in self._first_positions()]
        return max(found, key=lambda each: len(each.padding))  # the first of the best

    def _again(self, manner: Manner) -> bool:
        """Whether short texts, long ones after short ones and short ones after long ones keep their states."""
        last = len(self.wanted) - 1
        order = [*range(last + 1), min(4, last)]
        return all(self._off([place], manner) <= self.least for place in order)

    def _first_positions(self) -> list[int | None]:
        if "position_ids" not in self.encoder.takes:
            return [None]
        first = 0 if self.table is None else self.table[0]
        return [*dict.fromkeys([first, 0]), None]

    def _padded(self, manner: Manner) -> Manner:
        """With the sides on which padding changes nothing; none if a text alone already has different states."""
        if manner.first_position is not None and max(self._off([1], manner), self._off([4], manner)) > self.least:
            return replace(manner, first_position=None, padding=())
        last = len(self.wanted) - 1
        short = list(range(len(LENGTHS)))
        neighbours = {"right": [short, short[::-1], [last, 3]], "left": [short]}
        sides = [
            side for side in SIDES if all(self._off(rows, manner, side) <= self.least for rows in neighbours[side])
        ]
        return replace(manner, padding=tuple(sides))

    def _off(self, rows: list[int], manner: Manner, side: Side = "right") -> float:
        """How far the rows' states in one batch are from those alone, relative to the largest value; inf if it
        fails.
        """
        batch = self.encoder.collate(self.tokens, rows, side)
        try:
            h_BTH = self.encoder.run(batch, manner)
        except torch.OutOfMemoryError:
            raise
        except FAILURES:  # it does not accept such a batch
            return float("inf")
        real_BT = batch["attention_mask"].bool()
        found = [h_TH[real_T] for h_TH, real_T in zip(h_BTH, real_BT, strict=True)]
        return max(distance(h_TH, self.wanted[row]) for h_TH, row in zip(found, rows, strict=True))

    def _alone(self, place: int) -> Tensor:
        """(T, H) states of a row, as plain transformers gives them."""
        try:
            h_BTH = self.encoder.run(self.encoder.collate(self.tokens, [place]), self.plain)
            return h_BTH[0]
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            raise self._refusal(place, error) from None

    def _refusal(self, place: int, error: Exception) -> EncoderError:
        name, length = self.encoder.identity.name, int(self.tokens.lengths[place])
        low, high = 0, length
        while high - low > 1:
            middle = (low + high) // 2
            batch = self.encoder.collate(_tokens([self.tokens.ids[place][:middle]]))
            try:
                self.encoder.run(batch, self.plain)
                low = middle
            except FAILURES:
                high = middle
        if low:
            asked = self.encoder.max_length
            return EncoderError(f"model.max_length: {asked} tokens, but {name} takes at most {low}; set {low} or less.")
        reason = " ".join(str(error).split())[:200].rstrip(".")
        return EncoderError(f"model.name: {name} cannot encode a text: {type(error).__name__}: {reason}.")

    def _takes_segments(self) -> bool:
        """Whether the tokenizer makes segment ids that this model should get.

        A tokenizer that needs them lists them among the model's inputs. Many, saved by a general class, do not,
        although they make them: they are passed if the model gives the same states for segment 0 as for none.
        """
        if "token_type_ids" not in self.encoder.takes:
            return False
        tokenizer = self.encoder.tokenizer
        types = tokenizer(["i feel tired"], ["fatigue"], return_token_type_ids=True).get("token_type_ids")
        if not types:
            return False
        batch = self.encoder.collate(self.tokens, [1])
        with_segments = replace(self.plain, segments=True)
        try:
            none, halves = (self.encoder.run(batch, manner)[0] for manner in (self.plain, with_segments))
            zeros = self.encoder.run({**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}, with_segments)[
                0
            ]
        except (IndexError, RuntimeError):  # a table of one row, RoBERTa's
            return False
        if "token_type_ids" in tokenizer.model_input_names:
            return True
        return max(types[0]) > 0 and distance(zeros, none) <= self.least < distance(halves, none)


def _tokens(rows: list[list[int]]) -> Tokens:
    """Rows whose second half is another segment."""
    from gemma_nli.model.encoder import Tokens

    return Tokens(rows, [[0] * (len(row) // 2) + [1] * (len(row) - len(row) // 2) for row in rows])


def affordable_tokens(encoder: Encoder, length: int) -> int:
    """`length`, or how many tokens a probe may pass through this encoder on a CPU."""
    if encoder.device.type == "cuda":
        return length
    work = sum(p.numel() for p in encoder.model.parameters()) - encoder.model.get_input_embeddings().weight.numel()
    return min(length, int(AFFORDABLE_WORK / max(1, work)))


def tolerance(dtype: torch.dtype, rounding: float) -> float:
    """How far apart states may be, relative to their largest value, if equal rows differ by `rounding`."""
    least, most = _ROUNDING[dtype]
    return min(max(least, 10 * rounding), most)


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of states relative to their largest value; inf if some are not finite."""
    found, wanted = found.float(), wanted.float()
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))
