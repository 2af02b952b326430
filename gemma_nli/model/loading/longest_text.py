"""The longest text that an encoder's files allow, as far as they show without loading it: before a sweep costs money.

A probe of the loaded model decides (`probing/position_tables.py`). The limit found here is never below that.
"""

from __future__ import annotations

import re
from pathlib import Path

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.folder_files import read_header
from gemma_nli.model.loading.identity import encoder_folder, weight_files
from gemma_nli.model.loading.network import read_config
from gemma_nli.model.loading.sentence_modules import native_modules

_POSITIONS = re.compile(r"(^|\.)(embed_positions|positions?_embeddings?|positions_embed|wpe)\.weight$")
_SPARE_ROWS = 8  # OPT and BART have two more rows than positions
_COUNT_FROM_PADDING = re.compile(
    r"(xlm-)?roberta(-.*)?|camembert|longformer|mpnet|data2vec-text|xmod|ibert|luke|markuplm"
)
"""Kinds of encoder whose first position is the row after padding's, so that RoBERTa's 514 rows are 512 positions."""


def check_max_length(model: ModelConfig) -> None:
    """Refuse a `max_length` beyond the learned positions in the encoder's files.

    Raises:
        EncoderError: with the maximum; or the encoder is not found, or its files are damaged.
    """
    folder = encoder_folder(model)
    most, modules = positions_held(model.name, folder), native_modules(model, folder)
    kept = model.max_length
    if modules is not None:  # without a number of its own a folder's texts keep what the encoder has positions for
        kept = min(kept, modules.max_length or most or kept)
    if most is not None and kept > most:
        raise EncoderError(f"model.max_length: {model.max_length} tokens, but {model.name} has {most} positions.")


def positions_held(name: str, folder: Path) -> int | None:
    """Positions of the longest such table; None if the files have none, as for rotary encoders.

    Raises:
        EncoderError: the files are damaged.
    """
    config = read_config(name, folder)
    if "rot" in str(config.get("position_embedding_type")):  # ESM has such a table but does not use it
        return None
    shapes = [
        entry.get("shape")
        for path in weight_files(folder)
        for tensor, entry in read_header(path).items()
        if _POSITIONS.search(tensor)
    ]
    rows = max((shape[0] for shape in shapes if isinstance(shape, list) and len(shape) == 2), default=None)
    if rows is None:
        return None
    named = config.get("max_position_embeddings")
    if isinstance(named, int) and 0 < rows - named <= _SPARE_ROWS:
        return named
    padding = config.get("pad_token_id", 1)
    if isinstance(padding, int) and _COUNT_FROM_PADDING.fullmatch(str(config.get("model_type"))):
        return int(rows) - padding - 1
    return int(rows)
