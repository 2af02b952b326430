"""Token ids of a trial's pairs, computed once for all folds and epochs, and a classifier's logits for them.

Shapes: B rows of a batch, R rows asked for, U different texts, T tokens, H hidden, N rows of the PairTable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, Tokens
from gemma_nli.training.fold import Rows
from gemma_nli.training.trial_texts import trial_texts


@dataclass(frozen=True, eq=False)
class PairTokens:
    """`sides` say where each row of the PairTable is in `tokens`: its pair, or its post and its criterion."""

    tokens: Tokens
    sides: tuple[Rows, ...]

    def lengths(self, rows: Rows) -> Rows:
        """(R,) tokens of each pair; of its post where texts are encoded alone (criteria are few)."""
        return np.asarray(self.tokens.lengths[self.sides[0][rows]])

    def logits(self, classifier: PairClassifier, rows_B: Rows) -> Tensor:
        """logit_B of one batch, with gradients; a text that several of its pairs share is encoded once."""
        if len(self.sides) == 1:
            logit_B: Tensor = classifier(classifier.encoder.collate(self.tokens, self.sides[0][rows_B]))
            return logit_B
        u_BH, v_BH = (self._each_once(classifier, side_N[rows_B]) for side_N in self.sides)
        return classifier.classify(u_BH, v_BH)

    def _each_once(self, classifier: PairClassifier, places_B: Rows) -> Tensor:
        places_U, which_B = np.unique(places_B, return_inverse=True)
        x_UH = classifier.vectors(classifier.encoder.collate(self.tokens, places_U))
        return F.embedding(torch.from_numpy(which_B).to(x_UH.device), x_UH)  # its gradient adds in one fixed order

    def evaluate(self, classifier: PairClassifier, rows_R: Rows, batch_tokens: int) -> NDArray[np.float32]:
        """(R,) logits in the order of the rows, computed in batches of similar length, without gradients."""
        if not len(rows_R):
            return np.zeros(0, dtype=np.float32)
        if len(self.sides) == 1:
            return _on_cpu(classifier.by_length(self.tokens, self.sides[0][rows_R], batch_tokens, classifier))
        parts = self._sides(classifier, rows_R, batch_tokens)
        return _on_cpu(torch.cat([classifier.classify(*sides) for sides in parts]))

    def fit_norm(self, classifier: PairClassifier, rows_R: Rows, batch_tokens: int) -> None:
        """Fit the classifier's norm to these pairs as the encoder and the pooling give them now."""
        inputs = (classifier.head_input(*sides) for sides in self._sides(classifier, rows_R, batch_tokens))
        classifier.norm.fit((x_1BD, torch.ones(x_1BD.shape[:2])) for x_1BD in inputs)

    def _sides(self, classifier: PairClassifier, rows_R: Rows, batch_tokens: int) -> Iterator[list[Tensor]]:
        """Pooled vectors of the pairs, or of their posts and criteria, some thousand pairs at a time."""
        places_U, which_SR = np.unique(np.stack([side_N[rows_R] for side_N in self.sides]), return_inverse=True)
        x_UH = classifier.by_length(self.tokens, places_U, batch_tokens, classifier.vectors)
        each_SR = torch.from_numpy(which_SR.reshape(len(self.sides), -1)).to(x_UH.device)
        for each_SB in torch.split(each_SR, 4096, dim=1):
            yield [x_UH[each_B] for each_B in each_SB]


def _on_cpu(logits: Tensor) -> NDArray[np.float32]:
    return np.asarray(logits.cpu().numpy(), dtype=np.float32)


def tokenize_pairs(encoder: Encoder, config: RunConfig, corpus: Corpus, pairs: PairTable, rows: Rows) -> PairTokens:
    """Tokens of these rows; others must not be requested later (their place is -1)."""
    texts = trial_texts(config, corpus, pairs, rows)
    return PairTokens(encoder.tokenize(texts.premises, texts.hypotheses, texts.prompts), texts.sides)
