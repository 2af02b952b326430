"""CONTRIBUTING.md: each file that it shows is all it takes; the files and targets it names exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gemma_nli.corpus.redsm5 import write_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus
from tests.contributed import PAGE, ROOT, shown_files
from tests.package_copy import ask_copy


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Any]:
    """What a copy with every file of the page does (`contributed_parts.py`)."""
    folder = tmp_path_factory.mktemp("contributed")
    write_corpus(synthetic_corpus(num_posts=60, seed=3), folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        facts = {"corpus": str(folder / "corpus"), "encoder": str(tiny_bert)}
        return ask_copy(folder, shown_files(), Path(__file__).with_name("contributed_parts.py"), facts)


def test_each_thing_that_the_page_adds_is_one_file():
    rooms = {Path(path).parent.as_posix() for path in shown_files()}
    added = {"base/metrics", "model/pooling", "storage", "tracking/write/artifacts"}
    assert rooms >= added
    assert len(rooms) == len(shown_files())


def test_the_pooling_takes_the_middle_on_either_side_of_the_padding_and_its_k_is_in_the_key(answer):
    by_k = {1: [4, 169], 3: [(1 + 4 + 9) / 3, (144 + 169 + 196) / 3], 9: [30 / 5, 855 / 5]}
    assert answer["pooling"]["vectors"] == [pytest.approx(by_k[k]) for k in (1, 3, 9)]
    assert answer["pooling"]["k is in the key"]


def test_the_backend_is_a_storage_like_any_other(answer):
    found = answer["storage"]
    assert re.search(r"s3://bucket/prefix of a store .*, mem://bucket/prefix, or gs://bucket/prefix", found["refused"])
    assert found["conflict"]
    assert found["leased"] == [True, False]
    assert (found["fetched"], found["gone"]) == ("1", False)
    assert found["kept"]


def test_the_artifact_counts_every_pair_once_beside_those_of_any_run(answer):
    found = answer["run"]
    assert sum(map(sum, found["counts"])) == found["pairs"] > 0
    assert {"config.yaml", "aggregate_results.json", "confusion_matrix.json"} <= set(found["files"])


def test_the_metric_and_the_artifact_agree(answer):
    assert 0 <= answer["run"]["specificity"] <= 1


def test_the_files_and_targets_named_exist():
    for name in re.findall(r"`((?:gemma_nli|tests|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists() or name.removeprefix("gemma_nli/") in shown_files(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)", PAGE):
        assert re.search(rf"^{target}: ", makefile, re.M), target
