"""The main entry point: a configuration in, the result of its k folds out, the same on a laptop and in a trial of a
sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureSource
from gemma_nli.training.fold import plan_fold
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import train_folds
from gemma_nli.training.listeners import Listener
from gemma_nli.training.results import CvResult, FoldResult, summarize

RunFolds = Callable[
    [RunConfig, Corpus, PairTable, FeatureSource, Mapping[int, FoldResult], Iterable[Listener]],
    Iterator[list[FoldResult]],
]
"""What `run_folds` is."""


def cross_validate(
    config: RunConfig,
    corpus: Corpus,
    pairs: PairTable,
    features: FeatureSource,
    listeners: Iterable[Listener] = (),
    done: Mapping[int, FoldResult] | None = None,
) -> CvResult:
    """Run all folds of one configuration that are not done yet, and summarize them together with those that are.

    Args:
        features: where a frozen encoder's vectors come from; not used by an encoder that is trained.
        done: folds of an earlier, interrupted run of the same trial, by fold number.
    Raises:
        TrainingError: one pair does not fit the device's memory.
    """
    began = time.perf_counter()
    audience = list(listeners)
    done = dict(done or {})
    for listener in audience:
        listener.started(pairs.num_folds, done)
    results = dict(done)
    for folds in run_folds(config, corpus, pairs, features, done, audience):
        results.update({fold.fold: fold for fold in folds})
        for listener in audience:
            listener.folds_ended(folds)
    result = summarize([results[fold] for fold in sorted(results)], pairs, time.perf_counter() - began)
    for listener in audience:
        listener.finished(result)
    return result


def run_folds(
    config: RunConfig,
    corpus: Corpus,
    pairs: PairTable,
    features: FeatureSource,
    done: Mapping[int, FoldResult],
    listeners: Iterable[Listener] = (),
) -> Iterator[list[FoldResult]]:
    """The folds that are not done, as they end: all together on cached vectors, otherwise one at a time in fixed
    order.
    """
    todo = [fold for fold in range(1, pairs.num_folds + 1) if fold not in done]
    if not todo:
        return
    if config.model.freeze_encoder:
        rows = rows_of_folds(config, pairs, todo)
        yield train_folds(config, pairs, todo, load_inputs(config, corpus, pairs, rows, features))
        return
    from gemma_nli.training.finetuning.train_fold import train_fold

    for fold in todo:

        def report_epoch(epoch: int, metrics: Mapping[str, float], fold: int = fold) -> None:
            for listener in listeners:
                listener.epoch_ended(fold, epoch, metrics)

        yield [train_fold(config, corpus, pairs, fold, report_epoch)]


def rows_of_folds(config: RunConfig, pairs: PairTable, folds: Iterable[int]) -> NDArray[np.int64]:
    """Every pair that these folds train on, choose by or are measured on, each once."""
    plans = [plan_fold(config, pairs, fold) for fold in folds]
    return np.unique(np.concatenate([rows for plan in plans for rows in (plan.fit, plan.selection, plan.evaluation)]))
