"""Several training seeds of one configuration over cached vectors, trained in one computation.

Each seed's results equal those of training it alone, to rounding: a batched product may sum in another order, and
training carries that on (a probability differs by 4e-7 with a linear head, by 2e-4 with 256 hidden units).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gemma_nli.config import RunConfig
from gemma_nli.corpus.pairs import PairTable
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.features import FeatureSource
from gemma_nli.training.cross_validation import rows_of_folds, run_folds
from gemma_nli.training.frozen.head_inputs import HeadInputs, StackedClassifier, load_inputs
from gemma_nli.training.frozen.train_folds import train_seeds
from gemma_nli.training.listeners import Listener
from gemma_nli.training.results import FoldResult

MOST_SEEDS = 16
CACHED_WEIGHTS = 1 << 20
"""Heads with more weights than this in all are no faster together on a CPU: they leave its cache in every step."""
DEVICE_WEIGHTS = 1 << 25
"""On a GPU: with gradients, moments and the best epoch's copy they take 0.7 GB, which a trial's share has to spare."""


def without_seed(config: RunConfig) -> dict[str, object]:
    """What configurations that can train together have in common."""
    return {name: value for name, value in config.canonical().items() if name != "training.seed"}


class SeedsTogether:
    """`run_folds` for configurations that differ in `training.seed` alone: the first that runs trains all of them.

    A configuration with folds that are done already trains alone, and so do all whose token states do not fit memory
    and are encoded again in every step.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        """
        Raises:
            ValueError: an encoder that is trained, or configurations that differ in more than the seed.
        """
        first = without_seed(configs[0])
        if any(without_seed(config) != first for config in configs) or not configs[0].model.freeze_encoder:
            raise ValueError("only a frozen encoder's configurations that differ in training.seed train together")
        self.waiting = {config.training.seed for config in configs}
        self.trained: dict[int, list[FoldResult]] = {}

    def run_folds(
        self,
        config: RunConfig,
        corpus: Corpus,
        pairs: PairTable,
        features: FeatureSource,
        done: Mapping[int, FoldResult],
        listeners: Iterable[Listener] = (),
    ) -> Iterator[list[FoldResult]]:
        """As `cross_validation.run_folds`, for the configuration of one of the seeds."""
        seed = config.training.seed
        if seed not in self.trained and seed in self.waiting and not done:
            self._train(config, corpus, pairs, features)
        if seed in self.trained and not done:
            yield self.trained.pop(seed)
            return
        yield from run_folds(config, corpus, pairs, features, done, listeners)

    def _train(self, config: RunConfig, corpus: Corpus, pairs: PairTable, features: FeatureSource) -> None:
        folds = list(range(1, pairs.num_folds + 1))
        inputs = load_inputs(config, corpus, pairs, rows_of_folds(config, pairs, folds), features)
        seeds, self.waiting = sorted(self.waiting), set()  # one attempt: what it does not train, trains alone
        size = _at_a_time(config, inputs, len(folds))
        for start in range(0, len(seeds) if size > 1 else 0, size):
            some = seeds[start : start + size]
            self.trained |= dict(zip(some, train_seeds(config, some, pairs, folds, inputs), strict=True))


def _at_a_time(config: RunConfig, inputs: HeadInputs, folds: int) -> int:
    """How many seeds one computation holds; 1 where they gain nothing by it."""
    if inputs.chunk is not None:
        return 1
    most = CACHED_WEIGHTS if inputs.device.type == "cpu" else DEVICE_WEIGHTS
    weights = sum(p.numel() for p in StackedClassifier(config, inputs.width, 1).parameters())
    return max(1, min(MOST_SEEDS, most // (folds * weights)))
