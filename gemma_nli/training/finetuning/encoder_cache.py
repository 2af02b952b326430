"""What the folds of a trial share in this process: the encoder with its initial weights, and the pairs' token ids.

An encoder is read from disk and its pairs are tokenised once per trial (and once for several trials in a row that train
the same encoder on the same pairs). Each fold starts from the same initial weights.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from gemma_nli.base.errors import TrainingError
from gemma_nli.base.random_streams import FIRST_WEIGHTS
from gemma_nli.config import RunConfig
from gemma_nli.config.templates import PLACES
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.model.adapters import load_trainable_state, trainable_encoder, trainable_state
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import Encoder, identify_encoder, load_encoder, resolve_device, resolve_precision
from gemma_nli.training.finetuning.optimizer_step import MicroBatchWarning
from gemma_nli.training.finetuning.pair_tokens import PairTokens, tokenize_pairs
from gemma_nli.training.fold import Rows

log = logging.getLogger(__name__)
_OF_THE_ENCODER = {"name", "revision", "max_length", "unfreeze_last_n", "lora", "attention", "attn_implementation"}
_OF_THE_ENCODER |= {"layers", "premise_prompt", "hypothesis_prompt", *PLACES}


@dataclass
class SharedEncoder:
    """One encoder and its tokens. One fold at a time may use it: a fold trains the encoder in place."""

    config: RunConfig
    encoder: Encoder
    precision: torch.dtype
    encoder_key: tuple[Any, ...]
    first_weights: dict[str, Tensor] | None
    tokens: PairTokens | None = None
    tokens_key: tuple[Any, ...] = ()
    memory_warning: MicroBatchWarning = field(default_factory=MicroBatchWarning)
    fresh: bool = True

    def classifier(self, config: RunConfig, fold: int) -> PairClassifier:
        """The classifier that a fold starts with: the encoder's initial weights, pooling and head drawn for the
        fold.
        """
        if not self.fresh:
            if self.first_weights is not None:
                load_trainable_state(self.encoder, self.first_weights)
            else:
                self.encoder = _prepared_encoder(self.config)
        self.fresh = False
        classifier = PairClassifier(self.encoder, config.model)
        classifier.reset(torch.Generator().manual_seed(FIRST_WEIGHTS.number(config.training.seed, fold)))
        return classifier

    def tokens_of(self, config: RunConfig, corpus: Corpus, pairs: PairTable, rows: Rows) -> PairTokens:
        key = (pairs.corpus_fingerprint, config.data.wording, config.model.pair_encoding, rows.tobytes())
        if self.tokens is None or self.tokens_key != key:
            self.tokens, self.tokens_key = tokenize_pairs(self.encoder, config, corpus, pairs, rows), key
        return self.tokens


_shared: SharedEncoder | None = None


def shared_encoder(config: RunConfig) -> SharedEncoder:
    """The encoder of this process: the one that is there where it suits the settings, else a new one in its place."""
    global _shared
    key = _encoder_key(config)
    if _shared is None or _shared.encoder_key != key:
        _shared = None  # before the next encoder is read: two may not fit
        encoder = _prepared_encoder(config)
        precision = resolve_precision(config.device, encoder.device)
        _shared = SharedEncoder(config, encoder, precision, key, _first_weights(encoder))
    return _shared


def release_shared_encoder() -> None:
    """Release the encoder: its memory is freed as soon as nothing else holds it."""
    global _shared
    _shared = None


def trial_rows(config: RunConfig, pairs: PairTable, rows: Rows | None = None) -> Rows:
    """Every row that some fold of the trial uses, and those of `rows`: tokenised together, once."""
    used = pairs.rows_used(config.data.negative_ratio)
    return used if rows is None else np.union1d(used, rows)


def _encoder_key(config: RunConfig) -> tuple[Any, ...]:
    device = config.device
    drawn = config.training.seed if config.model.lora is not None else None
    settings = config.model.model_dump_json(include=_OF_THE_ENCODER)
    return (
        settings,
        identify_encoder(config.model).fingerprint,
        drawn,
        str(resolve_device(device)),
        device.mixed_precision,
        device.gradient_checkpointing,
        device.compile,
    )


def _prepared_encoder(config: RunConfig) -> Encoder:
    """An encoder as the settings train it; adapters start from the seed alone, the same for each fold."""
    encoder = trainable_encoder(load_encoder(config.model, config.device), config.model, config.training.seed)
    if config.device.gradient_checkpointing:
        if encoder.manner.put_back:  # a pass's changes to the model are undone before the backward pass
            raise TrainingError(
                f"device.gradient_checkpointing: {config.model.name} computes differently after some texts, so a pass "
                "cannot be repeated; set it to false and raise training.gradient_accumulation instead."
            )
        try:
            encoder.model.activation_checkpointing_enable({"use_reentrant": False})
            encoder.model.disable_input_require_grads()  # otherwise frozen lower layers would be differentiated too
        except (ValueError, AttributeError):
            raise TrainingError(
                f"device.gradient_checkpointing: {config.model.name} does not support it; set it to false and raise "
                "training.gradient_accumulation instead."
            ) from None
    if config.device.compile:
        encoder.model.compile(dynamic=True)
    return encoder


def _first_weights(encoder: Encoder) -> dict[str, Tensor] | None:
    """A copy of what will be trained; None if the machine has too little memory for it (then it is read again)."""
    size = sum(p.numel() * p.element_size() for p in encoder.parameters() if p.requires_grad)
    if 2 * size > psutil.virtual_memory().available:  # a fold's best weights need the same amount again
        log.info("too little memory for a copy of the encoder's first weights; each fold reads them from disk")
        return None
    return trainable_state(encoder)
