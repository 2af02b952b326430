"""What to do after a sweep: which configuration to use, what to try next, and what is not settled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gemma_nli.analysis.answer import Answer
from gemma_nli.analysis.baselines import BaselineFinding
from gemma_nli.analysis.effects import Effect, end_of
from gemma_nli.analysis.ensembles import ChosenEnsemble
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.paired_tests import ROPE
from gemma_nli.analysis.wording import brief, evidence_text, listed, rounded, short
from gemma_nli.base.metrics import measured_by
from gemma_nli.base.what_was_measured import ENSEMBLE_REFIT, REFIT

STEPS = 3
"""More than these would be a list of everything that is possible."""


@dataclass(frozen=True)
class Conclusion:
    """Each a sentence that follows its heading."""

    use: str
    try_next: str
    not_settled: str

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """(heading, sentence)."""
        named = dataclasses.asdict(self).items()
        return tuple((name.replace("_", " ").capitalize(), sentence) for name, sentence in named)


def conclude(
    evidence: Evidence,
    answer: Answer,
    baselines: Sequence[BaselineFinding],
    effects: Sequence[Effect],
    registered: ChosenEnsemble | None = None,
) -> Conclusion:
    """What follows from the findings."""
    lost = sorted((b for b in baselines if b.outcome == "loses"), key=lambda b: b.ahead.value)
    level = [b for b in baselines if b.outcome == "not told apart"]
    learned = evidence.winner not in evidence.unlearned()
    steps = list(_steps(evidence, answer, [*lost, *level], effects, learned))[:STEPS]
    unsettled = list(_unsettled(evidence, answer, effects))[:STEPS]
    return Conclusion(
        use=_use(evidence, answer, lost, level, learned, registered),
        try_next=f"{'; '.join(steps) or 'nothing: what was asked is answered'}.",
        not_settled=f"{'; '.join(unsettled) or 'nothing of what was asked'}.",
    )


def _use(
    evidence: Evidence,
    answer: Answer,
    lost: Sequence[BaselineFinding],
    level: Sequence[BaselineFinding],
    learned: bool,
    registered: ChosenEnsemble | None,
) -> str:
    best = evidence_text(evidence, evidence.winner)
    if lost:
        return (
            f"none of these trials as they are, since {lost[0].name} ({lost[0].about}) beats the best of them ({best})."
        )
    if not learned:
        return f"none of these trials as they are: the best of them ({best}) did not learn in every fold."
    said = f"the {'only' if len(evidence.complete) == 1 else 'best'} trial ({best})"
    if level:
        said += f", if any: it is not shown to beat {listed([baseline.name for baseline in level])}"
    equals = [contrast.other for contrast in answer.contrasts if not contrast.shown]
    if equals:
        own = {variant.name for variant in answer.variants if evidence.winner in variant.places}
        others = [name for name in [answer.variants[0].name, *equals] if name not in own]
        said += f"; {listed(others)} {'is' if len(others) == 1 else 'are'} not shown to be worse, so cost may decide"
    if registered is not None:
        asked = f"What is registered, as finalize.ensemble asks, is {registered.about}"
        return f"{said}. {asked}: {_refit(evidence, of_several=True)}."
    return f"{said}. A model registered from it is {_refit(evidence)}."


def _refit(evidence: Evidence, of_several: bool = False) -> str:
    """What the registered model is, and whether anybody has measured it."""
    looks = [test.last for test in evidence.sealed if test.last is not None and test.last.scores]
    if looks and looks[0].scores:
        return f"a refit on all posts but the sealed ones, on which it scores {looks[0].scores[0].score.text}"
    waiting = f"; gemma-nli test {evidence.sealed[0].sweep} would measure it" if evidence.sealed else ""
    return f"{ENSEMBLE_REFIT if of_several else REFIT}{waiting}"


def _steps(
    evidence: Evidence,
    answer: Answer,
    not_beaten: Sequence[BaselineFinding],
    effects: Sequence[Effect],
    learned: bool,
) -> Iterator[str]:
    winner = evidence.complete[evidence.winner]
    if not learned:
        yield f"another training.learning_rate (it was {brief(winner.config.training.learning_rate)}) or more epochs"
    if not_beaten or not learned:
        frozen = winner.config.model.freeze_encoder
        train = "to train the encoder (model.freeze_encoder=false or model.lora), or " if frozen else ""
        yield f"{train}another encoder"
    beyond = [
        f"{short(e.key)} {'below' if e.edge == 'low' else 'above'} {brief(end_of(evidence, e.key, e.edge))}"
        for e in effects
        if e.edge is not None
    ]
    if beyond:
        yield listed(beyond)
    nearest = next((contrast for contrast in answer.contrasts if not contrast.shown), None)
    if nearest is not None and nearest.tuned.value >= ROPE:
        posts, score = len(np.unique(evidence.group_N)), measured_by(evidence.ranked_by).label
        wanted = rounded(posts * (nearest.smallest / nearest.tuned.value) ** 2)
        yield (
            f"about {wanted:,} posts (here {posts:,}), which would show in 80% of cases that {nearest.leader} is "
            f"better than {nearest.other}, if it is so by {nearest.tuned.value:.3f} {score}"
        )
    if not answer.variants:
        yield "a sweep that names what it compares under compare: and what it tunes under tune:"
    if not answer.trainings:
        yield "finalize.confirm, which trains the best of each value again with other seeds and folds"


def _unsettled(evidence: Evidence, answer: Answer, effects: Sequence[Effect]) -> Iterator[str]:
    level = [contrast.other for contrast in answer.contrasts if not contrast.shown]
    if level:
        yield f"whether {answer.variants[0].name} is better than {listed(level)}"
    unknown = [short(effect.key) for effect in effects if effect.key not in answer.keys and not effect.matters]
    if unknown:
        yield f"whether {listed(unknown)} matter{'' if len(unknown) > 1 else 's'}"
    if not answer.trainings:
        yield "what other training seeds would give"
