"""How many trainings `finalize.confirm` will take, and what they cost, before it is known which trials they repeat."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_nli.analysis.effects import BINS, MAX_LEVELS
from gemma_nli.config import RunConfig
from gemma_nli.spec.domain import Range
from gemma_nli.spec.space import Cell
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.confirm_leaders import confirming_rounds, leaders_of
from gemma_nli.sweep.forecast.measure import TrialCost, cost_class
from gemma_nli.sweep.prepare import Prepared, feature_requests


def most_values(spec: SweepSpec) -> tuple[int, bool]:
    """How many values are confirmed, at most; and whether that is known before the sweep runs.

    Without `compare:`, several settings may vary, and which of them is compared follows from their effects.
    """
    if "training.seed" in spec.compare:
        return 1, True
    if spec.compare:
        return min(len(spec.variants()), spec.total_trials), True
    domains = [domain for key in spec.space.keys if (domain := spec.space.domain(key)) is not None]
    wide = [isinstance(domain, Range) or len(domain.corners) > MAX_LEVELS for domain in domains]
    counts = [BINS if cut else len(domain.corners) for cut, domain in zip(wide, domains, strict=True)]
    most = min(max(counts, default=1), spec.total_trials)
    return max(1, most), len(domains) < 2 and not any(wide)


def plan_confirmation(ready: Prepared, all_done: bool) -> dict[str, Any] | None:
    """What `--plan` says of it; None where the sweep asks for none.

    Args:
        all_done: every trial of the sweep has ended, so that the leaders are known.
    """
    confirm = ready.spec.finalize.confirm
    if confirm is None:
        return None
    values, exact = most_values(ready.spec)
    done = 0
    if all_done and (leaders := leaders_of(ready)):
        rounds = confirming_rounds(ready, leaders)
        values, exact, done = len(leaders), True, sum(each.is_done(key) for each in rounds for key in each.cells)
    trainings = values * confirm.trainings
    return {"values": values, "exact": exact, **confirm.model_dump(), "trainings": trainings, "done": done}


@dataclass(frozen=True)
class ConfirmCost:
    """Seconds of encoding the drawings' own texts, and of each training or group of seeds, drawing by drawing."""

    encode: float = 0.0
    trials: tuple[tuple[float, ...], ...] = ()

    @property
    def work(self) -> float:
        return sum(map(sum, self.trials))


def confirm_cost(
    ready: Prepared, configs: Sequence[RunConfig], costs: Mapping[str, TrialCost], encoding: float
) -> ConfirmCost:
    """An upper bound: seeds that train in one computation take up to two thirds less than one after the other.

    Args:
        configs: of the trials that will run; those of the most values stand for the leaders.
        costs: of each class of them.
        encoding: seconds that the sweep's own missing texts take.
    """
    confirm = ready.spec.finalize.confirm
    if confirm is None:
        return ConfirmCost()
    values, _ = most_values(ready.spec)
    of_class = list({cost_class(config): config for config in configs}.values())
    leaders = [Cell({}, config) for config in itertools.islice(itertools.cycle(of_class), values)]
    own = _texts(ready)
    drawings = [len(_texts(each) - own) for each in confirming_rounds(ready, leaders)]
    encode = encoding * sum(drawings) / max(1, len(own))  # nothing where the sweep's own are in the store
    each = tuple(costs[cost_class(leader.config)].of(leader.config) * confirm.seeds for leader in leaders)
    return ConfirmCost(encode, tuple(each for _ in drawings))


def _texts(ready: Prepared) -> set[bytes]:
    """What the waiting trials need encoded."""
    return {digest for request in feature_requests(ready) for digest in request.digests}
