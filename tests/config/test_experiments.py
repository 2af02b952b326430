"""Configurations that ship with the package: each one valid, each of them fits the card it is named after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gemma_nli.base.errors import ConfigError
from gemma_nli.config import build_config
from gemma_nli.config.experiments import experiment_names, experiment_tree, split_experiment
from gemma_nli.model.pooling import POOLERS
from gemma_nli.model.prompts import prompts_of
from gemma_nli.sweep.forecast import gpu_memory as memory


@pytest.mark.parametrize("name", experiment_names())
def test_each_is_a_whole_configuration(name):
    config = build_config(experiment_tree(name), name)
    assert config.data.data_dir == "data/redsm5"
    assert config.output.experiment_name == ("nli_pooling" if name.startswith("pooling_") else name)


def test_each_of_the_pooling_ablation_is_a_registered_pooling():
    poolings = {name.removeprefix("pooling_") for name in experiment_names() if name.startswith("pooling_")}
    assert len(poolings) == 8
    assert poolings <= set(POOLERS)


@pytest.mark.parametrize("name", ["nli_4090", "nli_3090"])
def test_those_named_after_a_card_of_24_gb_fit_it(name, tmp_path, monkeypatch):
    """Gemma-2 2B's shape as its config.json has it; its weights are two bytes each in the files of the hub."""
    config = build_config(experiment_tree(name), name)
    gemma = memory._Shape(parameters=2_614_341_888, hidden=2304, layers=26, heads=8)
    monkeypatch.setattr(memory, "_shape", lambda *_: gemma)
    assert 6 < memory.estimate_memory(config).total < 22
    assert config.device.mixed_precision == "bf16"


def test_embedding_gemma_is_asked_by_the_prompt_it_was_trained_with(tiny_sentences, tmp_path):
    folder = Path(shutil.copytree(tiny_sentences, tmp_path / "folder"))
    file = folder / "config_sentence_transformers.json"
    named = {"Classification": "task: classification | query: "}
    file.write_text(json.dumps({**json.loads(file.read_text()), "prompts": named}))
    tree = experiment_tree("embedding_gemma")
    prompts = prompts_of(build_config({**tree, "model": {**tree["model"], "name": str(folder)}}, "test").model)
    assert prompts.premise == prompts.hypothesis == "task: classification | query: "


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'nli_cpu'"):
        experiment_tree("nli_cpus")


def test_the_experiment_is_one_word_among_overrides():
    assert split_experiment(["a=1", "experiment=x", "b=2"]) == ("x", ["a=1", "b=2"])
    assert split_experiment(["a=1"]) == (None, ["a=1"])
