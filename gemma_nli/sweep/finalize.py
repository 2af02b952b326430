"""The end of a sweep: its best configuration refitted on all pairs, and registered once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import ray

from gemma_nli.base.errors import TrackingError
from gemma_nli.base.what_was_measured import REFIT
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.storage import Place, fetch_folder, folder_of, store_folder
from gemma_nli.sweep.cluster.ray_session import may_grow
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.ray.worker_gate import worker_gate
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.sealed_looks import sealed_test
from gemma_nli.sweep.records.written_cards import model_name
from gemma_nli.sweep.refit import EXAMPLE_PREMISE, Refit, bundle_place, criteria_of, plan_refit, refit_bundle
from gemma_nli.tracking.registry.promotion import promote_if_better
from gemma_nli.tracking.registry.register import Registered, find_registered, give_alias, register_bundle
from gemma_nli.tracking.registry.sealed_tags import OF_ALL_MODELS, REFIT_TAG, sealed_tags
from gemma_nli.tracking.write.tracker import MlflowTracker
from gemma_nli.trial import TrialRecord

log = logging.getLogger(__name__)
RefitTask: TypeAlias = Any  # a ray.ObjectRef[None]


@dataclass(frozen=True)
class Finalized:
    """`created` is False if the version already existed."""

    registered: dict[str, Any]
    created: bool


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
    found = known_version(ready, recorder, record.key)
    if found is not None:
        return found
    recorder.trial_changed(record.key)
    recorder.drain()
    trial_run_id = recorder.deliver(record.key)
    assert trial_run_id is not None, "the trial has just been read"
    bundle = bundle_of(ready, record, resources, refit)
    tags = {**(tags or {}), "gemma_nli.trial_run_id": trial_run_id, REFIT_TAG: REFIT}
    value = record.metrics().get(ready.spec.metric)
    return register(ready, recorder, record, ToRegister(record.key, bundle, trial_run_id, value, tags, card))


@dataclass(frozen=True)
class ToRegister:
    """A bundle and what its version is known by.

    value: of the sweep's metric. run_id: of the run that holds its files.
    """

    key: str
    bundle: Path
    run_id: str
    value: float | None
    tags: Mapping[str, str]
    card: Path | None


def known_version(ready: Prepared, recorder: Recorder, key: str) -> Finalized | None:
    """The version of this trial or ensemble on these folds, if there is one; it gets its alias if it never had it.

    Raises:
        TrackingError: there is no registry, or it cannot be reached.
    """
    if recorder.tracker is None:
        raise TrackingError("mlflow.enabled is false: there is no registry to register the model in.")
    found = find_registered(recorder.tracker, model_name(ready.spec), key, ready.pairs.fingerprint)
    if found is None:
        return None
    aliased = give_alias(recorder.tracker, found, ready.spec.finalize.alias, recorder.sweep_run_id)
    return Finalized(_facts_of(aliased, _promotion(ready, aliased, recorder.tracker)), created=False)


def register(ready: Prepared, recorder: Recorder, record: TrialRecord, what: ToRegister) -> Finalized:
    """Register a bundle as the sweep's spec says, with what all its versions tell.

    Args:
        record: the trial, or the first of several: all were measured on the same pairs.
    """
    assert recorder.tracker is not None, "there is a registry"
    settings = ready.spec.finalize
    tags = {
        **what.tags,
        "gemma_nli.trial_key": what.key,
        "gemma_nli.fold_fingerprint": record.fold_fingerprint,
        "gemma_nli.data_fingerprint": ready.corpus.fingerprint,
        "gemma_nli.sweep_name": ready.spec.name,
        "gemma_nli.metric": ready.spec.metric,
        "gemma_nli.metric_value": repr(what.value),
        "gemma_nli.eval_negative_ratio": str(record.config.data.eval_negative_ratio),
        "gemma_nli.negatives": record.config.data.negatives,
        "gemma_nli.measured": record.config.data.measured_at,
    }
    for test in sealed_test(ready.corpus.seal, recorder.folder, ready.spec.name):
        tags |= {name: value for name, value in sealed_tags(test).items() if name in OF_ALL_MODELS}
    hypothesis = next(iter(criteria_of(ready.corpus, record.config).values()))
    example = pd.DataFrame({"premise": [EXAMPLE_PREMISE], "hypothesis": [hypothesis]})
    registered = register_bundle(
        tracker=recorder.tracker,
        bundle_folder=what.bundle,
        model_name=model_name(ready.spec),
        source_run_id=what.run_id,
        sweep_run_id=recorder.sweep_run_id,
        tags=tags,
        alias=settings.alias,
        input_example=example,
        export_limit_gib=settings.export_limit_gib,
        card=what.card,
    )
    promoted = _promotion(ready, registered, recorder.tracker)
    return Finalized(_facts_of(registered, promoted), created=registered.created)


def bundle_of(
    ready: Prepared, record: TrialRecord, resources: TrialResources | None, refit: RefitTask | None = None
) -> Path:
    """A trial's refit, by a worker where that is better, as a bundle on this machine."""
    refit = refit or begin_refit(ready, record, resources)
    place = bundle_place(ready, record.key)
    if refit is None:
        plan = plan_refit(record, ready.corpus)
        return refit_bundle(plan, ready.corpus, ready.pairs, ready.storage, folder_of(place))
    ray.get(refit)
    return fetch_folder(place)


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
    return None if known is not None else begin_refit(ready, record, resources)


def _fits_here(record: TrialRecord, resources: TrialResources | None) -> bool:
    """Whether the driver refits: a frozen encoder's trial that asks for no GPU, on the machine where trials ran."""
    gpu = resources is not None and resources.gpu > 0
    return record.config.model.freeze_encoder and not gpu and not (ray.is_initialized() and may_grow())


def begin_refit(ready: Prepared, record: TrialRecord, resources: TrialResources | None) -> RefitTask | None:
    """Start a trial's refit on Ray; None where the driver is as good."""
    if not ray.is_initialized() or _fits_here(record, resources):
        return None
    wanted = resources or TrialResources(1.0, 0.0, 1)
    task = _refit_there.options(num_cpus=wanted.cpu, num_gpus=wanted.gpu or 0, max_retries=2)
    plan = plan_refit(record, ready.corpus)
    begun: RefitTask = task.remote(plan, ready.corpus, ready.pairs, ready.storage, bundle_place(ready, record.key))
    return begun


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
