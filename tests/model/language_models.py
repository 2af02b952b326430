"""Tiny random language models, whose vocabulary has yes and no."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from benchmarks.tiny_encoders import FAMILIES, SHAPE
from benchmarks.tiny_tokenizer import write_tokenizer
from gemma_nli.corpus.redsm5 import Corpus

ANSWERS = ["Yes", "yes", "No", "NO", "no"]
OTHERS = ["№", "Nope"]
"""Tokens that are no answers: the sign for a number is written No in some normal forms of text."""


def in_few_words(corpus: Corpus) -> Corpus:
    """Its posts and criteria, short enough for a question in the tiny vocabulary, which spells most words out."""
    posts = {name: f"{name} {text[:30]}" for name, text in corpus.posts.items()}
    criteria = {name: name.lower() for name in corpus.criteria}
    return dataclasses.replace(corpus, posts=posts, criteria=criteria, wordings={})


def write_language_model(folder: Path, family: str, **settings: Any) -> Path:
    """A folder as save_pretrained writes it, its head included."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True)
    write_tokenizer(folder, "gemma")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens([*ANSWERS, *OTHERS])
    tokenizer.save_pretrained(str(folder))
    asked = {"vocab_size": len(tokenizer), **SHAPE, **FAMILIES.get(family, {}), **settings}
    config = AutoConfig.for_model(family, **{name: value for name, value in asked.items() if value is not None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.3)
    model.save_pretrained(str(folder))
    return folder
