"""What tiny random Gemmas cannot show: the same promises with the weights of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gemma_nli.config import DeviceConfig, FeaturesConfig, ModelConfig, build_config
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureRequest, encode
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder
from gemma_nli.model.gemma_weights import NOTICE_FILE, TERMS_FILE, gemma_folder
from gemma_nli.tracking.registry.model_folder import PT2, pytorch_flavor, save_model_folder
from gemma_nli.training.finetuning.train_fold import fit_all, train_fold
from gemma_nli.training.results import FINISHED

pytestmark = [pytest.mark.gemma, pytest.mark.timeout(1800)]
CPU = DeviceConfig(device="cpu")
NEAR = 1e-4
SENTENCES = [
    "For weeks I have slept badly, and by noon I am too tired to answer a message.",
    "My sister says that she feels fine again since she moved.",
]
CRITERIA = ["The writer sleeps too little.", "The writer has lost weight.", "The writer is hopeful about the future."]


def off(found: torch.Tensor | np.ndarray, wanted: torch.Tensor | np.ndarray) -> float:
    """Largest difference over the largest number: Gemma's states have a few huge ones."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def a_post(tokens: int, encoder: Encoder) -> str:
    """Of different words, at least so many tokens long."""
    corpus = synthetic_corpus(120, seed=5)
    text = ""
    for post in corpus.posts.values():
        text += post + "\n"
        if len(encoder.tokenize([text]).ids[0]) >= tokens:
            return text
    raise AssertionError("too few posts")


def test_the_folder_is_whole_and_says_what_it_is(real_gemma: Path) -> None:
    with safe_open(real_gemma / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        assert file.get_tensor(names[0]).dtype == torch.bfloat16
    assert len(names) == 236
    config = json.loads((real_gemma / "config.json").read_text())
    assert "quantized to 4 bits" in config["dequantized_from"]
    assert "quantization_config" not in config
    assert "Gemma Terms of Use" in (real_gemma / TERMS_FILE).read_text(encoding="utf-8")
    assert "modified" in (real_gemma / NOTICE_FILE).read_text()
    said: list[str] = []
    assert gemma_folder(said.append) == real_gemma
    assert not any("convert" in line for line in said), "the second run uses it again"


def test_text_is_continued_sensibly(real_gemma: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(real_gemma), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(real_gemma))
    with torch.inference_mode():
        ids = tokenizer("Monday, Tuesday, Wednesday, Thursday,", return_tensors="pt")
        (following,) = tokenizer.batch_decode(model(**ids).logits[:, -1].argmax(-1))
        assert following.strip() == "Friday"
        losses = []
        for text in (SENTENCES[0], " ".join(sorted(SENTENCES[0].split()))):
            ids = tokenizer(text, return_tensors="pt")
            losses.append(float(model(**ids, labels=ids["input_ids"]).loss))
    assert losses[0] + 1 < losses[1], "a sentence is likelier than its words in alphabetical order"


def test_it_is_causal_and_bidirectional_where_that_is_asked_for(causal: Encoder, real_gemma: Path) -> None:
    """The states of a text's beginning depend on what follows under bidirectional attention only."""
    both = load_encoder(ModelConfig(name=str(real_gemma), attention="bidirectional", max_length=64), CPU)
    assert causal.is_causal
    assert not both.is_causal
    one, other = ("The night was long and", "The night was short and")
    for encoder, same in ((causal, True), (both, False)):
        with torch.inference_mode():
            states = [encoder(encoder.collate(encoder.tokenize([text])))[0, :3] for text in (one, other)]
        assert (off(states[0], states[1]) < NEAR) == same


def test_a_reused_prefix_gives_the_same_vectors(causal: Encoder) -> None:
    model = ModelConfig(name=causal.identity.name, max_length=640)
    rows = [(post, criterion) for post in [*SENTENCES, a_post(100, causal)] for criterion in CRITERIA]
    request = FeatureRequest(
        model, CPU, identify_encoder(model), tuple(p for p, _ in rows), tuple(c for _, c in rows), ("mean", "last")
    )
    plain, reused = (encode(request, causal, FeaturesConfig(prefix_reuse=reuse)) for reuse in (False, True))
    assert reused.slots < plain.slots * 2 / 3
    for view in ("mean", "last", "max"):
        for found, wanted in zip(reused.views[view], plain.views[view], strict=True):
            assert off(found, wanted) < NEAR, view


def test_a_post_longer_than_the_window_has_its_own_states_in_a_batch(causal: Encoder) -> None:
    """On whichever side it is padded; and a narrower window gives other states from its width on."""
    tokens = causal.tokenize([a_post(530, causal), SENTENCES[0]])
    assert len(tokens.ids[0]) > 520 > 512 > len(tokens.ids[1])
    with torch.inference_mode():
        alone = [causal(causal.collate(tokens, [row]))[0] for row in (0, 1)]
        for side in ("left", "right"):
            batch = causal.collate(tokens, side=side)
            together, real = causal(batch), batch["attention_mask"].bool()
            for row in (0, 1):
                assert off(together[row][real[row]], alone[row]) < NEAR
        window = causal.model.config.sliding_window
        assert window == 512
        causal.model.config.sliding_window = 16
        try:
            narrow = causal(causal.collate(tokens, [0]))[0]
        finally:
            causal.model.config.sliding_window = window
    assert off(narrow[:16], alone[0][:16]) < NEAR
    assert off(narrow[16:], alone[0][16:]) > NEAR, "the window is what the layers see"


def test_lora_trains_and_its_bundle_and_program_give_the_same_logits(real_gemma: Path, tmp_path: Path) -> None:
    """With bidirectional attention; the loss falls, and the refitted classifier is the same after every door."""
    corpus = synthetic_corpus(24, seed=3)
    model = {"name": str(real_gemma), "max_length": 48, "freeze_encoder": False, "attention": "bidirectional"}
    tree = {
        "model": {**model, "lora": {"rank": 4}, "pooling_strategy": "mean"},
        "training": {"num_epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "epoch_selection": "last"},
        "data": {"num_folds": 2},
        "device": {"device": "cpu"},
    }
    config = build_config(tree, "test")
    pairs = build_pairs(corpus, config.data)
    result = train_fold(config, corpus, pairs, 1, lambda epoch, metrics: None)
    assert result.status == FINISHED
    losses = result.history["train_loss"]
    assert losses[-1] < losses[0]
    assert any("lora" in name for name in result.state)

    classifier = fit_all(config, corpus, pairs, pairs.evaluation_rows(1)[:16], 1)
    premises, hypotheses = SENTENCES, CRITERIA[:2]
    logits = classifier.predict(premises, hypotheses)
    again = load_bundle(save_bundle(tmp_path / "bundle", config, classifier, 0.5, {"criteria": {}}), CPU).classifier
    np.testing.assert_allclose(again.predict(premises, hypotheses), logits, atol=1e-3, rtol=1e-3)

    assert save_model_folder(tmp_path / "bundle", tmp_path / "model", None, 4.0) == PT2
    program = pytorch_flavor().load_model(str(tmp_path / "model"))
    batch = again.encoder.collate(again.encoder.tokenize(premises, hypotheses))
    with torch.inference_mode():
        found = program(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_allclose(found.numpy(), again.predict(premises, hypotheses), atol=NEAR, rtol=NEAR)
