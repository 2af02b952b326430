"""A model without its tokenizer's vocabulary is refused, whatever the class; with it, it is read, known and bundled."""

from __future__ import annotations

import ast
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig, RunConfig
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder
from gemma_nli.model.loading import identity
from gemma_nli.model.loading import tokenizer as vocabulary

CPU = DeviceConfig(device="cpu")
WORDS = sorted({*re.findall(r"[a-z]+", " ".join(vocabulary.SENTENCES).lower()), "mood", "sad"})


def load(folder: Path) -> Encoder:
    return load_encoder(ModelConfig(name=str(folder), max_length=64), CPU)


def bare(source: Path, target: Path, kind: str | None) -> Path:
    """A model's folder whose tokenizer is a class's name and nothing else."""
    shutil.copytree(source, target)
    for path in identity.tokenizer_files(target):
        path.unlink()
    (target / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} if kind else {}))
    return target


def write_wordpiece(folder: Path, words: list[str], letters: bool = True) -> None:
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")] if letters else []
    table = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", ";", *pieces, *words]
    table += [f"[unused{i}]" for i in range(420 - len(table))]
    (folder / "vocab.txt").write_text("\n".join(table) + "\n", encoding="utf-8")


def write_bpe_codes(folder: Path) -> None:
    """PhoBERT's and BERTweet's two files, of the sentences' words whole."""
    words = [*WORDS, *"abcdefghijklmnopqrstuvwxyz.,;", *(f"filler{i}" for i in range(400))]
    (folder / "vocab.txt").write_text("".join(f"{word} 9\n" for word in words[:350]))
    merges = {}
    for word in WORDS:
        for end in range(1, len(word)):
            merges[word[:end], word[end] + ("</w>" if end + 1 == len(word) else "")] = None
    (folder / "bpe.codes").write_text("".join(f"{a} {b} 9\n" for a, b in merges))


BARE = [
    "BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer", "RobertaTokenizer", "GPT2Tokenizer",
    "LongformerTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "XLMRobertaTokenizer", "AlbertTokenizer",
    "CamembertTokenizer", "T5Tokenizer", "LlamaTokenizer", "GemmaTokenizer", "XLNetTokenizer", "BertweetTokenizer",
    "PhobertTokenizer", "BigBirdTokenizer", "FunnelTokenizer", "RemBertTokenizer", "CodeGenTokenizer", "EsmTokenizer",
    "OpenAIGPTTokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer", "PreTrainedTokenizerFast", None,
]  # fmt: skip


@pytest.mark.parametrize("kind", BARE)
def test_a_tokenizer_without_its_vocabulary_is_refused(tiny_bert: Path, tmp_path: Path, kind: str | None) -> None:
    with pytest.raises(EncoderError, match=r"its vocabulary is missing: .* reads .*lacks .*copy the file") as refusal:
        load(bare(tiny_bert, tmp_path / "bare", kind))
    assert "\n" not in str(refusal.value)


def test_a_vocabulary_of_another_model_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = bare(tiny_bert, tmp_path / "other", "BertTokenizer")
    write_wordpiece(folder, WORDS)
    assert load(folder).tokenize(["she walked home"]).ids
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(lines[:100]) + "\n")
    with pytest.raises(
        EncoderError, match=r"its tokenizer has \d\d tokens, its embeddings 420 rows: this is not the tokenizer"
    ):
        load(folder)
    write_wordpiece(folder, ["fièvre", "jour", "mère"], letters=False)
    with pytest.raises(EncoderError, match=r"reads \d+ of \d+ ordinary English words, the others are unknown or empty"):
        load(folder)
    (folder / "vocab.txt").write_text("\n".join([*lines[:8], *(f"x{i}" for i in range(500)), *lines[8:]]) + "\n")
    with pytest.raises(EncoderError, match=r"gives token \d+ for ordinary English, but its embeddings have 420 rows"):
        load(folder)


def test_bytes_need_no_vocabulary(tiny_encoder: Callable[..., Path], tmp_path: Path) -> None:
    encoder = load(bare(tiny_encoder("t5", vocab_size=384), tmp_path / "byt5", "ByT5Tokenizer"))
    assert encoder.tokenize(["sad"]).ids == [[118, 100, 103, 1]]


