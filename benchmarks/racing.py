"""Does racing folds find the best configuration, and how many folds does it save?

    python benchmarks/racing.py [--seeds 200] [--configs 200] [--concurrent 8] [--json results.json]

A table of configurations x folds is replayed in random order under each stopping rule. The table is made as folds are:
posts differ in difficulty, a post's pairs share its effect, configurations share most of what makes a pair hard, each
has its own errors, and training adds noise to each fold. About 500 validation pairs a fold, half of them positive. The
qualities spread like a real sweep's: many configurations near the best, a long tail of bad ones.

Two questions of truth: `table` (is the pick's mean F1 over all five folds within half a standard error of the best in
the table?) and `latent` (the same of the F1 on endless data, which even running everything cannot fully know: see the
row `everything`). The standard error is that of the best configuration's mean F1 over its folds.

Measured (200 seeds, 200 x 5, 8 at a time, level 0.05):

    rule          within 0.5 SE: table   latent  folds run  F1 lost
    everything                  100.0%    74.0%     100.0%   0.0000
    fold_racing                  99.5%    73.5%      34.5%   0.0001
    asha                        100.0%    74.0%      40.5%   0.0000
    median                      100.0%    74.0%      36.1%   0.0000
    wilcoxon                    100.0%    74.0%      83.2%   0.0000

With 40 seeds of harder tables fold_racing stays at 100% (table) and runs 39.5% of the folds with `--training 0.12`
(nine times the variance of training noise), 45.3% with `--spread 0.12` (all configurations close), 54.8% with both;
there asha and median fall to 95%. On 200 real configurations (logistic regressions over TF-IDF components of
reddit_emotions, 517 pairs a fold, 100 orders): 100% with 31.8% of the folds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, wilcoxon

from benchmarks.outcome import Mark, Outcome
from benchmarks.workplace import Workplace
from gemma_nli.search.rules.asha import Halving
from gemma_nli.search.rules.fold_racing import RaceTable
from gemma_nli.search.rules.median import Median

Floats = NDArray[np.float64]
FOLDS = 5
_POST, _PAIR, _OWN_POST, _OWN_PAIR = 0.20, 0.45, 0.08, 0.27  # shares of the score's variance


@dataclass
class Table:
    """`named_CFR` says which pairs each configuration calls matched; `f1_CF` and `latent_C` follow from it."""

    rows_FR: NDArray[np.int64]
    posts_FR: NDArray[np.int64]
    labels_FR: NDArray[np.bool_]
    named_CFR: NDArray[np.bool_]
    f1_CF: Floats
    latent_C: Floats

    @property
    def standard_error(self) -> float:
        best = self.f1_CF[self.f1_CF.mean(1).argmax()]
        return float(best.std(ddof=1) / np.sqrt(FOLDS))


_QUALITY = np.linspace(-3, 5, 8001)
_F1 = norm.cdf(_QUALITY)  # F1 on endless data, half positive, threshold in the middle: 2 hit / (1 + hit + 1 - hit)


def make_table(
    seed: int,
    configs: int = 200,
    pairs: int = 500,
    pairs_a_post: float = 4.5,
    spread: float = 0.40,
    training: float = 0.04,
) -> Table:
    """A table of `configs` x 5 folds; see the module's head for what it imitates.

    Args:
        spread: F1 between the best and the worst quality there can be.
        training: noise of a fold's training, in standard deviations of the score (0.04 is about 0.01 in F1).
    """
    rng = np.random.default_rng(seed)
    best = rng.uniform(0.70, 0.85)
    latent_C = best - spread * rng.beta(1.0, 2.2, configs)
    quality_C = np.interp(latent_C, _F1, _QUALITY)
    posts = round(pairs / pairs_a_post)
    post_FR = np.sort(rng.integers(posts, size=(FOLDS, pairs)), axis=1)
    labels_FR = rng.random((FOLDS, pairs)) < 0.5
    sign_FR = np.where(labels_FR, 1.0, -1.0)
    shared_FR = _PAIR**0.5 * rng.standard_normal((FOLDS, pairs))
    shared_FR += _POST**0.5 * np.take_along_axis(rng.standard_normal((FOLDS, posts)), post_FR, axis=1)
    named_CFR = np.empty((configs, FOLDS, pairs), dtype=bool)
    for c in range(configs):
        quality_F = quality_C[c] + training * rng.standard_normal(FOLDS)
        own_FR = _OWN_PAIR**0.5 * rng.standard_normal((FOLDS, pairs))
        own_FR += _OWN_POST**0.5 * np.take_along_axis(rng.standard_normal((FOLDS, posts)), post_FR, axis=1)
        named_CFR[c] = quality_F[:, None] * sign_FR + shared_FR + own_FR > 0
    hit_CF = (named_CFR & labels_FR).sum(-1)
    f1_CF = 2 * hit_CF / (named_CFR.sum(-1) + labels_FR.sum(-1))
    rows_FR = np.arange(FOLDS * pairs).reshape(FOLDS, pairs)
    return Table(rows_FR, post_FR + posts * np.arange(FOLDS)[:, None], labels_FR, named_CFR, f1_CF, latent_C)


class Everything:
    """No rule: every fold of every configuration is run."""

    def see(self, table: Table, config: int, fold: int) -> bool:
        return False


class Racing(Everything):
    def __init__(self, **settings: Any) -> None:
        self.race = RaceTable(FOLDS, **settings)
        self.seconds: list[float] = []

    def see(self, table: Table, config: int, fold: int) -> bool:
        began = time.perf_counter()
        named_R, labels_R = table.named_CFR[config, fold], table.labels_FR[fold]
        self.race.record(config, fold + 1, table.rows_FR[fold], named_R, labels_R, table.posts_FR[fold], 0.5)
        decision = self.race.decide(config)
        self.seconds.append(time.perf_counter() - began)
        return decision.stop


class ByMean(Everything):
    def __init__(self, rule: Halving | Median) -> None:
        self.rule = rule

    def see(self, table: Table, config: int, fold: int) -> bool:
        self.rule.record_mean(config, fold + 1, float(table.f1_CF[config, : fold + 1].mean()))
        return self.rule.decide(config).stop


class Wilcoxon(Everything):
    """Optuna's WilcoxonPruner (p_threshold 0.1): a signed-rank test of fold F1s against the best trial so far."""

    def __init__(self) -> None:
        self.whole: list[int] = []

    def see(self, table: Table, config: int, fold: int) -> bool:
        if fold == FOLDS - 1:
            self.whole.append(config)
            return False
        if fold < 1 or not self.whole:
            return False
        leader = max(self.whole, key=lambda c: table.f1_CF[c].mean())
        mine_F, best_F = table.f1_CF[config, : fold + 1], table.f1_CF[leader, : fold + 1]
        if np.all(mine_F == best_F) or mine_F.mean() > best_F.mean():
            return False
        return bool(wilcoxon(mine_F - best_F, alternative="less", zero_method="zsplit").pvalue < 0.1)


