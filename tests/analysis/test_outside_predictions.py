"""Other tools' predictions are held to the sweep's pairs, and compared with its trials as the baselines are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from gemma_nli.analysis.baseline_leads import leads_over_baselines
from gemma_nli.analysis.baselines import tfidf
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.inference.honest_score import Draws, honest_score
from gemma_nli.analysis.outside_predictions import OutsidePredictions, _decide, read_predictions
from gemma_nli.base.errors import ReportError
from gemma_nli.corpus.outside_tables import write_columns
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.stored_pairs import pairs_from_bytes, pairs_to_bytes
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from tests.commands import run_command

Write = Callable[..., Path]


@pytest.fixture
def home(simulated: tuple[SweepSpec, Evidence], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the simulated sweep is known by its name."""
    folder = Path(simulated[0].storage).parent
    monkeypatch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
    return folder


@pytest.fixture(scope="module")
def good(simulated: tuple[SweepSpec, Evidence]) -> pd.DataFrame:
    """TF-IDF's own predictions, in another order than the sweep's."""
    evidence = simulated[1]
    frame = pd.DataFrame({"pair_id": evidence.pairs.pair_ids(evidence.rows_N), "fold": evidence.fold_N})
    frame["probability"] = tfidf(evidence).score_N
    return frame.sample(frac=1, random_state=1).reset_index(drop=True)


def read(evidence: Evidence, frame: pd.DataFrame, folder: Path, ending: str = "csv") -> OutsidePredictions:
    path = folder / f"predictions.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    return read_predictions("rival", path, evidence.pairs, evidence.rows_N)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_read_in_the_order_of_the_pairs(simulated, good, tmp_path, ending):
    evidence = simulated[1]
    found = read(evidence, good, tmp_path, ending)
    np.testing.assert_array_equal(found.score_N, tfidf(evidence).score_N)
    assert found.about == f"probabilities of predictions.{ending}; thresholds chosen on the other folds"


def test_a_threshold_comes_from_the_other_folds_and_suits_scores_of_any_range(simulated, good, tmp_path):
    evidence = simulated[1]
    margins = good.rename(columns={"probability": "score"}).assign(score=lambda f: 40 * f["score"] - 200)
    found = read(evidence, margins, tmp_path)
    assert found.about.startswith("scores of predictions.csv; thresholds chosen on the other folds")
    np.testing.assert_array_equal(found.decision_N, read(evidence, good, tmp_path).decision_N)
    for fold in (1, 3):
        here = evidence.fold_N == fold
        elsewhere, labels = found.score_N[~here], evidence.label_N[~here]
        best = max(f1_score(labels, elsewhere >= step) for step in np.unique(elsewhere))
        lowest = found.score_N[here][found.decision_N[here]].min()
        assert f1_score(labels, elsewhere >= lowest) == pytest.approx(best, abs=0.02)
    other = evidence.label_N.copy()
    other[evidence.fold_N == 1] = 1 - other[evidence.fold_N == 1]
    again = _decide(found.score_N, other, evidence.fold_N)
    first = evidence.fold_N == 1
    np.testing.assert_array_equal(again[first], found.decision_N[first])  # its own labels decide nothing there
    assert (again[~first] != found.decision_N[~first]).any()


def test_thresholds_and_decisions_of_the_file_are_taken_as_they_are(simulated, good, tmp_path):
    evidence = simulated[1]
    strict = read(evidence, good.assign(threshold=0.9), tmp_path)
    assert strict.decided_by == "thresholds of the file"
    np.testing.assert_array_equal(strict.decision_N, strict.score_N >= 0.9)
    decided = read(evidence, good.assign(decision=(good["probability"] > 0.3).astype(int)), tmp_path)
    assert decided.decided_by == "decisions of the file"
    np.testing.assert_array_equal(decided.decision_N, decided.score_N > 0.3)


