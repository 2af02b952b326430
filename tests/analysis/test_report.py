"""Every number that a report tells is computed here a second time, from the journals' predictions, by other code."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.report.write import Report, write_report
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.trial import TrialRecord, read_trial
from tests.analysis.conftest import HOSTILE, evidence_of, tree_of


@pytest.fixture(scope="module")
def reported(simulated_report: Report) -> Report:
    return simulated_report


@pytest.fixture(scope="module")
def records(simulated: tuple[SweepSpec, Evidence]) -> dict[str, TrialRecord]:
    evidence = simulated[1]
    found = {trial.key: read_trial(evidence.storage, trial.key) for trial in evidence.trials}
    assert all(found.values())
    return {key: record for key, record in found.items() if record is not None}


def f1_of(record: TrialRecord) -> float:
    """Mean over folds, by scikit-learn, from what the journal keeps."""
    return float(
        np.mean([metrics.f1_score(f.labels, f.probabilities >= np.float64(f.threshold)) for f in record.folds.values()])
    )


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d+\.\d{3}", text)


def test_the_winner_and_its_score_are_the_journals(reported: Report, records: dict[str, TrialRecord]) -> None:
    findings = reported.findings
    best = max(records, key=lambda key: f1_of(records[key]))
    assert findings.winner_key == best
    assert findings.honest.raw == pytest.approx(f1_of(records[best]), abs=1e-9)
    assert findings.honest.candidates == len(records) == 18


def test_each_line_of_the_leaderboard_is_recomputed(reported: Report, records: dict[str, TrialRecord]) -> None:
    lines = reported.markdown.read_text().split("## Leaderboard")[1].split("## ")[0]
    rows = [line.split(" | ") for line in lines.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 18
    ranked = sorted(records.values(), key=lambda record: -f1_of(record))
    for row, record in zip(rows, ranked, strict=True):
        folds = [metrics.f1_score(f.labels, f.probabilities >= np.float64(f.threshold)) for f in record.folds.values()]
        aucs = [metrics.roc_auc_score(f.labels, f.probabilities) for f in record.folds.values()]
        printed = [float(cell) for cell in [*row[4:7], row[8]]]  # macro AUC between them: test_every_number.py
        wanted = [np.mean(folds), np.std(folds, ddof=1), np.mean(aucs), f1_of(ranked[0]) - np.mean(folds)]
        assert printed == pytest.approx(wanted, abs=5.1e-4)
        assert row[1] == record.config.model.pooling_strategy.replace("_", r"\_")


def test_each_draw_is_recomputed(reported: Report, records: dict[str, TrialRecord]) -> None:
    """The draws of posts are taken from the report's own bootstrap; scoring is done anew, for 8 of them."""
    evidence, bootstrap = reported.findings.evidence, reported.findings.draws.bootstrap
    for draw in range(8):
        for place, trial in enumerate(evidence.complete):
            scores = []
            for index, fold in enumerate(bootstrap.folds, start=1):
                of_fold = records[trial.key].folds[index]
                chosen = of_fold.probabilities >= np.float64(of_fold.threshold)
                weight_R = fold.weights_SP[draw][fold.post_R]
                scores.append(metrics.f1_score(of_fold.labels, chosen, sample_weight=weight_R))
            assert reported.findings.draws.inside_ST[draw, place] == pytest.approx(np.mean(scores), abs=1e-6)


def test_the_two_sentences_hold_the_computed_numbers(reported: Report) -> None:
    findings = reported.findings
    answer, nearest = findings.answer, findings.answer.contrasts[0]
    assert answer.verdict == "shown"
    assert answer.first.startswith("mean beats every other pooling_strategy: the nearest, ")
    tuned = nearest.tuned
    assert numbers(answer.first) == [f"{v:.3f}" for v in (tuned.value, tuned.low, tuned.high)]
    honest = findings.honest
    wanted = [f"{v:.3f}" for v in (honest.value, honest.low, honest.high, honest.raw)]
    assert numbers(answer.second)[-4:] == wanted
    assert f"{nearest.tests.belief.better:.0%}" in answer.second


