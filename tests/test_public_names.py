"""What `gemma_nli` exports: every name is listed, is real, is typed, and costs nothing until it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gemma_nli
from gemma_nli.base import errors

SOURCE = Path(gemma_nli.__file__)
PUBLIC = [name for name in gemma_nli.__all__ if name != "__version__"]


def test_dir_lists_the_public_names_and_no_others():
    assert dir(gemma_nli) == sorted(gemma_nli.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_had_and_says_what_it_is(name):
    assert inspect.getdoc(getattr(gemma_nli, name))


def test_a_type_checker_sees_the_very_names_that_a_program_gets():
    (block,) = [node for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == gemma_nli._MODULE_OF
    assert sorted(seen) == sorted(PUBLIC)


def test_every_error_of_the_tree_is_public():
    tree = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert tree <= set(PUBLIC)


def test_the_import_loads_no_library_of_anyone_else():
    code = "import sys; before = set(sys.modules); import gemma_nli; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"gemma_nli"}


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'load_sweep'"):
        _ = gemma_nli.load_sweeps
