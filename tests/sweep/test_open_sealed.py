"""`gemma-nli test`: sealed posts are nowhere before it, every look is counted, and the scores are the bundle's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from gemma_nli.analysis.sealed_posts import Interval, Look, SealedScore
from gemma_nli.base.errors import GemmaNliError, SweepError
from gemma_nli.cli import app
from gemma_nli.corpus.pairs import pair_texts
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.sealed import sealed_corpus, sealed_pairs
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.open_sealed import open_sealed
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.sealed_looks import SealedLooks
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.refit import bundle_place
from gemma_nli.sweep.resume import stored_spec
from tests.sweep.without_ray import spec_of, train_here, tree_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with a finished, registered sweep `sealed` whose sealed posts nobody has looked at."""
    folder = tmp_path_factory.mktemp("sealed")
    write_synthetic(folder / "data", num_posts=120, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        spec = spec_of(tree_of(folder, tiny_bert, share=0.25))
        train_here(spec)
        result = run_sweep(spec)
        assert result.ran == 0
        assert result.registered
    return folder


@pytest.fixture(scope="module", autouse=True)
def unopened(place: Path) -> dict[Path, bytes]:
    """What the sweep's files held before any test looked."""
    return {path: path.read_bytes() for path in files_of(place)}


@pytest.fixture
def spec(place: Path, monkeypatch: pytest.MonkeyPatch) -> SweepSpec:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(place / "home"))
    return stored_spec("sealed")


def looks_of(spec: SweepSpec) -> int:
    return SealedLooks(SweepFolder(prepare(spec).folder)).test_of("sealed").count


def files_of(place: Path) -> list[Path]:
    """Everything that the sweep wrote."""
    return [path for path in place.rglob("*") if path.is_file() and place / "data" not in path.parents]


def test_before_it_is_opened_no_file_has_a_sealed_text_and_no_count_includes_one(spec, unopened):
    sealed, whole = sealed_corpus(spec.base.data), load_corpus(spec.base.data.data_dir)
    ready = prepare(spec)
    assert len(unopened) > 20
    for path, content in unopened.items():
        assert not any(text.encode() in content for text in sealed.posts.values()), path
        if path.name != "test.jsonl":
            assert not any(f'"{post}"'.encode() in content or f"{post}::".encode() in content for post in sealed.posts)
    assert set(ready.pairs.post_ids) == whole.posts.keys() - sealed.posts.keys()
    folder = SweepFolder(ready.folder).path
    facts = json.loads(unopened[folder / "report.json"])
    assert facts["sealed"][0]["looks"] == 0
    assert facts["sealed"][0]["posts"] == len(sealed.posts) == 30
    assert "nobody has looked" in unopened[folder / "report.md"].decode()


def test_a_look_scores_the_registered_bundle_at_its_threshold_beside_what_was_foretold(spec):
    before = looks_of(spec)
    opened = open_sealed("sealed", best=3, compared=True)
    assert opened.number == before + 1
    assert opened.registered == "models:/gemma_nli_sealed/1"
    last = opened.test.last
    assert [score.name for score in last.scores if score.kind == "baseline"] == [
        "criterion only",
        "always positive",
        "TF-IDF",
    ]
    models = [score for score in last.scores if score.kind == "model"]
    assert models[0].name == "the registered model"
    assert 3 <= len(models) <= 4
    assert len({model.about for model in models}) == len(models)
    sealed = sealed_corpus(spec.base.data)
    pairs = sealed_pairs(sealed, spec.base.data)
    rows = pairs.evaluation_rows(1)
    ready = prepare(spec)
    report = json.loads((SweepFolder(ready.folder).path / "report.json").read_text(encoding="utf-8"))
    scorer = PairScorer.from_bundle(bundle_place(ready, report["winner"]))
    found = scorer.score(
        pd.DataFrame(dict(zip(("premise", "hypothesis"), pair_texts(sealed, pairs, rows), strict=True)))
    )
    label, named = pairs.label_N[rows] == 1, found["label"].to_numpy() == 1
    by_hand = 2 * (label & named).sum() / (named.sum() + label.sum())
    assert models[0].score.value == pytest.approx(by_hand, abs=1e-12)
    assert models[0].score.low <= models[0].score.value <= models[0].score.high
    assert models[0].foretold.value == pytest.approx(report["honest"]["honest"])
    assert models[0].foretold.low == pytest.approx(report["honest"]["low"])
    assert models[0].apart.value == pytest.approx(models[0].score.value - report["honest"]["honest"])
    always = next(score for score in last.scores if score.name == "always positive")
    assert always.score.value == pytest.approx(2 * label.sum() / (len(label) + label.sum()))
    assert always.ahead.value == pytest.approx(models[0].score.value - always.score.value)


