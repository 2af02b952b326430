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
from gemma_nli.features.request import view_of_layer
from gemma_nli.model.encoder import identify_encoder, resolve_device
from gemma_nli.model.head_norms import HeadNorm, build_head_norm, head_input
from gemma_nli.model.heads import Drop, Head, build_head, head_width, no_drop
from gemma_nli.model.layers import Mixed, SideBySide, build_layers_pooler, is_learned, layers_of
from gemma_nli.model.pooling import LearnedPooler, Pooler, view_name
from gemma_nli.training.frozen.ragged_attention import Ragged, attend, ragged_rows
from gemma_nli.training.trial_texts import TrialTexts, trial_texts


class StackedClassifier(nn.Module):
    """K poolings where they are learned, None where vectors come pooled, K norms and K heads, trained together."""

    pooler: Pooler | None

    def __init__(self, config: RunConfig, width: int, num_models: int) -> None:
        """
        Args:
            width: of what the inputs hold: token states where the pooling is learned, else pooled vectors.
        """
        super().__init__()
        model, self.pooler = config.model, None
        choice = layers_of(model)
        if is_learned(model) or choice.mixed:
            self.pooler = build_layers_pooler(model, choice, width, num_models)
            width = self.pooler.width
        width = head_width(model, width)
        self.norm: HeadNorm = build_head_norm(model.head_norm, width, num_models)
        self.head: Head = build_head(model.head, width, model.head_hidden, num_models)

    def reset(self, model: int, seed: int, fold: int) -> None:
        """Draw one fold's initial weights; they depend on the seed and the fold, not on which folds train beside it."""
        generator = torch.Generator().manual_seed(FIRST_WEIGHTS.number(seed, fold))
        if self.pooler is not None:
            self.pooler.reset(model, generator)
        self.head.reset(model, generator)

    def forward(self, sides: list[Tensor], drop: Drop = no_drop) -> Tensor:
        """(K, B) logits of pooled vectors (K, B, W): the pairs', or the posts' and the criteria's."""
        logits: Tensor = self.head(self.norm(head_input(self.norm, sides)), drop)
        return logits

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

    def sides(self, classifier: StackedClassifier, rows_KB: Tensor) -> list[Tensor]:
        """Pooled vectors (K, B, W) of PairTable rows: the pairs', or the posts' and the criteria's.

        `chunk` is how many columns at a time fit memory, None for any number.
        """


class VectorInputs:
    """Pooled vectors, of several layers side by side. One side holds the pairs'; two the posts' and the criteria's."""

    chunk: int | None = None

    def __init__(self, sides: list[tuple[Tensor, Tensor]], device: torch.device, mixed: int = 1) -> None:
        """
        Args:
            mixed: layers side by side in a vector of which the classifier makes one.
        """
        self.vectors = [(vectors_MH.to(device), place_N.to(device)) for vectors_MH, place_N in sides]
        self.width = self.vectors[0][0].shape[1] // mixed
        self.device = device

    def sides(self, classifier: StackedClassifier, rows_KB: Tensor) -> list[Tensor]:
        flat_R = rows_KB.reshape(-1)
        taken = [vectors_MH.index_select(0, place_N.index_select(0, flat_R)) for vectors_MH, place_N in self.vectors]
        sides = [x_RW.view(*rows_KB.shape, -1) for x_RW in taken]
        return [classifier.pooler.mix(side) for side in sides] if isinstance(classifier.pooler, Mixed) else sides


class TokenInputs:
    """Token states: read in place when all are in memory, otherwise encoded again, batch by batch, by the block."""

    def __init__(self, sides: list[tuple[FeatureBlock, NDArray[np.int64]]], device: torch.device) -> None:
        self.blocks, self.width, self.device = sides, sides[0][0].hidden_size, device
        self.flat = [_flat_states(block, device) for block, _ in sides]
        self.chunk = None if all(flat_LSH is not None for flat_LSH in self.flat) else 64

    def sides(self, classifier: StackedClassifier, rows_KB: Tensor) -> list[Tensor]:
        assert classifier.pooler is not None, "token states are for learned poolings"
        return [self._pooled(classifier.pooler, side, rows_KB) for side in range(len(self.blocks))]

    def _pooled(self, pooler: Pooler, side: int, rows_KB: Tensor) -> Tensor:
        block, place_N = self.blocks[side]
        flat_LSH = self.flat[side]
        at_R = place_N[rows_KB.reshape(-1).cpu().numpy()]
        if flat_LSH is not None and block.tokens is not None and _attends(pooler):
            return _attended(
                pooler, [ragged_rows(each, block.tokens.offsets, at_R) for each in flat_LSH], rows_KB.shape
            )
        h_RTH, mask_RT = block.token_batch(at_R)
        shape = (*rows_KB.shape, h_RTH.shape[1])
        vectors: Tensor = pooler(h_RTH.to(self.device).view(*shape, -1), mask_RT.to(self.device).view(shape))
        return vectors


def _attends(pooler: Pooler) -> bool:
    """Whether a pooling can be computed from states that are not padded."""
    within = pooler.each if isinstance(pooler, SideBySide) else [pooler.pool if isinstance(pooler, Mixed) else pooler]
    return all(isinstance(each, LearnedPooler) for each in within)


def _attended(pooler: Pooler, layers: list[Ragged], shape: torch.Size) -> Tensor:
    """(K, B, W) pooled from the token states of each layer."""
    if isinstance(pooler, SideBySide):
        each = zip(pooler.each, layers, strict=True)
        return torch.cat([_attended(one, [texts], shape) for one, texts in each], dim=-1)  # type: ignore[arg-type]
    inner = pooler.pool if isinstance(pooler, Mixed) else pooler
    assert isinstance(inner, LearnedPooler)
    query_RH = inner.look().repeat_interleave(shape[1], dim=0)
    share_RL = pooler.shares().repeat_interleave(shape[1], dim=0) if isinstance(pooler, Mixed) else None
    return inner.mix(attend(layers, query_RH, share_RL).view(*shape, -1))


def _flat_states(block: FeatureBlock, device: torch.device) -> list[Tensor] | None:
    """All token states of a block on the device in float32, of each layer; None if some were not kept."""
    if block.tokens is None or block.kept_share() < 1:
        return None
    return [flat_SH.to(device).to(torch.float32).contiguous() for flat_SH in block.tokens.tensors()]


def feature_request(config: RunConfig, corpus: Corpus, pairs: PairTable, rows: NDArray[np.int64]) -> FeatureRequest:
    """What a configuration needs encoded for these rows: pairs when joint, posts and criteria alone when separate."""
    return _request(config, trial_texts(config, corpus, pairs, rows))


def _request(config: RunConfig, texts: TrialTexts) -> FeatureRequest:
    model = config.model
    view, choice = view_name(model.pooling_strategy, model.pooling_k), layers_of(model)
    return FeatureRequest(
        model=model,
        device=config.device,
        identity=identify_encoder(model),
        premises=texts.premises,
        hypotheses=texts.hypotheses,
        prompts=texts.prompts,
        views=tuple(view_of_layer(view, number, choice.depth) for number in choice.numbers) if view else (),
        with_tokens=is_learned(model),
        token_layers=tuple(None if number == choice.depth else number for number in choice.numbers),
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
        return TokenInputs([(block, place_N) for place_N in places], device)
    vectors = [block.view(view) for view in request.views]
    vectors_MW = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
    mixed = len(vectors) if layers_of(config.model).mixed else 1
    return VectorInputs([(vectors_MW, torch.from_numpy(place_N)) for place_N in places], device, mixed)
