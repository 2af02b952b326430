"""The report says whether what wins also wins in other words: simulated sweeps whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.simulated_sweep import Skill, simulate_sweep
from gemma_nli.analysis.findings import facts_of, find
from gemma_nli.analysis.inference.honest_score import Draws
from gemma_nli.analysis.phrasings import Phrasings, in_other_words
from gemma_nli.analysis.report.markdown import markdown
from gemma_nli.spec.spec import SweepSpec
from tests.analysis.conftest import evidence_of, tree_of

ASKED = "Post: {premise}\nStatement: {hypothesis}"
TEMPLATES = ["native", ASKED, "{hypothesis}: {premise}"]
BY_POOLING = {"mean": 0.9, "cls": 0.4, "max": 0.4}


def evidence_with(folder: Path, corpus: Path, encoder: Path, skill: Skill, space: dict[str, Any] | None = None) -> Any:
    tree = tree_of(folder, corpus, encoder)
    del tree["compare"], tree["tune"]
    tree["space"] = space or {
        "model.template": {"grid": TEMPLATES},
        "data.wording": {"grid": ["full", "short"]},
        "model.pooling_strategy": {"grid": list(BY_POOLING)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        spec = SweepSpec.from_mapping(tree)
        return evidence_of(spec, simulate_sweep(spec, skill))


def by_pooling(settings: Mapping[str, Any]) -> float:
    return BY_POOLING[settings["model.pooling_strategy"]]


def by_phrase(settings: Mapping[str, Any]) -> float:
    """Mean is better behind one template alone; behind the others it is worse."""
    better = by_pooling(settings)
    return better if settings["model.template"] == ASKED else 1.0 - better


def alike(settings: Mapping[str, Any]) -> float:
    return 0.5


def found_by(tmp_path: Path, corpus: Path, encoder: Path, skill: Skill) -> Phrasings:
    evidence = evidence_with(tmp_path, corpus, encoder, skill)
    found = in_other_words(evidence, Draws.of(evidence, repetitions=400))
    assert found is not None
    return found


def test_a_winner_that_wins_in_all_words_is_said_to_hold(tmp_path, analysis_corpus, tiny_bert) -> None:
    found = found_by(tmp_path, analysis_corpus, tiny_bert, by_pooling)
    assert (found.outcome, found.kept, len(found.phrasings)) == ("holds", "pooling_strategy mean", 6)
    assert all(each.lead.low > 0 for each in found.phrasings)
    assert [each.won for each in found.phrasings] == [True] + [False] * 5
    assert found.sentence.startswith("The winner is not one lucky phrase: pooling_strategy mean scores highest in each")
    assert "no interaction shown" in found.sentence


def test_a_winner_of_one_phrase_is_said_to_depend_on_it_and_the_report_warns(
    tmp_path, analysis_corpus, tiny_bert
) -> None:
    evidence = evidence_with(tmp_path, analysis_corpus, tiny_bert, by_phrase)
    findings = find(evidence)
    found = findings.phrasings
    assert found is not None
    assert found.outcome == "depends"
    assert found.change is not None
    assert found.change.low > 0
    beaten = [each for each in found.phrasings if each.lead.high < 0]
    assert len(beaten) in (2, 4)
    assert found.sentence in findings.warnings
    assert facts_of(findings)["phrasings"] == found.sentence
    page = markdown(findings, {})
    assert "## In other words" in page
    assert "\\nStatement" in page, "a template's line break is no line break of the page"


def test_equal_trials_are_not_said_to_interact(tmp_path, analysis_corpus, tiny_bert) -> None:
    found = found_by(tmp_path, analysis_corpus, tiny_bert, alike)
    assert found.outcome != "depends"
    assert found.change is not None
    assert found.change.low <= 0
    assert np.isclose(found.change.value, found.change.score_a - found.change.score_b)


def test_where_only_phrasings_vary_or_none_does_nothing_is_said(tmp_path, analysis_corpus, tiny_bert) -> None:
    for name, space in {
        "phrases": {"model.template": {"grid": TEMPLATES}},
        "poolings": {"model.pooling_strategy": {"grid": ["mean", "cls"]}},
    }.items():
        (tmp_path / name).mkdir()
        evidence = evidence_with(tmp_path / name, analysis_corpus, tiny_bert, alike, space)
        assert in_other_words(evidence, Draws.of(evidence, repetitions=200)) is None
