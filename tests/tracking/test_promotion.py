"""Who serves: roles moved by hand or by a paired test, never across corpora or metrics, and always with the reason."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from safetensors.numpy import load, save

from gemma_nli.base.errors import TrackingError
from gemma_nli.config import MlflowConfig
from gemma_nli.tracking.registry.promotion import check_role, demote, promote, promote_if_better
from gemma_nli.tracking.registry.registered_models import registered_versions
from gemma_nli.tracking.store.mlflow_store import Store
from gemma_nli.tracking.write.artifacts.out_of_fold import OUT_OF_FOLD
from gemma_nli.tracking.write.tracker import MlflowTracker
from tests.tracking.conftest import a_trial

POSTS = 300


def out_of_fold(accuracy: float, seed: int, posts: int = POSTS) -> bytes:
    """Decisions on the same pairs, right with a chance of `accuracy`."""
    rows = np.arange(posts, dtype=np.int64)
    labels = (rows % 2).astype(np.int8)
    right = np.random.default_rng(seed).random(posts) < accuracy
    decisions = np.where(right, labels, 1 - labels).astype(np.int8)
    columns = {"rows": rows, "posts": rows, "folds": rows % 5 + 1, "labels": labels, "decisions": decisions}
    columns["criteria"] = rows // 2 % 3
    return save({**columns, "probabilities": decisions.astype(np.float32) * 0.8 + 0.1})


class Registry:
    """A real registry whose versions have a trial run with predictions, and no weights."""

    def __init__(self, uri: str) -> None:
        self.tracker = MlflowTracker(MlflowConfig(tracking_uri=uri), "promotion")
        self.client: MlflowClient = self.tracker.client
        self.client.create_registered_model("m")

    @property
    def store(self) -> Store:
        return self.tracker.store

    def version(self, accuracy: float, seed: int = 0, predictions: bytes | None = None, **tags: str) -> int:
        number = len(self.client.search_model_versions("name = 'm'")) + 1
        artifacts = {"config.yaml": b"{}", OUT_OF_FOLD: predictions or out_of_fold(accuracy, seed)}
        run_id = self.tracker.sync_trial(None, a_trial(f"k{number}", artifacts=artifacts))
        known = {"gemma_nli.data_fingerprint": "corpus", "gemma_nli.metric": "cv_aggregate/mean_f1"}
        known |= {"gemma_nli.eval_negative_ratio": "1.0", "gemma_nli.fold_fingerprint": "folds"}
        known |= {f"gemma_nli.{name}": value for name, value in tags.items()}
        source = f"{self.client.get_run(run_id).info.artifact_uri}/model"
        version = self.client.create_model_version("m", source, run_id, {**known, "gemma_nli.source_run_id": run_id})
        return int(version.version)

    def tag(self, version: int, name: str) -> str:
        return self.client.get_model_version("m", str(version)).tags[f"gemma_nli.{name}"]

    def holder(self, role: str) -> int | None:
        number = self.client.get_registered_model("m").aliases.get(role)
        return int(number) if number is not None else None

    def stage(self, version: int) -> str:
        return self.client.get_model_version("m", str(version)).current_stage


@pytest.fixture
def registry(fresh_uri: str) -> Registry:
    return Registry(fresh_uri)


def test_a_role_is_an_alias_and_a_stage_and_its_last_holder_is_told(registry):
    one, two = registry.version(0.8), registry.version(0.8, 1)
    promote(registry.store, "m", one, "production")
    assert (registry.holder("production"), registry.stage(one)) == (one, "Production")
    decision = promote(registry.store, "m", two, "production")
    assert (decision.before, registry.holder("production")) == (one, two)
    assert (registry.stage(one), registry.stage(two)) == ("Archived", "Production")
    assert "became production" in registry.tag(two, "promotion.production")
    assert "version 2 became production in its place" in registry.tag(one, "promotion.production")
    promote(registry.store, "m", one, "champion")
    assert (registry.holder("champion"), registry.stage(one)) == (one, "Archived")  # no stage of that name
    assert demote(registry.store, "m", "production") == two
    assert (registry.holder("production"), registry.stage(two)) == (None, "Archived")


def test_the_better_on_the_same_pairs_takes_the_role_and_both_say_why(registry):
    weak, strong = registry.version(0.65), registry.version(0.9, 1)
    first = promote_if_better(registry.store, "m", weak, "production", 0.05)
    assert (first.promoted, first.why) == (True, "no version was production")
    second = promote_if_better(registry.store, "m", strong, "production", 0.05)
    assert second.promoted
    assert registry.holder("production") == strong
    assert second.difference.value > 0.1
    for version in (weak, strong):
        reported = registry.tag(version, "promotion.production")
        assert "level 0.05" in reported
        assert "300 pairs" in reported


@pytest.mark.parametrize("accuracy", [0.5, 0.8])
def test_one_that_is_worse_or_no_better_stays_where_it_is_and_both_say_why(registry, accuracy):
    present, new = registry.version(0.8), registry.version(accuracy)
    promote_if_better(registry.store, "m", present, "production", 0.05)
    decision = promote_if_better(registry.store, "m", new, "production", 0.05)
    assert not decision.promoted
    assert registry.holder("production") == present
    reported = registry.tag(new, "promotion.production")
    assert ("not shown to be better, but worse: " if accuracy == 0.5 else "not shown to be better: ") in reported
    assert f"version {new} does not replace it" in registry.tag(present, "promotion.production")
    again = promote_if_better(registry.store, "m", new, "production", 0.5)  # decided once, at the level it was asked
    assert (again.promoted, again.why) == (False, decision.why)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"data_fingerprint": "other"}, "different corpus"),
        ({"metric": "cv_aggregate/mean_auc"}, "different metric"),
        ({"eval_negative_ratio": "all"}, "different evaluation ratio"),
        ({"negatives": "matched"}, "different choice of negatives (matched against pooled)"),
        ({"fold_fingerprint": "other"}, "different folds"),
    ],
)
def test_nothing_is_promoted_across_corpora_metrics_or_pairs(registry, tags, why):
    present, new = registry.version(0.5), registry.version(0.99, 1, **tags)
    promote(registry.store, "m", present, "production")
    decision = promote_if_better(registry.store, "m", new, "production", 0.05)
    assert not decision.promoted
    assert why in decision.why
    assert registry.holder("production") == present
    if "fold_fingerprint" not in tags:
        with pytest.raises(TrackingError, match=r"demote m --from production"):
            promote(registry.store, "m", new, "production")
        demote(registry.store, "m", "production")
        assert promote(registry.store, "m", new, "production").promoted


def test_pairs_that_are_not_the_same_are_not_compared(registry):
    present, new = registry.version(0.5), registry.version(0.9, predictions=out_of_fold(0.9, 1, posts=290))
    promote(registry.store, "m", present, "staging")
    assert "differ" in promote_if_better(registry.store, "m", new, "staging", 0.05).why


def test_a_metric_of_ranks_is_compared_by_probabilities(registry):
    auc = {"metric": "cv_aggregate/mean_auc"}
    weak, strong = registry.version(0.6, **auc), registry.version(0.9, 1, **auc)
    promote(registry.store, "m", weak, "champion")
    decision = promote_if_better(registry.store, "m", strong, "champion", 0.05)
    assert decision.promoted
    assert decision.why.startswith("better: auc")


@pytest.mark.parametrize("name", ["macro_f1", "macro_auc"])
def test_a_mean_over_criteria_is_compared_within_them(registry, name):
    macro = {"metric": f"cv_aggregate/{name}"}
    weak, strong = registry.version(0.6, **macro), registry.version(0.9, 1, **macro)
    promote(registry.store, "m", weak, "champion")
    decision = promote_if_better(registry.store, "m", strong, "champion", 0.05)
    assert decision.promoted
    assert decision.why.startswith(f"better: {name}")


def test_predictions_of_an_older_version_that_do_not_say_the_criteria_are_not_compared_within_them(registry):
    macro, older = {"metric": "cv_aggregate/macro_auc"}, load(out_of_fold(0.6, 0))
    del older["criteria"]
    present, new = registry.version(0.6, predictions=save(older), **macro), registry.version(0.9, 1, **macro)
    promote(registry.store, "m", present, "champion")
    assert "do not say the criteria" in promote_if_better(registry.store, "m", new, "champion", 0.05).why


def test_a_metric_without_a_paired_test_is_refused(registry):
    peeking = {"metric": "cv_aggregate/mean_best_f1"}
    present, new = registry.version(0.6, **peeking), registry.version(0.9, 1, **peeking)
    promote(registry.store, "m", present, "champion")
    assert "no paired test" in promote_if_better(registry.store, "m", new, "champion", 0.05).why


def test_the_list_names_aliases_stage_metric_and_decisions(registry, fresh_uri):
    version = registry.version(0.9, metric_value="0.91", sweep_name="pooling")
    promote(registry.store, "m", version, "production")
    (row,) = registered_versions(fresh_uri)
    assert (row.name, row.version, row.aliases, row.stage) == ("m", 1, ("production",), "Production")
    assert (row.metric, row.value, row.sweep) == ("cv_aggregate/mean_f1", 0.91, "pooling")
    assert "became production" in row.decisions["production"]


def test_mistakes_are_told_with_what_there_is(registry):
    registry.version(0.5)
    with pytest.raises(TrackingError, match="no version 7; versions: 1"):
        promote(registry.store, "m", 7, "production")
    with pytest.raises(TrackingError, match="no version is staging"):
        demote(registry.store, "m", "staging")
    with pytest.raises(TrackingError, match="no registered model 'n'"):
        promote(registry.store, "n", 1, "production")
    with pytest.raises(TrackingError, match="did you mean 'production'"):
        check_role("prodction")


def test_stages_move_without_a_warning(registry):
    version = registry.version(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        promote(registry.store, "m", version, "staging")


def test_a_lead_that_chance_could_explain_moves_no_role(registry):
    present, ahead = registry.version(0.80, 3), registry.version(0.82, 8)
    promote_if_better(registry.store, "m", present, "production", 0.05)
    decision = promote_if_better(registry.store, "m", ahead, "production", 0.05)
    assert decision.difference.value > 0
    assert decision.difference.p_value > 0.05
    assert (decision.promoted, registry.holder("production")) == (False, present)


def test_the_best_of_many_trials_is_compared_without_the_luck_of_its_choice(registry):
    luck = {"honest_metric": "f1", "honest_raw": "0.90", "honest_value": "0.72"}
    present, ahead = registry.version(0.70, 3), registry.version(0.85, 8, **luck)
    promote(registry.store, "m", present, "production")
    decision = promote_if_better(registry.store, "m", ahead, "production", 0.05)
    assert "less 0.1800 for the luck of its choice" in decision.why
    assert (decision.promoted, registry.holder("production")) == (False, present)
