"""The sealed test set: drawn by posts, apart from the folds, and absent from the corpus that all else is given."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import gemma_nli
from gemma_nli.base.errors import ConfigError, CorpusError
from gemma_nli.config import DataConfig, build_config
from gemma_nli.corpus.corpus_notes import corpus_notes
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Annotation, Corpus, load_corpus, write_corpus
from gemma_nli.corpus.sealed import sealed_corpus, sealed_pairs, training_corpus
from gemma_nli.corpus.synthetic import synthetic_corpus

SHARES = (0.05, 0.2, 0.5)


def data_of(folder: Path, test: dict[str, object] | None, **settings: object) -> DataConfig:
    return build_config({"data": {"data_dir": str(folder), "test": test, **settings}}, "test").data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 posts, of which 30 have a copy with a few other words; one sentence of each is annotated both ways."""
    target = tmp_path_factory.mktemp("corpus")
    made = synthetic_corpus(200, seed=5)
    twins = {f"{name}_again": f"{text} And that is all for now." for name, text in list(made.posts.items())[:30]}
    judged = [*made.annotations]
    for one in made.annotations:
        if one.status == 1:
            judged.append(Annotation(one.post_id, one.sentence_id, one.sentence_text, one.criterion_id, 0, "no"))
        if f"{one.post_id}_again" in twins:
            judged.append(Annotation(f"{one.post_id}_again", "s", one.sentence_text, one.criterion_id, one.status, ""))
    write_corpus(Corpus({**made.posts, **twins}, made.criteria, tuple(judged)), target)
    return target


def strata_of(corpus: Corpus) -> dict[str, int]:
    pairs = {(a.post_id, a.criterion_id) for a in corpus.annotations if a.status == 1}
    return {name: sum(criterion == name for _, criterion in pairs) for name in corpus.criteria}


@pytest.mark.parametrize("share", SHARES)
def test_both_parts_are_the_whole_and_each_criterion_has_its_share(folder, share):
    whole, data = load_corpus(folder), data_of(folder, {"share": share})
    rest, sealed = training_corpus(data), sealed_corpus(data)
    assert rest.posts.keys().isdisjoint(sealed.posts)
    assert {**rest.posts, **sealed.posts} == whole.posts
    assert sorted([*rest.annotations, *sealed.annotations], key=repr) == sorted(whole.annotations, key=repr)
    assert abs(len(sealed.posts) - share * len(whole.posts)) <= 2
    for name, count in strata_of(whole).items():
        assert abs(strata_of(sealed)[name] - share * count) <= 4, name


@pytest.mark.parametrize("test", [{"share": 0.3}, {"ids": "listed.txt"}])
def test_a_post_and_its_copy_are_never_on_both_sides(folder, tmp_path, test):
    whole = load_corpus(folder)
    if "ids" in test:
        test = {"ids": str(tmp_path / "listed.txt")}
        Path(test["ids"]).write_text("post_id\n" + "\n".join(list(whole.posts)[:15]) + "\n", encoding="utf-8")
    rest = training_corpus(data_of(folder, test))
    group_of = dict(zip(whole.posts, whole.group_P.tolist(), strict=True))
    assert {group_of[post] for post in rest.posts}.isdisjoint(group_of[post] for post in rest.seal.post_ids)
    assert len(np.unique(whole.group_P)) < len(whole.posts)
    assert any("data.test.ids" in note for note in corpus_notes(rest, build_pairs(rest, DataConfig()))) == (
        "ids" in test
    )


def test_what_is_sealed_depends_on_its_own_seed_and_not_on_the_folds_nor_on_the_order_of_the_file(folder, tmp_path):
    def sealed(where: Path = folder, seed: int = 7, **settings: object) -> tuple[str, ...]:
        return training_corpus(data_of(where, {"share": 0.2, "seed": seed}, **settings)).seal.post_ids

    assert sealed(fold_seed=1, num_folds=3, negatives="pooled") == sealed()
    assert sealed(seed=8) != sealed()
    whole = load_corpus(folder)
    backwards = Corpus(dict(reversed(whole.posts.items())), whole.criteria, whole.annotations)
    write_corpus(backwards, tmp_path / "backwards")
    assert sealed(tmp_path / "backwards") == sealed()


def test_the_seal_is_part_of_every_fingerprint_and_of_none_where_nothing_is_sealed(folder, tmp_path):
    def fingerprints(where: Path, test: dict[str, object] | None) -> tuple[str, str]:
        data = data_of(where, test)
        corpus = training_corpus(data)
        return corpus.fingerprint, build_pairs(corpus, data).fingerprint

    unsealed = fingerprints(folder, None)
    assert unsealed == (load_corpus(folder).fingerprint, build_pairs(load_corpus(folder), DataConfig()).fingerprint)
    one, other = fingerprints(folder, {"share": 0.2}), fingerprints(folder, {"share": 0.2, "seed": 8})
    assert len({unsealed[0], one[0], other[0]}) == len({unsealed[1], one[1], other[1]}) == 3
    whole, sealed = load_corpus(folder), sealed_corpus(data_of(folder, {"share": 0.2}))
    first = next(iter(sealed.posts))
    write_corpus(Corpus({**whole.posts, first: "Another text."}, whole.criteria, whole.annotations), tmp_path)
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(sealed.posts), encoding="utf-8")
    assert fingerprints(folder, {"ids": str(ids)}) == one
    assert fingerprints(tmp_path, {"ids": str(ids)}) != one


