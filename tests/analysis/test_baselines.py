"""Baselines are measured as trials are: same pairs, nothing learned from the posts they are measured on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gemma_nli.analysis.baselines import cosine, measure_baselines, tfidf, zero_shot_left_out, zero_shot_of
from gemma_nli.analysis.evidence import Evidence
from gemma_nli.analysis.findings import find
from gemma_nli.corpus.pairs import build_pairs
from gemma_nli.corpus.redsm5 import Corpus
from gemma_nli.spec.spec import SweepSpec
from gemma_nli.sweep.forecast.plan import plan_sweep
from gemma_nli.training.criterion_only import evaluation_rows
from tests.analysis.conftest import tree_of
from tests.model.language_models import in_few_words


def test_tfidf_learns_nothing_from_the_fold_it_is_measured_on(simulated: tuple[SweepSpec, Evidence]) -> None:
    """Other labels in fold 1 leave the scores of fold 1's pairs as they were, and change those of others."""
    evidence = simulated[1]
    before = tfidf(evidence).score_N
    label_N = evidence.pairs.label_N.copy()
    mine = evidence.pairs.fold_N == 1
    rng = np.random.default_rng(0)
    for criterion in range(len(evidence.pairs.criterion_ids)):  # which leaves it as many positives, so the same rows
        here = mine & (evidence.pairs.criterion_N == criterion)
        label_N[here] = rng.permutation(label_N[here])
    changed = dataclasses.replace(evidence, pairs=dataclasses.replace(evidence.pairs, label_N=label_N))
    after = tfidf(changed).score_N
    np.testing.assert_array_equal(before[evidence.fold_N == 1], after[evidence.fold_N == 1])
    assert (before[evidence.fold_N == 2] != after[evidence.fold_N == 2]).any()


def test_the_cosine_needs_stored_vectors_or_leave_to_encode(
    simulated: tuple[SweepSpec, Evidence], tmp_path: Path
) -> None:
    evidence = dataclasses.replace(simulated[1], storage=tmp_path)
    assert cosine(evidence) is None
    assert [found.name for found in measure_baselines(evidence)] == ["criterion only", "always positive", "TF-IDF"]
    found = cosine(evidence, encode=True)
    assert found is not None
    assert np.isfinite(found.score_N).all()
    assert np.abs(found.score_N).max() <= 1 + 1e-6
    again = cosine(evidence)  # the vectors are stored now
    assert again is not None
    np.testing.assert_allclose(again.score_N, found.score_N)


def asking(evidence: Evidence, encoder: Path, folder: Path, zero_shot: str) -> Evidence:
    """The evidence as a sweep of another encoder would have it; nothing is encoded yet."""
    tree = tree_of(folder, Path(evidence.spec.base.data.data_dir), encoder, report={"zero_shot": zero_shot})
    tree["base"]["model"]["max_length"] = 200
    return dataclasses.replace(evidence, spec=SweepSpec.from_mapping(tree, source="asking.yaml"), storage=folder)


def test_zero_shot_stands_beside_the_others_once_its_texts_are_encoded(
    simulated: tuple[SweepSpec, Evidence], speaker: Path, tmp_path: Path
) -> None:
    corpus = in_few_words(simulated[1].corpus)
    pairs = build_pairs(corpus, simulated[1].spec.base.data)
    short = dataclasses.replace(simulated[1], corpus=corpus, pairs=pairs, rows_N=evaluation_rows(pairs))
    auto, never = (asking(short, speaker, tmp_path, word) for word in ("auto", "never"))
    assert zero_shot_of(auto) is None, "nothing is encoded for it unasked"
    found = zero_shot_of(auto, encode=True)
    assert found is not None
    assert "Yes, yes" in found.about
    assert np.isfinite(found.score_N).all()
    assert [baseline.name for baseline in measure_baselines(auto)][-1] == "zero-shot", "its states are stored now"
    assert zero_shot_of(never, encode=True) is None
    plan = plan_sweep(asking(simulated[1], speaker, tmp_path, "always").spec)
    assert plan["texts"]["to_encode"] > len(auto.rows_N), "its pairs are planned with the sweep's"


def test_an_encoder_without_a_language_model_has_none_and_says_so_only_if_asked(
    simulated: tuple[SweepSpec, Evidence], tiny_bert: Path, tmp_path: Path
) -> None:
    auto, always = (asking(simulated[1], tiny_bert, tmp_path, word) for word in ("auto", "always"))
    assert zero_shot_of(auto, encode=True) is None
    assert zero_shot_left_out(auto) == ""
    assert zero_shot_of(always) is None
    assert f"{tiny_bert} has no language-model head" in zero_shot_left_out(always)
    assert any("report.zero_shot is always" in warning for warning in find(always).warnings)


def test_a_winner_that_words_beat_is_headlined(simulated: tuple[SweepSpec, Evidence]) -> None:
    """Posts that say what they show: TF-IDF is all but perfect, and the report says so first."""
    evidence = simulated[1]
    pairs = evidence.pairs
    words: dict[int, list[str]] = {}
    for post, criterion in zip(pairs.post_N[pairs.label_N == 1], pairs.criterion_N[pairs.label_N == 1], strict=True):
        words.setdefault(int(post), []).append(pairs.criterion_ids[criterion].replace("_", ""))
    posts = {name: " ".join(words.get(i, ["none"])) for i, name in enumerate(pairs.post_ids)}
    corpus = Corpus(posts, evidence.corpus.criteria, evidence.corpus.annotations)
    findings = find(dataclasses.replace(evidence, corpus=corpus))
    assert findings.baselines[2].f1 > 0.9
    assert findings.baselines[2].outcome == "loses"
    assert findings.answer.first.startswith("The TF-IDF baseline beats the best trial by 0.")
    assert findings.answer.first.count("at 1 matched negative per positive") == 1
    assert "always positive" not in "".join(findings.warnings)


def test_no_text_of_a_mistake_is_shown_unless_allowed(simulated: tuple[SweepSpec, Evidence]) -> None:
    from gemma_nli.analysis.mistakes import find_mistakes

    evidence = simulated[1]
    config = evidence.record(evidence.complete[0].key).config
    assert not any(mistake.text for mistake in find_mistakes(evidence, 0, config).most_confident)
    allowed = config.with_settings({"data.log_text": True})
    reported = find_mistakes(evidence, 0, allowed).most_confident
    assert reported
    for mistake in reported:
        post, criterion = mistake.pair_id.split("::")
        assert mistake.text == f"{evidence.corpus.posts[post]} / {evidence.corpus.criteria[criterion]}"


@pytest.mark.parametrize("length", [4000, 8])
def test_posts_that_were_cut_are_a_slice_of_their_own(simulated: tuple[SweepSpec, Evidence], length: int) -> None:
    from gemma_nli.analysis.mistakes import truncated
    from gemma_nli.model.encoder import load_tokenizer

    evidence = simulated[1]
    config = evidence.record(evidence.complete[0].key).config.with_settings({"model.max_length": length})
    cut_N = truncated(evidence, config)
    assert cut_N is not None
    tokenizer = load_tokenizer(config.model)
    posts, criteria = list(evidence.corpus.posts.values()), list(evidence.corpus.criteria.values())
    for place in range(0, len(cut_N), 40):
        row = evidence.rows_N[place]
        pair = posts[evidence.pairs.post_N[row]], criteria[evidence.pairs.criterion_N[row]]
        assert cut_N[place] == (len(tokenizer(*pair)["input_ids"]) > length)
