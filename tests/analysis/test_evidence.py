"""Journals become evidence, several sweeps one; what cannot be compared is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.answer import find_answer
from gemma_nli.analysis.effects import interactions, main_effects
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.from_journals import gather, merge
from gemma_nli.analysis.inference.honest_score import Draws, honest_score
from gemma_nli.analysis.leaderboard import leaderboard
from gemma_nli.analysis.report.write import write_report
from gemma_nli.base.errors import ReportError
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.trial import TrialJournal
from tests.analysis.conftest import evidence_of, skill_of, tree_of


def test_the_matrices_are_the_journals(simulated: tuple[SweepSpec, Evidence]) -> None:
    _, evidence = simulated
    assert evidence.probability_TN.shape == (18, len(evidence.rows_N))
    for trial in evidence.complete:
        record = evidence.record(trial.key)
        assert evidence.scores("f1")[trial.place or 0] == pytest.approx(record.aggregates["cv_aggregate/mean_f1"])
        assert evidence.scores("auc")[trial.place or 0] == pytest.approx(record.aggregates["cv_aggregate/mean_auc"])
        assert evidence.scores("ap")[trial.place or 0] == pytest.approx(record.aggregates["cv_aggregate/mean_ap"])


def test_trials_without_an_end_are_shown_and_not_compared(
    simulated: tuple[SweepSpec, Evidence], tmp_path: Path
) -> None:
    spec, evidence = simulated
    config = spec.cells()[0].config
    failed = TrialJournal(tmp_path, "0" * 32)
    failed.start(config, evidence.pairs.fingerprint, "x", 4)
    failed.stop("failed", error="ValueError: no")
    whole = evidence.record(evidence.complete[0].key)
    done = TrialJournal(tmp_path, whole.key)
    done.start(whole.config, evidence.pairs.fingerprint, "x", 4)
    done.add_folds([whole.folds[fold] for fold in sorted(whole.folds)])
    done.stop("pruned", reason="after fold 4: chance too small")
    cells = {"0" * 32: {}, whole.key: {}, "f" * 32: {}}
    with pytest.raises(ReportError, match="no trial has finished all folds yet"):
        gather(spec, evidence.corpus, evidence.pairs, tmp_path, cells)
    another = evidence.record(evidence.complete[1].key)
    best = TrialJournal(tmp_path, another.key)
    best.start(another.config, evidence.pairs.fingerprint, "x", 4)
    best.add_folds([another.folds[fold] for fold in sorted(another.folds)])
    best._append(
        {"event": "ended", "state": "finished", "aggregates": another.aggregates, "criteria": another.criteria}
    )
    found = gather(spec, evidence.corpus, evidence.pairs, tmp_path, {**cells, another.key: {}})
    assert [(trial.state, trial.place) for trial in found.trials] == [
        ("failed", None),
        ("pruned", None),
        ("finished", 0),
    ]
    rows = leaderboard(found, Draws.of(found, 50))
    assert [row.rank for row in rows] == [1, None, None]
    assert "ValueError: no" in rows[1].note
    assert "chance too small" in rows[2].note


def test_two_sweeps_over_one_corpus_answer_together(
    simulated: tuple[SweepSpec, Evidence],
    analysis_corpus: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    tree = tree_of(tmp_path, analysis_corpus, tiny_bert, name="second")
    tree["base"]["model"] = {**tree["base"]["model"], "head": "mlp"}
    spec = SweepSpec.from_mapping(tree, source="second.yaml")
    second = evidence_of(spec, simulate_sweep(spec, lambda settings: skill_of(settings) + 0.3, seed=1))
    both = merge([simulated[1], second])
    assert len(both.complete) == 36
    assert set(both.varied) == {
        "model.head",
        "model.head_hidden",
        "model.pooling_strategy",
        "training.learning_rate",
        "model.dropout",
    }
    draws = Draws.of(both, 300)
    found = find_answer(both, draws, main_effects(both, draws), honest_score(draws))
    assert both.complete[both.winner].sweep == "second"
    assert found.chosen_by == "compare"
    assert "each tuned over 12 trials" in found.first
    report = write_report(both, tmp_path / "report")
    assert "# simulated, second" in report.markdown.read_text()
    assert "gemma-nli report simulated second" in report.markdown.read_text()


def test_sweeps_over_different_corpora_or_folds_are_refused(
    simulated: tuple[SweepSpec, Evidence],
    analysis_corpus: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    write_synthetic(tmp_path / "other", num_posts=90, seed=9)
    small = {"compare": {"model.pooling_strategy": {"grid": ["mean"]}}, "tune": None}
    for corpus, seed, reported in (
        (tmp_path / "other", 42, "different corpora"),
        (analysis_corpus, 7, "different folds"),
    ):
        tree = tree_of(tmp_path / str(seed), corpus, tiny_bert, name="other", **small)
        tree["base"]["data"] |= {"fold_seed": seed}
        spec = SweepSpec.from_mapping(tree, source="other.yaml")
        other = evidence_of(spec, simulate_sweep(spec, lambda _: 0.5))
        with pytest.raises(ReportError, match=reported):
            merge([simulated[1], other])
    changed = simulated[1].spec.model_copy(update={"metric": "cv_aggregate/mean_auc"})
    with pytest.raises(ReportError, match="decided by"):
        merge([simulated[1], dataclasses.replace(simulated[1], spec=changed)])


def test_a_sweep_decided_by_auc_is_answered_by_auc(simulated: tuple[SweepSpec, Evidence]) -> None:
    changed = simulated[1].spec.model_copy(update={"metric": "cv_aggregate/mean_auc"})
    evidence = dataclasses.replace(simulated[1], spec=changed)
    draws = Draws.of(evidence, 300)
    honest = honest_score(draws)
    record = evidence.record(evidence.complete[evidence.winner].key)
    assert honest.metric == "auc"
    by_hand = np.mean([metrics.roc_auc_score(f.labels, f.probabilities) for f in record.folds.values()])
    assert honest.raw == pytest.approx(by_hand)
    assert honest.low < honest.value < honest.high
    found = find_answer(evidence, draws, main_effects(evidence, draws), honest)
    assert " AUC at 1 matched negative per positive (95% interval " in found.first


def test_an_interaction_is_found_where_one_was_put_and_not_elsewhere(
    analysis_corpus: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout helps one pooling and harms the other; the rate adds the same to all."""
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    spec = SweepSpec.from_mapping(tree_of(tmp_path, analysis_corpus, tiny_bert), source="crossed.yaml")

    def skill(settings: dict[str, object]) -> float:
        sign = {"mean": 1.0, "cls": -1.0, "max": 0.0}[str(settings["model.pooling_strategy"])]
        rate = settings["training.learning_rate"]
        assert isinstance(rate, float)
        return 0.7 + sign * (0.25 if settings["model.dropout"] == 0.1 else -0.25) + 0.1 * np.log10(rate / 1e-4)

    evidence = evidence_of(spec, simulate_sweep(spec, skill))  # type: ignore[arg-type]
    found = interactions(evidence, Draws.of(evidence, 300))
    assert set(found[0].keys) == {"model.pooling_strategy", "model.dropout"}
    assert found[0].size > 0.03
    assert all(other.size < found[0].size / 2 for other in found[1:])


