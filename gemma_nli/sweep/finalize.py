"""The end of a sweep: its best configuration refitted on all pairs, and registered once."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import ray

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.what_was_measured import REFIT
from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.bundle import check_bundle, save_bundle
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.scaling import UNSCALED, Scaling, mean_scaling
from gemma_nli.storage import Place, fetch_folder, folder_of, store_folder
from gemma_nli.sweep.cluster.ray_session import may_grow
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.ray.worker_gate import worker_gate
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.written_cards import model_name
from gemma_nli.tracking.registry.promotion import promote_if_better
from gemma_nli.tracking.registry.register import Registered, find_registered, give_alias, register_bundle
from gemma_nli.tracking.write.tracker import MlflowTracker
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import fit_head
from gemma_nli.trial import TrialRecord

log = logging.getLogger(__name__)
RefitTask: TypeAlias = Any  # a ray.ObjectRef[None]
EXAMPLE_PREMISE = "For weeks I have slept badly, and by noon I am too tired to answer a message."
"""Written for this project: a registered model must not contain anyone's post."""


@dataclass(frozen=True)
class Finalized:
    """`created` is False if the version already existed."""

    registered: dict[str, Any]
    created: bool


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


def finalize(
    ready: Prepared,
    record: TrialRecord,
    recorder: Recorder,
    resources: TrialResources | None = None,
    tags: Mapping[str, str] | None = None,
    refit: RefitTask | None = None,
    card: Path | None = None,
) -> Finalized:
    """Refit and register a finished trial; a trial that is already registered is left as it is.

    Args:
        tags: further tags of the new version (its honest score).
        refit: what `start_refit` returned for this trial.
        card: its model card, put beside the new version's files.
    Raises:
        TrackingError: the registry cannot be reached; the sweep's trials are safe, and running it again finalizes it.
    """
    tracker = recorder.tracker
    if tracker is None:
        raise TrackingError("mlflow.enabled is false: there is no registry to register the model in.")
    settings = ready.spec.finalize
    name = model_name(ready.spec)
    found = find_registered(tracker, name, record.key, record.fold_fingerprint)
    if found is not None:
        aliased = give_alias(tracker, found, settings.alias, recorder.sweep_run_id)
        return Finalized(_facts_of(aliased, _promotion(ready, aliased, tracker)), created=False)
    recorder.trial_changed(record.key)
    recorder.drain()
    trial_run_id = recorder.deliver(record.key)
    assert trial_run_id is not None, "the trial has just been read"
    refit = refit or _begin(ready, record, resources)
    if refit is not None:
        ray.get(refit)
        bundle = fetch_folder(_target(ready, record))
    else:
        plan = plan_refit(record, ready.corpus)
        bundle = refit_bundle(plan, ready.corpus, ready.pairs, ready.storage, folder_of(_target(ready, record)))
    tags = {
        **(tags or {}),
        "gemma_nli.trial_key": record.key,
        "gemma_nli.fold_fingerprint": record.fold_fingerprint,
        "gemma_nli.data_fingerprint": ready.corpus.fingerprint,
        "gemma_nli.trial_run_id": trial_run_id,
        "gemma_nli.sweep_name": ready.spec.name,
        "gemma_nli.metric": ready.spec.metric,
        "gemma_nli.metric_value": repr(record.metrics().get(ready.spec.metric)),
        "gemma_nli.eval_negative_ratio": str(record.config.data.eval_negative_ratio),
        "gemma_nli.negatives": record.config.data.negatives,
        "gemma_nli.measured": record.config.data.measured_at,
        "gemma_nli.refit": REFIT,
    }
    hypothesis = next(iter(_criteria(ready.corpus, record.config).values()))
    example = pd.DataFrame({"premise": [EXAMPLE_PREMISE], "hypothesis": [hypothesis]})
    registered = register_bundle(
        tracker=tracker,
        bundle_folder=bundle,
        model_name=name,
        source_run_id=trial_run_id,
        sweep_run_id=recorder.sweep_run_id,
        tags=tags,
        alias=settings.alias,
        input_example=example,
        export_limit_gib=settings.export_limit_gib,
        card=card,
    )
    return Finalized(_facts_of(registered, _promotion(ready, registered, tracker)), created=registered.created)


def start_refit(
    ready: Prepared, record: TrialRecord, recorder: Recorder, resources: TrialResources | None = None
) -> RefitTask | None:
    """Start a trial's refit on Ray, to run in parallel with what the driver does next.

    None for a known version, without Ray, and where this process is as good: a head over cached vectors fits in
    less time than a worker takes to start. `finalize` asks the registry again, and reports it if it is unreachable.
    """
    if recorder.tracker is None or _fits_here(record, resources):
        return None
    try:
        known = find_registered(recorder.tracker, model_name(ready.spec), record.key, record.fold_fingerprint)
    except TrackingError as error:
        log.info("refit not started: %s", error)
        return None
    return None if known is not None else _begin(ready, record, resources)


def _fits_here(record: TrialRecord, resources: TrialResources | None) -> bool:
    """Whether the driver refits: a frozen encoder's trial that asks for no GPU, on the machine where trials ran."""
    gpu = resources is not None and resources.gpu > 0
    return record.config.model.freeze_encoder and not gpu and not (ray.is_initialized() and may_grow())


def _begin(ready: Prepared, record: TrialRecord, resources: TrialResources | None) -> RefitTask | None:
    if not ray.is_initialized() or _fits_here(record, resources):
        return None
    wanted = resources or TrialResources(1.0, 0.0, 1)
    task = _refit_there.options(num_cpus=wanted.cpu, num_gpus=wanted.gpu or 0, max_retries=2)
    plan = plan_refit(record, ready.corpus)
    begun: RefitTask = task.remote(plan, ready.corpus, ready.pairs, ready.storage, _target(ready, record))
    return begun


def _target(ready: Prepared, record: TrialRecord) -> Place:
    return ready.folder / f"bundle-{record.key}"


def _criteria(corpus: Corpus, config: RunConfig) -> dict[str, str]:
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
    criteria = _criteria(corpus, record.config)
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
    hypotheses = list(_criteria(corpus, config).values())
    premises = [EXAMPLE_PREMISE] * len(hypotheses)
    logits = classifier.predict(premises, hypotheses)
    folder = save_bundle(
        target, config, classifier, refit.threshold, refit.metadata, thresholds=refit.thresholds, scaling=refit.scaling
    )
    del classifier  # two copies of a large encoder may not fit
    check_bundle(folder, premises, hypotheses, logits, config.device)
    return folder


@ray.remote
def _refit_there(refit: Refit, corpus: Corpus, pairs: PairTable, storage: Place, target: Place) -> None:
    with worker_gate(corpus, refit.config.data.log_text):
        refit_bundle(refit, corpus, pairs, storage, folder_of(target))
        store_folder(target)


def _promotion(ready: Prepared, registered: Registered, tracker: MlflowTracker) -> dict[str, Any] | None:
    settings = ready.spec.finalize
    if settings.promote_if_better is None:
        return None
    role, level = settings.promote_if_better, settings.promote_level
    decision = promote_if_better(tracker.store, registered.name, registered.version, role, level)
    return {"to": role, "promoted": decision.promoted, "why": decision.why}


def _facts_of(registered: Registered, promotion: dict[str, Any] | None) -> dict[str, Any]:
    return {
        **({"promotion": promotion} if promotion else {}),
        "torch": registered.torch,
        "name": registered.name,
        "version": registered.version,
        "alias": registered.alias,
        "created": registered.created,
    }


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value == value}
