"""Sweeps over the words around a pair and over a criterion's own: the same evaluation pairs, each text encoded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.base.errors import CorpusError, EncoderError
from gemma_nli.features import FeatureStore
from gemma_nli.sweep.prepare import Prepared, feature_requests, prepare
from tests.sweep.conftest import spec_of

TEMPLATES = [
    "native",
    "Post: {premise}\nStatement: {hypothesis}\nAnswer:",
    "{premise}\nQuestion: {hypothesis}",
    "{hypothesis} Post: {premise}",
]
WORDINGS = ["full", "short", "question"]


def prepared(tree: dict[str, Any], **space: list[Any]) -> Prepared:
    grid = {key.replace("__", "."): {"grid": values} for key, values in space.items()}
    return prepare(spec_of(tree, space=grid))


def test_four_templates_and_three_wordings_encode_each_text_once_and_nothing_the_second_time(
    sweep_tree: dict[str, Any],
) -> None:
    sweep_tree["base"]["model"]["max_length"] = 128
    asked = {"model__template": TEMPLATES, "data__wording": WORDINGS, "model__pooling_strategy": ["mean", "last"]}
    ready = prepared(sweep_tree, **asked)
    assert len(ready.cells) == 24
    requests = feature_requests(ready)
    assert len(requests) == 2, "one for the tokenizer's own pairs, one for all templates"
    pairs = len(ready.pairs.rows_used(ready.spec.base.data.negative_ratio))
    store = FeatureStore(ready.storage / "features")
    assert sum(store.ensure(request).encoded for request in requests) == 12 * pairs
    again = feature_requests(prepared(sweep_tree, **asked))
    assert [store.missing(request) for request in again] == [[], []]


def test_wordings_share_folds_and_evaluation_and_have_keys_of_their_own(sweep_tree: dict[str, Any]) -> None:
    alone, worded = prepared(sweep_tree), prepared(sweep_tree, data__wording=WORDINGS)
    assert alone.pairs.fingerprint == worded.pairs.fingerprint
    assert len(worded.cells) == 3
    assert set(alone.cells) < set(worded.cells), "the usual wording's trials are those from before there were wordings"


def change_short(corpus: Path, text: str | None) -> None:
    path = corpus / "criteria.json"
    items = json.loads(path.read_text())
    items[0]["texts"].pop("short")
    items[0]["texts"] |= {} if text is None else {"short": text}
    path.write_text(json.dumps(items))


def test_a_changed_text_changes_the_keys_of_its_own_wording_alone(sweep_tree: dict[str, Any], tmp_path: Path) -> None:
    from gemma_nli.corpus.synthetic import write_synthetic

    write_synthetic(tmp_path / "own", 40)
    sweep_tree["base"]["data"]["data_dir"] = str(tmp_path / "own")
    before = prepared(sweep_tree, data__wording=["full", "short"])
    change_short(tmp_path / "own", "a mood that is low")
    after = prepared(sweep_tree, data__wording=["full", "short"])
    assert before.pairs.fingerprint == after.pairs.fingerprint
    assert before.sweep_id == after.sweep_id
    assert [a == b for a, b in zip(before.cells, after.cells, strict=True)] == [True, False]
    change_short(tmp_path / "own", None)
    for algorithm in ("grid", "random", "optuna"):
        kind = "grid" if algorithm == "grid" else "choice"
        tries = {"grid": {}, "random": {"num_trials": 4}, "optuna": {"num_trials": 1}}[algorithm]
        sweep_tree["search"] = {"algorithm": algorithm, **tries}
        space = {"data.wording": {kind: ["full", "short"]}, "training.learning_rate": {kind: [1e-3, 1e-2]}}
        with pytest.raises(CorpusError, match=r"data.wording is 'short', .*'DEPRESSED_MOOD' .* has full, question"):
            prepare(spec_of(sweep_tree, space=space))


@pytest.mark.parametrize("algorithm", ["grid", "optuna"])
def test_a_template_too_long_is_refused_before_anything_runs(sweep_tree: dict[str, Any], algorithm: str) -> None:
    kind = "grid" if algorithm == "grid" else "choice"
    long = "a great many words " * 20 + "{premise} {hypothesis}"
    space = {"model.template": {kind: ["native", long]}, "training.seed": {kind: list(range(40))}}
    sweep_tree["search"] = {"algorithm": algorithm} | ({} if algorithm == "grid" else {"num_trials": 1})
    with pytest.raises(EncoderError, match=r"model.template 'a great .* takes \d+ tokens .*model.max_length is 48"):
        prepare(spec_of(sweep_tree, space=space))