def test_words_that_fall_into_letters_for_lack_of_merges_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = bare(tiny_bert, tmp_path / "letters", "GPT2Tokenizer")
    table = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz.,;FWS", "Ġ", *WORDS, *(f"Ġ{word}" for word in WORDS)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate([*table, *range(420)][:420])}))
    with pytest.raises(EncoderError, match=r"its vocabulary is missing: .* lacks merges\.txt"):
        load(folder)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(EncoderError, match=r"into letters, although its vocabulary has whole words"):
        load(folder)


@pytest.mark.parametrize("kind", ["BertweetTokenizer", "PhobertTokenizer"])
def test_bpe_codes_are_read_known_by_the_fingerprint_and_bundled(tiny_bert: Path, tmp_path: Path, kind: str) -> None:
    folder = bare(tiny_bert, tmp_path / "tweets", kind)
    write_bpe_codes(folder)
    config = RunConfig().with_settings({"model.name": str(folder), "model.max_length": 64})
    before = identify_encoder(config.model).fingerprint
    encoder = load(folder)
    classifier = PairClassifier(encoder, config.model).eval()
    classifier.reset(torch.Generator().manual_seed(1))
    again = load_bundle(save_bundle(tmp_path / "bundle", config, classifier, 0.5, {}), CPU)
    pair = ["she walked home alone"], ["nothing is fun"]
    assert again.classifier.predict(*pair) == classifier.predict(*pair)
    lines = (folder / "bpe.codes").read_text().splitlines()
    (folder / "bpe.codes").write_text("\n".join(lines[1:]) + "\n")
    assert identify_encoder(config.model).fingerprint != before


def test_every_file_that_a_tokenizer_of_transformers_names_is_taken_along() -> None:
    import transformers

    named: dict[str, str] = {}
    for path in (Path(transformers.__file__).parent / "models").glob("*/tokenization*.py"):
        for found in re.finditer(r"^VOCAB_FILES_NAMES\s*=\s*(\{.*?\})", path.read_text(encoding="utf-8"), re.S | re.M):
            table: dict[str, Any] = ast.literal_eval(found[1])
            files = [f for value in table.values() for f in (value if isinstance(value, list | tuple) else [value])]
            named |= dict.fromkeys(files, path.parent.name)
    assert len(named) > 15
    assert {name: kind for name, kind in named.items() if not identity.is_tokenizer_file(name)} == {}
    assert {name: kind for name, kind in named.items() if not identity.is_wanted(name)} == {}


def test_fingerprints_that_trials_were_keyed_by_stay(minilm: Path) -> None:
    assert identify_encoder(ModelConfig(name=str(minilm))).fingerprint == (
        "ba25ff2953a386750c47619622ca058294bc32e317704056b53259063c735e63"
    )


@pytest.mark.parametrize("file", ["spm.model", "spiece.model", "tokenizer.model"])
def test_a_sentencepiece_model_alone_says_what_to_install(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    kinds = {"spm.model": "DebertaV2Tokenizer", "spiece.model": "T5Tokenizer", "tokenizer.model": "LlamaTokenizer"}
    folder = bare(tiny_bert, tmp_path / "spm", kinds[file])
    (folder / file).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    find = vocabulary.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "sentencepiece" else find(name, *a)
    )
    with pytest.raises(EncoderError, match=rf"only {file}, .*pip install sentencepiece protobuf, or save"):
        load(folder)
    (folder / file).write_bytes(b"IQ== 0\nIg== 1\nIw== 2\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "tiktoken" else find(name, *a))
    with pytest.raises(
        EncoderError, match=rf"only {file}, which transformers reads with tiktoken: .* -m pip install tikt"
    ):
        load(folder)


def test_a_tokenizer_file_that_the_class_overrides_is_told(
    minilm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(minilm)
    assert not caplog.records
    folder = Path(shutil.copytree(minilm, tmp_path / "cased"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        load(folder)
    reported = [record.getMessage() for record in caplog.records]
    assert len(reported) == 1
    assert re.search(
        r"tokenizer\.json reads 'For' as \[UNK\], but BertTokenizer, .* as for; the second is used", reported[0]
    )
