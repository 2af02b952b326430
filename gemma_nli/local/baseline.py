"""A baseline alone, without a sweep: on the folds and pairs that a configuration's trial would have."""

from __future__ import annotations

from dataclasses import dataclass

from gemma_nli.base.paths import home
from gemma_nli.config import RunConfig
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.sealed import training_corpus
from gemma_nli.features import FeatureStore
from gemma_nli.model.gguf_conversion import quantization_notes
from gemma_nli.storage import Place
from gemma_nli.training.criterion_only import criterion_only, evaluation_rows, mean_scores
from gemma_nli.training.zero_shot import zero_shot

MEASURED = ("f1", "auc", "macro_auc", "macro_f1", "ap")


@dataclass(frozen=True)
class BaselineScores:
    """Scores on `num_pairs` evaluation pairs; `criterion_only`: the same of a model that never reads the post."""

    name: str
    about: str
    scores: dict[str, float]
    criterion_only: dict[str, float]
    num_pairs: int
    ratio: float | str
    notes: tuple[str, ...]


def zero_shot_here(config: RunConfig, storage: Place | None = None) -> BaselineScores:
    """What the encoder's own language model answers on the evaluation pairs of a configuration; trains nothing.

    Args:
        storage: where encoded texts are kept; by default those of this machine's sweeps.
    Raises:
        EncoderError: the encoder has no language-model head, or cannot be loaded.
    """
    corpus = training_corpus(config.data)
    pairs = build_pairs(corpus, config.data)
    rows_N = evaluation_rows(pairs)
    store = FeatureStore((storage or home() / "storage") / "features", config.features)
    found = zero_shot(config, corpus, pairs, rows_N, store)
    decided_N, score_N = criterion_only(config, pairs, rows_N)
    return BaselineScores(
        name="zero-shot",
        about=found.about,
        scores=mean_scores(pairs, rows_N, found.decision_N, found.score_N, MEASURED),
        criterion_only=mean_scores(pairs, rows_N, decided_N, score_N, MEASURED),
        num_pairs=len(rows_N),
        ratio=config.data.eval_negative_ratio,
        notes=(*corpus_notes(corpus, pairs), *quantization_notes([config.model])),
    )
