"""A model card says what was measured, that the model itself was not, and how to load it; the hub reads its YAML."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from gemma_nli.analysis.findings import Findings
from gemma_nli.analysis.report.model_card import CardOf, model_card
from gemma_nli.analysis.report.write import Report
from gemma_nli.model.loading.stated_licence import StatedLicence, stated_licence
from tests.commands import run_command

MODEL = CardOf("gemma_nli_simulated", 3, "candidate")


@pytest.fixture
def findings(simulated_report: Report) -> Findings:
    return simulated_report.findings


def test_the_hub_reads_its_metadata(findings):
    card = ModelCard(model_card(findings, MODEL))
    card.data.to_yaml()
    (result,) = card.data.eval_results
    assert card.data.model_name == "gemma_nli_simulated"
    assert result.metric_type == "f1"
    assert result.metric_value == pytest.approx(findings.honest.value, abs=1e-4)
    assert "not of this refit" in result.metric_name
    assert card.data.library_name == "gemma_nli"
    assert card.data.pipeline_tag == "text-classification"


def test_it_has_the_reports_numbers_and_says_what_nobody_measured(findings, simulated_report):
    text, page = model_card(findings, MODEL), simulated_report.markdown.read_text(encoding="utf-8")
    honest = findings.honest
    assert f"**{honest.value:.3f}** (95% interval {honest.low:.3f} to {honest.high:.3f})" in text
    assert "at 1 matched negative per positive" in text
    assert "a refit on all pairs, which nobody has measured" in text
    rows = [line for line in text.splitlines() if re.match(r"\| (TF-IDF|always positive|SLEEP)", line)]
    assert len(rows) >= 2
    assert all(row in page for row in rows)
    for title in ("Score", "Data", "Baselines", "By criterion", "Settings", "Limits", "How to load it", "Licence"):
        assert f"\n## {title}\n" in text
    assert "gemma_nli.load_model('models:/gemma_nli_simulated/3')" in text
    assert f"{findings.evidence.pairs.num_folds}, grouped by post, seed 42" in text
    assert all(f"- {re.escape(name)}" not in text for name in findings.evidence.corpus.posts)


def test_no_text_of_a_post_is_in_it_whatever_may_be_logged(findings):
    post = next(iter(findings.evidence.corpus.posts.values()))
    answer = dataclasses.replace(findings.answer, sure="", score=f"ValueError: {post}")
    assert post.split(".")[0] not in model_card(dataclasses.replace(findings, answer=answer), MODEL)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n# X"}, ("apache-2.0", "", "", "README.md")),
        (
            {"README.md": "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n", "LICENSE": "x"},
            ("other", "mine", "LICENSE", "README.md"),
        ),
        ({"README.md": "no front matter", "LICENSE.txt": "x"}, ("other", "LICENSE.txt", "LICENSE.txt", "LICENSE.txt")),
        ({"GEMMA_TERMS.html": "x"}, ("other", "GEMMA_TERMS.html", "GEMMA_TERMS.html", "GEMMA_TERMS.html")),
        (
            {"README.md": "---\nlicense: [mit\n---\n", "config.json": '{"license": "mit"}'},
            ("mit", "", "", "config.json"),
        ),
        ({"config.json": "{}", "model.safetensors": ""}, None),
    ],
)
def test_the_encoders_licence_is_what_its_folder_states(tmp_path, files, licence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert stated_licence(tmp_path) == (StatedLicence(*licence) if licence else None)


def test_the_licence_of_a_sentence_transformers_folder_is_found_above_its_encoder(tmp_path):
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert stated_licence(tmp_path / "0_Transformer") is None
    (tmp_path / "modules.json").write_text("[]")
    found = stated_licence(tmp_path / "0_Transformer")
    assert found is not None
    assert found.id == "mit"


def test_a_licence_is_in_the_metadata_and_in_words(findings, monkeypatch, tmp_path):
    from gemma_nli.analysis.report import model_card as module

    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    monkeypatch.setattr(module, "encoder_folder", lambda model: tmp_path)
    text = model_card(findings, MODEL)
    assert ModelCard(text).data.license == "gemma"
    assert "is under gemma, as README.md in its folder states" in text


def test_the_card_is_of_the_registered_version_or_refused(simulated, simulated_report, tmp_path, monkeypatch, capsys):
    spec, evidence = simulated
    monkeypatch.setenv("GEMMA_NLI_HOME", str(Path(spec.storage).parent / "home"))
    result = Path(spec.storage) / "sweeps" / evidence.sweep_ids[0] / "result.json"
    card, best = tmp_path / "own.md", simulated_report.findings.winner_key
    words = ["report", "simulated", "--out", str(tmp_path), "--model-card"]
    assert run_command(*words, str(card)) == 0
    assert "No version is registered yet" in card.read_text(encoding="utf-8")
    registered = {"name": "gemma_nli_x", "version": 7, "alias": "candidate"}
    facts = {"interrupted": False, "trials": {}, "best": {"key": best}, "registered": registered}
    try:
        result.write_text(json.dumps(facts))
        assert run_command(*words, str(card)) == 0
        assert "models:/gemma_nli_x/7" in card.read_text(encoding="utf-8")
        result.write_text(json.dumps({**facts, "best": {"key": "another"}}))
        assert run_command(*words, str(card)) == 2
        assert "version 7 of gemma_nli_x was made from trial another" in capsys.readouterr().err
    finally:
        result.unlink()
