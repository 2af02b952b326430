"""The documentation: built whole and strictly, without a network, with a place for every public name and extra."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gemma_nli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ASKED = re.compile(r"""(?:src|href)=["']?(https?:)?//[^"' >]+|@import[^;]*//""")


def test_every_public_name_has_its_place_in_the_reference():
    named = re.findall(r"^::: (gemma_nli[\w.]+)$", "".join(p.read_text() for p in DOCS.glob("reference/*.md")), re.M)
    errors = re.findall(r"^ +- (\w+Error)$", (DOCS / "reference" / "errors.md").read_text(), re.M)
    listed = {name.rpartition(".")[2] for name in named} | set(errors)
    assert listed >= set(gemma_nli.__all__) - {"__version__"}


def test_what_the_reference_names_is_there():
    named = re.findall(r"^::: (gemma_nli[\w.]+)$", "".join(p.read_text() for p in DOCS.glob("reference/*.md")), re.M)
    for name in named:
        pkgutil.resolve_name(name)


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"- ([\w/]+\.md)$", text, re.M)) == {
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    }


def test_the_start_page_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (DOCS / "start.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", page, re.M)))) == set(extras)


@pytest.mark.slow
def test_the_pages_are_built_strictly_and_ask_no_network_to_be_read(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        head = page.read_text(encoding="utf-8").partition("<body")[0]
        assert not ASKED.findall(re.sub(r'<link rel="?canonical[^>]*>', "", head)), page
    assert "load_corpus" in (site / "reference" / "data.html").read_text(encoding="utf-8")
