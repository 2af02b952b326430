"""A trial's classifier fitted on all pairs, as a bundle: what a sweep registers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.bundles.bundle import check_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.scaling import UNSCALED, Scaling, mean_scaling
from gemma_nli.storage import Place, fetch_folder, folder_of, store_folder
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import fit_head
from gemma_nli.trial import TrialRecord

EXAMPLE_PREMISE = "For weeks I have slept badly, and by noon I am too tired to answer a message."
"""Written for this project: a registered model must not contain anyone's post."""


@dataclass(frozen=True)
class Refit:
    """What a refit needs, small enough to travel: the trial's choice of epochs and thresholds over its folds.

    thresholds: by criterion id, of those with one of their own. scaling: of the logits.
    """

    config: RunConfig
    epochs: int
    threshold: float
    metadata: dict[str, Any]
    thresholds: dict[str, float] = field(default_factory=dict)
    scaling: Scaling = UNSCALED


def bundle_place(ready: Prepared, key: str) -> Place:
    """Where the bundle of a refitted trial is kept."""
    return ready.folder / f"bundle-{key}"


def bundle_of_trial(ready: Prepared, key: str) -> Path:
    """The bundle of a finished trial of the sweep: the one that is there, or a refit, here and now."""
    place = bundle_place(ready, key)
    if (place / "bundle.json").exists():
        return fetch_folder(place)
    record = ready.read(key)
    assert record is not None, "a finished trial has a journal"
    plan = plan_refit(record, ready.corpus)
    bundle = refit_bundle(plan, ready.corpus, ready.pairs, ready.storage, folder_of(place))
    store_folder(place)
    return bundle


def criteria_of(corpus: Corpus, config: RunConfig) -> dict[str, str]:
    """Id to text, as the trial reads them."""
    return corpus.in_words(config.data.wording).criteria


def plan_refit(record: TrialRecord, corpus: Corpus) -> Refit:
    """The median of the epochs and the mean of the thresholds that the folds chose; the criteria go into the bundle.

    A fold whose inner split lacks a class chose neither, and counts only where none did. A criterion has a threshold of
    its own if it had one in some fold: there its own counts, in the other folds the shared one.
    """
    every = list(record.folds.values())
    folds = [fold for fold in every if not fold.lacks_inner_split] or every
    epochs = round(statistics.median(fold.selected_epoch for fold in folds))
    threshold = statistics.fmean(fold.threshold for fold in folds)
    criteria = criteria_of(corpus, record.config)
    own = {
        name: statistics.fmean(fold.thresholds.get(name, fold.threshold) for fold in folds)
        for name in criteria
        if any(name in fold.thresholds for fold in folds)
    }
    metadata: dict[str, Any] = {"criteria": dict(criteria)}
    metadata |= {"trial_key": record.key, "epochs": epochs, "aggregates": _finite(record.aggregates)}
    scaling = mean_scaling([fold.scaling for fold in folds if fold.scaling != UNSCALED])
    return Refit(record.config, max(1, epochs), min(max(threshold, 0.0), 1.0), metadata, own, scaling)


def refit_bundle(refit: Refit, corpus: Corpus, pairs: PairTable, storage: Place, target: Path) -> Path:
    """Fit on every fold's pairs at the trial's ratio and write the bundle, which is loaded once to check that it works.

    Raises:
        EncoderError: the bundle does not load, or differs from the fitted classifier.
    """
    config = refit.config
    rows = pairs.all_rows(config.data.negative_ratio)
    if not config.model.freeze_encoder:
        from gemma_nli.training.finetuning.train_fold import fit_all

        classifier = fit_all(config, corpus, pairs, rows, refit.epochs)
    else:
        inputs = load_inputs(config, corpus, pairs, rows, FeatureStore(storage / "features", config.features))
        stack = fit_head(config, pairs, rows, refit.epochs, inputs)
        classifier = PairClassifier(load_encoder(config.model, config.device), config.model).eval()
        classifier.load_head_state(stack.state_of(0))
    classifier.scaling = refit.scaling
    hypotheses = list(criteria_of(corpus, config).values())
    premises = [EXAMPLE_PREMISE] * len(hypotheses)
    logits = classifier.predict(premises, hypotheses)
    folder = save_bundle(
        target, config, classifier, refit.threshold, refit.metadata, thresholds=refit.thresholds, scaling=refit.scaling
    )
    del classifier  # two copies of a large encoder may not fit
    check_bundle(folder, premises, hypotheses, logits, config.device)
    return folder


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value == value}
