"""Weights that are not those config.json describes are refused in a sentence; the same weights under heads are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.encoder import Encoder, load_encoder
from gemma_nli.model.loading.network import sizes

CPU = DeviceConfig(device="cpu")
Weights = dict[str, Tensor]
QUERY = "encoder.layer.0.attention.self.query.weight"
EMBEDDINGS = "embeddings.word_embeddings.weight"


def load(folder: Path) -> Encoder:
    return load_encoder(ModelConfig(name=str(folder), max_length=64), CPU)


def changed(source: Path, target: Path, change: Callable[[Weights], Weights | None], **settings: Any) -> Path:
    """A copy of a model's folder with other weights and settings."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    given = change(weights)
    save_file(weights if given is None else given, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **settings}))
    return target


def as_they_are(weights: Weights) -> None:
    pass


def in_8_bits(weights: Weights, kind: torch.dtype, scale: str, key: str = QUERY) -> None:
    step = weights[key].abs().max() / 100
    weights[key] = (weights[key] / step).to(kind)
    if scale:
        weights[key.removesuffix("weight") + scale] = step.view(1)


def scaled_floats(weights: Weights, scale: str) -> None:
    weights[QUERY] = weights[QUERY] * 100
    weights[QUERY.removesuffix("weight") + scale] = torch.full((32, 1), 0.01)


def third_layer(weights: Weights) -> None:
    weights.update({k.replace("layer.1.", "layer.2."): v.clone() for k, v in weights.items() if "layer.1." in k})


def adapters(weights: Weights) -> None:
    weights[QUERY.replace("weight", "lora_A.default.weight")] = torch.randn(2, 32)


