"""Does a warm trial cost the same in a small sweep and in a large one, and does the driver stay small?

Sweeps of 36, 360 and 1,000 trials (rates x seeds; 5 folds x 20 epochs, ratio 1: about 2,600 pairs; batch 64) over
MiniLM vectors that are in the store already. Seconds a trial: from the first trial's start until the last one had ended
and its numbers were in MLflow, over the trials; imports, Ray's start and the actors' come before it. Driver memory: its
peak resident size. MLflow's share: what the same sweep takes less with `mlflow.enabled: false`, at 36 and 360.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace

RATES = [0.0005, 0.001, 0.002, 0.005]


def run(place: Workplace) -> Outcome:
    _measure(place, "warm_up", 2, mlflow=False)
    sizes = [4, 8, 12] if place.quick else [36, 360, 1000]
    small, middle, large = sizes
    facts = {size: _measure(place, f"with_{size}", size) for size in sizes}
    bare = {size: _measure(place, f"without_{size}", size, mlflow=False) for size in (small, middle)}
    seconds = {size: facts[size]["warm_seconds"] / size for size in sizes}
    flat = max(seconds.values()) / min(seconds.values())
    peak = max(facts[size]["peak_mib"] for size in sizes)
    slope = (facts[large]["peak_mib"] - facts[small]["peak_mib"]) / (large - small) * 100
    marks = [
        Mark("seconds a warm trial, the worst of all sizes", max(seconds.values()), at_most=0.5, unit="s"),
        Mark(f"slowest over fastest size, {small} to {large} trials", flat, at_most=1.2),
        Mark("driver's peak memory", peak / 1024, at_most=1.5, unit="GiB"),
        Mark("driver's memory a 100 trials more", slope, unit="MiB"),
    ]
    shares = {size: 1 - bare[size]["warm_seconds"] / facts[size]["warm_seconds"] for size in bare}
    marks += [Mark(f"MLflow's share of a trial, {size} trials", share) for size, share in shares.items()]
    return Outcome(
        marks,
        {
            "seconds_a_trial": seconds,
            "seconds_a_trial_without_mlflow": {size: bare[size]["warm_seconds"] / size for size in bare},
            "with_mlflow": facts,
            "without_mlflow": bare,
            "mlflow_share": shares,
        },
    )


def _measure(place: Workplace, name: str, trials: int, mlflow: bool = True) -> dict[str, Any]:
    seeds = math.ceil(trials / len(RATES))
    file = place.sweep(
        name,
        {"training": {"num_epochs": 20, "batch_size": 64}, "mlflow": {"enabled": mlflow}},
        {
            "training.learning_rate": {"grid": RATES[: min(len(RATES), trials)]},
            "training.seed": {"grid": list(range(seeds))},
        },
    )
    if name != "warm_up":
        place.share_features("warm_up", name)
    spent = place.run_sweep(file)
    answer = dict(spent.answer)
    result = answer.pop("result")
    assert result["trials"]["finished"] == answer["trials"] == trials
    assert name == "warm_up" or result["texts"]["encoded"] == 0
    del answer["mean_f1"]
    return {
        **answer,
        "command_seconds": spent.seconds,
        "cpu_seconds_a_trial": spent.cpu_seconds / trials,
        "undelivered": result["undelivered"],
    }
