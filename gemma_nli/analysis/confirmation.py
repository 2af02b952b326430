"""The best trial of each compared value, trained again on other fold drawings and seeds (`finalize.confirm`).

What a value's configuration scores is the mean over these trainings, which did not choose it. The choice's luck with
posts is not gone, as the posts are the same ones: the part that the new trainings carry on is taken off. How much that
is, the bootstrap shows: how far the draws that favour the chosen trial over its rivals favour its new trainings.

Letters: A values, D drawings, R seeds per drawing, K folds, N evaluation pairs of a drawing, S draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemma_nli.analysis.compared_values import FRESH, ComparedValues
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.from_journals import comparable
from gemma_nli.analysis.inference.best_of_trials import carried_luck
from gemma_nli.analysis.inference.bootstrap import DrawnPosts, PostBootstrap
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.inference.training_variance import CountedLuck, Trainings
from gemma_nli.base.metrics import measured_by
from gemma_nli.config import RunConfig
from gemma_nli.training.results import OutOfFold
from gemma_nli.trial import TrialRecord

Floats = NDArray[np.float64]
Repeats = dict[tuple[int, int], TrialRecord]
"""The trainings of one configuration, by fold seed and training seed."""


@dataclass(frozen=True)
class ConfirmedValue:
    """A compared value (the best trial where nothing is compared): its best trial's score, and (D, R) those of the
    trainings that confirm it.
    """

    name: str
    key: str
    swept: float
    score_DR: Floats


@dataclass(frozen=True)
class Confirmation:
    """`values` stand as in `luck.values`, the highest first; `missing`: compared values without a training."""

    values: tuple[ConfirmedValue, ...]
    luck: CountedLuck
    missing: tuple[str, ...]
    metric: str

    @property
    def drawings(self) -> int:
        return int(self.values[0].score_DR.shape[0])

    @property
    def seeds(self) -> int:
        """Per drawing."""
        return int(self.values[0].score_DR.shape[1])

    @property
    def decides(self) -> bool:
        """Whether it says which compared value is better: every one is confirmed, often enough to know the luck."""
        return len(self.values) > 1 and not self.missing and self.luck.counted

    def interval(self, place: int) -> tuple[float, float]:
        """Of a value's score, within the metric's range."""
        low, high = self.luck.interval(place)
        return max(low, measured_by(self.metric).part.lowest), min(high, 1.0)

    def facts(self) -> dict[str, Any]:
        """As `--json` has it: each value with the standard deviations of its score by source."""
        values = {}
        for place, value in enumerate(self.values):
            (low, high), alone = self.interval(place), self.luck.one(place)
            sources = {"posts": math.sqrt(self.luck.posts(alone)), "folds": self.luck.of_folds(alone)}
            sources |= {"seeds": self.luck.of_seeds(alone)} if self.seeds > 1 else {}
            values[value.name] = {
                "trial": value.key,
                "swept": value.swept,
                "confirmed": self.luck.values[place],
                "low": low,
                "high": high,
                "sd": {name: sd for name, sd in sources.items() if math.isfinite(sd)},
            }
        return {"seeds": self.seeds, "fold_drawings": self.drawings, "values": values, "missing": list(self.missing)}

    def place(self, name: str) -> int:
        return next(place for place, value in enumerate(self.values) if value.name == name)


def confirm(evidence: Evidence, draws: Draws, compared: ComparedValues) -> Confirmation | None:
    """What the confirming trials that have finished say; None where there are none."""
    found, leaders = _by_configuration(evidence), compared.leaders(evidence)
    again = {name: found.get(_configuration(evidence.complete[place].config), {}) for name, place in leaders.items()}
    shared = _shared([repeats for repeats in again.values() if repeats])
    kept = [name for name, repeats in again.items() if repeats] if shared else []
    if not kept:
        return None
    drawn = DrawnPosts.of(_posts(evidence, [again[name] for name in kept]), len(draws.inside_ST))
    trainings = _trainings(evidence, draws.metric, drawn, [again[name] for name in kept], shared)
    own = PostBootstrap(
        evidence.group_N, evidence.label_N, folds=evidence.fold_N, criteria=evidence.observed.criterion_N, drawn=drawn
    )
    values, noise_SA = trainings.mean_A, trainings.noise_SA
    for arm, name in enumerate(kept):
        places = dict(compared.groups).get(name, list(range(len(evidence.complete))))
        values[arm] -= _carried(evidence, draws, own, places, leaders[name], noise_SA[:, arm])
    order = np.argsort(-values, kind="stable")
    ordered = Trainings(trainings.score_ADRK[order], trainings.noise_SADRK[:, order])
    luck = CountedLuck(ordered, values[order].tolist(), noise_SA[:, order])
    confirmed = []
    for arm in order:
        trial = evidence.complete[leaders[kept[arm]]]
        swept = float(draws.score_T[leaders[kept[arm]]])
        confirmed.append(ConfirmedValue(kept[arm], trial.key, swept, trainings.score_ADRK[arm].mean(2)))
    missing = tuple(name for name in again if name not in kept)
    return Confirmation(tuple(confirmed), luck, missing, draws.metric)


def _by_configuration(evidence: Evidence) -> dict[str, Repeats]:
    """The confirming trials that have finished and have the metric, by what they have in common with their leaders."""
    part = measured_by(evidence.ranked_by).part.name
    found: dict[str, Repeats] = {}
    for record in evidence.confirmations:
        if record.state == "finished" and all(part in fold.metrics for fold in record.folds.values()):
            drawn = (record.config.data.fold_seed, record.config.training.seed)
            found.setdefault(_configuration(record.config), {})[drawn] = record
    return found


def _configuration(config: RunConfig) -> str:
    """What a leader and its confirming trials have in common."""
    kept = {key: value for key, value in comparable(config).items() if key not in FRESH}
    return json.dumps(kept, sort_keys=True)


def _shared(every: Sequence[Repeats]) -> dict[int, list[int]]:
    """Fold seed to training seeds: the trainings that all have, as many on each drawing."""
    both = sorted(set.intersection(*(set(repeats) for repeats in every))) if every else []
    seeds = {fold_seed: [seed for other, seed in both if other == fold_seed] for fold_seed, _ in both}
    fewest = min(map(len, seeds.values()), default=0)
    return {fold_seed: found[:fewest] for fold_seed, found in seeds.items()}


def _posts(evidence: Evidence, every: Sequence[Repeats]) -> NDArray[np.int32]:
    """The independent units that any evaluation pair of the sweep or of its confirming trials belongs to."""
    rows = [fold.rows for repeats in every for record in repeats.values() for fold in record.folds.values()]
    return np.asarray(evidence.pairs.group_N[np.unique(np.concatenate([evidence.rows_N, *rows]))])


def _trainings(
    evidence: Evidence, metric: str, drawn: DrawnPosts, every: Sequence[Repeats], shared: Mapping[int, Sequence[int]]
) -> Trainings:
    """Scores and noise of all trainings that count; those on one drawing have the same evaluation pairs."""
    scores, noise = [], []
    for fold_seed, seeds in shared.items():
        records = [repeats[fold_seed, seed] for repeats in every for seed in seeds]
        found = [OutOfFold.of([fold for _, fold in sorted(record.folds.items())]) for record in records]
        first, takes = found[0], measured_by(metric).takes
        units_N, criterion_N = (column[first.rows] for column in (evidence.pairs.group_N, evidence.pairs.criterion_N))
        bootstrap = PostBootstrap(units_N, first.labels, folds=first.folds, criteria=criterion_N, drawn=drawn)
        values_TN = np.stack([np.asarray(takes(each.decisions, each.probabilities)) for each in found])
        moved_STK = bootstrap.noise(bootstrap.by_fold(values_TN.T, metric))
        if moved_STK.shape[2] > 1:
            score_TK = bootstrap.scored.fold_scores(values_TN, metric)
        else:
            score_TK = bootstrap.scored.scores(values_TN, metric)[:, None]
        shape = len(every), len(seeds), score_TK.shape[1]
        scores.append(score_TK.reshape(shape))
        noise.append(moved_STK.reshape(len(moved_STK), *shape))
    return Trainings(np.stack(scores, axis=1), np.stack(noise, axis=2))


def _carried(
    evidence: Evidence, draws: Draws, own: PostBootstrap, places: list[int], best: int, again_S: Floats
) -> float:
    """`carried_luck` of the best trial of `places`."""
    worth = draws.worth(places)
    rivals = [places[place] for place in worth.rivals]
    if len(rivals) == 1:
        return 0.0
    moved_SR = own.noise(own.many(evidence.values(draws.metric)[rivals].T, draws.metric))
    return carried_luck(float(draws.score_T[best]) - worth.value, moved_SR, rivals.index(best), again_S)
