"""`model.layers` is read as it may be written, and refused with what was written and what the encoder has."""

from __future__ import annotations

from typing import Any

import pytest

from gemma_nli.base.errors import ConfigError, EncoderError
from gemma_nli.config import RunConfig, build_stored_config
from gemma_nli.config.chosen_layers import LayerChoice, choose_layers

WRITTEN: dict[str, tuple[Any, Any]] = {
    "last": ("last", "last"),
    "a number": (4, 4),
    "a number typed": ("4", 4),
    "from the last": (-2, -2),
    "the embeddings": (0, 0),
    "a list": ([3, 6], (3, 6)),
    "a list of one": ([3], 3),
    "all mixed": ("mix", "mix"),
    "some mixed": ({"mix": [1, 3]}, ("mix", 1, 3)),
    "as stored": (["mix", 1, 3], ("mix", 1, 3)),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_every_way_of_writing_layers_is_read_and_read_again_from_what_is_stored(written):
    given, stored = WRITTEN[written]
    config = RunConfig().with_settings({"model.layers": given})
    assert config.model.layers == stored
    assert build_stored_config(config.model_dump(mode="json"), "journal") == config


def test_the_last_layer_is_no_part_of_a_trials_key_and_another_is():
    plain, last, fourth = (RunConfig().with_settings({"model.layers": each}) for each in ("last", "last", 4))
    assert plain.canonical() == last.canonical() == RunConfig().canonical()
    assert fourth.canonical().items() - plain.canonical().items() == {("model.layers", 4)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mix": [4]}, r"mix needs two layers or more, got \{'mix': \[4\]\}"),
        (["mix", 2], r"mix needs two layers or more, got \['mix', 2\]"),
        ({"mix": [4, 4]}, r"mix needs two layers or more, got \{'mix': \[4, 4\]\}"),
        ({"mix": 4}, r"must say which layers, got \{'mix': 4\}"),
        ({"blend": [1, 2]}, r"must say which layers, got \{'blend': \[1, 2\]\}"),
        ([], r"one at least, got \[\]"),
        ([2, 2], r"each layer once and one at least, got \[2, 2\]"),
        ([1, "last"], r"whole numbers, got \[1, 'last'\]"),
        (1.5, "whole numbers, got 1.5"),
        (True, "whole numbers, got True"),
        ("lst", "whole numbers, got 'lst'; write last, a number"),
        (None, "whole numbers, got None"),
    ],
)
def test_what_is_no_layer_is_quoted(given, says):
    with pytest.raises(ConfigError, match=rf"model\.layers: .*{says}"):
        RunConfig().with_settings({"model.layers": given})


def test_native_pooling_is_of_the_last_layer():
    with pytest.raises(ConfigError, match=r"pooling_strategy is native.*but model\.layers is 4"):
        RunConfig().with_settings({"model.layers": 4, "model.pooling_strategy": "native"})


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [("last", (6,)), (0, (0,)), (-1, (6,)), (-6, (1,)), ((3, -1), (3, 6)), ("mix", (1, 2, 3, 4, 5, 6))],
)
def test_numbers_count_from_the_first_layer_or_from_the_last(layers, numbers):
    assert choose_layers(layers, 6, "an encoder") == LayerChoice(numbers, 6, mixed=layers == "mix")


@pytest.mark.parametrize(
    ("layers", "depth", "says"),
    [
        (9, 6, "model.layers: 9 asks for layer 9, but e has 6 layers: 1 to 6, or -1 to -6 from the last; 0 is"),
        (-7, 6, "-7 asks for layer -7, but e has 6 layers"),
        ((1, 18), 6, r"\[1, 18\] asks for layer 18, but e has 6"),
        (("mix", 1, 12), 6, r"\{mix: \[1, 12\]\} asks for layer 12, but e has 6"),
        ((6, -1), 6, r"\[6, -1\] names a layer of e twice, which has 6"),
        (("mix", 6, -1), 6, r"\{mix: \[6, -1\]\} mixes one layer of e, which has 6"),
        ("mix", 1, "mix mixes one layer of e, which has 1"),
    ],
)
def test_a_layer_that_the_encoder_lacks_is_refused_with_both_numbers(layers, depth, says):
    with pytest.raises(EncoderError, match=says):
        choose_layers(layers, depth, "e")
