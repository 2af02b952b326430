"""The report ends in what to do, and its warnings are ranked by what they do to the conclusion."""

from __future__ import annotations

import dataclasses

import pytest

from gemma_nli.analysis.answer import Answer
from gemma_nli.analysis.baselines import BaselineFinding
from gemma_nli.analysis.cautions import Weight, cautions, lost_to
from gemma_nli.analysis.conclusion import Conclusion, conclude
from gemma_nli.analysis.effects import Effect
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.inference.significance import Difference, Posterior
from gemma_nli.analysis.paired_tests import PairedTests
from gemma_nli.analysis.report.write import Report


@pytest.fixture
def findings(simulated_report: Report) -> Findings:
    return simulated_report.findings


def baseline(name: str, low: float, high: float) -> BaselineFinding:
    middle = (low + high) / 2
    ahead = Difference(middle, low, high, 0.5, 0.95, 0.7 + middle, 0.7, "")
    tests = PairedTests(ahead, Posterior(0.1, 0.8, 0.1, middle, low, high, 0.01), ahead, ahead)
    return BaselineFinding(name, "a rule", 0.7, 0.7, 0.5, 0.5, ahead, 0.03, tests)


def without_effect(effect: Effect, high: float) -> Effect:
    spread = dataclasses.replace(effect.spread, value=0.01, low=-0.01, high=high, p_value=0.6)
    return dataclasses.replace(effect, spread=spread, edge=None)


def warned(findings: Findings, **changes: object) -> list[str]:
    names = ("evidence", "answer", "honest", "baselines", "effects", "mistakes", "confirmation")
    given = {name: getattr(findings, name) for name in names} | changes
    return [caution.text for caution in cautions(*given.values())]


def concluded(findings: Findings, **changes: object) -> Conclusion:
    given = {name: getattr(findings, name) for name in ("evidence", "answer", "baselines", "effects")} | changes
    return conclude(*given.values())


def open_answer(findings: Findings, *places: int) -> Answer:
    """The same answer with some contrasts that are not shown."""
    contrasts = [
        dataclasses.replace(contrast, shown=place not in places)
        for place, contrast in enumerate(findings.answer.contrasts)
    ]
    return dataclasses.replace(findings.answer, contrasts=tuple(contrasts), verdict="open")


def test_baselines_that_say_the_same_are_one_line(findings: Findings) -> None:
    same = [baseline(name, -0.01, 0.03) for name in ("criterion only", "always positive")]
    (line,) = [text for text in warned(findings, baselines=same) if "baseline" in text]
    assert line == (
        "The best trial is not shown to beat the criterion only and always positive baselines: its lead is 0.010 F1 "
        "(95% interval -0.010 to 0.030)."
    )
    (line,) = [t for t in warned(findings, baselines=[*same, baseline("cosine", -0.03, 0.01)]) if "baseline" in t]
    assert "its lead over criterion only and always positive is 0.010 F1" in line
    assert "over cosine is -0.010 F1" in line
    assert lost_to([baseline("TF-IDF", -0.09, -0.01), *[baseline(n, -0.05, -0.03) for n in "ab"]], "F1") == [
        "The TF-IDF baseline beats the best trial by 0.050 F1 (95% interval 0.010 to 0.090).",
        "The a and b baselines beat the best trial by 0.040 F1 (95% interval 0.030 to 0.050).",
    ]


def test_the_baseline_of_the_headline_is_no_warning_and_the_next_one_is(findings: Findings) -> None:
    lost = [baseline("TF-IDF", -0.09, -0.01), baseline("cosine", -0.05, -0.03)]
    lines = warned(findings, baselines=lost)
    assert lines[0].startswith("The cosine baseline beats the best trial by 0.040 F1")
    assert "TF-IDF" not in "".join(lines)


