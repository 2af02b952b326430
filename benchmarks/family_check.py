"""One encoder family against plain transformers, which gets one unpadded text at a time, straight from the folder.

An answer within 1e-5 of the largest value is equal; a GemmaNliError of one line is a refusal; anything else is wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.tiny_tokenizer import WORDS
from gemma_nli.base.errors import GemmaNliError
from gemma_nli.config import DeviceConfig, FeaturesConfig, ModelConfig
from gemma_nli.features import FeatureRequest, encode, load_for
from gemma_nli.features.request import view_pooler
from gemma_nli.model.adapters import merged_state, trainable_encoder
from gemma_nli.model.encoder import Encoder, Tokens, identify_encoder, load_encoder

CPU = DeviceConfig(device="cpu", mixed_precision="none")
CLOSE = 1e-5
MAX_LENGTH = 96
POSTS = ("sad", "i feel so tired and sad every day", " ".join(WORDS.split()[:30]), WORDS, "my sleep is broken")
CRITERIA = ("depressed mood", "loss of interest in all activities", "fatigue")
PAIRS = tuple((post, criterion) for post in POSTS for criterion in CRITERIA)
COLUMNS = ("alone", "batched", "after a short", "joint", "separate", "prefix reuse", "LoRA", "bidirectional")


@dataclass
class Row:
    """What one family gave: a word per column, and the sentences of its refusals."""

    family: str
    cells: dict[str, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        return [f"{column}: {cell}" for column, cell in self.cells.items() if cell.startswith("WRONG")]


def check(family: str, folder: Path) -> Row:
    """One family through every column; nothing but a mistake of ours is raised."""
    row = Row(family)
    for column, ask in _QUESTIONS.items():
        try:
            cell = ask(folder)
        except GemmaNliError as error:
            cell = "refused" if "\n" not in str(error) else "WRONG: several lines"
            row.sentences[column] = str(error)
        except Exception as error:  # noqa: BLE001 - a traceback is what this looks for
            cell = f"WRONG: {type(error).__name__}"
            row.sentences[column] = " ".join(str(error).split())[:200]
        row.cells[column] = cell
    return row


def _model(folder: Path, **settings: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": str(folder), "max_length": MAX_LENGTH, **settings})


def _tokens(encoder: Encoder) -> Tokens:
    return encoder.tokenize([post for post, _ in PAIRS], [criterion for _, criterion in PAIRS])


def _plain_model(folder: Path) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModel, T5EncoderModel, UMT5EncoderModel

    parts = {"t5": T5EncoderModel, "umt5": UMT5EncoderModel}
    kind = parts.get(AutoConfig.from_pretrained(str(folder)).model_type, AutoModel)
    model: torch.nn.Module = kind.from_pretrained(str(folder), dtype=torch.float32).eval()
    return model.get_submodule("encoder") if kind in parts.values() else model


@torch.no_grad()
def _plain_states(model: torch.nn.Module, tokens: Tokens) -> list[Tensor]:
    """(T, H) states of each row, of a model that is loaded anew for each, for some remember."""
    states = []
    for place, ids in enumerate(tokens.ids):
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if tokens.types is not None:
            inputs["token_type_ids"] = torch.tensor([tokens.types[place]])
        states.append(copy.deepcopy(model)(**inputs).last_hidden_state[0])
    return states


def _verdict(found: list[Tensor], wanted: list[Tensor]) -> str:
    worst = 0.0
    for got, want in zip(found, wanted, strict=True):
        if got.shape != want.shape or not bool(got.isfinite().all()):
            return "WRONG: other shape or not finite"
        worst = max(worst, float((got.float() - want).abs().max() / want.abs().max().clamp(min=1e-6)))
    return "equal" if worst <= CLOSE else f"WRONG: off by {worst:.2g}"


@torch.no_grad()
def _states(encoder: Encoder, tokens: Tokens, batches: list[list[int]]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for rows in batches:
        batch = encoder.collate(tokens, rows)
        for row, h_TH, real_T in zip(rows, encoder(batch), batch["attention_mask"].bool(), strict=True):
            found[row] = h_TH[real_T]
    return [found[row] for row in sorted(found)]


def _in_batches(folder: Path, batches: list[list[int]], before: list[int] | None = None, **settings: object) -> str:
    encoder = load_encoder(_model(folder, **settings), CPU)
    tokens = _tokens(encoder)
    if before is not None:
        _states(encoder, tokens, [before])
    plain = _plain_model(folder)
    if settings.get("attention") == "bidirectional" and not _made_both_ways(folder):
        plain.config.is_causal = False  # type: ignore[union-attr]
    return _verdict(_states(encoder, tokens, batches), _plain_states(plain, tokens))


def _made_both_ways(folder: Path) -> bool:
    return not load_encoder(_model(folder), CPU).is_causal


_EACH = [[row] for row in range(len(PAIRS))]
_MIXED = [[0, 3, 9, 6, 12], [10, 1, 14, 4, 7], [13, 2, 11, 5, 8]]


def _vectors(folder: Path, joint: bool, settings: FeaturesConfig) -> tuple[str, bool]:
    """The feature store's own way, all poolings; and whether a prefix was reused."""
    model = _model(folder)
    posts = tuple(post for post, _ in PAIRS) if joint else (*POSTS, *CRITERIA)
    partners = tuple(criterion for _, criterion in PAIRS) if joint else None
    request = FeatureRequest(model, CPU, identify_encoder(model), posts, partners)
    encoder = load_for(request)
    tokens = encoder.tokenize(posts, partners)
    wanted = [h_TH.unsqueeze(0) for h_TH in _plain_states(_plain_model(folder), tokens)]
    encoded = encode(request, encoder, settings)
    plain = encode(request, encoder, settings.model_copy(update={"prefix_reuse": False}))
    verdicts = []
    for view, vectors_NH in encoded.views.items():
        pool = view_pooler(view, encoder.hidden_size)
        pooled = [pool(h_1TH, torch.ones(1, h_1TH.shape[1]))[0] for h_1TH in wanted]
        verdicts.append(_verdict(list(torch.from_numpy(vectors_NH)), pooled))
    worst = max(verdicts, key=lambda verdict: (verdict != "equal", verdict))
    return worst, encoded.slots < plain.slots