def test_the_count_stands_in_the_report_in_mlflow_and_on_the_version_and_a_second_look_says_so(spec):
    from mlflow.tracking import MlflowClient

    before = looks_of(spec)
    result = CliRunner().invoke(app, ["test", "sealed"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    second = CliRunner().invoke(app, ["test", "sealed", "--json"])
    assert second.exit_code == 0, second.output
    facts = json.loads(second.output)
    number = facts["look"]
    assert number == before + 2
    assert f"look {number - 1}:" in result.output
    assert "foretold" in result.output
    folder = SweepFolder(prepare(spec).folder).path
    ordinal = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}[number]
    for text in (facts["sealed"]["sentence"], *((folder / f"report.{kind}").read_text() for kind in ("md", "html"))):
        assert f"This was the {ordinal} look" in text
    client = MlflowClient(spec.base.mlflow.tracking_uri)
    version = client.get_model_version("gemma_nli_sealed", "1")
    experiment = client.get_experiment_by_name("sealed").experiment_id
    (run,) = client.search_runs([experiment], "tags.`gemma_nli.kind` = 'sweep'")
    for tags in (version.tags, run.data.tags):
        assert tags["gemma_nli.sealed_looks"] == str(number)
        assert float(tags["gemma_nli.sealed_value"]) == facts["sealed"]["scores"][0]["score"]["value"]
    assert run.data.metrics["sealed/looks"] == number
    assert run.info.status == "FINISHED"
    shown = CliRunner().invoke(app, ["report", "sealed"], env={"COLUMNS": "200"})
    assert "sealed posts, looked at" in shown.output


def test_a_look_that_fails_counts_and_is_said_to_have_ended(place, spec):
    before = looks_of(spec)
    ready = prepare(spec)
    report = json.loads((SweepFolder(ready.folder).path / "report.json").read_text(encoding="utf-8"))
    weights = bundle_place(ready, report["winner"]) / "classifier.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8] + bytes(8))
    try:
        with pytest.raises(GemmaNliError):
            open_sealed("sealed")
    finally:
        weights.write_bytes(content)
    assert looks_of(spec) == before + 1
    again = open_sealed("sealed")
    assert again.number == before + 2
    assert [look.number for look in again.test.looks] == list(range(1, before + 3))
    assert again.test.looks[before].scores is None
    assert "ended before" in again.test.looks[before].sentence


def test_looks_are_not_forgotten_with_the_folders_file(spec):
    before = open_sealed("sealed").number
    path = SweepFolder(prepare(spec).folder).path / "test.jsonl"
    path.unlink()
    assert open_sealed("sealed").number == before + 1


@pytest.mark.parametrize("test", [{"share": 0.25, "seed": 8}, {"share": 0.3}, {}, {"ids": "ids.txt"}])
def test_the_sweep_does_not_go_on_with_another_seal(place, spec, tiny_bert, tmp_path, test):
    before = sorted(path for path in (place / "storage" / "sweeps").iterdir())
    if "ids" in test:
        (tmp_path / "ids.txt").write_text("syn_0001\nsyn_0002\nsyn_0003\nsyn_0004\n", encoding="utf-8")
        test = {"ids": str(tmp_path / "ids.txt")}
    with pytest.raises(SweepError, match=r"30 sealed posts.*another name"):
        run_sweep(spec_of(tree_of(place, tiny_bert, **test)))
    assert sorted(path for path in (place / "storage" / "sweeps").iterdir()) == before


def test_a_list_that_has_changed_is_refused_by_resume_and_by_test(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    corpus = write_synthetic(tmp_path / "data", num_posts=60, seed=3)
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join(list(corpus.posts)[:20]), encoding="utf-8")
    tree = tree_of(tmp_path, tiny_bert, ids=str(listed)) | {"finalize": {"enabled": False}}
    tree["base"] |= {"mlflow": {"enabled": False}}
    train_here(spec_of(tree))
    assert run_sweep(spec_of(tree)).ran == 0
    opened = open_sealed("sealed")
    assert (opened.number, opened.registered) == (1, None)
    assert opened.test.last.scores[0].name == "the best trial"
    listed.write_text("\n".join(list(corpus.posts)[1:21]), encoding="utf-8")
    for again in (lambda: run_sweep(stored_spec("sealed")), lambda: open_sealed("sealed")):
        with pytest.raises(SweepError, match=r"syn_0001 is no longer among them"):
            again()


def test_a_sweep_without_a_seal_has_nothing_to_open(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setenv("GEMMA_NLI_HOME", str(tmp_path / "home"))
    bare = spec_of(tree_of(tmp_path, tiny_bert))
    folder = SweepFolder(tmp_path / "storage" / "sweeps" / "0123")
    with folder.held("sealed"):
        folder.begin("0123", "sealed", bare.to_yaml(), tmp_path / "storage")
    with pytest.raises(SweepError, match="has no sealed test set"):
        open_sealed("sealed")


def test_a_metric_that_the_sealed_pairs_cannot_measure_is_said_to_have_no_score():
    nothing = Interval(np.nan, np.nan, np.nan)
    score = SealedScore(
        "the registered model", "base", "model", nothing, {"auc": np.nan}, Interval(0.5, 0.4, 0.6), nothing
    )
    assert SealedScore.from_json(json.loads(json.dumps(score.to_json()))).to_json() == score.to_json()
    assert "on the sealed set no score" in Look(1, 0, "macro AUC", 10, 5, (score,)).sentence