def test_the_error_analysis_is_recomputed(reported: Report, records: dict[str, TrialRecord]) -> None:
    findings = reported.findings
    record, pairs = records[findings.winner_key], findings.evidence.pairs
    folds = [record.folds[fold] for fold in sorted(record.folds)]
    labels = np.concatenate([f.labels for f in folds])
    chosen = np.concatenate([f.probabilities >= np.float64(f.threshold) for f in folds])
    probabilities = np.concatenate([f.probabilities for f in folds])
    rows = np.concatenate([f.rows for f in folds])
    tn, fp, fn, tp = metrics.confusion_matrix(labels, chosen).ravel()
    confusion = findings.mistakes.confusion
    assert [confusion[f"{a} {b}"] for a, b in (("true", "negatives"), ("false", "positives"))] == [tn, fp]
    assert [confusion[f"{a} {b}"] for a, b in (("false", "negatives"), ("true", "positives"))] == [fn, tp]
    for item in findings.mistakes.criteria:
        here = pairs.criterion_N[rows] == pairs.criterion_ids.index(item.name)
        assert item.support == labels[here].sum()
        assert item.f1 == pytest.approx(metrics.f1_score(labels[here], chosen[here]))
        cells = [pairs.criterion_N[f.rows] == pairs.criterion_ids.index(item.name) for f in folds]
        areas = [
            metrics.roc_auc_score(f.labels[cell], f.probabilities[cell])
            for f, cell in zip(folds, cells, strict=True)
            if len(set(f.labels[cell])) == 2
        ]
        assert item.scores["auc"] == pytest.approx(np.mean(areas))
        assert item.low <= item.f1 <= item.high
    for parts in findings.mistakes.slices.values():
        assert sum(part.pairs for part in parts) in (len(labels), int((labels == 0).sum()))
    posts = {
        f"{pairs.post_ids[p]}::{pairs.criterion_ids[c]}": i
        for i, (p, c) in enumerate(zip(pairs.post_N[rows], pairs.criterion_N[rows], strict=True))
    }
    for mistake in findings.mistakes.most_confident:
        at = posts[mistake.pair_id]
        assert chosen[at] != labels[at]
        assert mistake.probability == pytest.approx(probabilities[at])


def test_the_calibration_is_recomputed(reported: Report, records: dict[str, TrialRecord]) -> None:
    record = records[reported.findings.winner_key]
    folds = [record.folds[fold] for fold in sorted(record.folds)]
    labels = np.concatenate([f.labels for f in folds])
    p = np.concatenate([f.probabilities for f in folds]).astype(np.float64)
    error = 0.0
    for low in np.arange(15):
        here = np.minimum((p * 15).astype(int), 14) == low
        if here.any():
            error += here.mean() * abs(p[here].mean() - labels[here].mean())
    calibration = reported.findings.calibration
    assert calibration.error == pytest.approx(error)
    assert calibration.brier == pytest.approx(metrics.brier_score_loss(labels, p))
    assert calibration.scaled_error < calibration.error  # simulated logits are not calibrated


def test_the_baselines_are_on_the_same_pairs(reported: Report, simulated: tuple[SweepSpec, Evidence]) -> None:
    of_criterion, always, tfidf = reported.findings.baselines[:3]
    evidence = simulated[1]
    shares = [evidence.label_N[evidence.fold_N == fold].mean() for fold in range(1, 5)]
    assert always.f1 == pytest.approx(np.mean([2 * share / (1 + share) for share in shares]))
    assert always.auc == 0.5
    assert of_criterion.name == "criterion only"
    assert of_criterion.auc == pytest.approx(0.5, abs=0.03)  # negatives are matched, where there are enough
    assert tfidf.auc > 0.6  # words do tell of symptoms


