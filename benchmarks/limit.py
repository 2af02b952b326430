"""A whole sweep in encoder passes: how near the cost of 36 trials comes to that of encoding their texts once.

Numerator: wall seconds of `gemma-nli sweep sweeps/pooling_lr_negatives.yaml` with MiniLM, from the command (a new
process, empty stores, imports and Ray's start included) to the registered model and the command's end: 3 poolings x 4
rates x ratios 1, 2, 3, each 5 folds x 20 epochs. Denominator: one length-sorted pass of the same distinct pairs through
the loaded encoder (see encoder_pass.py), in a process of its own with the same threads; the mean of one pass before
the sweep and one after, since a shared machine's speed drifts. CPU seconds are the steadier second figure: the
whole sweep's (all processes) over the pass's.

Then a second sweep on the same texts, other rates and another name, which may encode nothing.
"""

from __future__ import annotations

import sys

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import ROOT, Usage, Workplace, spend
from gemma_nli.model.demo_weights import minilm_folder

RATIO = 3
OTHER_RATES = "training.learning_rate: {grid: [1e-3]}"
OTHER_SPACE = "{model.pooling_strategy: {grid: [mean, max, cls]}, data.negative_ratio: {grid: [1, 2, 3]}, %s}"


def run(place: Workplace) -> Outcome:
    before = place.encoder_pass(RATIO)
    first = _sweep(place, "limit")
    after = place.encoder_pass(RATIO)
    second = _sweep(place, "limit_again", f"space={OTHER_SPACE % OTHER_RATES}")
    passes = [before.answer, after.answer]
    one_pass = sum(one["seconds"] for one in passes) / 2
    cpu_pass = sum(one["cpu_seconds"] for one in passes) / 2
    result = first.answer
    assert result["registered"]["created"], "the sweep has to end with a registered model"
    return Outcome(
        [
            Mark(
                f"{result['ran']} trials, command to registered model, in encoder passes",
                first.seconds / one_pass,
                at_most=2.5,
            ),
            Mark("the same in CPU seconds", first.cpu_seconds / cpu_pass),
            Mark("texts a second sweep encodes", float(second.answer["texts"]["encoded"]), at_most=0),
        ],
        {
            "sweep_seconds": first.seconds,
            "sweep_cpu_seconds": first.cpu_seconds,
            "sweep_parts": result["seconds"],
            "pass_seconds": [one["seconds"] for one in passes],
            "pass_cpu_seconds": [one["cpu_seconds"] for one in passes],
            "texts": before.answer["texts"],
            "texts_encoded": result["texts"]["encoded"],
            "padding_share": before.answer["padding_share"],
            "trials": result["trials"],
            "mean_f1": result["best"]["metrics"]["cv_aggregate/mean_f1"],
            "second_sweep_seconds": second.seconds,
            "second_sweep_trials": second.answer["trials"],
            "second_sweep_texts": second.answer["texts"],
        },
    )


def _sweep(place: Workplace, name: str, *more: str) -> Usage:
    """The command, its stores under the benchmark's folder: a later sweep finds the earlier one's texts."""
    words = [
        f"name={name}",
        f"data.data_dir={place.data}",
        f"model.name={minilm_folder()}",
        f"output.experiment_name={name}",
        f"storage={place.work / 'storage'}",
        *(["training.num_epochs=2"] if place.quick else []),
        *more,
    ]
    file = ROOT / "sweeps" / "pooling_lr_negatives.yaml"
    return spend([sys.executable, "-m", "gemma_nli", "sweep", str(file), *words, "--json"])