def _joint(folder: Path) -> str:
    return _vectors(folder, True, FeaturesConfig(prefix_reuse=False))[0]


def _separate(folder: Path) -> str:
    return _vectors(folder, False, FeaturesConfig())[0]


def _prefix(folder: Path) -> str:
    found = [_vectors(folder, True, FeaturesConfig(batch_tokens=tokens)) for tokens in (64, 200, 4096)]
    worst = max((verdict for verdict, _ in found), key=lambda verdict: (verdict != "equal", verdict))
    if worst == "equal" and not all(reused for _, reused in found):
        return "plain"
    return worst


def _lora(folder: Path) -> str:
    model = _model(folder, freeze_encoder=False, lora={"rank": 2})
    encoder = trainable_encoder(load_encoder(model, CPU), model).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    plain, changed = _plain_model(folder), merged_state(encoder)
    before = plain.state_dict()
    if all(torch.equal(before[name], tensor) for name, tensor in changed.items() if name in before):
        return "WRONG: no weight changed"
    plain.load_state_dict(changed, strict=False)
    tokens = _tokens(encoder)
    return _verdict(_states(encoder, tokens, _MIXED), _plain_states(plain, tokens))


def _bidirectional(folder: Path) -> str:
    return _in_batches(folder, _MIXED, attention="bidirectional")


_QUESTIONS: dict[str, Callable[[Path], str]] = {
    "alone": lambda folder: _in_batches(folder, _EACH),
    "batched": lambda folder: _in_batches(folder, _MIXED),
    "after a short": lambda folder: _in_batches(folder, [list(range(len(PAIRS)))], before=[0]),
    "joint": _joint,
    "separate": _separate,
    "prefix reuse": _prefix,
    "LoRA": _lora,
    "bidirectional": _bidirectional,
}
assert tuple(_QUESTIONS) == COLUMNS
