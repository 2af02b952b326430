"""A strict reader of the LaTeX that we write: braces and environments balanced, each row as wide as its table, and no
special character that is not escaped."""

from __future__ import annotations

import re

ALLOWED = {
    "begin", "end", "centering", "caption", "label", "resizebox", "ifdim", "width", "linewidth", "else", "fi",
    "toprule", "midrule", "bottomrule", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater",
    "textbar", "textasciigrave", "item", "input", "includegraphics", "documentclass", "usepackage", "title", "date",
    "maketitle", "newcommand",
}  # fmt: skip


def check(text: str) -> None:
    """Raises AssertionError where LaTeX would stop, or set something else than what was written."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    for name in re.findall(r"\\([A-Za-z]+)", body):
        assert name in ALLOWED or name.startswith("gnli"), rf"\{name}"
    named = re.sub(r"\\(label|input|includegraphics\[[^\]]*\])\{[\w:/.]+\}", " ", body)
    plain = re.sub(r"\\[\\{}&%$#_]|\\[A-Za-z]+", " ", named)
    depth = 0
    for character in plain:
        depth += (character == "{") - (character == "}")
        assert depth >= 0, "a brace closes nothing"
    assert depth == 0, "a brace is open"
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert not re.search(r"[#^~_]|\\\Z", plain), "a special character stands for itself"
    for found in re.finditer(r"\$[^$\n]*\$", re.sub(r"\\\$", " ", body)):
        assert re.fullmatch(r"\$-[\d.]+\$", found[0]), found[0]
    assert re.sub(r"\\\$", " ", body).count("$") % 2 == 0


def cells(text: str) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the one table, escapes undone; every row as wide as the table says."""
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    body = text.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
    rows = []
    for line in body.splitlines():
        assert line.endswith(r" \\"), line
        assert not line.startswith(("[", "*")), "the end of the row before takes it for its own"
        found = [plain(part) for part in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))]
        assert len(found) == len(columns), line
        rows.append([part.strip() for part in found])
    return rows[0], rows[1:]


def plain(text: str) -> str:
    """What a reader of the page sees."""
    for written, seen in (
        (r"\textbackslash{}", "\0"), (r"\textasciitilde{}", "~"), (r"\textasciicircum{}", "^"), (r"\textless{}", "<"),
        (r"\textgreater{}", ">"), (r"\textbar{}", "|"), (r"\textasciigrave{}", "`"), ('{"}', '"'), ("{[}", "["),
        ("{]}", "]"), ("{*}", "*"), ("{}", ""),
    ):  # fmt: skip
        text = text.replace(written, seen)
    text = re.sub(r"\$(-[\d.]+)\$", r"\1", text)
    return re.sub(r"\\([{}&%$#_])", r"\1", text).replace("\0", "\\")
