"""A threshold per criterion and calibrated logits, from a trial's folds to the registered bundle and what it serves."""

from __future__ import annotations

import dataclasses
import json
import logging
import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import Model

from gemma_nli.analysis.from_journals import gather
from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.local.predict import predict_file
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.model.bundles.exported import exportable
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.model.scaling import UNSCALED, Scaling
from gemma_nli.search.rules.fold_racing import RaceTable
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.finalize import plan_refit, refit_bundle
from gemma_nli.tracking.registry.model_folder import save_model_folder
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.training.metrics import fold_metrics
from gemma_nli.training.results import OutOfFold, summarize
from gemma_nli.trial import TrialJournal
from tests.training.frozen_setup import FrozenSetup

OWN = {"training.threshold": "per_criterion", "training.calibration": "platt"}
CPU = DeviceConfig(device="cpu")


@pytest.fixture(scope="module")
def setup(tiny_bert, tmp_path_factory):
    torch.set_num_threads(1)
    made = FrozenSetup.make(tmp_path_factory.mktemp("own"), tiny_bert, synthetic_corpus(120, seed=3), data__num_folds=3)
    return dataclasses.replace(made, base=made.base.with_settings(OWN))


@pytest.fixture(scope="module")
def record(setup, tmp_path_factory):
    """Its encoder learns next to nothing, so what its folds chose is put there by hand."""
    result = cross_validate(setup.base, setup.corpus, setup.pairs, setup.store)
    for fold, away in zip(result.folds, (-0.02, 0.0, 0.01), strict=True):
        fold.thresholds = dict.fromkeys(setup.pairs.criterion_ids[: 2 + fold.fold], fold.threshold + away)
        fold.scaling = Scaling(1.5 + away, away)
        own_C = [fold.thresholds.get(name, fold.threshold) for name in setup.pairs.criterion_ids]
        fold.row_thresholds = np.array(own_C)[setup.pairs.criterion_N[fold.rows]]
        fold.metrics["f1"] = fold_metrics(fold.probabilities, fold.labels, fold.row_thresholds)["f1"]
        fold.detail = ""
    journal = TrialJournal(tmp_path_factory.mktemp("storage"), "c" * 32)
    journal.start(setup.base, setup.pairs.fingerprint, "encoder", 3)
    journal.add_folds(result.folds)
    journal.finish(result)
    return journal.read()