RULES: dict[str, Callable[[], Any]] = {
    "everything": Everything,
    "fold_racing": Racing,
    "asha": lambda: ByMean(Halving(FOLDS)),
    "median": lambda: ByMean(Median(FOLDS)),
    "wilcoxon": Wilcoxon,
}


def replay(table: Table, rule: Any, order: NDArray[np.int64], concurrent: int) -> tuple[int, int]:
    """(the configuration picked, folds run): `concurrent` trials run side by side, a fold each in turn."""
    waiting = list(order[::-1])
    running: list[list[int]] = []
    whole: list[int] = []
    folds_run = 0
    while waiting or running:
        while waiting and len(running) < concurrent:
            running.append([int(waiting.pop()), 0])
        for trial in list(running):
            folds_run += 1
            stop = rule.see(table, trial[0], trial[1])
            trial[1] += 1
            if trial[1] == FOLDS:
                whole.append(trial[0])
            if stop or trial[1] == FOLDS:
                running.remove(trial)
    return max(whole, key=lambda c: table.f1_CF[c].mean()), folds_run


def measure(
    seeds: int,
    configs: int = 200,
    concurrent: int = 8,
    rules: dict[str, Callable[[], Any]] | None = None,
    **table_settings: Any,
) -> dict[str, dict[str, float]]:
    """Each rule's shares of seeds whose pick is within half a standard error, and its share of the folds run."""
    found: dict[str, list[tuple[bool, bool, float, float, float]]] = {}
    for seed in range(seeds):
        table = make_table(seed, configs, **table_settings)
        order = np.random.default_rng([seed, 1]).permutation(configs)
        means_C, near = table.f1_CF.mean(1), 0.5 * table.standard_error
        for name, make in (rules or RULES).items():
            rule = make()
            pick, folds_run = replay(table, rule, order, concurrent)
            found.setdefault(name, []).append(
                (
                    bool(means_C[pick] >= means_C.max() - near),
                    bool(table.latent_C[pick] >= table.latent_C.max() - near),
                    folds_run / (configs * FOLDS),
                    float(means_C.max() - means_C[pick]),
                    1000 * float(np.mean(getattr(rule, "seconds", [0.0]))),
                )
            )
    names = ("table_within_half_se", "latent_within_half_se", "folds_run", "f1_lost", "ms_a_decision")
    return {rule: dict(zip(names, np.mean(runs, axis=0).tolist(), strict=True)) for rule, runs in found.items()}


def run(place: Workplace) -> Outcome:
    """The module's question as one entry of `python -m benchmarks`: 200 tables of 200 configurations."""
    results = measure(place.size(200, 2), place.size(200, 20))
    racing = results["fold_racing"]
    marks = [
        Mark("folds run by fold racing, of all", racing["folds_run"], at_most=0.5),
        Mark("its picks within half a standard error of the best", racing["table_within_half_se"], at_least=0.95),
        *(
            Mark(f"the same of {rule}; folds run {values['folds_run']:.0%}", values["table_within_half_se"])
            for rule, values in results.items()
            if rule != "fold_racing"
        ),
        Mark("milliseconds a decision of fold racing", racing["ms_a_decision"], unit="ms"),
    ]
    return Outcome(marks, dict(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--configs", type=int, default=200)
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--spread", type=float, default=0.40, help="F1 between the best and the worst quality")
    parser.add_argument("--training", type=float, default=0.04, help="noise of a fold's training")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = measure(asked.seeds, asked.configs, asked.concurrent, spread=asked.spread, training=asked.training)
    print(f"{asked.seeds} seeds, {asked.configs} configurations x {FOLDS} folds, {asked.concurrent} at a time")
    print(f"{'rule':<12} {'within 0.5 SE: table':>21} {'latent':>8} {'folds run':>10} {'F1 lost':>8} {'ms/look':>8}")
    for rule, values in results.items():
        table, latent, run, lost, ms = values.values()
        print(f"{rule:<12} {table:>21.1%} {latent:>8.1%} {run:>10.1%} {lost:>8.4f} {ms:>8.2f}")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
