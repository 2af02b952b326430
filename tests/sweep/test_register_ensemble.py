"""`finalize.ensemble`: chosen by the report's own rule, refitted, registered and served as one, compared by its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient
from safetensors.numpy import load_file
from sklearn.metrics import f1_score, roc_auc_score
from typer.testing import CliRunner

import gemma_nli
from gemma_nli.base.errors import EncoderError, SpecError
from gemma_nli.cli import app
from gemma_nli.corpus.redsm5 import load_corpus
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.model.bundles.scorer import PairScorer
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.engine import run_sweep
from gemma_nli.sweep.open_sealed import open_sealed
from gemma_nli.sweep.prepare import prepare
from gemma_nli.sweep.records.sweep_folder import SweepFolder
from gemma_nli.sweep.records.sweep_result import SweepResult
from gemma_nli.sweep.refit import bundle_of_trial, bundle_place
from gemma_nli.sweep.register_ensemble import ALONE
from tests.sweep.without_ray import spec_of, train_here, tree_of

METRIC = "cv_aggregate/mean_auc"
POSTS = pd.DataFrame({"premise": ["I lie awake all night", "Nothing is fun any more", "a walk by the sea"]})


def tree(folder: Path, encoder: Path, **finalize: Any) -> dict[str, Any]:
    found = tree_of(folder, encoder, share=0.2)
    del found["compare"], found["tune"]
    space = {"model.pooling_strategy": {"grid": ["mean", "max"]}, "data.wording": {"grid": ["full", "question"]}}
    space["training.learning_rate"] = {"grid": ["3e-3", "3e-2"]}
    return {**found, "metric": METRIC, "space": space, "finalize": {"export_limit_gib": 0, **finalize}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with eight finished trials of a sweep whose end has registered the best of them."""
    folder = tmp_path_factory.mktemp("ensemble")
    write_synthetic(folder / "data", num_posts=120, seed=3)
    spec = spec_of(tree(folder, tiny_bert))
    train_here(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        assert run_sweep(spec).registered["version"] == 1
        MlflowClient(spec.base.mlflow.tracking_uri).set_registered_model_alias("gemma_nli_sealed", "champion", "1")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path, tiny_bert: Path) -> tuple[SweepSpec, SweepResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(place / "home"))
        spec = spec_of(tree(place, tiny_bert, ensemble={"size": 4}, promote_if_better="champion"))
        return spec, run_sweep(spec)


@pytest.fixture(autouse=True)
def home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA_NLI_HOME", str(place / "home"))


def version_of(spec: SweepSpec, number: int) -> Any:
    return MlflowClient(spec.base.mlflow.tracking_uri).get_model_version("gemma_nli_sealed", str(number))


def weighted(spec: SweepSpec, weights: dict[str, float], criterion: str) -> np.ndarray:
    """The members' own bundles, each asked in the words it was trained on."""
    ready = prepare(spec)
    total = np.zeros(len(POSTS))
    for key, weight in weights.items():
        scorer = PairScorer.from_bundle(bundle_of_trial(ready, key))
        total += weight * scorer.score_posts(POSTS)[criterion].to_numpy()
    return total


