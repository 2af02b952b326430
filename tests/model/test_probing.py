"""A text has the states that plain transformers gives it alone, whatever stands beside it and whatever came before."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig, RunConfig
from gemma_nli.model import encoder as encoder_module
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder
from gemma_nli.model.loading.longest_text import check_max_length, positions_held

pytestmark = pytest.mark.own_probes

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


@torch.no_grad()
def test_texts_longer_than_could_be_tried_are_given_no_company(tiny_encoder, monkeypatch) -> None:
    """This BigBird takes full attention for good after a text of 56 tokens or less; none longer than 33 was tried."""
    monkeypatch.setattr("gemma_nli.model.probing.encoding_manner.AFFORDABLE_WORK", 0)
    folder = tiny_encoder("big_bird", block_size=8)
    encoder = load(folder, max_length=128)
    assert encoder.manner.longest < 56
    assert set(encoder.manner.padding) == {"left", "right"}
    tokens = encoder.tokenize(["sad", TEXTS[1] * 2, TEXTS[1] * 4, TEXTS[1] * 6])
    wanted = [plainly(folder, encoder, row, [0] * len(row)) for row in tokens.ids]
    for rows in ([0], [3, 2, 1, 0], [0, 1], [3]):
        batch = encoder.collate(tokens, rows)
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


@pytest.mark.parametrize("family", [*FAMILIES, "distilbert", "esm", "mpnet", "xlm-roberta", "t5", "xlm"])
def test_the_files_alone_never_tell_fewer_positions_than_there_are(tiny_encoder, family: str) -> None:
    folder = tiny_encoder(family)
    held, found = positions_held(family, folder), load(folder).manner.positions
    assert held is None or held >= found
    if held is not None:
        check_max_length(ModelConfig(name=str(folder), max_length=held))
        with pytest.raises(EncoderError, match=rf"max_length: {held + 1} tokens, but .* has {held} positions"):
            check_max_length(ModelConfig(name=str(folder), max_length=held + 1))


@pytest.mark.parametrize(
    ("family", "zeroed"), [("bert", ""), ("bert", "word_embeddings"), ("llama", ""), ("llama", "embed_tokens")]
)
def test_an_encoder_that_gives_all_texts_the_same_states_is_refused(tiny_encoder, tmp_path, family, zeroed) -> None:
    folder = shutil.copytree(tiny_encoder(family), tmp_path / family)
    weights = load_file(folder / "model.safetensors")
    empty = {name: torch.zeros_like(weight) for name, weight in weights.items() if zeroed in name}
    save_file(weights | empty, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="gives all texts the same states: its weights are zero"):
        load(folder)


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


def of_the_files(folder: Path) -> str:
    """The fingerprint that versions before the probe gave a folder."""
    names = sorted(["config.json", "model.safetensors", *(path.name for path in folder.glob("tokenizer*.json"))])
    lines = [f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint_of(folder: Path) -> str:
    return identify_encoder(ModelConfig(name=str(folder))).fingerprint


def test_what_was_stored_of_an_encoder_is_read_again_only_where_it_was_right(tiny_encoder) -> None:
    for family in ("bert", "gemma3_text", "llama"):
        assert fingerprint_of(tiny_encoder(family)) == of_the_files(tiny_encoder(family))
    for family in ("fnet", "big_bird", "falcon_h1", "llama, longrope"):
        assert fingerprint_of(tiny_encoder(family)) != of_the_files(tiny_encoder(family))


def test_a_bundle_trained_on_other_states_is_not_served(tiny_encoder, tmp_path) -> None:
    model = {"model.name": str(tiny_encoder("nystromformer")), "model.max_length": 64}
    config = RunConfig().with_settings({**model, "device.device": "cpu"})
    classifier = PairClassifier(load_encoder(config.model, CPU), config.model)
    classifier.reset(torch.Generator().manual_seed(0))
    folder = save_bundle(tmp_path / "b", config, classifier, 0.5, {})
    load_bundle(folder)
    record = json.loads((folder / "bundle.json").read_text())
    record["encoder"]["fingerprint"] = of_the_files(folder / "encoder")
    (folder / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(EncoderError, match=r"gave this kind of encoder different states .*; train it again\.$"):
        load_bundle(folder)


def named(folder: Path, at: Path, names: list[str]) -> Path:
    """The encoder with a tokenizer whose settings say which inputs its model has."""
    again = Path(shutil.copytree(folder, at))
    settings = json.loads((again / "tokenizer_config.json").read_text())
    (again / "tokenizer_config.json").write_text(json.dumps({**settings, "model_input_names": names}))
    return again


@pytest.mark.parametrize(
    ("family", "says", "passed"),
    [
        ("bert", True, True),
        ("bert", False, True),  # left out by mistake: the model has two segments
        ("xlnet", True, True),
        ("gpt2", False, False),  # takes them, as words
        ("roberta", True, False),  # has one segment: the second is past its table
        ("distilbert", True, False),
    ],
)
@torch.no_grad()
def test_segments_go_to_models_whose_tokenizer_makes_them(tiny_encoder, tmp_path, family, says, passed) -> None:
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if says else [])]
    kind = {"type_vocab_size": 1} if family == "roberta" else {}
    folder = named(tiny_encoder(family, **kind), tmp_path / family, names)
    shutil.copy(tiny_encoder("bert") / "tokenizer.json", folder)
    encoder = load(folder)
    tokens = encoder.tokenize([TEXTS[0]], ["mood"])
    assert (tokens.types is not None) == passed
    inputs = AutoTokenizer.from_pretrained(str(folder))([TEXTS[0]], ["mood"], return_token_type_ids=True)
    types = inputs["token_type_ids"][0] if passed else None
    wanted = plainly(folder, encoder, inputs["input_ids"][0], types)
    assert (encoder(encoder.collate(tokens))[0] - wanted).abs().max() <= 1e-5 * wanted.abs().max()
