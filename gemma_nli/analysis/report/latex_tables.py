"""The report's own tables as LaTeX (booktabs): the same cells, with every special character of every name escaped."""

from __future__ import annotations

import re

from gemma_nli.analysis.report.report_tables import TableOf
from gemma_nli.base.masking import mask_credentials
from gemma_nli.base.outgoing import one_line

MAX_ROWS = 40
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': '{"}',
    "`": r"\textasciigrave{}",
    "[": "{[}",  # else an option, after the end of a row
    "]": "{]}",
    "*": "{*}",
    "\u200b": "{}",  # one of `_LIGATURES`; a user's own is an escape by now
}
_LIGATURES = re.compile(r"(?<=[-'?!,])(?=[-'`,])")
"""Between two characters that LaTeX would make one: two hyphens a dash."""
_NEGATIVE = re.compile(r"(?<![\w.\-])-(\d+(?:\.\d+)?)(?![\w\-])")


def escaped(text: object) -> str:
    """A user's words as text of one line: nothing in them is a command, and credentials are masked."""
    words = _LIGATURES.sub("\u200b", one_line(mask_credentials(str(text))))
    return "".join(_ESCAPES.get(character, character) for character in words)


def cell(text: str) -> str:
    """The same on one line, with a minus sign before negative numbers: `-0.012 to 0.050` is `$-0.012$ to 0.050`."""
    text, parts, end = " ".join(text.split()), [], 0
    for found in _NEGATIVE.finditer(text):
        parts += [escaped(text[end : found.start()]), f"$-{found[1]}$"]
        end = found.end()
    return "".join([*parts, escaped(text[end:])])


def latex_table(table: TableOf, caption: str, name: str) -> str:
    """A `table` environment, shrunk to the text's width if it is wider; columns that are empty throughout are left out.

    Args:
        caption: plain words.
        name: of the label, `tab:NAME`.
    """
    table = table.without_empty_columns()
    numeric = [bool(table.rows) and all(row[i].number for row in table.rows) for i in range(len(table.header))]
    rows = [" & ".join(cell(each.text) for each in row) + r" \\" for row in table.rows[:MAX_ROWS]]
    left = len(table.rows) - len(rows)
    notes = [caption, table.note, f"The first {len(rows)} of {len(table.rows)} rows." if left > 0 else ""]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{cell(' '.join(note for note in notes if note))}}}",
        rf"\label{{tab:{name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join('r' if is_number else 'l' for is_number in numeric)}}}",
        r"\toprule",
        " & ".join(cell(name) for name in table.header) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
