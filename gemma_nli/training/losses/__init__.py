"""Losses: a file each, found by `training.loss`. Another one is another file."""

from gemma_nli.base.part_registry import import_parts
from gemma_nli.training.losses.pair_loss import LOSSES, PairBatch, loss, pair_losses

import_parts(__name__)

__all__ = ["LOSSES", "PairBatch", "loss", "pair_losses"]