def renamed(weights: Weights, before: str, after: str) -> Weights:
    return {k.replace(before, after, 1): v for k, v in weights.items()}


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda w: in_8_bits(w, torch.float8_e4m3fn, "weight_scale"), {}, r"1 of its tensors are F8_E4M3, .*query"),
        (lambda w: in_8_bits(w, torch.float8_e5m2, "weight_scale_inv"), {}, r"F8_E5M2.*no quantization_config"),
        (lambda w: in_8_bits(w, torch.float8_e4m3fn, ""), {}, r"F8_E4M3.*save the model in float32 or bfloat16"),
        (lambda w: in_8_bits(w, torch.int8, "SCB"), {}, r"are I8, first encoder\.layer\.0.*query\.weight"),
        (lambda w: in_8_bits(w, torch.uint8, "weight.absmax", EMBEDDINGS), {}, r"U8, first embeddings\.word"),
        (lambda w: in_8_bits(w, torch.int64, ""), {}, r"I64"),
        (lambda w: scaled_floats(w, "weight_scale_inv"), {}, r"1 weights .*query\.weight_scale_inv; they are sca"),
        (lambda w: scaled_floats(w, "scales"), {}, r"query\.scales; they are scales of quantized weights"),
        (lambda w: scaled_floats(w, "weight.absmax"), {}, r"absmax; they are scales"),
        (as_they_are, {"num_hidden_layers": 1}, r"no place for, first encoder\.layer\.1\..*num_hidden_layers"),
        (third_layer, {}, r"16 weights .* first encoder\.layer\.2\."),
        (lambda w: renamed(w, "", "bert."), {"num_hidden_layers": 1}, r"first bert\.encoder\.layer\.1\."),
        (as_they_are, {"num_hidden_layers": 3}, r"lack 16 of its weights, first encoder\.layer\.2\."),
        (as_they_are, {"vocab_size": 77}, r"1 weights have a different shape .*\[420, 32\], not \[77, 32\]"),
        (lambda w: w.update({"embeddings.dialect.weight": w[EMBEDDINGS].clone()}), {}, r"first embeddings\.dialect"),
        (adapters, {}, r"lora_A.*they are adapters; merge them"),
        (lambda w: renamed(w, "", "_orig_mod."), {}, r"lack \d+ of its weights.*begin with '_orig_mod\.'"),
        (lambda w: renamed(w, "", "base_model.model."), {}, r"begin with 'base_model\.model\.'"),
        (lambda w: renamed(w, "", "bert."), {"model_type": "roberta", "architectures": None}, r"lack.*different model"),
        (as_they_are, {"model_type": "roberta"}, r"model_type roberta, but architectures BertModel"),
        (as_they_are, {"model_type": "roberta", "architectures": ["RobertaModel"]}, r"weights use it.*as in BERT"),
        (as_they_are, {"model_type": "roberta", "architectures": None, "pad_token_id": 1}, r"as in BERT"),
        (as_they_are, {"model_type": "camembert", "architectures": None}, r"as in BERT; correct model_type"),
    ],
)  # fmt: skip
def test_weights_that_are_not_what_the_configuration_says_are_refused(
    tiny_bert: Path, tmp_path: Path, change: Callable[[Weights], Weights | None], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(EncoderError, match=words) as refusal:
        load(changed(tiny_bert, tmp_path / "changed", change, **settings))
    assert "\n" not in str(refusal.value)


def test_roberta_weights_are_not_read_as_bert(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    folder = Path(shutil.copytree(tiny_bert, tmp_path / "roberta"))
    config = json.loads((tiny_bert / "config.json").read_text())
    shape = {k: config[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    RobertaModel(RobertaConfig(**shape, num_attention_heads=2, type_vocab_size=1)).save_pretrained(str(folder))
    load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert", "architectures": None}))
    with pytest.raises(EncoderError, match=r"position 1 of its weights is empty, as in RoBERTa"):
        load(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", [QUERY, EMBEDDINGS, "encoder.layer.1.output.LayerNorm.bias"])
def test_one_weight_that_is_no_number_is_named(tiny_bert: Path, tmp_path: Path, key: str, number: float) -> None:
    def spoil(weights: Weights) -> None:
        weights[key].view(-1)[-1] = number

    folder = changed(tiny_bert, tmp_path / "changed", spoil)
    for _ in range(2):  # a refusal is not remembered as an answer
        with pytest.raises(EncoderError, match=rf"1 of \d+ numbers of {key} in model\.safetensors are NaN or infinite"):
            load(folder)


def test_a_file_cut_short_and_an_index_that_names_too_few_weights_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    for keep in (3, 200, -7):
        folder = Path(shutil.copytree(tiny_bert, tmp_path / f"cut{keep}"))
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:keep])
        with pytest.raises(EncoderError, match="damaged weights"):
            load(folder)
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "index"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    for files in (["a.safetensors", "b.safetensors"], ["a.safetensors"]):
        places = {name: file for file in files for name in halves[file]}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        if len(files) == 2:
            load(folder)
    with pytest.raises(EncoderError, match=r"lack 18 of its weights"):
        load(folder)


HEADS = ["BertForMaskedLM", "BertForSequenceClassification", "BertForQuestionAnswering", "BertForTokenClassification"]


@pytest.mark.parametrize("head", HEADS)
def test_heads_and_old_tables_beside_the_encoder_are_left_aside(tiny_bert: Path, tmp_path: Path, head: str) -> None:
    import transformers

    plain = load(tiny_bert)
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "headed"))
    whole = getattr(transformers, head)(plain.model.config)
    whole.bert.load_state_dict(plain.model.state_dict(), strict=False)
    whole.save_pretrained(str(folder))
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.position_ids"] = torch.arange(512).view(1, -1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    again = load(folder)
    batch = plain.collate(plain.tokenize(["i feel so tired"]))
    assert torch.equal(again(batch), plain(batch))


@pytest.mark.parametrize("kind", ["T5", "MT5", "UMT5", "LongT5", "Bart", "T5Gemma"])
def test_of_an_encoder_decoder_the_encoder_is_used(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    import transformers

    folder = Path(shutil.copytree(tiny_bert, tmp_path / "whole"))
    size = load(tiny_bert).model.config.vocab_size
    if kind == "T5Gemma":
        part = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        part |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8}
        settings = {"encoder": part, "decoder": part, "vocab_size": size}
    else:
        settings = {"vocab_size": size, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        ends = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        settings = settings if kind != "Bart" else {"vocab_size": size, "d_model": 32, **ends}
    torch.manual_seed(3)
    whole = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings)).eval()
    whole.save_pretrained(str(folder))
    encoder = load(folder)
    batch = encoder.collate(encoder.tokenize(["i feel so tired and sad", "fine"]))
    with torch.no_grad():
        for row, real in enumerate(batch["attention_mask"].bool()):
            ids = batch["input_ids"][row][real].view(1, -1)
            plain = whole.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            torch.testing.assert_close(encoder(batch)[row][real], plain, atol=1e-5, rtol=1e-5)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())


def test_a_family_that_is_read_by_anothers_classes_is_itself(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder("internlm3"), tmp_path / "internlm3"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    assert load(folder).hidden_size == 32


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "gpt2", "t5", "bart", "xlnet", "t5gemma", "t5gemma2", "embedding_gemma2", "mpt"]
)
def test_sizes_are_found_whatever_a_family_calls_them(tiny_encoder: Callable[..., Path], family: str) -> None:
    hidden, layers, heads = sizes(family, tiny_encoder(family))
    assert (hidden, layers) == (32, 2)
    assert heads in (2, 16)


def test_a_configuration_without_sizes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody"}')
    with pytest.raises(EncoderError, match=r"config.json does not give its sizes"):
        sizes("x", tmp_path)
