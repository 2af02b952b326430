"""Texts set into a template: the tokens of the whole text, of which only the post is ever cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig, RunConfig
from gemma_nli.config.templates import Template, read_template
from gemma_nli.model.bundles.bundle import load_bundle, save_bundle
from gemma_nli.model.bundles.exported import exportable
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder
from gemma_nli.model.prompts import check_templates, prompts_of
from gemma_nli.model.text_frames import frame_of, tokenize_framed
from tests.model.sentence_folders import PROMPTS, make_folder, vectors

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS = [
    "i feel so tired and sad every day and nothing is fun anymore. " * 5,
    "fine",
    "my sleep is broken, my work is fine",
]
CRITERIA = ["fatigue", "the writer feels sad most of the day, every day", "fine"]
POST_FIRST = "Post: {premise}\nStatement: {hypothesis}\nAnswer:"
CRITERION_FIRST = "Is it so that {{{hypothesis}}}? {premise} <"
CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}[answer]"


def encoder_of(folder: Path, **settings: Any) -> Encoder:
    return load_encoder(ModelConfig(name=str(folder), **settings), CPU)


def ids_of(encoder: Encoder, posts: list[str], criteria: list[str]) -> list[list[int]]:
    return encoder.tokenize(*encoder.prompts.pairs(posts, criteria)).ids


@pytest.mark.parametrize("family", ["gemma3", "bert", "t5"])
def test_a_pair_has_the_tokens_of_the_whole_text(family: str, tiny_encoder: Any, tiny_gemma3: Path) -> None:
    model = ModelConfig(name=str(tiny_gemma3 if family == "gemma3" else tiny_encoder(family)), max_length=256)
    encoder = load_encoder(model, CPU)
    for template in (POST_FIRST, CRITERION_FIRST):
        prompts = prompts_of(ModelConfig(**{**model.model_dump(), "template": template}))
        pairs = list(zip(POSTS, CRITERIA, strict=True))
        whole = [template.format(premise=post, hypothesis=criterion) for post, criterion in pairs]
        found = encoder.tokenize(*prompts.pairs(POSTS, CRITERIA))
        assert found.ids == encoder.tokenizer(whole)["input_ids"]
        assert [ids.count(encoder.tokenizer.bos_token_id) for ids in found.ids] == [int(family == "gemma3")] * 3
        assert found.types is None or {kind for row in found.types for kind in row} == {0}


@pytest.mark.parametrize("template", [POST_FIRST, CRITERION_FIRST])
@pytest.mark.parametrize("max_length", [49, 50, 60, 77, 100])
def test_only_the_post_is_cut(tiny_gemma3: Path, tiny_bert: Path, template: str, max_length: int) -> None:
    for name in (tiny_gemma3, tiny_bert):
        encoder = encoder_of(name, template=template, max_length=max_length)
        for criterion in CRITERIA:
            (ids,) = ids_of(encoder, [POSTS[0]], [criterion])
            possible = [
                encoder.tokenizer(template.format(premise=POSTS[0][:kept], hypothesis=criterion))["input_ids"]
                for kept in range(len(POSTS[0]) + 1)
            ]
            fitting = [each for each in possible if len(each) <= max_length]
            assert ids in fitting
            assert len(ids) >= max(map(len, fitting)) - 2, "more was cut than had to be"


def test_a_tokenizer_that_does_not_say_where_its_tokens_lie_cuts_only_the_post_too() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    template = read_template(POST_FIRST, ("premise", "hypothesis"))
    assert isinstance(template, Template)
    frame = frame_of(template, "model.template", str)
    found, _ = tokenize_framed(tokenizer, 120, [frame] * 3, [POSTS[0], POSTS[1], "ü" * 300], CRITERIA)
    assert [len(ids) <= 120 for ids in found] == [True] * 3
    for ids, criterion in zip(found, CRITERIA, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert text.startswith("Post: ")
        assert text.endswith(f"\nStatement: {criterion}\nAnswer:")


def test_a_template_and_a_criterion_that_leave_no_room_are_refused_with_both_values(tiny_gemma3: Path) -> None:
    model = ModelConfig(name=str(tiny_gemma3), template=POST_FIRST, max_length=24)
    with pytest.raises(EncoderError, match=r"model.template 'Post: .*' takes \d+ tokens .*model.max_length is 24"):
        check_templates(model, CRITERIA)
    with pytest.raises(EncoderError, match=r"takes \d+ tokens .*model.max_length is 24"):
        ids_of(load_encoder(model, CPU), ["fine"], CRITERIA[1:2])
    check_templates(ModelConfig(name=str(tiny_gemma3), template=POST_FIRST, max_length=64), CRITERIA)
    alone = {"pair_encoding": "separate", "max_length": 10}
    long = "a word that is followed by very many others: "
    for settings in ({"premise_template": long + "{premise}"}, {"hypothesis_template": long + "{hypothesis}"}):
        with pytest.raises(EncoderError, match=r"model.(premise|hypothesis)_template .*model.max_length is 10"):
            check_templates(ModelConfig(name=str(tiny_gemma3), **alone, **settings), CRITERIA)


def test_special_tokens_that_the_template_writes_are_not_doubled(tiny_gemma3: Path, tiny_bert: Path) -> None:
    gemma = encoder_of(tiny_gemma3, template="<bos>{premise} | {hypothesis}")
    assert ids_of(gemma, POSTS, CRITERIA) == ids_of(
        encoder_of(tiny_gemma3, template="{premise} | {hypothesis}"), POSTS, CRITERIA
    )
    bert = encoder_of(tiny_bert, template="[CLS]{premise}[SEP]{hypothesis}[SEP]")
    native = encoder_of(tiny_bert).tokenize(POSTS, CRITERIA).ids
    assert ids_of(bert, POSTS, CRITERIA) == native


def with_chat(folder: Path, target: Path, template: str = CHAT) -> Path:
    shutil.copytree(folder, target)
    (target / "chat_template.jinja").write_text(template)
    return target


def test_a_chat_template_gives_the_tokens_that_the_tokenizer_gives(tiny_gemma3: Path, tmp_path: Path) -> None:
    encoder = encoder_of(with_chat(tiny_gemma3, tmp_path / "chat"), template=f"chat: {POST_FIRST}")
    for post, criterion in zip(POSTS, CRITERIA, strict=True):
        message = [{"role": "user", "content": POST_FIRST.format(premise=post, hypothesis=criterion)}]
        wanted = encoder.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        assert ids_of(encoder, [post], [criterion]) == [wanted]
    assert wanted.count(encoder.tokenizer.bos_token_id) == 1


def test_a_chat_template_that_is_missing_or_cannot_be_used_is_refused(tiny_gemma3: Path, tmp_path: Path) -> None:
    for folder, what in [
        (tiny_gemma3, "has none"),
        (with_chat(tiny_gemma3, tmp_path / "deaf", "{{ bos_token }}hello"), "does not show"),
        (with_chat(tiny_gemma3, tmp_path / "strict", "{{ raise_exception('system first') }}"), "system first"),
    ]:
        with pytest.raises(EncoderError, match=f"(?s)'chat: .*{what}"):
            check_templates(ModelConfig(name=str(folder), template="chat: {premise}{hypothesis}"), CRITERIA)


def test_a_folders_prompt_by_its_name_is_what_encode_puts_before_a_text(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "named", tiny_bert, "default prompt")
    prompts = {"premise_template": "prompt:query", "hypothesis_template": "prompt:clustering"}
    model = ModelConfig(name=str(folder), pair_encoding="separate", **prompts)
    encoder = load_encoder(model, CPU)
    tokens = encoder.tokenize(*encoder.prompts.alone(POSTS, CRITERIA))
    found = PairClassifier(encoder, model).vectors(encoder.collate(tokens)).detach()
    named = zip((POSTS, CRITERIA), ("query", "clustering"), strict=True)
    wanted = torch.cat([vectors(folder, texts, prompt_name=name) for texts, name in named])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    native = load_encoder(ModelConfig(**{**model.model_dump(), "pooling_strategy": "native"}), CPU)
    assert native.tokenize(*native.prompts.alone(POSTS, CRITERIA)).ids == tokens.ids
    with pytest.raises(EncoderError, match="has no prompt 'querry'; did you mean 'query'"):
        identify_encoder(ModelConfig(name=str(folder), pair_encoding="separate", premise_template="prompt:querry"))
    with pytest.raises(EncoderError, match="is none"):
        identify_encoder(ModelConfig(name=str(tiny_bert), pair_encoding="separate", premise_template="prompt:query"))
    settings = folder / "config_sentence_transformers.json"
    before = identify_encoder(model).fingerprint, identify_encoder(ModelConfig(name=str(folder))).fingerprint
    changed = {**json.loads(settings.read_text()), "prompts": {**PROMPTS, "query": "another: "}}
    settings.write_text(json.dumps(changed))
    after = identify_encoder(model).fingerprint, identify_encoder(ModelConfig(name=str(folder))).fingerprint
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_templates_of_texts_alone_differ_for_posts_and_criteria(tiny_gemma3: Path) -> None:
    model = ModelConfig(name=str(tiny_gemma3), pair_encoding="separate", premise_template="task: x | query: {premise}")
    encoder = load_encoder(model, CPU)
    found = encoder.tokenize(*encoder.prompts.alone(POSTS, CRITERIA)).ids
    wanted = [f"task: x | query: {post}" for post in POSTS] + CRITERIA
    assert found == encoder.tokenizer(wanted)["input_ids"]


@pytest.mark.parametrize(
    "settings",
    [
        {"template": CRITERION_FIRST},
        {"template": f"chat: {POST_FIRST}"},
        {"pair_encoding": "separate", "premise_template": "prompt:query", "hypothesis_template": "is it: {hypothesis}"},
    ],
    ids=["pair", "chat", "separate"],
)
def test_a_bundle_reads_texts_as_its_classifier_did(settings: dict[str, Any], tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sentences", tiny_bert, "default prompt")
    (folder / "chat_template.jinja").write_text(CHAT)
    config = RunConfig.model_validate({"model": {"name": str(folder), "max_length": 64, **settings}})
    encoder = load_encoder(config.model, CPU)
    classifier = PairClassifier(encoder, config.model).eval()
    classifier.reset(torch.Generator().manual_seed(1))
    logits = classifier.predict(POSTS, CRITERIA)
    saved = save_bundle(tmp_path / "bundle", config, classifier, 0.5, {})
    shutil.rmtree(folder)
    loaded = load_bundle(saved, CPU)
    np.testing.assert_allclose(loaded.classifier.predict(POSTS, CRITERIA), logits, atol=1e-5)
    scored = PairScorer(loaded).score(pd.DataFrame({"premise": POSTS, "hypothesis": CRITERIA}))
    np.testing.assert_allclose(scored["probability"], 1 / (1 + np.exp(-logits.astype(float))), atol=1e-5)
    module, inputs = exportable(loaded.classifier)
    assert module(*inputs.values()).shape == (2,)