def broken(frame: pd.DataFrame, column: str, row: int, value: object) -> pd.DataFrame:
    changed = frame.astype({column: object})
    changed.loc[row, column] = value
    return changed


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a foreign pair": (lambda f: broken(f, "pair_id", 3, "nobody::SLEEP"), "not an evaluation pair of this sweep"),
    "a text in place of an id": (
        lambda f: broken(f, "pair_id", 3, "I never told anyone about these nights"),
        "pair_id of 38 characters is not an evaluation pair",
    ),
    "a repeated pair": (lambda f: pd.concat([f, f.iloc[[4]]]), "occurs again (first in predictions.csv:6)"),
    "missing pairs": (lambda f: f.iloc[5:], "has no row for 5 of the "),
    "NaN": (lambda f: broken(f, "probability", 2, np.nan), "probability of pair"),
    "the word nan": (lambda f: broken(f, "probability", 2, "NaN"), "is NaN"),
    "infinity": (lambda f: broken(f, "probability", 2, "inf"), "is infinite"),
    "too large a number": (lambda f: broken(f, "probability", 2, "1e999"), "is infinite"),
    "a word": (lambda f: broken(f, "probability", 2, "high"), "is not a number"),
    "a comma for the point": (lambda f: broken(f, "probability", 2, "0,5"), "is not a number"),
    "no probability": (lambda f: broken(f, "probability", 2, 1.5), "is outside 0 to 1; name the column score"),
    "another fold": (lambda f: f.assign(fold=f["fold"] % 4 + 1), "of a model that was not trained on fold"),
    "folds from 0": (lambda f: f.assign(fold=f["fold"] - 1), "folds count from 1"),
    "an empty fold": (lambda f: broken(f, "fold", 2, ""), "fold of pair"),
    "no ids": (lambda f: f.drop(columns="pair_id"), "column 'pair_id' is missing"),
    "no values": (lambda f: f.drop(columns="probability"), "has neither 'probability' (0 to 1) nor 'score'"),
    "two values": (lambda f: f.assign(score=1.0), "has both 'probability' and 'score'; keep one"),
    "two cuts": (lambda f: f.assign(threshold=0.5, decision=1), "has both 'threshold' and 'decision'"),
    "a threshold that is none": (lambda f: f.assign(threshold=0.5).pipe(broken, "threshold", 1, ""), "is empty"),
    "a decision that is none": (lambda f: f.assign(decision=2), "must be 0 or 1"),
    "nothing known": (lambda f: pd.DataFrame({"pairs": ["a"], "value": [1]}), "names none of the columns pair_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_is_not_one_prediction_per_pair_is_refused(simulated, good, tmp_path, case, ending):
    change, sentence = BAD[case]
    frame = change(good)
    if ending == "parquet":  # one type for a column
        frame = frame.astype({name: str for name in frame.columns if frame[name].dtype == object})
        sentence = sentence.replace("predictions.csv:6", "predictions.parquet:5")
    with pytest.raises(ReportError) as refused:
        read(simulated[1], frame, tmp_path, ending)
    said = str(refused.value)
    assert sentence in said
    assert said.startswith(f"--with rival={tmp_path / f'predictions.{ending}'}: ")
    assert len(said.splitlines()) < 12  # the first few, and how many more
    assert "never told anyone" not in said


def test_all_problems_come_at_once_with_their_rows_and_the_first_few_are_named(simulated, good, tmp_path):
    frame = broken(good, "probability", 0, np.nan).iloc[:-40]
    frame = broken(frame, "pair_id", 7, "nobody::SLEEP")
    with pytest.raises(ReportError) as refused:
        read(simulated[1], frame, tmp_path)
    said = str(refused.value)
    assert "predictions.csv:2: probability of pair" in said
    assert "predictions.csv:9: pair_id 'nobody::SLEEP'" in said
    assert f"has no row for 41 of the {len(good):,} evaluation pairs: " in said
    assert " and 38 more" in said
    assert ": 3 problems\n" in said


def test_the_report_compares_it_as_it_compares_a_baseline(simulated, good, home, tmp_path, capsys):
    """TF-IDF's own scores under another name, with TF-IDF's own decisions, have all of TF-IDF's numbers."""
    evidence = simulated[1]
    own = tfidf(evidence)
    same = pd.DataFrame({"pair_id": evidence.pairs.pair_ids(evidence.rows_N), "probability": own.score_N})
    same.assign(decision=own.decision_N.astype(int)).to_csv(tmp_path / "same.csv", index=False)
    oracle = pd.DataFrame({"pair_id": same["pair_id"], "score": evidence.label_N * 7.0 - 3})
    oracle.to_parquet(tmp_path / "oracle.parquet")
    words = ["--with", f"same={tmp_path / 'same.csv'}", "--with", f"a|b<i>={tmp_path / 'oracle.parquet'}"]
    assert run_command("report", "simulated", "--out", str(tmp_path / "out"), "--json", *words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["answer"][0].startswith("The a|b<i> baseline beats the best trial by 0.")
    assert facts["outside"]["a|b<i>"]["score"] == 1.0
    assert facts["outside"]["a|b<i>"]["winner"] == "loses"
    assert facts["outside"]["same"]["score"] == pytest.approx(facts["baselines"]["TF-IDF"])
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    part = text.split("## Baselines")[1].split("\n## ")[0]
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ")[2:] for line in part.splitlines() if "|" in line}
    rows = [line.split(" | ") for line in part.splitlines() if line.startswith(("| same ", "| TF-IDF "))]
    mine, tfidfs = ([row[2:] for row in rows if row[0] == name] for name in ("| same", "| TF-IDF"))
    assert mine == tfidfs
    assert len(mine) == 2  # the lead, and every test
    assert r"a\|b\<i\>" in lines
    assert "their makers' word" in part
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a|b&lt;i&gt;" in page
    assert "a|b<i>" not in page.split('<script type="application/json"')[0]
    assert f"sha256 {hashlib.sha256((tmp_path / 'same.csv').read_bytes()).hexdigest()}" in text


def test_more_rivals_widen_every_interval(simulated, good, tmp_path):
    evidence = simulated[1]
    draws = Draws.of(evidence)
    worth = honest_score(draws).worth
    rng = np.random.default_rng(0)
    rivals = []
    for name in "abcdefgh":
        noisy = good.assign(probability=rng.uniform(size=len(good)))
        rivals.append(dataclasses.replace(read(evidence, noisy, tmp_path), name=name))
    alone = leads_over_baselines(evidence, draws, worth, False)
    among = leads_over_baselines(dataclasses.replace(evidence, outside=tuple(rivals)), draws, worth, False)
    assert [each.name for each in among] == [*(each.name for each in alone), *"abcdefgh"]
    for one, other in zip(alone, among, strict=False):
        assert one.ahead.value == other.ahead.value
        assert other.ahead.high - other.ahead.low > one.ahead.high - one.ahead.low


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--with", "predictions.csv"], "expected NAME=FILE"),
        (["--with", "=predictions.csv"], "expected NAME=FILE"),
        (["--with", "x=predictions.csv", "--with", "x=other.csv"], "is given twice"),
        (["--with", "tf-idf=predictions.csv"], "is a baseline of the report itself"),
        (["--with", f"{'x' * 61}=predictions.csv"], "1 to 60 characters"),
        (["--with", "x\ny=predictions.csv"], "control character"),
        (["--with", "x=nowhere.csv"], "no such file"),
    ],
)
def test_a_name_or_a_file_that_cannot_be_is_a_users_mistake(home, words, sentence, capsys):
    assert run_command("report", "simulated", *words) == 2
    assert sentence in capsys.readouterr().err


