"""`finalize.ensemble`: several trials of a sweep, each refitted on all pairs, registered and served as one model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from gemma_nli.analysis.ensembles import ChosenEnsemble, choose_ensemble, find_ensembles
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.base.errors import ReportError, SweepError
from gemma_nli.base.what_was_measured import ENSEMBLE_REFIT
from gemma_nli.model.bundles.ensemble import load_any, save_ensemble
from gemma_nli.storage import Prefix, fetch_folder, folder_of, store_folder
from gemma_nli.sweep.cluster.trial_resources import TrialResources
from gemma_nli.sweep.finalize import Finalized, ToRegister, begin_refit, bundle_of, known_version, register
from gemma_nli.sweep.prepare import Prepared
from gemma_nli.sweep.records.mlflow_recorder import Recorder
from gemma_nli.sweep.records.reported_trials import evidence_of
from gemma_nli.sweep.records.saved_report import score_tags
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.refit import bundle_place, criteria_of
from gemma_nli.tracking.registry.promotion import FILES
from gemma_nli.tracking.registry.register import ENSEMBLE
from gemma_nli.tracking.registry.sealed_tags import REFIT_TAG
from gemma_nli.tracking.store.mlflow_store import talking
from gemma_nli.tracking.write.artifacts.out_of_fold import OUT_OF_FOLD, predictions_file
from gemma_nli.trial import TrialRecord

ALONE = "finalize.ensemble: the best trial is registered alone, since no other finished trial helps it"


def chosen_ensemble(ready: Prepared, folder: SweepFolder) -> ChosenEnsemble | None:
    """What `finalize.ensemble` chooses of the finished trials; None where it chooses nothing or one trial alone."""
    if ready.spec.finalize.ensemble is None:
        return None
    try:
        return chosen_of(evidence_of(ready, folder))
    except ReportError:
        return None


def chosen_of(evidence: Evidence) -> ChosenEnsemble | None:
    """The same of a sweep's evidence."""
    if evidence.spec.finalize.ensemble is None:
        return None
    return choose_ensemble(evidence, find_ensembles(evidence, Draws.of(evidence)))


def finalize_ensemble(
    ready: Prepared,
    chosen: ChosenEnsemble,
    recorder: Recorder,
    resources: TrialResources | None = None,
    card: Path | None = None,
) -> Finalized:
    """Refit the members and register them as one version; one that is already registered is left as it is.

    The files are in the sweep's run, with what the members predict together out of fold, by which versions are
    compared.

    Raises:
        TrackingError: the registry cannot be reached; the sweep's trials are safe, and running it again finalizes it.
    """
    found = known_version(ready, recorder, chosen.key)
    if found is None:
        bundle = ensemble_bundle(ready, chosen, resources)
        run_id, tracker = recorder.sweep_run_id, recorder.tracker
        assert run_id is not None, "an open recorder has the sweep's run"
        assert tracker is not None, "there is a registry"
        with tempfile.TemporaryDirectory(prefix="gemma_nli_oof_") as scratch:
            (Path(scratch) / OUT_OF_FOLD).write_bytes(predictions_file(chosen.out_of_fold, ready.pairs))
            with talking(tracker.store, "send what an ensemble predicted"):
                tracker.client.log_artifact(run_id, str(Path(scratch) / OUT_OF_FOLD), chosen.key)
        tags = {**_honest(chosen), REFIT_TAG: ENSEMBLE_REFIT, FILES: f"{chosen.key}/{OUT_OF_FOLD}"}
        tags[ENSEMBLE] = ", ".join(f"{key} ({weight:.0%})" for key, weight in chosen.weights.items())
        what = ToRegister(chosen.key, bundle, run_id, chosen.finding.raw, tags, card)
        found = register(ready, recorder, _records(ready, chosen)[0], what)
    return Finalized({**found.registered, "ensemble": facts(chosen)}, found.created)


def ensemble_bundle(ready: Prepared, chosen: ChosenEnsemble, resources: TrialResources | None = None) -> Path:
    """The ensemble as a bundle in the sweep's folder: the one that is there, or its members' refits put together."""
    place = bundle_place(ready, chosen.key)
    if (place / "bundle.json").exists():
        return fetch_folder(place)
    records = _records(ready, chosen)
    there = {record.key for record in records if (bundle_place(ready, record.key) / "bundle.json").exists()}
    begun = {each.key: begin_refit(ready, each, resources) for each in records if each.key not in there}
    bundles: dict[str, Path] = {}
    for record in records:
        if record.key in there:
            bundles[record.key] = fetch_folder(bundle_place(ready, record.key))
        else:
            bundles[record.key] = bundle_of(ready, record, resources, begun[record.key])
    metadata: dict[str, Any] = {"criteria": criteria_of(ready.corpus, records[0].config), "trial_key": chosen.key}
    bundle = save_ensemble(folder_of(place), bundles, chosen.weights, metadata, chosen.criterion_weights)
    load_any(bundle, ready.spec.base.device)  # as its users will
    store_folder(place)
    for key in bundles.keys() - there:  # each has a copy of its encoder
        _remove(ready, key)
    return bundle


def facts(chosen: ChosenEnsemble) -> dict[str, Any]:
    """For result.json and `--json`."""
    return {"key": chosen.key, "about": chosen.about, "held_out": chosen.finding.value, "members": chosen.weights}


def _records(ready: Prepared, chosen: ChosenEnsemble) -> list[TrialRecord]:
    """Of the members, the heaviest first."""
    found = {key: ready.read(key) for key in chosen.weights}
    lost = [key for key, record in found.items() if record is None]
    if lost:
        raise SweepError(f"sweep '{ready.spec.name}': the journal of trial {lost[0]} is gone; run the sweep again.")
    return [record for record in found.values() if record is not None]


def _remove(ready: Prepared, key: str) -> None:
    place = bundle_place(ready, key)
    if isinstance(place, Prefix):
        for name in place.under():
            (place / name).unlink()
    shutil.rmtree(folder_of(place), ignore_errors=True)


def _honest(chosen: ChosenEnsemble) -> dict[str, str]:
    """The score of each fold by what the other folds chose, beside the one on the ensemble's own choice."""
    low, high = chosen.interval
    score = {"metric": chosen.metric, "raw": chosen.finding.raw, "honest": chosen.finding.value}
    return score_tags({**score, "low": low, "high": high, "candidates": chosen.candidates}, chosen.key)
