"""docs/outside.md and docs/paper.md are run from top to bottom: commands, the scripts that they name, and code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pandas as pd

from benchmarks.outside import sentence_vectors, tfidf_logistic
from benchmarks.simulated_sweep import simulate_sweep
from gemma_nli.analysis.outside_predictions import COLUMNS
from gemma_nli.corpus.synthetic import write_synthetic
from gemma_nli.spec.spec import SweepSpec
from tests.analysis.conftest import tree_of
from tests.commands import run_command

PAGE = (Path(__file__).parent.parent / "docs" / "outside.md").read_text(encoding="utf-8")
PAPER = (Path(__file__).parent.parent / "docs" / "paper.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ (.+)$", PAGE, flags=re.M)]
(CELL,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
SCRIPTS = {"benchmarks.outside.tfidf_logistic": tfidf_logistic, "benchmarks.outside.sentence_vectors": sentence_vectors}


def test_the_page_works_from_top_to_bottom(tmp_path, tiny_bert, tiny_sentences, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_synthetic(tmp_path / "corpus", num_posts=60, seed=3)
    tree = tree_of(tmp_path, tmp_path / "corpus", tiny_bert, name="demo", tune={"model.dropout": {"grid": [0.0]}})
    tree["base"]["data"]["num_folds"] = 2
    simulate_sweep(SweepSpec.from_mapping(tree, source="demo.yaml"), lambda settings: 0.3)
    for words in COMMANDS:
        if words[0] == "python":
            module = SCRIPTS[words[2]]
            tiny = ["--model", str(tiny_sentences)] if module is sentence_vectors else []
            module.main([*words[3:], *tiny])
        elif words[1] == "report":
            exec(compile(CELL, "docs/outside.md", "exec"), {})
            assert run_command(*words[1:], "--json") == 0
            break
        else:
            assert run_command(*words[1:]) == 0
    printed = capsys.readouterr().out
    facts = json.loads(printed[printed.index("{") :])
    assert list(facts["outside"]) == ["tfidf", "vectors", "similarity", "bayes"]
    assert "scores of cosine.csv; thresholds chosen on the other folds" in facts["outside"]["similarity"]["about"]
    for line in re.findall(r"^\$ (.+)$", PAPER, flags=re.M):
        assert run_command(*shlex.split(line)[1:], "--json") == 0
    named = set(re.findall(r"`(\w+)\.tex`", PAPER.partition("| file |")[2].partition("## A model card")[0]))
    assert {path.stem for path in (tmp_path / "paper").glob("*.tex")} == named | {"report"}
    macros = (tmp_path / "paper" / "numbers.tex").read_text(encoding="utf-8")
    assert set(re.findall(r"\\gnli\w+", PAPER)) == set(re.findall(r"\\gnli\w+", macros))
    assert "## How to load it" in (tmp_path / "model_card.md").read_text(encoding="utf-8")
    columns = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.split("## 2.")[0], re.M))))
    assert columns == set(pd.read_csv("folds.csv").columns)


def test_the_page_names_every_column_of_a_predictions_file():
    table = "".join(re.findall(r"^\| (?:or )?(`.*?) \|", PAGE.split("## 2.")[1], re.M))
    assert set(re.findall(r"`(\w+)`", table)) == set(COLUMNS)