def test_folds_gives_another_tool_the_trials_own_pairs(simulated, home, tmp_path, capsys):
    spec, evidence = simulated
    target = tmp_path / "folds.csv"
    assert run_command("folds", "simulated", "--to", str(target)) == 0
    assert "without texts (data.log_text=true adds them)" in capsys.readouterr().out
    table, pairs = pd.read_csv(target, dtype={"pair_id": str}), evidence.pairs
    names = ["pair_id", "post_id", "group", "criterion_id", "label", "source", "fold", "inner", "train", "evaluate"]
    assert list(table.columns) == names
    for fold in range(1, pairs.num_folds + 1):
        trained = table[(table["train"] == 1) & (table["fold"] != fold)]
        measured = table[(table["evaluate"] == 1) & (table["fold"] == fold)]
        held = table["inner"] == (fold - 1) % 5 + 1
        fit, tune = pairs.inner_split(fold, spec.base.data.negative_ratio)
        assert list(trained["pair_id"]) == pairs.pair_ids(pairs.training_rows(fold, spec.base.data.negative_ratio))
        assert list(measured["pair_id"]) == pairs.pair_ids(pairs.evaluation_rows(fold))
        assert list(table[(table["train"] == 1) & (table["fold"] != fold) & ~held]["pair_id"]) == pairs.pair_ids(fit)
        chosen = table[(table["evaluate"] == 1) & (table["fold"] != fold) & held]
        assert list(chosen["pair_id"]) == pairs.pair_ids(tune)
        assert not set(trained["group"]) & set(measured["group"])
    assert (table["source"] == "sampled").any()
    again = pd.DataFrame({"pair_id": table["pair_id"], "probability": 0.5})[table["evaluate"] == 1]
    assert len(read(evidence, again, tmp_path).score_N) == len(again)