def test_what_overturns_the_conclusion_comes_before_what_is_only_noted(findings: Findings) -> None:
    weights = [caution.weight for caution in findings.cautions]
    assert weights == sorted(weights)
    assert weights[-1] is Weight.NOTED
    level = [baseline("criterion only", -0.01, 0.03)]
    lines = warned(findings, baselines=level)
    assert lines[0].startswith("The best trial is not shown to beat")
    assert lines.index(next(t for t in lines if "lies at the high end" in t)) < lines.index(
        next(t for t in lines if t.startswith("Winner's curse"))
    )


def test_settings_without_an_effect_are_one_line_and_the_compared_one_is_the_headlines(findings: Findings) -> None:
    inert = [without_effect(effect, 0.02 + place / 100) for place, effect in enumerate(findings.effects)]
    (line,) = [text for text in warned(findings, effects=inert) if "No effect" in text]
    assert line == (
        f"No effect shown of 2 settings; still possible, in F1: {inert[1].key} up to 0.030, {inert[2].key} up to 0.040."
    )
    assert inert[0].key == "model.pooling_strategy"
    edges = [dataclasses.replace(effect, edge="high") for effect in findings.effects[1:]]
    (line,) = [text for text in warned(findings, effects=edges) if "end of what was tried" in text]
    assert (
        line == f"The best {edges[0].key} and {edges[1].key} lie at the high end of what was tried; extend the ranges."
    )


def test_a_shown_answer_says_which_configuration_to_use_and_what_is_left(findings: Findings) -> None:
    found = concluded(findings)
    assert found.use.startswith("the best trial (pooling_strategy mean, learning_rate 0.01, dropout ")
    assert "a refit on all pairs, which nobody has measured" in found.use
    assert found.try_next.startswith("learning_rate above 0.01; ")
    assert "whether dropout matters" in found.not_settled


def test_an_open_answer_names_what_is_not_shown_to_be_worse(findings: Findings) -> None:
    found = concluded(findings, answer=open_answer(findings, 0, 1))
    leader, *others = [variant.name for variant in findings.answer.variants]
    assert f"; {' and '.join(others)} are not shown to be worse, so cost may decide" in found.use
    assert f"whether {leader} is better than {' and '.join(others)}" in found.not_settled
    assert " posts (here " in found.try_next


def test_trials_that_a_baseline_beats_are_not_recommended(findings: Findings) -> None:
    found = concluded(findings, baselines=[baseline("TF-IDF", -0.09, -0.01)])
    assert found.use.startswith("none of these trials as they are, since TF-IDF (a rule) beats the best of them")
    assert found.try_next.startswith("to train the encoder (model.freeze_encoder=false or model.lora), or another ")
    found = concluded(findings, baselines=[baseline("criterion only", -0.01, 0.03)])
    assert "), if any: it is not shown to beat criterion only." in found.use


def test_the_page_the_markdown_and_the_facts_have_it(simulated_report: Report) -> None:
    from gemma_nli.analysis.findings import facts_of

    findings = simulated_report.findings
    page, text = simulated_report.html.read_text(), simulated_report.markdown.read_text().replace("\\_", "_")
    assert list(facts_of(findings)["conclusion"]) == ["use", "try_next", "not_settled"]
    for heading, sentence in findings.conclusion.lines:
        assert f"<dt>{heading}</dt>" in page
        assert f"**{heading}:** {sentence}" in text


def test_average_precision_of_few_posts_says_that_its_intervals_are_too_narrow(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = findings.evidence
    by_ap = dataclasses.replace(evidence, spec=evidence.spec.model_copy(update={"metric": "cv_aggregate/mean_ap"}))
    posts = len(set(evidence.group_N.tolist()))

    def said(of: Evidence) -> bool:
        return any(
            f"intervals of AP are too narrow for so few posts ({posts})" in t for t in warned(findings, evidence=of)
        )

    assert not said(by_ap)
    monkeypatch.setattr("gemma_nli.analysis.cautions.ENOUGH_FOR_AP", posts + 1)
    assert said(by_ap)
    assert not said(evidence)
