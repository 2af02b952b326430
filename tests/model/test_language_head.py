"""Yes against no from a few rows of the output matrix equals what transformers' whole language model answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_tokenizer import write_tokenizer
from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.language_head import read_answer_head, why_no_language_head
from tests.model.language_models import ANSWERS, write_language_model

ALONE = [*ANSWERS, "Ġno"]  # the tiny vocabulary has learned this one
HEADS = [
    ("gemma2", {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 16}),
    ("gemma3_text", {"query_pre_attn_scalar": 16}),
    ("llama", {"tie_word_embeddings": False}),
    ("phi", {"num_key_value_heads": None}),
    ("cohere", {"logit_scale": 0.25}),
    ("granite", {"logits_scaling": 4.0}),
    ("gpt2", {}),
]


@pytest.mark.parametrize(("family", "settings"), HEADS, ids=lambda value: str(value))
def test_log_odds_are_those_of_the_whole_language_model(family: str, settings: dict, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_language_model(tmp_path / "model", family, **settings)
    model = AutoModelForCausalLM.from_pretrained(str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    ids = tokenizer(["is the post about sleep", "fun"], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model.base_model(**ids).last_hidden_state[:, -1]
        logits = model(**ids).logits[:, -1]
    answers = {
        word: [tokenizer.convert_tokens_to_ids(t) for t in ALONE if t.strip("Ġ").lower() == word]
        for word in ("yes", "no")
    }
    wanted = logits[:, answers["yes"]].logsumexp(1) - logits[:, answers["no"]].logsumexp(1)
    head = read_answer_head(ModelConfig(name=str(folder)))
    assert set(head.words) == set(ALONE)
    torch.testing.assert_close(head.log_odds(states), wanted, atol=1e-5, rtol=1e-5)
    assert wanted.std() > 1e-4


def test_an_encoder_without_a_head_is_named(tiny_bert: Path, tiny_gemma3: Path) -> None:
    """Gemma3TextModel is how EmbeddingGemma is saved, too."""
    for folder, kind in ((tiny_bert, "BertModel"), (tiny_gemma3, "Gemma3TextModel")):
        model = ModelConfig(name=str(folder))
        assert f"{folder} has no language-model head to answer yes or no with (its config.json says {kind})" in (
            why_no_language_head(model)
        )
        with pytest.raises(EncoderError, match=kind):
            read_answer_head(model)


def test_a_vocabulary_without_the_words_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(write_language_model(tmp_path / "model", "llama"), tmp_path / "other"))
    for file in folder.glob("*token*"):
        file.unlink()
    write_tokenizer(folder, "gemma")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    with pytest.raises(EncoderError, match="its vocabulary has no token 'yes'"):
        read_answer_head(ModelConfig(name=str(folder)))
