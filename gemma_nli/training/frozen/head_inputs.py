"""From rows of the PairTable to what a head sees: cached vectors, or token states if the pooling is learned.

Shapes: K folds, B rows, T tokens, H hidden, W pooled, D head input (W joint, 4W separate), N rows of the PairTable.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gemma_nli.base.random_streams import FIRST_WEIGHTS
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureBlock, FeatureRequest, FeatureSource
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.model.heads import Drop, Head, build_head, combine, head_width, no_drop
from gemma_nli.model.pooling import POOLERS, LearnedPooler, Pooler, build_pooler, view_name
from gemma_nli.training.frozen.ragged_attention import attend, ragged_rows
from gemma_nli.training.trial_texts import TrialTexts, trial_texts


class StackedClassifier(nn.Module):
    """K poolings where they are learned, None where vectors come pooled, and K heads, trained together."""

    pooler: Pooler | None

    def __init__(self, config: RunConfig, width: int, num_models: int) -> None:
        """
        Args:
            width: of what the inputs hold: token states where the pooling is learned, else pooled vectors.
        """
        super().__init__()
        model, self.pooler = config.model, None
        if POOLERS[model.pooling_strategy].learned:
            self.pooler = build_pooler(model.pooling_strategy, width, model.pooling_k, num_models)
            width = self.pooler.width
        self.head: Head = build_head(model.head, head_width(model, width), model.head_hidden, num_models)

    def reset(self, model: int, seed: int, fold: int) -> None:
        """Draw one fold's initial weights; they depend on the seed and the fold, not on which folds train beside it."""
        generator = torch.Generator().manual_seed(FIRST_WEIGHTS.number(seed, fold))
        if self.pooler is not None:
            self.pooler.reset(model, generator)
        self.head.reset(model, generator)

    def state_of(self, model: int) -> dict[str, Tensor]:
        """One model's weights with a leading dimension of 1, as a classifier of one model loads them."""
        return {name: p.detach()[model : model + 1].cpu().clone() for name, p in self.named_parameters()}

    def load_model(self, model: int, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter[model].copy_(state[name][0])


class HeadInputs(Protocol):
    width: int
    device: torch.device
    chunk: int | None

    def logits(self, classifier: StackedClassifier, rows_KB: Tensor, drop: Drop = no_drop) -> Tensor:
        """(K, B) logits of PairTable rows; `chunk` is how many columns at a time fit memory, None for any number."""


class VectorInputs:
    """Pooled vectors. One side holds the pairs' vectors; two sides the posts' and the criteria's."""

    chunk: int | None = None

    def __init__(self, sides: list[tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.sides = [(vectors_MH.to(device), place_N.to(device)) for vectors_MH, place_N in sides]
        self.width = self.sides[0][0].shape[1]
        self.device = device

    def logits(self, classifier: StackedClassifier, rows_KB: Tensor, drop: Drop = no_drop) -> Tensor:
        flat_R = rows_KB.reshape(-1)
        taken = [vectors_MH.index_select(0, place_N.index_select(0, flat_R)) for vectors_MH, place_N in self.sides]
        x_RD = taken[0] if len(taken) == 1 else combine(taken[0], taken[1])
        logits: Tensor = classifier.head(x_RD.view(*rows_KB.shape, -1), drop)
        return logits


class TokenInputs:
    """Token states: read in place when all are in memory, otherwise encoded again, batch by batch, by the block."""

    def __init__(self, sides: list[tuple[FeatureBlock, NDArray[np.int64]]], width: int, device: torch.device) -> None:
        self.sides, self.width, self.device = sides, width, device
        self.flat = [_flat_states(block, device) for block, _ in sides]
        self.chunk = None if all(flat_SH is not None for flat_SH in self.flat) else 64

    def logits(self, classifier: StackedClassifier, rows_KB: Tensor, drop: Drop = no_drop) -> Tensor:
        assert classifier.pooler is not None, "token states are for learned poolings"
        pooled = [self._pooled(classifier.pooler, side, rows_KB) for side in range(len(self.sides))]
        x_KBD = pooled[0] if len(pooled) == 1 else combine(pooled[0], pooled[1])
        logits: Tensor = classifier.head(x_KBD, drop)
        return logits

    def _pooled(self, pooler: Pooler, side: int, rows_KB: Tensor) -> Tensor:
        block, place_N = self.sides[side]
        flat_SH = self.flat[side]
        at_R = place_N[rows_KB.reshape(-1).cpu().numpy()]
        if flat_SH is not None and isinstance(pooler, LearnedPooler) and block.tokens is not None:
            texts = ragged_rows(flat_SH, block.tokens.offsets, at_R)
            query_RH = pooler.look().repeat_interleave(rows_KB.shape[1], dim=0)
            return pooler.mix(attend(texts, query_RH).view(*rows_KB.shape, -1))
        h_RTH, mask_RT = block.token_batch(at_R)
        shape = (*rows_KB.shape, h_RTH.shape[1])
        vectors: Tensor = pooler(h_RTH.to(self.device).view(*shape, -1), mask_RT.to(self.device).view(shape))
        return vectors


def _flat_states(block: FeatureBlock, device: torch.device) -> Tensor | None:
    """All token states of a block on the device in float32, or None if some were not kept."""
    if block.tokens is None or block.kept_share() < 1:
        return None
    return block.tokens.tensor().to(device, torch.float32)


def feature_request(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: NDArray[np.int64]) -> FeatureRequest:
    """What a configuration needs encoded for these rows: pairs when joint, posts and criteria alone when separate."""
    return _request(config, trial_texts(config, corpus, pairs, rows))


def _request(config: RunConfig, texts: TrialTexts) -> FeatureRequest:
    model = config.model
    view = view_name(model.pooling_strategy, model.pooling_k)
    return FeatureRequest(
        model=model,
        device=config.device,
        identity=identify_encoder(model),
        premises=texts.premises,
        hypotheses=texts.hypotheses,
        prompts=texts.prompts,
        views=(view,) if view else (),
        with_tokens=POOLERS[model.pooling_strategy].learned,
    )


def load_inputs(
    config: RunConfig, corpus: Corpus, pairs: PairTable, rows: NDArray[np.int64], features: FeatureSource
) -> HeadInputs:
    """The inputs of these rows, encoded now if the source does not have them yet."""
    texts = trial_texts(config, corpus, pairs, rows)
    request = _request(config, texts)
    block = features.load(request)
    device = resolve_device(config.device)
    places = texts.sides_at(block.rows_of(request.digests))
    if request.with_tokens:
        return TokenInputs([(block, place_N) for place_N in places], block.hidden_size, device)
    vectors_MH = block.view(request.views[0])
    return VectorInputs([(vectors_MH, torch.from_numpy(place_N)) for place_N in places], device)
