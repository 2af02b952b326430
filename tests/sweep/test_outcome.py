"""What a sweep says of its trials beside their scores."""

from __future__ import annotations

from gemma_nli.sweep.records.outcome import Outcome, TrialOutcome


def trial(key: str, objective: float, warning: str = "") -> TrialOutcome:
    return TrialOutcome(key, {}, "finished", objective, warning=warning)


def test_trials_that_did_not_learn_are_counted_and_the_best_ones_reason_is_given_first():
    good, dull, worse = (
        trial("a", 0.7),
        trial("b", 0.6, "fold 1 did not learn."),
        trial("c", 0.5, "folds 1, 2 did not."),
    )
    assert Outcome((good,)).notes() == []
    assert Outcome((good, worse, dull)).notes() == [
        "2 of 3 finished trials did not learn in every fold; one of them: folds 1, 2 did not."
    ]
    assert Outcome((worse, dull)).notes() == [
        "2 of 2 finished trials did not learn in every fold; the best trial: fold 1 did not learn."
    ]
