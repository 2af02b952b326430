"""`gemma-nli demo`: a real sweep over a synthetic corpus, with the encoder of the `demo` or the `gemma` extra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from gemma_nli.base.errors import CorpusError
from gemma_nli.corpus.synthetic import NUM_POSTS, write_synthetic
from gemma_nli.model.demo_weights import minilm_folder
from gemma_nli.model.gemma_weights import gemma_folder
from gemma_nli.spec.spec import SweepSpec

DemoModel = Literal["minilm", "gemma"]
QUESTION = "Should MiniLM read post and criterion together or apart, and how should its token states be pooled?"
QUESTION_ASKED = "Post: {premise}\nStatement: {hypothesis}\nQuestion: Does the statement apply to the post?\nAnswer:"
GEMMA_QUESTION = "Which layer of Gemma 3 270M knows most, asked or not, and how should its states be pooled?"
GEMMA_POSTS = 120
"""Half of the other demo's: Gemma reads each pair twice, with the template and without, on two cores in minutes."""


def demo_spec(folder: Path, model: DemoModel = "minilm", say: Callable[[str], None] = lambda line: None) -> SweepSpec:
    """Write the synthetic corpus under `folder` and give the sweep over it.

    Args:
        model: `minilm` for 12 configurations in a minute, `gemma` for a real Gemma 3 270M in some minutes.
        say: called with a line about each long step before the sweep.
    Raises:
        EncoderError: the extra with the weights is missing, or its weights are not the expected ones.
        CorpusError: the folder cannot be written.
    """
    encoder = gemma_folder(say) if model == "gemma" else minilm_folder()
    posts = GEMMA_POSTS if model == "gemma" else NUM_POSTS
    data = folder / ("synthetic_redsm5" if posts == NUM_POSTS else f"synthetic_redsm5_{posts}")
    try:
        write_synthetic(data, posts)
    except OSError as error:
        raise CorpusError(f"{data}: cannot be written: {error.strerror}; choose another --folder.") from None
    sweep = _gemma_sweep() if model == "gemma" else _minilm_sweep()
    base = {"data.data_dir": str(data.absolute()), "model.name": str(encoder), "output.experiment_name": sweep["name"]}
    return SweepSpec.from_mapping({**sweep, "base": {**sweep["base"], **base}}, source=sweep["name"])


def _minilm_sweep() -> dict[str, Any]:
    return {
        "name": "demo",
        "question": QUESTION,
        "base": {"model.max_length": 128, "training.batch_size": 32, "training.num_epochs": 20},
        "compare": {
            "model.pair_encoding": {"grid": ["joint", "separate"]},
            "model.pooling_strategy": {"grid": ["mean", "max", "attention"]},
        },
        "tune": {"training.learning_rate": {"grid": [1e-3, 1e-2]}},
    }


def _gemma_sweep() -> dict[str, Any]:
    return {
        "name": "demo_gemma",
        "question": GEMMA_QUESTION,
        "base": {
            "model.max_length": 256,
            "training.batch_size": 32,
            "training.num_epochs": 20,
            "training.learning_rate": 1e-3,
        },
        "compare": {
            "model.layers": {"grid": [6, 9, 12, 18]},
            "model.template": {"grid": ["native", QUESTION_ASKED]},
            "model.pooling_strategy": {"grid": ["mean", "last"]},
        },
    }
