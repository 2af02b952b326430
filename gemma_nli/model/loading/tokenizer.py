"""A folder's tokenizer, or the reason why what transformers loads from it cannot read English for this model.

Without its vocabulary a tokenizer still loads: five special tokens, and every text unknown or empty.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import EncoderError
from gemma_nli.model.loading.folder_files import one_line
from gemma_nli.model.loading.identity import tokenizer_files
from gemma_nli.model.loading.network import quietly

log = logging.getLogger(__name__)
SENTENCES = (
    "For weeks I have slept badly, and by noon I am too tired to answer a message.",
    "She walked home alone; nothing is fun anymore and my mother worries about me.",
    "We could not eat, but the doctor said it would help to go outside every day.",
)
CASES = ("I told Dr. Müller on Monday: NOTHING helps.", "Café, naïve, DON'T   stop -- it's 7:30 pm!")
_WORDS = sorted({word for text in SENTENCES for word in re.findall(r"[a-z]{2,}", text)})
_FAR_SMALLER, _SMALLER = 0.5, 0.9
"""Shares of the embedding table: tables are padded by 5% at most (Pythia, Phi), Gemma's are smaller than its tokens."""
_reported: set[tuple[str, str]] = set()


def load_tokenizer(name: str, folder: Path) -> Any:
    """The tokenizer of a folder, as plain transformers gives it.

    Raises:
        EncoderError: it cannot be loaded from the folder's files; says which are missing, or which package to install.
    """
    from transformers import AutoTokenizer

    advised = _advice(folder)
    try:
        with quietly() if advised else nullcontext():  # what is missing is reported once, here
            found = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
            found(_WORDS[0])  # a setting of a wrong type (model_max_length: "x") only fails when a text is read
            return found
    except Exception as error:  # noqa: BLE001 - transformers raises what its readers of vocabularies raise, bare Exception too
        advice = advised or one_line(error)
        raise EncoderError(f"model.name: the tokenizer of {name} cannot be loaded: {advice}") from None


def check_vocabulary(name: str, tokenizer: Any, rows: int, folder: Path) -> list[str]:
    """Whether the tokenizer reads ordinary English into ids of an embedding table of `rows`.

    Returns:
        What is unusual about it but may be intended.
    Raises:
        EncoderError: it does not.
    """
    size, advice = len(tokenizer), _advice(folder) or "copy or download the tokenizer's files again."
    if size < _FAR_SMALLER * rows:
        raise EncoderError(
            f"model.name: {name}: its tokenizer has {size} tokens, its embeddings {rows} rows: this is not the "
            f"tokenizer that the model was trained with; {advice}"
        )
    read = _words_read(tokenizer)
    if len(read) < len(_WORDS) / 2:
        raise EncoderError(
            f"model.name: {name}: its tokenizer reads {len(read)} of {len(_WORDS)} ordinary English words, the others "
            f"are unknown or empty; {advice}"
        )
    letters = sum(map(len, _WORDS))
    if sum(len(ids) for ids in read.values()) > 0.9 * letters and _holds_words(tokenizer):
        raise EncoderError(
            f"model.name: {name}: its tokenizer splits every word into letters, although its vocabulary has whole "
            f"words: its merges are missing; {advice}"
        )
    largest = max(i for text in SENTENCES for i in tokenizer(text)["input_ids"])
    if largest >= rows:
        raise EncoderError(
            f"model.name: {name}: its tokenizer gives token {largest} for ordinary English, but its embeddings have "
            f"{rows} rows; {advice}"
        )
    odd = _overridden(tokenizer, folder)
    if size < _SMALLER * rows:
        odd.insert(
            0, f"its tokenizer has {size} tokens, its embeddings {rows} rows; make sure that they belong together."
        )
    return odd


def lower_cased(name: str, tokenizer: Any) -> None:
    """Make a tokenizer read lower case, as sentence-transformers does for `do_lower_case`.

    Raises:
        EncoderError: it is none of the tokenizers library's.
    """
    from tokenizers.normalizers import Lowercase, Sequence

    if not tokenizer.is_fast:
        raise EncoderError(
            f"model.pooling_strategy: native cannot lower the case for {name}: its {type(tokenizer).__name__} is none "
            "of the tokenizers library's; save it once as tokenizer.json."
        )
    backend = tokenizer.backend_tokenizer
    own = backend.normalizer
    backend.normalizer = Sequence([Lowercase()] if own is None else [Lowercase(), own])


