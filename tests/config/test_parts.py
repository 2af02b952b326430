"""Parts are found by their decorators, without an import, and a trial's key is what it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_nli.base.part_registry import Registry, find_parts
from gemma_nli.config import RunConfig, setting_names
from gemma_nli.config.parts import KINDS, Kind, dormant_settings

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("trial", GOLDEN, ids=[trial["key"] for trial in GOLDEN])
def test_trials_that_were_run_keep_their_keys(trial):
    """A key that changes is a trial that runs again. Made before parts declared what they read, before negatives had a
    name (that is version 2 of the semantics) and before heads had norms."""
    canonical = RunConfig().with_settings({**trial["settings"], "model.head_norm": "none"}).canonical()
    assert canonical.pop("data.negatives") == "matched"
    normed = RunConfig().with_settings({**trial["settings"], "model.head_norm": "layernorm"}).canonical()
    assert normed.keys() - canonical.keys() == {"data.negatives", "model.head_norm"}
    assert hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16] == trial["key"]


def written(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return str(folder)


def test_a_folders_parts_are_read_off_their_decorators(tmp_path):
    place = written(
        tmp_path,
        one='import nothing_like_this\n@part("b", reads=("model.pooling_k",))\nclass B: ...\n',
        two='@other("x")\ndef x(): ...\n@part("a")\ndef a(): ...\n@part(name="c", reads=())\nclass C: ...\n',
    )
    found = find_parts(place, "part")
    assert {name: part.reads for name, part in found.items()} == {
        "a": None,
        "b": frozenset({"model.pooling_k"}),
        "c": frozenset(),
    }
    assert list(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('N = "a"\n@part(N)\ndef a(): ...\n', "line 2: a part's name must be a text"),
        ('@part("a", reads="model.pooling_k")\ndef a(): ...\n', "`reads` a tuple of texts"),
        ('R = ()\n@part("a", reads=(*R,))\ndef a(): ...\n', "line 2: a part's name must be a text"),
        ('@part("a")\ndef a(): ...\n@part("a")\ndef b(): ...\n', "the name 'a' is taken"),
    ],
)
def test_a_decorator_that_cannot_be_read_is_refused_where_it_stands(tmp_path, text, says):
    with pytest.raises(TypeError, match=says):
        find_parts(written(tmp_path, one=text), "part")


def test_a_registry_refuses_a_second_part_of_a_name():
    registry: Registry[object] = Registry("model.thing")
    registry.part("a")(object())
    with pytest.raises(TypeError, match=r"model\.thing: two parts are called 'a'"):
        registry.part("a")(object())


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_part_that_does_not_say_what_it_reads_every_setting_counts(kind, monkeypatch, tmp_path):
    (part,) = find_parts(written(tmp_path, one='@part("mine")\ndef mine(): ...\n'), "part").values()
    config = RunConfig()
    assert dormant_settings(config, setting_names())
    monkeypatch.setitem(KINDS, kind, Kind({"mine": part}, lambda config: "mine"))
    assert dormant_settings(config, setting_names()) == set()


def test_a_part_that_reads_a_setting_which_is_not_there_is_refused(monkeypatch, tmp_path):
    text = '@part("mine", reads=("model.poling_k",))\ndef mine(): ...\n'
    (part,) = find_parts(written(tmp_path, one=text), "part").values()
    monkeypatch.setitem(KINDS, "pooling", Kind({"mine": part}, lambda config: "mine"))
    with pytest.raises(TypeError, match=r"one.py: 'mine' says that it reads model.poling_k, and there is no such"):
        RunConfig().canonical()


def test_the_names_of_parts_are_known_without_torch():
    code = "import sys, gemma_nli.config as c; c.RunConfig().canonical(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