@pytest.fixture(scope="module")
def scorer(setup, record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    plan = plan_refit(record, setup.corpus)
    return PairScorer.from_bundle(
        refit_bundle(plan, setup.corpus, setup.pairs, folder / "storage", folder / "bundle"), CPU
    )


def test_the_bundle_has_the_mean_of_what_the_folds_chose_and_gives_it_back(setup, record, scorer):
    folds = list(record.folds.values())
    assert set(scorer.bundle.thresholds) == {name for fold in folds for name in fold.thresholds}
    for name, threshold in scorer.bundle.thresholds.items():
        each = [fold.thresholds.get(name, fold.threshold) for fold in folds]
        assert threshold == pytest.approx(statistics.fmean(each))
    assert scorer.bundle.classifier.scaling != UNSCALED
    assert scorer.bundle.config.training.threshold == "per_criterion"


def test_each_pair_is_decided_at_its_criterions_threshold_and_a_strangers_at_the_shared_one(setup, scorer, caplog):
    names = list(setup.corpus.criteria)
    texts = [*setup.corpus.criteria.values(), "a criterion that nobody trained on"]
    pairs = pd.DataFrame({"premise": ["I cannot sleep"] * len(texts), "hypothesis": texts})
    with caplog.at_level(logging.WARNING):
        found = scorer.score(pairs)
    own, shared = scorer.bundle.thresholds, scorer.bundle.threshold
    assert found["threshold"].tolist() == pytest.approx([*(own.get(name, shared) for name in names), shared])
    assert (found["label"] == (found["probability"] >= found["threshold"])).all()
    assert "1 pair has a hypothesis that is none of the model's criteria" in caplog.text
    posts = scorer.score_posts(pairs.iloc[:1])
    assert list(posts.columns)[:3] == [names[0], f"{names[0]}_label", f"{names[0]}_threshold"]
    assert posts[f"{names[0]}_threshold"][0] == pytest.approx(own.get(names[0], shared))
    assert posts["threshold"][0] == shared


def test_predict_writes_what_decided_each_pair_and_says_which_were_strangers(scorer, tmp_path):
    known = next(iter(scorer.criteria.values()))
    pd.DataFrame({"premise": ["a", "b", "c"], "hypothesis": [known, "x", "y"]}).to_csv(tmp_path / "in.csv", index=False)
    done = predict_file(scorer, tmp_path / "in.csv", tmp_path / "out.csv", chunk=1)
    assert done.columns == ("probability", "label", "threshold")
    assert done.note.startswith("2 pairs have hypotheses that are none of the model's criteria")
    written = pd.read_csv(tmp_path / "out.csv")
    assert written["threshold"].tolist()[1:] == [scorer.bundle.threshold] * 2


def test_an_exported_program_gives_calibrated_logits(setup, scorer):
    module, inputs = exportable(scorer.bundle.classifier)
    scaled = module(*inputs.values())
    scaling, scorer.bundle.classifier.scaling = scorer.bundle.classifier.scaling, UNSCALED
    try:
        torch.testing.assert_close(scaled, scaling.of(module(*inputs.values())))
    finally:
        scorer.bundle.classifier.scaling = scaling


def test_the_models_metadata_says_what_decides_for_those_who_load_its_program(scorer, tmp_path):
    save_model_folder(scorer.bundle.folder, tmp_path / "model", None, export_limit_gib=0)
    decided = Model.load(str(tmp_path / "model")).metadata["gemma_nli"]
    assert decided == {"threshold": scorer.bundle.threshold, "thresholds": dict(scorer.bundle.thresholds)}


def test_a_bundle_of_format_1_reads_as_it_was_and_one_with_more_is_refused_by_its_readers(setup, record, tmp_path):
    plain = dataclasses.replace(plan_refit(record, setup.corpus), thresholds={}, scaling=UNSCALED)
    folder = refit_bundle(plain, setup.corpus, setup.pairs, tmp_path / "storage", tmp_path / "bundle")
    kept = json.loads((folder / "bundle.json").read_text())
    assert kept["format"] == 1
    assert not {"thresholds", "scaling"} & kept.keys()
    loaded = load_bundle(folder, CPU)
    assert (loaded.thresholds, loaded.classifier.scaling) == ({}, UNSCALED)
    assert list(PairScorer(loaded).score(pd.DataFrame({"premise": ["a"], "hypothesis": ["x"]}))) == [
        "probability",
        "label",
    ]
    (folder / "bundle.json").write_text(json.dumps({**kept, "format": 2, "thresholds": {"A": 1.5}}))
    with pytest.raises(EncoderError, match=r"thresholds\.A"):
        load_bundle(folder, CPU)
    (folder / "bundle.json").write_text(json.dumps({**kept, "format": 4}))
    with pytest.raises(EncoderError, match="format 4, this version reads 1 to 3"):
        load_bundle(folder, CPU)


def test_a_report_and_a_race_decide_as_the_folds_did(setup, record, tmp_path):
    storage = tmp_path / "storage"
    journal = TrialJournal(storage, "c" * 32)
    folds = [record.folds[k] for k in (1, 2, 3)]
    journal.start(setup.base, setup.pairs.fingerprint, "encoder", 3)
    journal.add_folds(folds)
    journal.finish(summarize(folds, setup.pairs))
    tree = {"name": "own", "base": setup.base.model_dump(mode="json"), "storage": str(storage)}
    spec = SweepSpec.from_mapping({**tree, "space": {"training.threshold": {"grid": ["shared", "per_criterion"]}}}, "x")
    cells = {"c" * 32: {"training.threshold": "per_criterion"}}
    evidence = gather(spec, setup.corpus, setup.pairs, storage, cells)
    np.testing.assert_array_equal(evidence.decision_TN[0], OutOfFold.of(folds).decisions)
    assert evidence.scores("f1")[0] == pytest.approx(np.mean([fold.metrics["f1"] for fold in folds]))
    assert {cell.config.training.threshold for cell in spec.cells()} == {"shared", "per_criterion"}
    racing = RaceTable(3)
    for fold in folds:
        posts = setup.pairs.group_N[fold.rows]
        racing.record("t", fold.fold, fold.rows, fold.probabilities, fold.labels, posts, fold.decided_at)
    assert racing.running_mean("t") == pytest.approx(np.mean([fold.metrics["f1"] for fold in folds]))
