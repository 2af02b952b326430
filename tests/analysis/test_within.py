"""Sweeps that are decided within criteria, and what the report says of criteria with too little support."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import Findings, facts_of, find
from gemma_nli.analysis.from_journals import gather
from gemma_nli.analysis.report.markdown import markdown
from gemma_nli.analysis.report.report_tables import baseline_table, criteria_table, leaderboard_table
from gemma_nli.base.errors import ReportError
from gemma_nli.corpus.redsm5 import write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.trial import TrialJournal
from tests.analysis.conftest import evidence_of, tree_of

MACRO_AUC = "cv_aggregate/macro_auc"
LEAST = 5


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Evidence:
    """Two trials of a sweep over 40 posts that is decided by macro AUC."""
    folder = tmp_path_factory.mktemp("within")
    write_corpus(synthetic_corpus(num_posts=40, seed=3), folder / "corpus")
    tree = tree_of(folder, folder / "corpus", tiny_bert, metric=MACRO_AUC, tune={})
    tree["compare"] = {"model.pooling_strategy": {"grid": ["mean", "cls"]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        spec = SweepSpec.from_mapping(tree)
        return evidence_of(spec, simulate_sweep(spec, lambda s: 0.9 if s["model.pooling_strategy"] == "mean" else 0.1))


@pytest.fixture(scope="module")
def found(decided: Evidence) -> Findings:
    return find(decided)


def left_out(evidence: Evidence) -> list[str]:
    """Criteria with too few pairs of a class, counted one by one."""
    criterion_N = evidence.pairs.criterion_N[evidence.rows_N]
    counts = {
        name: (int(evidence.label_N[criterion_N == c].sum()), int((1 - evidence.label_N[criterion_N == c]).sum()))
        for c, name in enumerate(evidence.pairs.criterion_ids)
    }
    return [name for name, both in counts.items() if min(both) < LEAST]


def test_a_sweep_is_ranked_by_the_macro_auc_of_its_journals(decided: Evidence, found: Findings) -> None:
    assert found.metric_name == "macro AUC"
    recorded = [trial.metrics[MACRO_AUC] for trial in decided.complete]
    assert decided.scores() == pytest.approx(recorded)
    assert [row.score for row in found.rows] == pytest.approx(sorted(recorded, reverse=True))
    assert [row.macro_auc for row in found.rows] == [row.score for row in found.rows]
    assert found.honest.metric == "macro_auc"
    assert found.honest.low < found.honest.value < found.honest.high
    (contrast,) = found.answer.contrasts
    assert contrast.tuned.low < contrast.tuned.value < contrast.tuned.high
    assert leaderboard_table(found).header.count("macro AUC") == 1
    (always,) = [b for b in found.baselines if b.name == "always positive"]
    assert always.score == always.macro_auc == 0.5
    assert "macro AUC" in baseline_table(found).header


def test_criteria_with_too_little_support_are_named_and_counted(decided: Evidence, found: Findings) -> None:
    named = left_out(decided)
    assert 0 < len(named) < len(decided.pairs.criterion_ids)
    assert found.within.left_out == tuple(named)
    for name in named:
        assert name in criteria_table(found).note
    over = f"mean over {len(found.within.averaged)} of {len(decided.pairs.criterion_ids)} criteria"
    assert over in facts_of(found)["within_criteria"]
    assert over in markdown(found, {})
    assert {trial.metrics["cv_aggregate/macro_criteria"] for trial in decided.complete} == {len(found.within.averaged)}


def test_the_columns_of_criteria_average_to_the_macro_auc(found: Findings) -> None:
    within = {item.name: item.scores["auc"] for item in found.mistakes.criteria}
    averaged = [within[name] for name in found.within.averaged]
    assert found.within.auc == pytest.approx(sum(averaged) / len(averaged))
    assert "AUC within" in criteria_table(found).header


def test_journals_from_before_the_macro_metrics_are_not_ranked_by_them(decided: Evidence, tmp_path: Path) -> None:
    record = decided.record(decided.complete[0].key)
    older = {name: value for name, value in record.aggregates.items() if "macro_" not in name}
    journal = TrialJournal(tmp_path, record.key)
    journal.start(record.config, decided.pairs.fingerprint, "x", decided.pairs.num_folds)
    journal.add_folds([record.folds[fold] for fold in sorted(record.folds)])
    journal._append({"event": "ended", "state": "finished", "aggregates": older, "criteria": {}})
    with pytest.raises(ReportError, match="no finished trial has cv_aggregate/macro_auc"):
        gather(decided.spec, decided.corpus, decided.pairs, tmp_path, {record.key: {}})
