"""A text has the states that plain transformers gives it alone, whatever stands beside it and whatever came before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.errors import EncoderError
from gemma_nli.model import encoder as encoder_module
from gemma_nli.model.encoder import Encoder, load_encoder

CPU = DeviceConfig(device="cpu")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = ["sad", "i feel so tired and sad every day nothing is fun anymore", "work was fine but the nights are long"]
FAMILIES = {
    "bert": {},
    "big_bird": {"block_size": 2, "num_random_blocks": 1, "max_position_embeddings": 256},
    "fnet": {},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4, "conv_kernel_size": 3},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    "roberta": {"max_position_embeddings": 130},
}


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path):
    """Folder of a tiny random encoder of a family, with the tokenizer of the tiny BERT."""
    from transformers import AutoConfig

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = made[family] = tmp_path_factory.mktemp(family)
            for path in tiny_bert.glob("tokenizer*"):
                shutil.copy(path, folder)
            torch.manual_seed(3)
            size = len(AutoTokenizer.from_pretrained(str(folder)))
            settings = {"vocab_size": size, "initializer_range": 0.2, **SHAPE, **FAMILIES[family]}
            AutoModel.from_config(AutoConfig.for_model(family, **settings)).save_pretrained(str(folder))
        return made[family]

    return make


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
def test_a_text_has_its_own_states_in_any_company(make_folder, family: str, side: str) -> None:
    folder = make_folder(family)
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


def test_gradients_reach_the_weights_through_rows_of_equal_length(make_folder) -> None:
    encoder = load(make_folder("fnet"))
    assert encoder.manner.padding == ()
    batch = encoder.collate(encoder.tokenize(TEXTS))
    mask_BT1 = batch["attention_mask"].unsqueeze(-1)
    (encoder(batch) * mask_BT1).square().sum().backward()
    together = encoder.model.embeddings.word_embeddings.weight.grad.clone()
    encoder.zero_grad()
    for text in TEXTS:
        encoder(encoder.collate(encoder.tokenize([text]))).square().sum().backward()
    torch.testing.assert_close(together, encoder.model.embeddings.word_embeddings.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "positions"), [("bert", 512), ("opt", 128), ("roberta", 128)])
def test_the_positions_that_an_encoder_really_has(make_folder, family: str, positions: int) -> None:
    folder = make_folder(family)
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
