"""A bundle reloads, in a fresh process and with the encoder it came from gone, to the same logits; or says why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, RunConfig
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier, trainable_encoder
from gemma_nli.model.encoder import load_encoder

CPU = DeviceConfig(device="cpu")
POSTS = ["i feel so tired and sad", "work was fine", "my sleep is broken every day and the nights are long", ""]
CRITERIA = ["depressed mood", "fatigue", "sleep", "fatigue"]

FRESH = """
import json, sys
from gemma_nli.model.bundles.bundle import load_bundle
pairs, *folders = sys.argv[1:]
print(json.dumps([load_bundle(folder).classifier.predict(*json.loads(pairs)).tolist() for folder in folders]))
assert not {"mlflow", "ray"} & set(sys.modules)
"""


def make(folder: Path, **settings: Any) -> tuple[RunConfig, PairClassifier]:
    config = RunConfig().with_settings(
        {"model.name": str(folder), "model.max_length": 64, "mlflow.tracking_uri": "http://u:secret@host"}
        | {f"model.{k}": v for k, v in settings.items()}
    )
    classifier = PairClassifier(trainable_encoder(load_encoder(config.model, CPU), config.model), config.model).eval()
    classifier.reset(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in classifier.norm.parameters():  # as if fitted
            parameter.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(3)) + 0.5)
        for parameter in classifier.encoder.parameters():
            if parameter.requires_grad:  # as if trained
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.02)
    return config, classifier


def save(folder: Path, config: RunConfig, classifier: PairClassifier, threshold: float = 0.4) -> Path:
    return save_bundle(folder, config, classifier, threshold, {"trial": "abc"})


LORA = {"freeze_encoder": False, "lora": {"rank": 2}}
CASES = [
    ("minilm", {"pooling_strategy": "attention_kv"}),
    ("minilm", {"pair_encoding": "separate", "head": "mlp", "head_norm": "standardize"}),
    ("tiny_bert", {**LORA, "head_norm": "layernorm"}),
    ("tiny_gemma2", {**LORA, "attention": "bidirectional", "pooling_strategy": "last_k", "pooling_k": 3}),
    ("tiny_gemma3", {"freeze_encoder": False, "attention": "bidirectional"}),
    ("tiny_gemma3", {"freeze_encoder": False, "attention": "causal", "unfreeze_last_n": 1}),
    ("tiny_gemma2", {"attention": "bidirectional"}),
    ("tiny_t5", {}),
    ("tiny_t5", LORA),
    ("tiny_t5", {"freeze_encoder": False}),
]


@pytest.fixture(scope="module")
def tiny_t5(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer random T5 with its decoder, and a tokenizer."""
    from transformers import T5Config, T5Model

    folder = Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("models") / "tiny_t5"))
    size = json.loads((tiny_bert / "config.json").read_text())["vocab_size"]
    torch.manual_seed(7)
    T5Model(T5Config(vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)).save_pretrained(folder)
    return folder


def test_a_fresh_process_gives_the_same_logits_without_the_first_folders(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    expected = []
    for number, (fixture, settings) in enumerate(CASES):
        source = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "source"))
        config, classifier = make(source, **settings)
        expected.append(classifier.predict(POSTS, CRITERIA))
        save(tmp_path / f"bundle{number}", config, classifier)
        shutil.rmtree(source)
    folders = [str(tmp_path / f"bundle{number}") for number in range(len(CASES))]
    command = [sys.executable, "-c", FRESH, json.dumps([POSTS, CRITERIA]), *folders]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for logits, before, (fixture, settings) in zip(json.loads(run.stdout), expected, CASES, strict=True):
        np.testing.assert_allclose(logits, before, atol=1e-6, rtol=1e-6, err_msg=f"{fixture} {settings}")


def test_a_bundle_tells_what_it_is_and_no_place_or_secret(tiny_gemma2: Path, tmp_path: Path) -> None:
    config, classifier = make(tiny_gemma2, attention="bidirectional", pooling_strategy="first_k", pooling_k=3)
    save(tmp_path / "bundle", config, classifier)
    text = (tmp_path / "bundle" / "bundle.json").read_text()
    assert "secret" not in text
    assert str(tiny_gemma2.parent) not in text
    loaded = load_bundle(tmp_path / "bundle", CPU)
    assert loaded.threshold == 0.4
    assert loaded.metadata == {"trial": "abc"}
    assert loaded.encoder_record["attention"] == "bidirectional"
    assert loaded.encoder_record["trained_from"] == classifier.encoder.identity.fingerprint
    assert (loaded.config.model.max_length, loaded.config.model.pooling_k) == (64, 3)
    assert not loaded.encoder.is_causal
    names = {p.suffix for p in (tmp_path / "bundle").rglob("*") if p.is_file()}
    assert names == {".json", ".safetensors"}


def test_a_bundle_is_replaced_whole_and_nothing_else_is(tiny_bert: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config, classifier = make(tiny_bert)
    save(tmp_path / "bundle", config, classifier, 0.4)
    save(tmp_path / "bundle", config, classifier, 0.7)
    assert load_bundle(tmp_path / "bundle", CPU).threshold == 0.7
    monkeypatch.setattr(
        "gemma_nli.model.bundles.bundle.save_file", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path / "bundle", config, classifier, 0.9)
    assert load_bundle(tmp_path / "bundle", CPU).threshold == 0.7
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(EncoderError, match="exists and is not a bundle"):
        save(tmp_path / "mine", config, classifier)


def test_damage_is_told_not_served(tiny_bert: Path, tmp_path: Path) -> None:
    config, classifier = make(tiny_bert)
    whole = save(tmp_path / "bundle", config, classifier)

    def broken(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    head = broken("head")
    data = bytearray((head / "classifier.safetensors").read_bytes())
    data[-1] ^= 1
    (head / "classifier.safetensors").write_bytes(data)
    body = broken("body")
    data = bytearray((body / "encoder" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (body / "encoder" / "model.safetensors").write_bytes(data)
    newer = broken("newer")
    record = json.loads((newer / "bundle.json").read_text())
    (newer / "bundle.json").write_text(json.dumps({**record, "format": 99}))
    lacking = broken("lacking")
    (lacking / "bundle.json").write_text(json.dumps({k: v for k, v in record.items() if k != "threshold"}))
    turned = broken("turned")
    record["encoder"]["attention"] = "causal"
    (turned / "bundle.json").write_text(json.dumps(record))
    for folder, words in [
        (head, "sha256 differs"),
        (body, "differ from those that were saved"),
        (newer, "format 99, this version reads 1"),
        (lacking, "not a bundle's record: 'threshold'"),
        (turned, "a probe finds otherwise"),
        (tmp_path / "nowhere", "no bundle here"),
    ]:
        with pytest.raises(EncoderError, match=words):
            load_bundle(folder, CPU)
