"""Vectors of a frozen encoder: computed once, kept on disk, shared by all trials."""

from gemma_nli.features.block import FeatureBlock, FeatureSource, TokenStates, as_tensor
from gemma_nli.features.encoding import EncodedTexts, EncodeReport, encode, load_for
from gemma_nli.features.request import FeatureRequest
from gemma_nli.features.store import FeatureStore

__all__ = [
    "EncodeReport",
    "EncodedTexts",
    "FeatureBlock",
    "FeatureRequest",
    "FeatureSource",
    "FeatureStore",
    "TokenStates",
    "as_tensor",
    "encode",
    "load_for",
]
