"""Heads: a file each, found by `model.head`. Another one is another file."""

from gemma_nli.base.part_registry import import_parts
from gemma_nli.model.heads.classifier_head import HEADS, Drop, Head, build_head, combine, head, head_width, no_drop

import_parts(__name__)

__all__ = ["HEADS", "Drop", "Head", "build_head", "combine", "head", "head_width", "no_drop"]