def test_folds_has_texts_only_where_they_are_allowed_and_more_negatives_where_asked(simulated, home, tmp_path):
    evidence = simulated[1]
    target = tmp_path / "more" / "folds.parquet"
    words = ["data.log_text=true", "data.negative_ratio=3"]
    assert run_command("folds", "simulated", *words, "--to", str(target)) == 0
    table = pd.read_parquet(target)
    assert table["premise"].tolist() == [evidence.corpus.posts[post] for post in table["post_id"]]
    assert table["hypothesis"].tolist() == [evidence.corpus.criteria[name] for name in table["criterion_id"]]
    assert table["train"].sum() > table["evaluate"].sum() == len(evidence.rows_N)
    write_columns(table, tmp_path / "texts.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "texts.csv"), table, check_dtype=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "folds.txt"], "the file's ending says its form: .csv or .parquet"),
        (["data.fold_seed=1", "--to", "folds.csv"], "the sweep's folds are fixed"),
        (["--to", "there.csv"], "already exists"),
        (["data.data_dir=other", "--to", "folds.csv"], "not the posts and annotations that sweep 'simulated' was run"),
    ],
)
def test_folds_refuses_what_would_be_other_folds(home, tmp_path, monkeypatch, words, sentence, capsys):
    monkeypatch.chdir(tmp_path)
    write_synthetic(tmp_path / "other", num_posts=60, seed=9)
    (tmp_path / "there.csv").write_text("mine")
    assert run_command("folds", "simulated", *words) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "folds.csv").exists()


def test_without_the_posts_the_report_is_made_of_the_journals(simulated, good, home, tmp_path, monkeypatch, capsys):
    """The same leads over what reads no post, the same predictions of other tools, and a sentence that says so."""
    good.to_csv(tmp_path / "rival.csv", index=False)
    words = ["report", "simulated", "--json", "--with", f"rival={tmp_path / 'rival.csv'}", "--out"]
    assert run_command(*words, str(tmp_path / "with")) == 0
    full = json.loads(capsys.readouterr().out)
    stored = Path(simulated[0].storage) / "sweeps" / simulated[1].sweep_ids[0] / "spec.yaml"
    text = stored.read_text(encoding="utf-8")
    try:
        stored.write_text(text.replace(simulated[0].base.data.data_dir, str(tmp_path / "elsewhere")))
        assert run_command(*words, str(tmp_path / "without"), "--model-card", "--latex", str(tmp_path / "tex")) == 0
        bare = json.loads(capsys.readouterr().out)
        assert run_command("folds", "simulated", "--to", str(tmp_path / "folds.csv")) == 0
        capsys.readouterr()
        assert run_command("folds", "simulated", "data.log_text=true", "--to", str(tmp_path / "texts.csv")) == 2
        assert "no such folder" in capsys.readouterr().err
    finally:
        stored.write_text(text)
    assert bare["honest"] == full["honest"]
    assert set(full["baselines"]) - set(bare["baselines"]) == {"TF-IDF"}
    assert bare["outside"]["rival"]["lead_of_winner"] == full["outside"]["rival"]["lead_of_winner"]
    assert any(line.startswith("Made without the posts") for line in bare["warnings"])
    assert not any(line.startswith("Made without the posts") for line in full["warnings"])
    assert run_command("folds", "simulated", "--to", str(tmp_path / "again.csv")) == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "folds.csv").read_bytes()


@pytest.mark.parametrize("ratio", [1.0, "all"])
def test_noted_pairs_are_the_pairs_without_any_text(simulated, ratio):
    spec, evidence = simulated
    data = spec.base.with_settings({"data.eval_negative_ratio": ratio}).data
    pairs = build_pairs(evidence.corpus, data)
    noted = pairs_to_bytes(pairs)
    again = pairs_from_bytes(noted)
    assert again.fingerprint == pairs.fingerprint
    for name in ("post_N", "criterion_N", "label_N", "source_N", "fold_N", "inner_N", "rank_N", "group_P"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pairs, name))
    assert all(post.encode()[:40] not in noted for post in evidence.corpus.posts.values())
