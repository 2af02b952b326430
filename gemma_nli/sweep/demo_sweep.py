"""`gemma-nli demo`: a real sweep over a synthetic corpus, with the small real encoder of the `demo` extra."""

from __future__ import annotations

from pathlib import Path

from gemma_nli.base.errors import CorpusError
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.spec.spec import SweepSpec

QUESTION = "Should MiniLM read post and criterion together or apart, and how should its token states be pooled?"


def demo_spec(folder: Path) -> SweepSpec:
    """Write the synthetic corpus under `folder` and give the sweep of 12 configurations over it.

    Raises:
        EncoderError: the `demo` extra is missing, or its weights are not the expected ones.
        CorpusError: the folder cannot be written.
    """
    encoder = minilm_folder()
    data = folder / "synthetic_redsm5"
    try:
        write_synthetic(data)
    except OSError as error:
        raise CorpusError(f"{data}: cannot be written: {error.strerror}; choose another --folder.") from None
    return SweepSpec.from_mapping(
        {
            "name": "demo",
            "question": QUESTION,
            "base": {
                "data": {"data_dir": str(data.absolute())},
                "model": {"name": str(encoder), "max_length": 128},
                "training": {"batch_size": 32, "num_epochs": 20},
                "output": {"experiment_name": "demo"},
            },
            "compare": {
                "model.pair_encoding": {"grid": ["joint", "separate"]},
                "model.pooling_strategy": {"grid": ["mean", "max", "attention"]},
            },
            "tune": {"training.learning_rate": {"grid": [1e-3, 1e-2]}},
        },
        source="demo",
    )