def report_remarks(name: str, remarks: Iterable[str]) -> None:
    """Warn about what `check_vocabulary` found unusual, once per process."""
    for remark in remarks:
        if (name, remark) not in _reported:
            _reported.add((name, remark))
            log.warning("model.name: %s: %s", name, remark)


def _words_read(tokenizer: Any) -> dict[str, tuple[int, ...]]:
    """Words that have ids of their own, none of them unknown."""
    found = tokenizer(_WORDS, add_special_tokens=False)["input_ids"]
    ids_by_word = dict(zip(_WORDS, map(tuple, found), strict=True))
    counts: dict[tuple[int, ...], int] = {}
    for ids in ids_by_word.values():
        counts[ids] = counts.get(ids, 0) + 1
    unknown = tokenizer.unk_token_id
    return {word: ids for word, ids in ids_by_word.items() if ids and unknown not in ids and counts[ids] == 1}


def _holds_words(tokenizer: Any) -> bool:
    vocabulary = tokenizer.get_vocab()
    forms = ("{}", "Ġ{}", "▁{}", "{}</w>")
    return sum(any(form.format(word) in vocabulary for form in forms) for word in _WORDS) >= 5


def _overridden(tokenizer: Any, folder: Path) -> list[str]:
    """Where tokenizer.json and the class that reads it disagree: most often about upper case."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file() or not getattr(tokenizer, "is_fast", False):
        return []
    try:
        own = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - tokenizers raises a bare Exception
        return [f"tokenizer.json cannot be read on its own: {one_line(error)}"]
    own.no_truncation()
    own.no_padding()

    def by_itself(text: str) -> list[str]:
        return list(own.encode(text, add_special_tokens=False).tokens)

    differ = [text for text in (*SENTENCES, *CASES) if by_itself(text) != tokenizer.tokenize(text)]
    if not differ:
        return []
    shown = next((word for word in differ[0].split() if by_itself(word) != tokenizer.tokenize(word)), differ[0])
    theirs, kind = " ".join(by_itself(shown)), type(tokenizer).__name__
    return [
        f"tokenizer.json reads {shown!r} as {theirs}, but {kind}, which tokenizer_config.json names, as "
        f"{' '.join(tokenizer.tokenize(shown))}; the second is used, as plain transformers does. To read "
        'tokenizer.json as it is, set "tokenizer_class": "PreTrainedTokenizerFast", or correct do_lower_case.'
    ]


def _advice(folder: Path) -> str:
    """What the folder's files say about a missing tokenizer; empty if they say nothing."""
    names = [path.name for path in tokenizer_files(folder)]
    if "tokenizer.json" in names:
        return ""
    models = [name for name in names if re.search(r"\.(model|spm)(\.|$)", name)]
    if models:
        kind = "tiktoken" if _is_tiktoken(folder / models[0]) else "sentencepiece"
        packages = [kind] if kind == "tiktoken" else [kind, "protobuf"]
        modules = {"protobuf": "google.protobuf"}
        if any(importlib.util.find_spec(modules.get(package, package)) is None for package in packages):
            both = " and ".join(packages)
            return (
                f"its vocabulary is only {models[0]}, which transformers reads with {both}: "
                f"{install_line(*packages)}, or save the tokenizer once as tokenizer.json."
            )
        return ""
    kind, wanted = _files_it_reads(folder)
    if any(name in names for name in wanted):
        wanted = [name for name in wanted if name != "tokenizer.json"]
    lacking = [name for name in wanted if name not in names]
    if not lacking:
        return ""
    return (
        f"its vocabulary is missing: {kind} reads {', '.join(wanted)}, and {folder} lacks {', '.join(lacking)}; "
        "copy the file from where the model came from."
    )


def _is_tiktoken(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\s", file.read(200)) is not None


def _files_it_reads(folder: Path) -> tuple[str, list[str]]:
    """The tokenizer's class as tokenizer_config.json names it, and the files that this class reads."""
    import transformers

    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        kind = str(settings["tokenizer_class"])
        files = getattr(transformers, kind, None)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError):
        return "the tokenizer", ["tokenizer.json"]
    named = getattr(files, "vocab_files_names", {"tokenizer_file": "tokenizer.json"})  # ByT5's bytes need no file: {}
    return kind, sorted({str(name) for name in named.values()})
