"""Poolings: a file each, found by `model.pooling_strategy`. Another one is another file."""

from gemma_nli.base.part_registry import import_parts
from gemma_nli.model.pooling.learned import LearnedPooler
from gemma_nli.model.pooling.pooler import POOLERS, Pooler, build_pooler, pooler, uses_k, view_name

import_parts(__name__)

__all__ = ["POOLERS", "LearnedPooler", "Pooler", "build_pooler", "pooler", "uses_k", "view_name"]
