"""What is registered: fitted on every fold's pairs for the folds' median of epochs, served at their mean threshold."""

from __future__ import annotations

import dataclasses
import statistics

import pytest
import torch

from gemma_nli.base.errors import EncoderError
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.bundles import bundle as bundle_module
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.sweep.refit import plan_refit, refit_bundle
from gemma_nli.training.cross_validation import cross_validate
from gemma_nli.training.frozen.head_inputs import load_inputs
from gemma_nli.training.frozen.train_folds import fit_head
from gemma_nli.trial import TrialJournal
from tests.training.frozen_setup import FrozenSetup


@pytest.fixture(scope="module")
def setup(tiny_bert, tmp_path_factory):
    torch.set_num_threads(1)
    return FrozenSetup.make(
        tmp_path_factory.mktemp("refit"), tiny_bert, synthetic_corpus(40, seed=3), data__num_folds=3
    )


@pytest.fixture(scope="module")
def record(setup, tmp_path_factory):
    """A finished trial whose folds chose epochs 1, 4 and 2, at thresholds of which the mean is not the median."""
    result = cross_validate(setup.base, setup.corpus, setup.pairs, setup.store)
    for fold, epoch, threshold in zip(result.folds, (1, 4, 2), (0.2, 0.9, 0.3), strict=True):
        fold.selected_epoch, fold.threshold = epoch, threshold
    journal = TrialJournal(tmp_path_factory.mktemp("storage"), "c" * 64)
    journal.start(setup.base, setup.pairs.fingerprint, "encoder", 3)
    journal.add_folds(result.folds)
    journal.finish(result)
    return journal.read()


def test_the_refit_takes_the_median_of_the_epochs_and_the_mean_of_the_thresholds(setup, record):
    plan = plan_refit(record, setup.corpus)
    assert plan.epochs == 2
    assert plan.threshold == pytest.approx(statistics.fmean([0.2, 0.9, 0.3]))
    assert plan.metadata["criteria"] == setup.corpus.criteria
    worded = dataclasses.replace(record, config=record.config.with_settings({"data.wording": "short"}))
    assert plan_refit(worded, setup.corpus).metadata["criteria"] == setup.corpus.in_words("short").criteria
    one = dataclasses.replace(record, folds={1: record.folds[1]})
    assert plan_refit(one, setup.corpus).epochs == 1


def test_the_bundle_is_fitted_on_all_pairs_and_served_at_the_plans_threshold(setup, record, tmp_path):
    plan = plan_refit(record, setup.corpus)
    bundle = load_bundle(refit_bundle(plan, setup.corpus, setup.pairs, tmp_path / "storage", tmp_path / "bundle"))
    assert bundle.threshold == pytest.approx(plan.threshold)
    assert bundle.metadata["epochs"] == 2
    config = setup.base
    rows = setup.pairs.all_rows(config.data.negative_ratio)
    assert set(setup.pairs.fold_N[rows]) == {1, 2, 3}
    store = FeatureStore(tmp_path / "storage" / "features", config.features)
    inputs = load_inputs(config, setup.corpus, setup.pairs, rows, store)
    heads = {}
    for epochs in (1, 2):
        heads[epochs] = fit_head(config, setup.pairs, rows, epochs, inputs).cpu().head.state_dict()
    served = bundle.classifier.head.state_dict()
    assert all(torch.equal(served[name], tensor) for name, tensor in heads[2].items())
    assert not all(torch.equal(served[name], tensor) for name, tensor in heads[1].items())


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json"])
def test_a_bundle_that_does_not_load_to_what_was_fitted_is_never_registered(setup, record, tmp_path, part, monkeypatch):
    """Whatever goes wrong between the fitted model and its files: here a file is left out, or of another encoder."""
    write = bundle_module._write_encoder

    def lacking(folder, encoder, model):
        write(folder, encoder, model)
        (folder / part).unlink()

    def another(folder, encoder, model):
        with torch.no_grad():
            next(encoder.model.parameters()).mul_(3)
        write(folder, encoder, model.model_copy(update={"freeze_encoder": False}))

    plan = plan_refit(record, setup.corpus)
    fit = setup.corpus, setup.pairs, tmp_path / "storage"
    monkeypatch.setattr(bundle_module, "_write_encoder", lacking)
    with pytest.raises(EncoderError, match=part.partition(".")[0]):
        refit_bundle(plan, *fit, tmp_path / "lacking")
    monkeypatch.setattr(bundle_module, "_write_encoder", another)
    with pytest.raises(EncoderError, match=r"gives different logits after loading .* must not be used"):
        refit_bundle(plan, *fit, tmp_path / "another")