def test_the_training_part_says_nothing_of_the_sealed_one(folder):
    data = data_of(folder, {"share": 0.2})
    rest, sealed = training_corpus(data), sealed_corpus(data)
    assert {one.post_id for one in rest.contradictions} <= rest.posts.keys()
    assert len(rest.contradictions) + len(sealed.contradictions) == len(load_corpus(folder).contradictions)
    assert rest.notes != load_corpus(folder).notes
    alone = build_pairs(Corpus(rest.posts, rest.criteria, rest.annotations), data)
    np.testing.assert_array_equal(build_pairs(rest, data).fold_N, alone.fold_N)


@pytest.mark.parametrize(
    ("negatives", "ratio"), [("matched", 1.0), ("matched", 3.0), ("pooled", 1.0), ("matched", "all")]
)
def test_sealed_negatives_are_those_that_evaluation_has(folder, negatives, ratio):
    data = data_of(folder, {"share": 0.4}, negatives=negatives, eval_negative_ratio=ratio)
    pairs = sealed_pairs(sealed_corpus(data), data)
    rows = pairs.evaluation_rows(1)
    counts = [
        np.bincount(pairs.criterion_N[rows][pairs.label_N[rows] == label], minlength=len(pairs.criterion_ids))
        for label in (1, 0)
    ]
    if ratio == "all":
        assert len(rows) == len(pairs)
    elif negatives == "matched":
        assert (np.abs(counts[1] - ratio * counts[0]) <= 1).all() or (
            counts[0] + counts[1] == len(pairs.post_ids)
        ).any()
    else:
        assert counts[1].sum() == round(ratio * counts[0].sum())
    again = data_of(folder, {"share": 0.4}, negatives=negatives, eval_negative_ratio=ratio, fold_seed=3)
    np.testing.assert_array_equal(sealed_pairs(sealed_corpus(again), again).evaluation_rows(1), rows)


def test_every_bad_id_is_named_with_its_line(folder, tmp_path):
    listed = tmp_path / "ids.txt"
    listed.write_text("syn_0001\n\nsyn_9999\nsyn_0001\nnobody\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"3 problems") as raised:
        training_corpus(data_of(folder, {"ids": str(listed)}))
    message = str(raised.value)
    assert "ids.txt:3: post_id 'syn_9999' is not in the corpus" in message
    assert "ids.txt:4: post_id 'syn_0001' is listed twice, first in line 1" in message
    assert "'nobody'" in message


@pytest.mark.parametrize(
    ("content", "what"), [(None, "cannot be read"), (b"\xff\xfe", "not UTF-8"), (b"post_id\n", "no post")]
)
def test_a_list_that_cannot_be_used_is_refused(folder, tmp_path, content, what):
    if content is not None:
        (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=what):
        training_corpus(data_of(folder, {"ids": str(tmp_path / "ids.txt")}))


def test_a_sealed_part_that_measures_nothing_is_refused_before_anything_runs(folder, tmp_path):
    corpus = load_corpus(folder)
    healthy = next(name for name in corpus.posts if all(a.post_id != name or not a.status for a in corpus.annotations))
    (tmp_path / "ids.txt").write_text(healthy, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"data\.test: the [12] sealed posts .* 0 positive"):
        training_corpus(data_of(folder, {"ids": str(tmp_path / "ids.txt")}))
    (tmp_path / "ids.txt").write_text("\n".join(corpus.posts), encoding="utf-8")
    with pytest.raises(CorpusError, match="all 230 posts"):
        training_corpus(data_of(folder, {"ids": str(tmp_path / "ids.txt")}))
    with pytest.raises(CorpusError, match="not one post"):
        training_corpus(data_of(folder, {"share": 0.001}))


@pytest.mark.parametrize(
    "test", [{}, {"share": 0.2, "ids": "x"}, {"share": 1.0}, {"share": 0}, {"share": True}, {"sahre": 0.1}]
)
def test_a_seal_is_a_share_or_a_list(test):
    with pytest.raises(ConfigError, match=r"data\.test"):
        build_config({"data": {"test": test}}, "settings")


def test_nothing_but_the_seals_own_file_reads_a_whole_corpus():
    package = Path(gemma_nli.__file__).parent
    callers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "load_corpus"
    }
    assert callers == {"corpus/sealed.py"}
    openers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sealed_corpus"
    }
    assert openers <= {"sweep/open_sealed.py"}