def test_the_members_are_the_reports_and_answer_as_one(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    facts = result.registered["ensemble"]
    assert sum(facts["members"].values()) == pytest.approx(1)
    assert 2 <= len(facts["members"]) <= 4
    assert set(facts["members"].values()) <= {0.25, 0.5, 0.75}
    assert result.registered["version"] == 2
    folder = SweepFolder(prepare(spec).folder).path
    report = json.loads((folder / "report.json").read_text())
    assert report["registers"] == facts["key"]
    assert report["ensembles"]["size"] == 4
    shared = next(kind for kind in report["ensembles"]["kinds"] if kind["name"] == "one for all criteria")
    assert shared["held_out"] == facts["held_out"]
    served = mlflow.pyfunc.load_model(download_artifacts(version_of(spec, 2).source)).predict(POSTS)
    criterion = next(iter(load_corpus(spec.base.data.data_dir).criteria))
    np.testing.assert_allclose(served[criterion], weighted(spec, facts["members"], criterion), atol=1e-6)
    page = (folder / "report.md").read_text()
    assert f"This sweep registers an ensemble of {len(facts['members'])} trials" in page
    assert "which is the one registered" not in page


def test_encoders_are_kept_once_and_members_not_beside_it(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    facts, ready = result.registered["ensemble"], prepare(spec)
    bundle = Path(str(bundle_place(ready, facts["key"])))
    assert [path.parent.name for path in bundle.rglob("model.safetensors")] == ["1"]
    assert {path.name for path in (bundle / "members").iterdir()} == set(facts["members"])


def test_a_version_is_found_again_by_its_members(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    again = run_sweep(spec)
    assert not again.registered["created"]
    assert again.registered["version"] == 2
    assert again.registered["ensemble"] == result.registered["ensemble"]


def test_its_score_is_of_its_own_out_of_fold_predictions_and_promotion_takes_its_luck_off(
    finished: tuple[SweepSpec, SweepResult], tmp_path: Path
) -> None:
    spec, result = finished
    version, facts = version_of(spec, 2), result.registered["ensemble"]
    assert version.tags["gemma_nli.out_of_fold"] == f"{facts['key']}/out_of_fold.safetensors"
    client = MlflowClient(spec.base.mlflow.tracking_uri)
    file = client.download_artifacts(version.run_id, version.tags["gemma_nli.out_of_fold"], str(tmp_path))
    found = load_file(file)
    folds = [found["folds"] == fold for fold in np.unique(found["folds"])]
    auc = np.mean([roc_auc_score(found["labels"][at], found["probabilities"][at]) for at in folds])
    assert float(version.tags["gemma_nli.metric_value"]) == pytest.approx(auc, abs=1e-6)
    assert f1_score(found["labels"], found["decisions"]) > 0
    assert float(version.tags["gemma_nli.honest_value"]) == facts["held_out"]
    low, high = (float(version.tags[f"gemma_nli.honest_{end}"]) for end in ("low", "high"))
    assert low < facts["held_out"] < high
    before = version_of(spec, 1).tags
    luck = auc - facts["held_out"] - float(before["gemma_nli.honest_raw"]) + float(before["gemma_nli.honest_value"])
    why = result.registered["promotion"]["why"]
    assert f"{auc - luck:.4f} against {float(before['gemma_nli.metric_value']):.4f}" in why
    assert f"less {luck:.4f} for the luck of its choice" in why
    shares = [f"{key} ({weight:.0%})" for key, weight in facts["members"].items()]
    assert version.tags["gemma_nli.ensemble"] == ", ".join(shares)
    assert "An ensemble of the trials" in version.description


def test_its_card_goes_with_it_and_names_its_members(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    card = Path(download_artifacts(f"{version_of(spec, 2).source}/README.md")).read_text()
    facts = result.registered["ensemble"]
    assert f"An ensemble of {len(facts['members'])} trials" in card
    assert f"**{facts['held_out']:.3f}**" in card
    assert all(key in card for key in facts["members"])
    assert "load_model(" not in card.replace("pyfunc.load_model(", "")
    single = Path(download_artifacts(f"{version_of(spec, 1).source}/README.md")).read_text()
    assert "Refitted from trial" in single
    assert "gemma_nli.load_model(" in single


def test_no_single_module_is_promised(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    uri = "models:/gemma_nli_sealed/2"
    with pytest.raises(EncoderError, match="an ensemble of"):
        gemma_nli.load_model(uri, spec.base.mlflow.tracking_uri)
    scorer = gemma_nli.load_scorer(uri, spec.base.mlflow.tracking_uri)
    assert scorer.score_posts(POSTS).shape[0] == len(POSTS)
    assert "an ensemble of" in result.registered["torch"]


def test_one_for_each_criterion_weighs_each_by_its_own(place: Path, tiny_bert: Path) -> None:
    spec = spec_of(tree(place, tiny_bert, ensemble={"size": 3, "per_criterion": True}))
    result = run_sweep(spec)
    facts = result.registered["ensemble"]
    assert facts["about"].endswith("one for each criterion")
    bundle = Path(str(bundle_place(prepare(spec), facts["key"])))
    own = json.loads((bundle / "bundle.json").read_text())["criterion_weights"]
    assert set(own) == set(load_corpus(spec.base.data.data_dir).criteria)
    assert len({json.dumps(weights, sort_keys=True) for weights in own.values()}) > 1
    scored = PairScorer.from_bundle(bundle).score_posts(POSTS)
    for criterion in list(own)[:2]:
        np.testing.assert_allclose(scored[criterion], weighted(spec, own[criterion], criterion), atol=1e-6)


def test_the_sealed_posts_are_scored_by_the_ensemble_as_it_is_served(
    finished: tuple[SweepSpec, SweepResult], place: Path, tiny_bert: Path
) -> None:
    run_sweep(finished[0])  # its spec is what the sweep was last started with
    opened = open_sealed("sealed")
    assert opened.registered == "models:/gemma_nli_sealed/2"
    served, single = [score for score in opened.test.last.scores if score.kind == "model"]
    assert (served.name, single.name) == ("the registered model", "the best trial")
    assert served.foretold.value == pytest.approx(finished[1].registered["ensemble"]["held_out"])
    assert served.about.startswith("an ensemble of")


def test_one_trial_is_registered_alone_and_says_so(place: Path, tiny_bert: Path, tmp_path: Path) -> None:
    one = tree(place, tiny_bert, ensemble={"size": 4})
    one |= {"name": "alone", "space": {"training.learning_rate": {"grid": ["3e-3"]}}}
    one["base"]["model"]["pooling_strategy"], one["base"]["data"]["wording"] = "mean", "full"
    result = run_sweep(spec_of(one))
    assert ALONE in result.notes
    assert "ensemble" not in result.registered


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "model/trained_parameters", "mode": "min"}, "metric is model/trained_parameters"),
        (
            {
                "search": {
                    "objectives": [
                        {"metric": METRIC, "mode": "max"},
                        {"metric": "model/trained_parameters", "mode": "min"},
                    ]
                }
            },
            "search.objectives names",
        ),
    ],
)
def test_members_need_one_metric_of_predictions(
    place: Path, tiny_bert: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        spec_of({**tree(place, tiny_bert, ensemble={"size": 2}), **change})


def test_the_list_of_models_says_of_which_trials_it_is(finished: tuple[SweepSpec, SweepResult]) -> None:
    spec, result = finished
    facts = result.registered["ensemble"]
    shown = CliRunner().invoke(app, ["models", "gemma_nli_sealed", "--tracking-uri", spec.base.mlflow.tracking_uri])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "version 2 is an ensemble of the trials" in text
    assert all(key in text for key in facts["members"])
    assert f"; {facts['held_out']:.3f} on folds that did not choose them" in text
    assert "version 1 is an ensemble" not in text
