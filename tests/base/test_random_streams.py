"""Random numbers come from one table of streams: each as it was when trials were trained, no two of one run alike."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest

from gemma_nli.base import random_streams
from gemma_nli.base.random_streams import COINCIDE, STREAMS, Stream, Word

PACKAGE = Path(random_streams.__file__).parents[1]
UNSEEDED_BY_THE_TABLE = {"model/adapters.py"}  # PEFT draws from torch's generator at the seed itself


def sequence(*words: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(words)


def bits(generator: np.random.Generator) -> list[int]:
    return generator.integers(2**63, size=4).tolist()


def of_sfc(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(sequence(*words)))


@pytest.mark.parametrize(
    ("name", "numbers", "as_trained"),
    [
        ("FOLD_BATCHES", (3,), of_sfc(42, 3, 1)),
        ("HEAD_DROPOUT", (3, 1, 7), of_sfc(42, 3, 3, 7)),
        ("LENGTH_GROUPED_BATCHES", (3,), np.random.default_rng([42, 3, 1])),
        ("RANDOM_CELLS", (), np.random.default_rng(42)),
        ("FRESH_CELLS", (9,), np.random.default_rng([42, 9])),
        ("RACED_POSTS", (3,), np.random.default_rng([42, 3])),
        ("RACED_FUTURE", (), np.random.default_rng(42)),
        ("BOOTSTRAP", (2,), np.random.default_rng([42, 2])),
        ("TRIALS_LUCK", (), np.random.default_rng([42, 1, 1])),
    ],
)
def test_a_stream_gives_the_numbers_that_finished_trials_hang_on(name, numbers, as_trained):
    assert bits(STREAMS[name].generator(42, *numbers)) == bits(as_trained)


@pytest.mark.parametrize(
    ("name", "numbers", "as_trained"),
    [
        ("FIRST_WEIGHTS", (3,), int(sequence(42, 3).generate_state(1, np.uint64)[0] >> 1)),
        ("OPTIMIZER_STEP", (3, 5), int(sequence(42, 3, 2, 5).generate_state(1, np.uint64)[0] >> 1)),
        ("SAMPLER", (9,), int(sequence(42, 9).generate_state(1)[0])),
    ],
)
def test_a_seed_for_another_library_is_the_one_that_finished_trials_hang_on(name, numbers, as_trained):
    assert STREAMS[name].number(42, *numbers) == as_trained


def test_folds_are_drawn_as_before():
    assert STREAMS["FOLDS"].sequence(42).generate_state(8).tolist() == sequence(42).generate_state(8).tolist()


def apart(one: Stream, other: Stream) -> bool:
    """Whether no numbers give both the same words; numpy takes missing ones for zeros."""
    zeros = [Word()] * 4
    for mine, theirs in zip([*one.words, *zeros][:4], [*other.words, *zeros][:4], strict=True):
        low, high = sorted((mine, theirs), key=lambda word: word.smallest)
        if not low.name and low.smallest < high.smallest:
            return True
        if not low.name and not high.name and low.smallest != high.smallest:
            return True
    return False


def test_no_two_streams_of_one_seed_that_are_drawn_together_can_be_alike_but_those_the_table_names():
    alike = {
        frozenset({mine, theirs})
        for (mine, one), (theirs, other) in itertools.combinations(STREAMS.items(), 2)
        if one.seed == other.seed and one.when & other.when and one.draws == other.draws and not apart(one, other)
    }
    assert alike == COINCIDE


def test_numpy_takes_a_missing_word_for_zero():
    assert bits(np.random.default_rng([42, 3])) == bits(np.random.default_rng([42, 3, 0]))
    first = Stream("seed", frozenset({"x"}), "PCG64", (Word(name="fold", least=1),))
    assert not apart(first, Stream("seed", frozenset({"x"}), "PCG64", (Word(name="fold", least=1), Word(name="n"))))


def test_a_stream_is_never_drawn_without_all_its_numbers():
    for name, stream in STREAMS.items():
        wanted = sum(bool(word.name) for word in stream.words)
        with pytest.raises(TypeError, match=r"this stream is of"):
            stream.sequence(42, *range(wanted + 1))
        assert stream.sequence(42, *range(1, wanted + 1)).entropy[0] == 42, name


def test_no_module_makes_a_stream_of_its_own_from_a_seed():
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"default_rng", "SeedSequence", "manual_seed", "seed"} and node.args:
                (seed,) = node.args
                by_table = isinstance(seed, ast.Call) and getattr(seed.func, "attr", "") == "number"
                if not by_table and not isinstance(seed, ast.Constant):
                    found.append(file.relative_to(PACKAGE).as_posix())
    assert set(found) - UNSEEDED_BY_THE_TABLE == {"base/random_streams.py"}
