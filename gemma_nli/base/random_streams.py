"""Every stream of random numbers that a user's seed begins, in one table.

A stream's words are its seed and what stands behind it: a mark of the stream's own, a fold's number, a step's. numpy's
SeedSequence makes independent streams of different words, and takes words that end in zeros for the shorter ones. The
numbers of finished trials hang on these words: a new stream gets words of its own, and no stream changes its words.

Not here: what no setting seeds (probes of an encoder, rehearsals, made-up corpora), the order of negatives, which is a
hash of ids (corpus/pairs.py), and LoRA's first weights, for which PEFT draws from torch's generator at `training.seed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Word:
    """A number behind the seed: `plus` alone, or what the caller gives for `name`, at least `least`, with it added."""

    plus: int = 0
    name: str = ""
    least: int = 0

    @property
    def smallest(self) -> int:
        return self.least + self.plus


@dataclass(frozen=True)
class Stream:
    """One stream.

    Attributes:
        seed: the setting that seeds it; `seed` of an analysis is its caller's, 0 unless a test says otherwise.
        when: what must be going on for it to be drawn from: two streams with nothing in common are never both drawn.
        draws: the generator that it feeds; the same words give different numbers to another.
    """

    seed: str
    when: frozenset[str]
    draws: str
    words: tuple[Word, ...] = ()

    def sequence(self, seed: int, *numbers: int) -> np.random.SeedSequence:
        """Of the seed and a number for each word with a name, in their order."""
        wanted = [word.name for word in self.words if word.name]
        if len(numbers) != len(wanted):
            raise TypeError(f"this stream is of {', '.join(wanted) or 'the seed alone'}, got {numbers}")
        given = iter(numbers)
        return np.random.SeedSequence([seed, *(word.plus + (next(given) if word.name else 0) for word in self.words)])

    def generator(self, seed: int, *numbers: int) -> np.random.Generator:
        kind = {"PCG64": np.random.PCG64, "SFC64": np.random.SFC64}[self.draws]
        return np.random.Generator(kind(self.sequence(seed, *numbers)))

    def number(self, seed: int, *numbers: int) -> int:
        """A seed for a generator that is not numpy's: 63 bits for torch's, 32 for Optuna's samplers."""
        sequence = self.sequence(seed, *numbers)
        if self.draws == "torch":
            return int(sequence.generate_state(1, np.uint64)[0] >> 1)
        assert self.draws == "sampler", f"{self.draws} is a generator"
        return int(sequence.generate_state(1)[0])


_FOLD = Word(name="fold", least=1)
_FROZEN, _FINE_TUNED = frozenset({"frozen training"}), frozenset({"fine-tuning"})
_RANDOM, _OPTUNA, _RACED = frozenset({"random search"}), frozenset({"optuna"}), frozenset({"random search", "optuna"})
_ANALYSIS = frozenset({"analysis"})

FIRST_WEIGHTS = Stream("training.seed", _FROZEN | _FINE_TUNED, "torch", (_FOLD,))
"""A fold's pooling and head."""
FOLD_BATCHES = Stream("training.seed", _FROZEN, "SFC64", (_FOLD, Word(1)))
"""The order of a fold's pairs."""
HEAD_DROPOUT = Stream("training.seed", _FROZEN, "SFC64", (_FOLD, Word(2, "dropout site"), Word(name="epoch", least=1)))
LENGTH_GROUPED_BATCHES = Stream("training.seed", _FINE_TUNED, "PCG64", (_FOLD, Word(1)))
"""The order of a fold's pairs: the words of FOLD_BATCHES, and never beside it."""
OPTIMIZER_STEP = Stream("training.seed", _FINE_TUNED, "torch", (_FOLD, Word(2), Word(name="step")))
"""All that an encoder draws in a step: the words of HEAD_DROPOUT's first site, and never beside it."""

FOLDS = Stream("data.fold_seed", frozenset({"pairs"}), "MT19937")
"""Which fold a post is in; a fold's inner split is drawn from the seeds just above (corpus/pairs.py)."""

SEALED_POSTS = Stream("data.test.seed", frozenset({"pairs"}), "MT19937", (Word(plus=1),))
"""Which posts are in the sealed test set (corpus/sealed.py)."""

RANDOM_CELLS = Stream("search.seed", _RANDOM, "PCG64")
SAMPLER = Stream("search.seed", _OPTUNA, "sampler", (Word(name="trials before"),))
FRESH_CELLS = Stream("search.seed", _OPTUNA, "PCG64", (Word(name="trials", least=1),))
"""What is tried where the sampler repeats itself."""
RACED_POSTS = Stream("search.seed", _RACED, "PCG64", (_FOLD,))
RACED_FUTURE = Stream("search.seed", _RACED, "PCG64")
"""The folds to come of a trial, in fold_racing."""

BOOTSTRAP = Stream("seed", _ANALYSIS, "PCG64", (Word(name="fold's index"),))
TRIALS_LUCK = Stream("seed", _ANALYSIS, "PCG64", (Word(plus=1), Word(plus=1)))
"""How trials of the same settings would have come out (analysis/inference/adjusted_means.py)."""
DRAWN_ACROSS_FOLDS = Stream("seed", _ANALYSIS, "PCG64", (Word(plus=1), Word(plus=2)))
"""Posts drawn alike for trainings on several drawings of the folds (analysis/inference/bootstrap.py)."""
TRAININGS_LUCK = Stream("seed", _ANALYSIS, "PCG64", (Word(plus=1), Word(plus=3)))
"""How other training seeds would have come out (analysis/inference/training_variance.py)."""

STREAMS: dict[str, Stream] = {name: value for name, value in list(globals().items()) if isinstance(value, Stream)}

COINCIDE = {
    frozenset({"RACED_FUTURE", "RANDOM_CELLS"}),
    frozenset({"RACED_POSTS", "FRESH_CELLS"}),
}
"""Streams that begin alike in one sweep. What they draw is of other kinds (posts here, settings there) and is compared
nowhere; words of their own would change what finished sweeps have drawn."""
