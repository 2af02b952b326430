"""What the encoder's own language model answers, scored as a trial would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import RunConfig, build_config
from gemma_nli.corpus.pairs import PairTable, build_pairs, pair_texts
from gemma_nli.corpus.redsm5 import Corpus, write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.training.criterion_only import evaluation_rows
from gemma_nli.training.zero_shot import ANSWER, QUESTION, zero_shot, zero_shot_config, zero_shot_request
from tests.commands import run_command
from tests.model.language_models import ANSWERS, in_few_words


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return in_few_words(synthetic_corpus(24, seed=3))


def configured(folder: Path, **settings: object) -> RunConfig:
    tree = {"model": {"name": str(folder), "max_length": 240}, "data": {"num_folds": 2}, "device": {"device": "cpu"}}
    return build_config(tree, "test").with_settings(settings)


def answered(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: np.ndarray) -> np.ndarray:
    """log P(yes) - log P(no) of some rows by the whole model of transformers, text by text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(config.model.name).eval()
    tokenizer = AutoTokenizer.from_pretrained(config.model.name)
    words = {
        word: [i for t, i in tokenizer.get_vocab().items() if t.strip("Ġ").lower() == word] for word in ("yes", "no")
    }
    odds = []
    for post, criterion in zip(*pair_texts(corpus, pairs, rows), strict=True):
        text = (QUESTION + ANSWER).format(premise=post, hypothesis=criterion)
        with torch.no_grad():
            probability = model(**tokenizer(text, return_tensors="pt")).logits[0, -1].softmax(-1)
        odds.append(float(torch.log(probability[words["yes"]].sum() / probability[words["no"]].sum())))
    return np.array(odds)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore(tmp_path_factory.mktemp("store"))


def test_scores_are_the_models_answers_without_each_criterions_prior(speaker, corpus, stored):
    """The prior is the mean over the fold's training pairs, so within a criterion and a fold order is the model's."""
    config = configured(speaker, **{"training.epoch_selection": "last"})
    pairs = build_pairs(corpus, config.data)
    rows_N = evaluation_rows(pairs)
    found = zero_shot(config, corpus, pairs, rows_N, stored)
    assert set(ANSWERS) <= set(found.words)
    assert all(word in found.about for word in found.words)
    odds_N = answered(config, corpus, pairs, rows_N)
    taken_N = odds_N - found.score_N
    for fold in (1, 2):
        for criterion in np.unique(pairs.criterion_N[rows_N]):
            at = (pairs.fold_N[rows_N] == fold) & (pairs.criterion_N[rows_N] == criterion)
            training = (pairs.fold_N[rows_N] != fold) & (pairs.criterion_N[rows_N] == criterion)
            if training.any():
                np.testing.assert_allclose(taken_N[at], odds_N[training].mean(), atol=1e-3)


def test_the_texts_are_encoded_once_and_a_template_that_asks_is_used(speaker, corpus, stored):
    config = configured(speaker)
    pairs = build_pairs(corpus, config.data)
    assert stored.missing(zero_shot_request(config, corpus, pairs)) == []
    asks = "Does {premise} mean {hypothesis}? "
    assert zero_shot_config(configured(speaker, **{"model.template": asks})).model.template == asks
    silent = configured(speaker, **{"model.template": "{premise} so {hypothesis}"})
    assert zero_shot_config(silent).model.template == QUESTION + ANSWER


def test_the_command_scores_it_alone_and_says_which_tokens_were_counted(speaker, corpus, tmp_path, capsys):
    write_corpus(corpus, tmp_path / "data")
    words = [f"model.name={speaker}", f"data.data_dir={tmp_path / 'data'}", "model.max_length=240", "data.num_folds=2"]
    assert run_command("baseline", "zero-shot", *words) == 0
    out = capsys.readouterr().out
    assert "zero-shot" in out
    assert "criterion only" in out
    assert "Yes, yes" in out


def test_an_encoder_without_a_language_model_is_refused_by_name(tiny_bert, corpus, tmp_path, capsys):
    write_corpus(corpus, tmp_path / "data")
    assert run_command("baseline", "zero-shot", f"model.name={tiny_bert}", f"data.data_dir={tmp_path / 'data'}") == 2
    assert f"{tiny_bert} has no language-model head to answer yes or no with" in capsys.readouterr().err


def test_a_question_that_leaves_no_room_for_a_post_is_refused(speaker, corpus, stored):
    config = configured(speaker, **{"model.max_length": 16})
    pairs = build_pairs(corpus, config.data)
    with pytest.raises(EncoderError, match=r"and model.max_length is 16; shorten the template"):
        zero_shot(config, corpus, pairs, evaluation_rows(pairs), stored)
