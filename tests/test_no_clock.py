"""The default tests pass or fail by what the code does, however busy the machine is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
CLOCKS = {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time"}
APART = {"slow", "cluster", "browser", "chaos", "gpu"}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def names(*nodes: ast.AST) -> set[str]:
    found = [n for node in nodes for n in ast.walk(node)]
    return {n.attr for n in found if isinstance(n, ast.Attribute)} | {n.id for n in found if isinstance(n, ast.Name)}


def test_no_default_test_reads_a_clock_that_measures_durations():
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        whole = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"]
        for test in functions(tree):
            if names(*whole, *test.decorator_list) & APART:
                continue
            if names(test) & CLOCKS:
                found.append(f"{path.relative_to(TESTS)}: {test.name}")
    assert found == [], "measure growth (tests/growth.py), count calls, or mark the test slow"