def test_copies_of_a_post_are_drawn_as_one_and_are_one_cluster_of_the_tests(simulated):
    evidence = simulated[1]
    one, other = np.unique(evidence.post_N[evidence.fold_N == 1])[:2]
    group_P = evidence.pairs.group_P.copy()
    group_P[other] = group_P[one]
    joined = dataclasses.replace(evidence, pairs=dataclasses.replace(evidence.pairs, group_P=group_P))
    apart_S, drawn_S = (e.bootstrap(50).folds[0].weights_SP for e in (evidence, joined))
    assert drawn_S.shape[1] == apart_S.shape[1] - 1
    assert len(np.unique(joined.group_N)) == len(np.unique(evidence.post_N)) - 1


def test_of_equal_trials_the_first_by_key_wins_whatever_the_order_of_the_journals(simulated) -> None:
    evidence = simulated[1]
    places = sorted(range(18), key=lambda t: evidence.complete[t].key, reverse=True)
    alike = dataclasses.replace(
        evidence,
        trials=[dataclasses.replace(evidence.complete[t], place=place) for place, t in enumerate(places)],
        probability_TN=np.repeat(evidence.probability_TN[:1], 18, axis=0),
        threshold_TK=np.repeat(evidence.threshold_TK[:1], 18, axis=0),
    )
    assert alike.complete[alike.winner].key == min(trial.key for trial in alike.complete)
    assert alike.complete[0].key != min(trial.key for trial in alike.complete), "else the order would do"


def test_contrasts_and_effects_are_each_adjusted_for_how_many_there_are(simulated) -> None:
    """Beside other differences an interval is wider and a p-value higher than alone."""
    evidence = simulated[1]
    draws = Draws.of(evidence, 300)
    effects = main_effects(evidence, draws)
    answer = find_answer(evidence, draws, effects, honest_score(draws))
    leader, *others = answer.variants
    for contrast, other in zip(answer.contrasts, others, strict=True):
        alone = draws.pairs_of_tuned([leader.places, other.places]).difference(0, 1)
        assert alone.value == pytest.approx(contrast.tuned.value)
        assert alone.high - alone.low < contrast.tuned.high - contrast.tuned.low
        assert alone.p_value <= contrast.tuned.p_value
    for effect in effects:
        assert (effect.spread.low > 0 or effect.spread.high < 0) == effect.matters
