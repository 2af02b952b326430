"""How long a text an encoder's files allow at most, as far as they tell without loading it: before a sweep costs money.

A probe of the loaded model has the last word (`probing/position_tables.py`). What is said here is never less than that.
"""

from __future__ import annotations

import re
from pathlib import Path

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.identity import encoder_folder, weight_files
from gemma_nli.model.loading.network import read_config, read_header

_POSITIONS = re.compile(r"(^|\.)(embed_positions|positions?_embeddings?|positions_embed|wpe)\.weight$")
_SPARE_ROWS = 8  # OPT and BART keep two rows more than positions
_COUNT_FROM_PADDING = re.compile(
    r"(xlm-)?roberta(-.*)?|camembert|longformer|mpnet|data2vec-text|xmod|ibert|luke|markuplm"
)
"""Kinds of encoder whose first position is the row after padding's, so that RoBERTa's 514 rows are 512 positions."""


def check_max_length(model: ModelConfig) -> None:
    """Refuse a `max_length` past the learned positions that the encoder's files hold.

    Raises:
        EncoderError: with the most that it takes; or the encoder is not found, or its files are damaged.
    """
    most = positions_held(model.name, encoder_folder(model))
    if most is not None and model.max_length > most:
        raise EncoderError(f"model.max_length: {model.max_length} tokens, but {model.name} has {most} positions.")


def positions_held(name: str, folder: Path) -> int | None:
    """Positions of the longest table of them; None where the files hold none, as those of rotary encoders.

    Raises:
        EncoderError: the files are damaged.
    """
    config = read_config(name, folder)
    if "rot" in str(config.get("position_embedding_type")):  # ESM's table is there and not read
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
