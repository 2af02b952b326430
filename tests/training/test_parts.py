"""A part reads the settings that it declares and no others: two trials of one key have the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gemma_nli.config import RunConfig, TrainingConfig, setting_names
from gemma_nli.config.parts import KINDS, SettingsRead, WhereRead
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.model.adapters import TRAINED
from gemma_nli.model.head_norms import HEAD_NORMS
from gemma_nli.model.heads import HEADS
from gemma_nli.model.pooling import POOLERS
from gemma_nli.training.calibrations import CALIBRATIONS
from gemma_nli.training.epoch_selections import EPOCH_SELECTIONS
from gemma_nli.training.losses import LOSSES
from gemma_nli.training.rate_schedules import SCHEDULES
from gemma_nli.training.threshold_rules import THRESHOLD_RULES
from tests.model.sentence_folders import make_folder
from tests.training.frozen_setup import FrozenSetup, assert_same_fold
from tests.training.small_trials import LORA

REGISTRIES = {
    "pooling": POOLERS,
    "head": HEADS,
    "loss": LOSSES,
    "head norm": HEAD_NORMS,
    "schedule": SCHEDULES,
    "threshold rule": THRESHOLD_RULES,
    "calibration": CALIBRATIONS,
    "epoch selection": EPOCH_SELECTIONS,
    "what is trained": TRAINED,
}
OTHER_VALUES: dict[str, Any] = {
    "model.pooling_k": 1,
    "model.premise_prompt": "query",
    "model.hypothesis_prompt": "query",
    "model.head_hidden": 5,
    "training.focal_gamma": 0.5,
    "training.patience": 1,
    "training.encoder_learning_rate": 1e-4,
    "training.gradient_accumulation": 2,
    "device.gradient_checkpointing": True,
    "device.compile": True,
}
BY_INNER_SPLIT = {"training.threshold", "training.calibration"}
"""Declared by the epoch selections that have one: others refuse these settings rather than pass them over."""
TRAINS = {
    "nothing": {},
    "everything": {"model.freeze_encoder": False},
    "last_layers": {"model.freeze_encoder": False, "model.unfreeze_last_n": 1},
    "adapters": {"model.freeze_encoder": False, **LORA},
}
EVERY_PART = [(kind, name) for kind, found in KINDS.items() for name in found.parts]
IN_FROZEN = [(kind, name) for kind, name in EVERY_PART if kind != "what is trained"]


def choosing(kind: str, name: str) -> dict[str, Any]:
    """The settings that choose a part."""
    if kind == "what is trained":
        return TRAINS[name]
    by_inner_split = {"training.epoch_selection": "inner"} if kind in ("threshold rule", "calibration") else {}
    return {**by_inner_split, REGISTRIES[kind].setting: name}


@pytest.fixture(scope="module")
def setup(tiny_bert, tmp_path_factory) -> FrozenSetup:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("parts")
    encoder = make_folder(folder / "encoder", tiny_bert, "default prompt")  # native pooling takes no other folder
    setup = FrozenSetup.make(folder, encoder, synthetic_corpus(30, seed=3))
    setup.base = setup.base.with_settings({"training.num_epochs": 3, "training.warmup_ratio": 0.2})
    return setup


def train(setup: FrozenSetup, settings: dict[str, Any]):
    return setup.train([1], **{name.replace(".", "__"): value for name, value in settings.items()})[0]


def marked() -> set[str]:
    return {name for name, field in setting_names().items() if any(isinstance(m, WhereRead) for m in field.metadata)}


def test_each_setting_that_counts_where_it_is_read_is_tried_here():
    assert marked() == set(OTHER_VALUES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_offer_exactly_the_parts_that_register_themselves(kind):
    found, registry = KINDS[kind], REGISTRIES[kind]
    assert set(found.parts) == set(registry)
    for name, part in found.parts.items():
        assert part.reads is not None, f"{part.file} should say what {name} reads"
        declared = part.reads - BY_INNER_SPLIT
        assert declared <= set(OTHER_VALUES), f"{name} need not declare what counts for every trial"
        assert declared == {setting for setting in OTHER_VALUES if registry.reads(name, setting)}


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_a_part_keeps_in_the_key_what_it_reads_and_lets_the_rest_go(kind, name):
    plain = RunConfig().with_settings({"training.epoch_selection": "last", **choosing(kind, name)})
    assert KINDS[kind].chosen(plain) == name
    read = {part.reads for part in (found.parts[found.chosen(plain)] for found in KINDS.values())}
    for setting, value in OTHER_VALUES.items():
        changed = plain.with_settings({setting: value})
        assert (changed.canonical() != plain.canonical()) == any(setting in each for each in read), setting


@pytest.mark.parametrize(("kind", "name"), IN_FROZEN)
def test_what_leaves_the_key_leaves_every_number_alone(setup, kind, name):
    settings = choosing(kind, name)
    kept = setup.base.with_settings(settings).canonical().keys()
    others = {setting: value for setting, value in OTHER_VALUES.items() if setting not in kept}
    changed = {**settings, **others}
    assert setup.base.with_settings(changed).canonical() == setup.base.with_settings(settings).canonical()
    assert_same_fold(train(setup, settings), train(setup, changed))


@pytest.mark.parametrize(
    ("kind", "name", "setting"),
    [
        (kind, name, setting)
        for kind, name in IN_FROZEN
        for setting in sorted((KINDS[kind].parts[name].reads or set()) - BY_INNER_SPLIT)
        if setting != "training.patience"  # it ends a fold early or changes nothing, as the scores fall
    ],
)
def test_what_a_part_declares_changes_its_numbers(setup, kind, name, setting):
    settings = choosing(kind, name)
    one, other = train(setup, settings), train(setup, {**settings, setting: OTHER_VALUES[setting]})
    assert not np.array_equal(one.probabilities, other.probabilities)


def test_a_part_that_reads_what_it_does_not_declare_is_stopped_with_the_words_it_needs():
    pooled = POOLERS["mean"](4)
    with pytest.raises(TypeError, match=r"Mean reads k .*reads=\('model.pooling_k',\)"):
        _ = pooled.k
    with pytest.raises(TypeError, match=r"Linear reads head_hidden .*reads=\('model.head_hidden',\)"):
        _ = HEADS["linear"](4).hidden
    seen = SettingsRead("training", TrainingConfig(), LOSSES, "weighted")
    assert seen.label_smoothing == 0.0
    with pytest.raises(TypeError, match=r"weighted reads training.focal_gamma .*reads=\('training.focal_gamma',\)"):
        _ = seen.focal_gamma
    assert SettingsRead("training", TrainingConfig(), LOSSES, "focal").focal_gamma == 2.0
