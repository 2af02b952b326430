"""Vectors of a frozen encoder: computed once, kept on disk, shared by all trials."""

from gemma_nli.features.block import FeatureBlock, FeatureSource, TokenStates, as_tensor
from gemma_nli.features.encoding import EncodedTexts, EncodeReport, encode, load_for
from gemma_nli.features.request import FeatureRequest
from gemma_nli.features.store import FeatureStore
from gemma_nli.features.upkeep import Finding, Pruned, StoreEntry

__all__ = [
    "EncodeReport",
    "EncodedTexts",
    "FeatureBlock",
    "FeatureRequest",
    "FeatureSource",
    "FeatureStore",
    "Finding",
    "Pruned",
    "StoreEntry",
    "TokenStates",
    "as_tensor",
    "encode",
    "load_for",
]
