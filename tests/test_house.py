"""How the package is built: who may import whom, and how large a file may be (docs/design.md)."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gemma_nli"
MOST_LINES, MOST_PAIRS = 300, 94
# a file per part, named as the part is
REGISTRIES = {"model/pooling", "base/metrics", "search/rules", "tracking/write/artifacts"}
LONGER = {  # files that were longer when this was written; none may grow, and none may join them
    "features/encode_texts.py": 310,
    "model/encoder.py": 334,
    "model/loading/network.py": 321,
    "search/study.py": 337,
    "spec/domain.py": 311,
    "spec/space.py": 306,
}


RENAMES = {  # who gives a file or folder another name, and why it is not `put_in_place`
    "base/files.py": "it is",
    "tracking/archives/archive.py": "into a working folder, which is then exchanged",
    "tracking/archives/exchange.py": "moves listed in a journal of their own",
    "tracking/registry/model_folder.py": "a folder",
}


def files(root: Path = ROOT) -> list[Path]:
    return sorted(root.rglob("*.py"))


def module_of(file: Path, root: Path = ROOT) -> str:
    parts = [root.name, *file.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, modules: set[str]) -> set[str]:
    """The package's modules that a piece of code names in its imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules


def graph(root: Path = ROOT, whole: bool = True) -> dict[str, set[str]]:
    """Module to what it imports; only when it is itself imported, or (`whole`) within functions and for types, too."""
    modules = {module_of(file, root) for file in files(root)}
    found: dict[str, set[str]] = {}
    for file in files(root):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if not whole:
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found[module_of(file, root)] = imports(tree, modules) - {module_of(file, root)}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def circle(root: Path = ROOT) -> list[str]:
    """Modules that import each other in a ring as they load, or nothing."""
    try:
        TopologicalSorter(graph(root, whole=False)).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circle() == []


def test_a_circle_is_seen(tmp_path: Path) -> None:
    (package := tmp_path / "house").mkdir()
    (package / "one.py").write_text("from house.two import b\n")
    (package / "two.py").write_text("import house.one\n")
    assert set(circle(package)) == {"house.one", "house.two"}


def test_few_rooms_know_each_other() -> None:
    pairs = {(room(module), room(other)) for module, others in graph().items() for other in others - {ROOT.name}}
    pairs = {(one, other) for one, other in pairs if one != other}
    assert len(pairs) <= MOST_PAIRS, sorted(pairs)


def test_a_files_name_says_which_one_is_meant() -> None:
    named = [file for file in files() if file.name not in ("__init__.py", "__main__.py")]
    registered = [file for file in named if file.parent.relative_to(ROOT).as_posix() in REGISTRIES]
    names = Counter(file.name for file in named if file not in registered)
    assert {name for name, count in names.items() if count > 1} == set()


def renames(tree: ast.AST) -> bool:
    """Whether code renames what is on a disk; a `replace` with two arguments is a text's, unless it is os's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
            of_os = isinstance(node.func.value, ast.Name) and node.func.value.id in ("os", "shutil")
            if node.func.attr in ("rename", "renames") and (of_os or len(node.args) == 1):
                return True
            if node.func.attr in ("replace", "move") and (of_os or (node.func.attr, len(node.args)) == ("replace", 1)):
                return True
    return False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("os.replace(a, b)", True),
        ("a.replace(b)", True),
        ("os.rename(a, b)", True),
        ("a.rename(b)", True),
        ("shutil.move(a, b)", True),
        ("text.replace('a', 'b')", False),
        ("dataclasses.replace(a, b=1)", False),
    ],
)
def test_a_renaming_is_seen(code: str, expected: bool) -> None:
    assert renames(ast.parse(code)) == expected


def test_a_file_written_completely_or_not_at_all_is_written_in_one_way() -> None:
    found = {str(file.relative_to(ROOT)) for file in files() if renames(ast.parse(file.read_text(encoding="utf-8")))}
    assert found == RENAMES.keys()


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_tells_one_story(file: Path) -> None:
    name = str(file.relative_to(ROOT))
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGER.get(name, MOST_LINES)
