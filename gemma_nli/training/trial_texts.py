"""Which texts a trial needs of an encoder, and where each row of the PairTable finds its own among them.

Shapes: M texts, N rows of the PairTable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable, pair_texts
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.model.prompts import Prompt, check_templates, prompts_of


@dataclass(frozen=True, eq=False)
class TrialTexts:
    """Texts as an encoder takes them: M pairs, or M posts and criteria that are encoded alone (`hypotheses` None).

    Args:
        sides: (N,) per side, the text of each row of the PairTable: its pair, or its post and its criterion. It is -1
            where the row was not asked for.
        prompts: what precedes each of `premises`, or the frame it is set into, if anything (templates, native pooling).
    """

    premises: tuple[str, ...]
    hypotheses: tuple[str, ...] | None
    sides: tuple[NDArray[np.int64], ...]
    prompts: tuple[Prompt, ...] | None = None

    def sides_at(self, at_M: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The sides where text m stands in row `at_M[m]` of something else, as of a block of features."""
        return [np.append(at_M, -1)[side_N] for side_N in self.sides]


def check_texts(config: RunConfig, corpus: Corpus) -> None:
    """Whether the criteria have the wording that the settings ask for, and leave room for a post in its templates.

    Raises:
        CorpusError, EncoderError: with both values, before anything is encoded.
    """
    check_templates(config.model, list(corpus.in_words(config.data.wording).criteria.values()))


def trial_texts(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: NDArray[np.int64]) -> TrialTexts:
    """What a configuration needs encoded for these rows: pairs when joint, posts and criteria alone when separate."""
    prompts, corpus = prompts_of(config.model), corpus.in_words(config.data.wording)
    if config.model.pair_encoding == "joint":
        place_N = np.full(len(pairs), -1, dtype=np.int64)
        place_N[rows] = np.arange(len(rows))
        texts, partners, before = prompts.pairs(*pair_texts(corpus, pairs, rows))
        return TrialTexts(tuple(texts), tuple(partners), (place_N,), before)
    posts, criteria = np.unique(pairs.post_N[rows]), np.unique(pairs.criterion_N[rows])
    premises = [corpus.posts[pairs.post_ids[post]] for post in posts]
    hypotheses = [corpus.criteria[pairs.criterion_ids[criterion]] for criterion in criteria]
    texts, _, before = prompts.alone(premises, hypotheses)
    of_post = np.full(len(pairs.post_ids), -1, dtype=np.int64)
    of_criterion = np.full(len(pairs.criterion_ids), -1, dtype=np.int64)
    of_post[posts] = np.arange(len(posts))
    of_criterion[criteria] = len(posts) + np.arange(len(criteria))
    return TrialTexts(tuple(texts), None, (of_post[pairs.post_N], of_criterion[pairs.criterion_N]), before)
