"""Encoders: what they see, how they tokenise and pad, which one they are, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gemma_nli.base.errors import ConfigError, EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model import demo_weights
from gemma_nli.model.attention import sees_ahead
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder, resolve_device, resolve_precision

CPU = DeviceConfig(device="cpu")
KINDS = ["tiny_gemma2", "tiny_gemma3", "tiny_bert"]
GEMMAS = KINDS[:2]
POST = "i feel so tired and sad every day nothing is fun anymore my sleep is broken"


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def load(folder: Path, **settings: object) -> Encoder:
    return load_encoder(ModelConfig.model_validate({"name": str(folder), "max_length": 64, **settings}), CPU)


@torch.no_grad()
def early_states_move(encoder: Encoder, left: int, right: int) -> bool:
    """The evidence itself, apart from the library's probe: 20 tokens (past the window of 8), the last one changed."""
    ids = torch.arange(40, 60).view(1, -1)
    changed = ids.clone()
    changed[0, -1] = 90
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
    padded = (torch.nn.functional.pad(i, (left, right)) for i in (ids, changed))
    a, b = (encoder({"input_ids": i, "attention_mask": mask}) for i in padded)
    return not torch.equal(a[0, left : left + 19], b[0, left : left + 19])


@pytest.mark.parametrize(("left", "right"), [(0, 0), (5, 0), (0, 5)])
@pytest.mark.parametrize("folder", GEMMAS, indirect=True)
def test_a_later_token_changes_an_earlier_state_only_when_bidirectional(folder: Path, left: int, right: int) -> None:
    assert early_states_move(load(folder, attention="bidirectional"), left, right)
    assert not early_states_move(load(folder, attention="causal"), left, right)
    assert not early_states_move(load(folder), left, right)


@pytest.mark.parametrize("folder", GEMMAS, indirect=True)
def test_bidirectional_sliding_layers_keep_their_window(folder: Path) -> None:
    encoder = load(folder, attention="bidirectional")
    encoder.model.layers = encoder.model.layers[:1]  # the sliding layer alone, window 8
    encoder.model.config.num_hidden_layers = 1
    ids = torch.arange(40, 70).view(1, -1)
    changed = ids.clone()
    changed[0, -1] = 90
    mask = torch.ones_like(ids)
    with torch.no_grad():
        a, b = (encoder({"input_ids": i, "attention_mask": mask}) for i in (ids, changed))
    moved = (a != b).any(-1)[0]
    assert moved[-5:].all()
    assert not moved[:15].any()


@pytest.mark.parametrize("folder", GEMMAS, indirect=True)
def test_is_causal_is_found_by_looking_not_by_a_flag(folder: Path) -> None:
    encoder = load(folder)
    assert encoder.is_causal
    encoder.model.config.is_causal = False
    for module in encoder.model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    assert not encoder.is_causal


def test_a_decoder_that_was_made_to_see_both_ways_can_be_turned_back(tiny_gemma3: Path, tmp_path: Path) -> None:
    opened = Path(shutil.copytree(tiny_gemma3, tmp_path / "opened"))  # as EmbeddingGemma is
    settings = json.loads((opened / "config.json").read_text())
    (opened / "config.json").write_text(json.dumps({**settings, "use_bidirectional_attention": True}))
    assert not load(opened).is_causal
    assert not load(opened, attention="bidirectional").is_causal
    assert load(opened, attention="causal").is_causal


