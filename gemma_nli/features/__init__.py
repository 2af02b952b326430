"""Vectors of a frozen encoder: computed once, kept on disk, shared by all trials."""

from gemma_nli.features.encode_texts import EncodedTexts, EncodeReport, encode, load_for
from gemma_nli.features.feature_block import FeatureBlock, FeatureSource
from gemma_nli.features.request import FeatureRequest
from gemma_nli.features.store import FeatureStore
from gemma_nli.features.token_states import TokenStates, as_tensor
from gemma_nli.features.verify_and_prune import Finding, Pruned, StoreEntry

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
