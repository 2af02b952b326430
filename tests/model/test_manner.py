"""A text has the states that plain transformers gives it alone, whatever stands beside it and whatever came before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.errors import EncoderError
from gemma_nli.model import encoder as encoder_module
from gemma_nli.model.encoder import Encoder, load_encoder

CPU = DeviceConfig(device="cpu")
TEXTS = ["sad", "i feel so tired and sad every day nothing is fun anymore", "work was fine but the nights are long"]
FAMILIES = (
    "bert", "big_bird", "convbert", "fnet", "funnel", "gpt2", "llama, dynamic rope", "llama, longrope", "mobilebert",
    "nystromformer", "opt", "roberta", "xlnet",
)  # fmt: skip


def load(folder: Path, **settings: object) -> Encoder:
    return load_encoder(ModelConfig.model_validate({"name": str(folder), "max_length": 64, **settings}), CPU)


@torch.no_grad()
def plainly(folder: Path, encoder: Encoder, row: list[int], types: list[int] | None) -> torch.Tensor:
    """Transformers itself, straight from the folder."""
    model = AutoModel.from_pretrained(str(folder)).eval()
    batch = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
    if types is not None:
        batch["token_type_ids"] = torch.tensor([types])
    return model(**batch).last_hidden_state[0]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_text_has_its_own_states_in_any_company(tiny_encoder, family: str, side: str) -> None:
    folder = tiny_encoder(family)
    encoder = load(folder)
    tokens = encoder.tokenize([*TEXTS, TEXTS[1] * 3], ["mood", "fatigue", "guilt", "mood"])
    wanted = [
        plainly(folder, encoder, row, None if tokens.types is None else tokens.types[place])
        for place, row in enumerate(tokens.ids)
    ]
    for rows in ([0], [3], [0, 1, 2, 3], [3, 0], [2], [3, 1]):
        batch = encoder.collate(tokens, rows, side)  # type: ignore[arg-type]
        for row, h_TH, real_T in zip(rows, encoder(batch), batch["attention_mask"].bool(), strict=True):
            assert (h_TH[real_T] - wanted[row]).abs().max() <= 1e-5 * wanted[row].abs().max()


def test_gradients_reach_the_weights_through_rows_of_equal_length(tiny_encoder) -> None:
    encoder = load(tiny_encoder("fnet"))
    assert encoder.manner.padding == ()
    batch = encoder.collate(encoder.tokenize(TEXTS))
    mask_BT1 = batch["attention_mask"].unsqueeze(-1)
    (encoder(batch) * mask_BT1).square().sum().backward()
    together = encoder.model.embeddings.word_embeddings.weight.grad.clone()
    encoder.zero_grad()
    for text in TEXTS:
        encoder(encoder.collate(encoder.tokenize([text]))).square().sum().backward()
    torch.testing.assert_close(together, encoder.model.embeddings.word_embeddings.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "positions"), [("bert", 256), ("opt", 256), ("roberta", 255)])
def test_the_positions_that_an_encoder_really_has(tiny_encoder, family: str, positions: int) -> None:
    folder = tiny_encoder(family)
    encoder = load(folder, max_length=positions)
    assert encoder.manner.positions == positions
    encoder(encoder.collate(encoder.tokenize([TEXTS[1] * 99])))
    with pytest.raises(EncoderError, match=rf"max_length: {positions + 1} tokens, but .* has {positions} positions"):
        load(folder, max_length=positions + 1)


def test_an_encoder_is_tried_once_and_what_was_found_is_kept(tiny_bert, monkeypatch, tmp_path) -> None:
    first = load(tiny_bert).manner

    def never(encoder: Encoder):
        raise AssertionError("tried again")

    monkeypatch.setattr(encoder_module, "find_manner", never)
    assert load(tiny_bert).manner == first
    for changed in ({"max_length": 65}, {"attention": "bidirectional"}):
        with pytest.raises(AssertionError, match="tried again"):
            load(tiny_bert, **changed)
    again = shutil.copytree(tiny_bert, tmp_path / "again")
    settings = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-3}))
    with pytest.raises(AssertionError, match="tried again"):
        load(again)


def test_notes_that_are_damaged_or_cannot_be_kept_cost_the_probe_again(tiny_bert, monkeypatch, tmp_path) -> None:
    first = load(tiny_bert)
    assert first.notes is not None
    first.notes.path.write_text('{"found"')
    assert load(tiny_bert).manner == first.manner
    assert json.loads(first.notes.path.read_text())["found"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "file"))
    assert load(tiny_bert).manner == first.manner