def test_a_flag_that_does_nothing_is_caught(tiny_gemma2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_silent_flag(model: torch.nn.Module, causal: bool) -> None:
        model.config.use_bidirectional_attention = not causal  # type: ignore[union-attr]

    monkeypatch.setattr("gemma_nli.model.attention._switch", only_the_silent_flag)
    with pytest.raises(EncoderError, match=r"bidirectional was requested, but a probe shows"):
        load(tiny_gemma2, attention="bidirectional")


def test_a_half_done_switch_is_caught_where_padding_hides_it() -> None:
    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = ids.float().unsqueeze(-1).repeat(1, 1, 4)
        return h.cumsum(1) if mask.all() else h + h.sum(1, keepdim=True)

    with pytest.raises(EncoderError, match=r"backwards only without padding, both ways padded"):
        sees_ahead(states, list(range(5, 100)))


def test_states_that_overflow_are_refused() -> None:
    with pytest.raises(EncoderError, match=r"not finite .*=bf16"):
        sees_ahead(lambda ids, mask: torch.full((*ids.shape, 4), float("inf")), list(range(5, 100)))


def test_bert_is_bidirectional_already_and_cannot_be_causal(tiny_bert: Path) -> None:
    plain, asked = load(tiny_bert), load(tiny_bert, attention="bidirectional")
    batch = plain.collate(plain.tokenize([POST]))
    assert not plain.is_causal
    assert torch.equal(plain(batch), asked(batch))
    with pytest.raises(EncoderError, match=r"model.attention: .* cannot be causal; set model.attention=auto"):
        load(tiny_bert, attention="causal")


@pytest.mark.parametrize("attention", ["auto", "bidirectional"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_padding_never_changes_the_states_of_real_tokens(folder: Path, side: str, attention: str) -> None:
    encoder = load(folder, attention=attention)
    tokens = encoder.tokenize([POST, "sad", POST * 3], ["loss of interest", "mood", ""])
    batch = encoder.collate(tokens, side=side)  # type: ignore[arg-type]
    with torch.no_grad():
        together = encoder(batch)
        for row in range(3):
            alone = encoder(encoder.collate(tokens, [row]))[0]
            real = together[row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(real, alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_rows_come_out_as_asked_and_padded_with_a_known_id(folder: Path) -> None:
    encoder = load(folder)
    tokens = encoder.tokenize([POST, "sad", "tired"], ["mood", "mood", "fatigue"])
    assert tokens.lengths.tolist() == [len(row) for row in tokens.ids]
    batch = encoder.collate(tokens, np.array([2, 1]))
    assert batch["input_ids"].shape == (2, max(tokens.lengths[1:]))
    assert batch["input_ids"][0, : tokens.lengths[2]].tolist() == tokens.ids[2]
    left = encoder.collate(tokens, [1, 0], side="left")
    assert left["attention_mask"].sum(1).tolist() == [tokens.lengths[1], tokens.lengths[0]]
    assert left["input_ids"][0, -tokens.lengths[1] :].tolist() == tokens.ids[1]
    assert (left["input_ids"][0, : -tokens.lengths[1]] == encoder.pad_id).all()


def test_a_pair_is_joined_the_tokenizers_own_way(tiny_bert: Path, tiny_gemma2: Path) -> None:
    bert, gemma = load(tiny_bert), load(tiny_gemma2)
    tokens = bert.tokenize(["sad"], ["mood"])
    assert tokens.types is not None
    assert tokens.ids[0].count(bert.tokenizer.sep_token_id) == 2
    assert tokens.types[0][0] == 0
    assert tokens.types[0][-1] == 1
    pair = gemma.tokenize(["sad"], ["mood"]).ids[0]
    assert gemma.tokenize(["sad"], ["mood"]).types is None
    assert pair == gemma.tokenize(["sad"]).ids[0] + gemma.tokenize(["mood"]).ids[0]


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_the_post_is_cut_first_and_the_criterion_only_when_it_fills_all(folder: Path) -> None:
    encoder = load(folder, max_length=24)
    criterion = "loss of interest in all activities"
    premises, hypotheses = [POST * 9, POST * 9, "sad", ""], [criterion, POST * 9, criterion, POST * 9]
    cut, both, short, empty = encoder.tokenize(premises, hypotheses).ids
    assert len(cut) == len(both) == len(empty) == 24
    assert cut[-8:] == short[-8:]
    assert both[:4] == cut[:4]
    assert len(short) < 24
    assert max(map(len, encoder.tokenize([POST * 9]).ids)) == 24


@pytest.mark.parametrize("folder", KINDS, indirect=True)
def test_no_row_is_ever_all_padding(folder: Path) -> None:
    encoder = load(folder)
    encoder.tokenizer.backend_tokenizer.post_processor = None  # no special tokens, as GPT-2's
    tokens = encoder.tokenize(["", "sad", ""], ["", "", ""])
    assert (tokens.lengths >= 1).all()
    assert encoder.collate(tokens)["attention_mask"].any(1).all()
    assert torch.isfinite(encoder(encoder.collate(tokens))).all()
    assert len(encoder.tokenize([])) == 0


def test_tokens_past_the_embedding_table_become_unknown(tiny_gemma3: Path) -> None:
    encoder = load(tiny_gemma3)
    encoder.tokenizer.add_tokens(["<image_soft_token>"])
    encoder.tokenizer.pad_token = "<image_soft_token>"
    again = Encoder(encoder.model, encoder.tokenizer, 64, encoder.identity, tiny_gemma3)
    tokens = again.tokenize(["sad <image_soft_token> mood"])
    assert max(tokens.ids[0]) < again.model.config.vocab_size
    assert again.tokenizer.unk_token_id in tokens.ids[0]
    assert again.pad_id == again.tokenizer.eos_token_id


def test_the_identity_follows_the_content_not_the_place(tiny_bert: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_bert, copy)
    first, second = (identify_encoder(ModelConfig(name=str(f))) for f in (tiny_bert, copy))
    assert first.fingerprint == second.fingerprint
    assert first.revision is None
    (copy / "README.md").write_text("a remark")
    assert identify_encoder(ModelConfig(name=str(copy))).fingerprint == first.fingerprint
    seen = {first.fingerprint}
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7] += 1
    save_file(weights, copy / "model.safetensors")
    seen.add(identify_encoder(ModelConfig(name=str(copy))).fingerprint)
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-3}))
    seen.add(identify_encoder(ModelConfig(name=str(copy))).fingerprint)
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    seen.add(identify_encoder(ModelConfig(name=str(copy))).fingerprint)
    assert len(seen) == 4


def test_a_hub_id_is_read_from_the_local_cache(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_bert, tmp_path / "models--org--tiny-bert" / "snapshots" / commit)
    (tmp_path / "models--org--tiny-bert" / "refs").mkdir()
    (tmp_path / "models--org--tiny-bert" / "refs" / "main").write_text(commit)
    identity = identify_encoder(ModelConfig(name="org/tiny-bert"))
    assert identity.revision == commit
    assert identity.fingerprint == identify_encoder(ModelConfig(name=str(tiny_bert))).fingerprint
    assert load_encoder(ModelConfig(name="org/tiny-bert"), CPU).identity == identity
    with pytest.raises(EncoderError, match=r"org/tinybert is neither a folder .* did you mean 'org/tiny-bert'"):
        identify_encoder(ModelConfig(name="org/tinybert"))


def test_a_missing_folder_is_told_with_the_nearest_one(tiny_bert: Path) -> None:
    with pytest.raises(EncoderError, match=r"tiny_bret: no such folder; did you mean 'tiny_bert'\?"):
        identify_encoder(ModelConfig(name=str(tiny_bert.with_name("tiny_bret"))))


def test_what_cannot_be_read_safely_or_wholly_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(tiny_bert, tmp_path / name))

    pickled = broken("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    damaged = broken("damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:1000])
    partly = broken("partly")
    weights = load_file(partly / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1.output" not in k}, partly / "model.safetensors")
    bare = broken("bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    adapter = broken("adapter")
    (adapter / "adapter_config.json").write_text("{}")
    for folder, words in [
        (pickled, "pickled weights are not read"),
        (damaged, "damaged|cannot be loaded"),
        (partly, "its files lack 4 of its weights"),
        (bare, "no tokenizer files"),
        (adapter, "contains an adapter"),
    ]:
        with pytest.raises(EncoderError, match=words):
            load(folder)


def test_kernels_an_encoder_does_not_take_are_refused(tiny_gemma2: Path, tiny_gemma3: Path) -> None:
    assert load(tiny_gemma2).model.config._attn_implementation == "eager"
    assert load(tiny_gemma3).model.config._attn_implementation == "sdpa"
    with pytest.raises(EncoderError, match="flash_attention_2 needs the package flash-attn"):
        load(tiny_gemma3, attn_implementation="flash_attention_2")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load(tiny_gemma2, attn_implementation="sdpa")


def test_more_tokens_than_learned_positions_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(EncoderError, match=r"max_length: 513 tokens, but .* has 512 positions"):
        load(tiny_bert, max_length=513)


def test_device_and_precision_are_resolved_or_refused() -> None:
    cpu = torch.device("cpu")
    assert resolve_device(CPU) == cpu
    assert resolve_precision(DeviceConfig(), cpu) == torch.float32
    assert resolve_precision(DeviceConfig(mixed_precision="none"), cpu) == torch.float32
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        resolve_precision(DeviceConfig(mixed_precision="fp16"), cpu)
    with pytest.raises(ConfigError, match=r"cuda:97, but this process sees \d+ GPUs"):
        resolve_device(DeviceConfig(device="cuda:97"))


def test_the_real_minilm_tells_near_from_far(minilm: Path) -> None:
    encoder = load(minilm)
    tokens = encoder.tokenize(["I cannot sleep at night", "insomnia keeps me awake", "the train was late"])
    batch = encoder.collate(tokens)
    with torch.no_grad():
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = torch.nn.functional.normalize((encoder(batch) * mask).sum(1) / mask.sum(1))
    assert encoder.hidden_size == 384
    assert mean[0] @ mean[1] > mean[0] @ mean[2] + 0.3


def test_demo_weights_that_differ_or_are_missing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_weights, "SHA256", "0" * 64)
    with pytest.raises(EncoderError, match=r"sha256 is 53aa51172d14.*, expected 000"):
        demo_weights.minilm_folder()
    monkeypatch.setattr(demo_weights, "PACKAGE", "gt-no-such-package")
    with pytest.raises(EncoderError, match=r"gemma-nli\[demo\]"):
        demo_weights.minilm_folder()
