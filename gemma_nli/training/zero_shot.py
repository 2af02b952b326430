"""What the encoder's own language model answers to the question whether a post shows a criterion: yes or no, untrained.

A pair's score is log P(yes) - log P(no) behind the question, minus its mean over the fold's training pairs of the same
criterion: a model says yes to some statements whatever the post, and that prior is no answer. Labels are used for the
threshold alone.

Source: Zhou et al. 2024, "Batch Calibration", arXiv 2309.17249; here by criterion, and on training pairs only.

Letters: N evaluation pairs, R rows of a PairTable, C criteria, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.config.templates import CHAT, NATIVE
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureRequest, FeatureStore
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.language_head import read_answer_head
from gemma_nli.model.loading.tokenizer import load_tokenizer
from gemma_nli.training.criterion_only import Floats, Rows, Scorer, score_folds
from gemma_nli.training.fold import FoldPlan
from gemma_nli.training.frozen.head_inputs import VectorInputs, feature_request, load_inputs

QUESTION = "Post: {premise}\nStatement: {hypothesis}\nQuestion: Does the statement apply to the post? Answer yes or no."
ANSWER = "\nAnswer:"


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """`decision_N` and `score_N` on the evaluation pairs; `words`: the tokens that were counted as yes and no."""

    decision_N: NDArray[np.bool_]
    score_N: Floats
    words: tuple[str, ...]

    @property
    def about(self) -> str:
        words = ", ".join(self.words)
        return f"the encoder's own P(yes) against P(no), each criterion's prior removed; tokens counted: {words}"


def zero_shot_config(config: RunConfig) -> RunConfig:
    """How the pairs are read: the configuration's own template where it asks a question, else ours; the last state of
    the encoder as it is, which its language-model head takes.

    Raises:
        EncoderError: the encoder is not here.
    """
    template = config.model.template
    if template == NATIVE or "?" not in template:
        talks = load_tokenizer(config.model.name, encoder_folder(config.model)).chat_template is not None
        template = f"{CHAT} {QUESTION}" if talks else QUESTION + ANSWER
    return config.with_settings(
        {
            "model.pair_encoding": "joint",
            "model.template": template,
            "model.premise_template": NATIVE,
            "model.hypothesis_template": NATIVE,
            "model.premise_prompt": None,
            "model.hypothesis_prompt": None,
            "model.pooling_strategy": "last",
            "model.layers": "last",
            "model.attention": "auto",
            "model.freeze_encoder": True,
            "model.lora": None,
            "model.unfreeze_last_n": None,
        }
    )


def zero_shot_request(config: RunConfig, corpus: Corpus, pairs: PairTable) -> FeatureRequest:
    """What it needs encoded: evaluation pairs, and the training pairs that the prior is taken from."""
    rows = pairs.rows_used(config.data.negative_ratio)
    return feature_request(zero_shot_config(config), corpus, pairs, rows)


def zero_shot(config: RunConfig, corpus: Corpus, pairs: PairTable, rows_N: Rows, store: FeatureStore) -> ZeroShot:
    """Scores of the evaluation pairs `rows_N`; states that the store lacks are computed.

    Raises:
        EncoderError: the encoder has no language-model head, or is not here.
    """
    head = read_answer_head(config.model)
    asked = zero_shot_config(config)
    rows = pairs.rows_used(config.data.negative_ratio)
    inputs = load_inputs(asked, corpus, pairs, rows, store)
    assert isinstance(inputs, VectorInputs), "the last state is not learned"
    (vectors_MH, place_N) = inputs.vectors[0]
    odds_R = np.full(len(pairs), np.nan)
    odds_R[rows] = head.log_odds(vectors_MH.cpu())[place_N.cpu()[rows]].double().numpy()

    def fit(plan: FoldPlan) -> Scorer:
        training = np.concatenate([plan.fit, plan.selection])
        odds, criterion = odds_R[training], pairs.criterion_N[training]
        sums_C = np.bincount(criterion, weights=odds, minlength=len(pairs.criterion_ids))
        count_C = np.bincount(criterion, minlength=len(pairs.criterion_ids))
        prior_C = np.where(count_C > 0, sums_C / np.maximum(1, count_C), odds.mean())
        return lambda rows: np.asarray(odds_R[rows] - prior_C[pairs.criterion_N[rows]])

    return ZeroShot(*score_folds(pairs, rows_N, asked, fit), head.words)
