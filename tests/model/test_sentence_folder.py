"""Folders of sentence-transformers: the transformer is found, and what its encode() does beside is told."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder
from gemma_nli.model.loading.identity import is_wanted
from gemma_nli.model.loading.sentence_folder import left_aside, transformer_folder

PACKAGE = "sentence_transformers.models"
CPU = DeviceConfig(device="cpu")


def load(folder: Path) -> Encoder:
    return load_encoder(ModelConfig(name=str(folder), max_length=64), CPU)


def sentence_folder(source: Path, target: Path, within: str = "", pooling: dict[str, Any] | None = None) -> Path:
    shutil.copytree(source, target / within)
    modules = [("Transformer", within), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")]
    listed = [{"idx": i, "path": path, "type": f"{PACKAGE}.{kind}"} for i, (kind, path) in enumerate(modules)]
    (target / "modules.json").write_text(json.dumps(listed))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode": "mean"}))
    return target


@pytest.mark.parametrize("within", ["", "0_Transformer"])
def test_the_transformer_is_found_where_modules_json_says(tiny_bert: Path, tmp_path: Path, within: str) -> None:
    folder = sentence_folder(tiny_bert, tmp_path / "sentences", within)
    assert transformer_folder(folder) == folder / within
    plain, found = load(tiny_bert), load(folder)
    assert found.identity.fingerprint == plain.identity.fingerprint
    batch = plain.collate(plain.tokenize(["i feel so tired"]))
    assert torch.equal(found(batch), plain(batch))


def test_the_commit_of_a_subfolder_is_the_snapshots(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    sentence_folder(tiny_bert, tmp_path / "models--org--sentences" / "snapshots" / commit, "0_Transformer")
    (tmp_path / "models--org--sentences" / "refs").mkdir()
    (tmp_path / "models--org--sentences" / "refs" / "main").write_text(commit)
    assert identify_encoder(ModelConfig(name="org/sentences")).revision == commit


def test_a_download_takes_the_subfolders_of_modules_and_no_other() -> None:
    wanted = ["config.json", "0_Transformer/model.safetensors", "0_Transformer/vocab.txt", "1_Pooling/config.json"]
    assert all(map(is_wanted, [*wanted, "2_Dense/model.safetensors", "modules.json"]))
    assert not any(map(is_wanted, ["onnx/config.json", "openvino/x.json", "0_T/deep/a.json", "pytorch_model.bin"]))


@pytest.mark.parametrize("within", ["", "0_Transformer"])
def test_what_is_left_aside_is_told(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, within: str
) -> None:
    folder = sentence_folder(tiny_bert, tmp_path / "sentences", within)
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: ", "document": ""}}')
    (folder / within / "sentence_bert_config.json").write_text('{"do_lower_case": true, "max_seq_length": 256}')
    with caplog.at_level(logging.WARNING):
        load(folder)
    (reported,) = [record.getMessage() for record in caplog.records]
    assert "used without its module 2_Dense, its prompts (query), its lower-casing (do_lower_case):" in reported
    assert "not those of its own encode(), which model.pooling_strategy=native gives" in reported


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        ({"pooling_mode": "mean"}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, None),
        ({"pooling_mode_cls_token": True}, r"its own pooling is cls, not mean; compare .*pooling_strategy=cls\."),
        ({"pooling_mode": "lasttoken"}, r"lasttoken, not mean; compare model\.pooling_strategy=last"),
        ({"pooling_mode": ["mean", "max"]}, r"its own pooling is mean and max, not mean; compare .*=native\."),
        ({"pooling_mode_weightedmean_tokens": True}, r"weightedmean, not mean; compare .*=native\."),
    ],
)
def test_another_pooling_of_its_own_is_named(
    tiny_bert: Path, tmp_path: Path, pooling: dict[str, Any], words: str | None
) -> None:
    reported = left_aside(sentence_folder(tiny_bert, tmp_path / "sentences", pooling=pooling), "mean")
    assert [bool(re.search(words, line)) for line in reported[1:]] == ([True] if words else [])


def test_a_plain_folder_and_the_real_minilm_have_nothing_to_tell(tiny_bert: Path, minilm: Path) -> None:
    assert left_aside(tiny_bert, "mean") == []
    assert left_aside(minilm, "mean") == []


def test_modules_outside_of_the_folder_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    for path in ("../elsewhere", "/etc", "a/b", ".."):
        folder = tmp_path / path.strip("./").replace("/", "_") / "x"
        folder.mkdir(parents=True)
        (folder / "modules.json").write_text(json.dumps([{"path": path, "type": f"{PACKAGE}.Transformer"}]))
        with pytest.raises(EncoderError, match="not a folder beside it"):
            identify_encoder(ModelConfig(name=str(folder)))