def test_a_setting_that_does_nothing_is_named_and_one_at_the_edge_too(reported: Report) -> None:
    warnings = "\n".join(reported.findings.warnings)
    assert "No effect of model.dropout shown: up to " in warnings
    assert "The best training.learning_rate lies at the high end" in warnings
    by_key = {effect.key: effect for effect in reported.findings.effects}
    assert by_key["model.pooling_strategy"].matters
    assert by_key["model.pooling_strategy"].importance["fANOVA"] > 0.5
    assert not by_key["model.dropout"].matters
    means = {level.name: level.mean for level in by_key["model.pooling_strategy"].levels}
    scores = reported.findings.draws.score_T
    settings = [trial.settings["model.pooling_strategy"] for trial in reported.findings.evidence.complete]
    for name, mean in means.items():
        assert mean == pytest.approx(np.mean([s for s, n in zip(scores, settings, strict=True) if n == name]))


class _Reader(HTMLParser):
    """What a browser would be asked to load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.tags: set[str] = set()
        self.figures: list[dict[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.tags.add(tag)
        self.loads += [str(given[name]) for name in ("src", "href") if given.get(name)]
        if given.get("role") == "img":
            self.figures.append(given)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_loads_nothing_and_escapes_what_users_wrote(reported: Report) -> None:
    page = reported.html.read_text(encoding="utf-8")
    assert len(page.encode()) < 6_000_000
    reader = _Reader()
    reader.feed(page)
    assert all(load.startswith(("#", "data:")) for load in reader.loads), reader.loads
    assert reader.scripts == 3  # figures, plotly, ours: none of the question's
    assert any(HOSTILE in text for text in reader.text)
    assert "default-src 'none'" in page
    assert len(reader.figures) >= 8
    assert all(len(str(figure["aria-label"])) > 40 for figure in reader.figures)
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    assert {"answer", "budget", "effects", "parallel", "scatter", "curves", "calibration"} <= figures.keys()


def test_the_markdown_holds_no_markup_of_users(reported: Report) -> None:
    text = reported.markdown.read_text(encoding="utf-8")
    assert "<script>" not in text.replace(r"\<", "")
    assert reported.findings.answer.first.replace("_", r"\_") in text


def test_a_report_says_no_post(reported: Report, simulated: tuple[SweepSpec, Evidence]) -> None:
    evidence = simulated[1]
    everything = reported.html.read_text() + reported.markdown.read_text()
    for post in evidence.corpus.posts.values():
        for sentence in re.split(r"[.!?] ", post):
            assert len(sentence) < 25 or sentence not in everything


def test_the_same_evidence_gives_the_same_files(
    reported: Report, simulated: tuple[SweepSpec, Evidence], tmp_path: Path
) -> None:
    again = write_report(simulated[1], tmp_path / "again")
    assert again.markdown.read_bytes() == reported.markdown.read_bytes()
    assert again.html.read_bytes() == reported.html.read_bytes()


EVIL = "</script><img src=x onerror=alert(1)>"


def test_no_cell_caption_or_figure_of_the_page_can_leave_its_place(
    analysis_corpus: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder's folder, which a user names, stands in tables, figures, their numbers and the script's JSON."""
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    folders = [Path(shutil.copytree(tiny_bert, tmp_path / name)) for name in ("plain", "evil<blink>&'\"")]
    tree = tree_of(tmp_path, analysis_corpus, tiny_bert, question=EVIL)
    tree["compare"] = {"model.name": {"grid": [str(folder) for folder in folders]}}
    spec = SweepSpec.from_mapping(tree, source="evil.yaml")
    sweep_id = simulate_sweep(spec, lambda settings: 0.6 + 0.2 * settings["model.name"].endswith("plain"))
    report = write_report(evidence_of(spec, sweep_id), tmp_path / "report")
    page = report.html.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(page)
    assert reader.scripts == 3
    assert not {"img", "blink"} & reader.tags
    figures = page.split('id="figures">')[1].split("</script>")[0]
    assert "<" not in figures
    assert "evil&lt;blink&gt;" in json.dumps(json.loads(figures))  # plotly reads tags in its labels
    text = report.markdown.read_text(encoding="utf-8")
    assert "<img" not in text.replace(r"\<", "")
    assert "evil<blink>" not in text
