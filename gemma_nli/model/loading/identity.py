"""Which encoder this is: from a hub id or a folder to files on this disk and a hash of their contents."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from gemma_nli.base.errors import EncoderError, did_you_mean
from gemma_nli.config import ModelConfig, expanded
from gemma_nli.model.loading.folder_files import check_weights_choice, read_mapping, shard_names
from gemma_nli.model.loading.sentence_folder import transformer_folder
from gemma_nli.model.loading.sentence_modules import (
    SentenceModules,
    is_native,
    named_prompts,
    native_modules,
    read_sentence_modules,
)

WEIGHTS_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = re.compile(
    r"(tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(txt|json)|merges\.txt|.*\.(model|spm)|chat_template.*"
    r"|bpe\.codes|vocab\.bpe|dict\.txt|(entity|target)_vocab\.json|vocab-(src|tgt)\.json|word_(shape|pronunciation)\.json"
    r"|byte_maps\.json|emoji\.json|normalizer\.json|tekken\.json|prophetnet\.tokenizer|tokenizer\.model\..+|.*\.tiktoken)"
)
"""What the tokenizer classes of transformers read (their `vocab_files_names`; a test holds this to them)."""
_ENCODED_AS_EVER = {
    "albert", "bert", "camembert", "cohere", "cohere2", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "eurobert", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "granite", "llama", "ministral",
    "mistral", "mixtral", "modernbert", "modernbert-decoder", "mpnet", "nomic_bert", "olmo", "olmo2", "phi", "phi3",
    "qwen2", "qwen3", "rembert", "roberta", "smollm3", "stablelm", "starcoder2", "xlm-roberta",
}  # fmt: skip
"""Kinds of encoder whose states were right in versions before the probe, as measured by `python -m benchmarks
families`.
"""
_ROPE_BY_LENGTH = re.compile(r'"(rope_)?type": "(dynamic|longrope|su)"')
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt"]
_UNWANTED = ["[!0-9]*/*", "*/*/*"]
"""Only the subfolders of sentence-transformers are used (0_Transformer, 1_Pooling): no onnx, no openvino."""
_WANTED += ["*.codes", "*.bpe", "*.tokenizer", "*.tiktoken", "tokenizer.model.*"]

_digests: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class EncoderIdentity:
    """Equal fingerprints mean equal states, wherever the files are; `revision`: the hub's commit, None for a folder."""

    name: str
    revision: str | None
    fingerprint: str


def identify_encoder(model: ModelConfig) -> EncoderIdentity:
    """The identity of `model.name`, without loading weights: sha256 over configuration, weights and tokenizer files.

    Under native pooling the folder's modules, their weights and its prompts are hashed, too; else the prompts that a
    template names.

    Raises:
        EncoderError: no such folder or cached model, or the folder is not a safetensors model; or native pooling is
            requested of a folder that says nothing about its vectors, or what cannot be applied.
    """
    folder = encoder_folder(model)
    return identify_folder(model.name, folder, native_modules(model, folder), named_prompts(model, folder))


def identify_folder(
    name: str, folder: Path, modules: SentenceModules | None = None, prompts: Mapping[str, str] | None = None
) -> EncoderIdentity:
    """
    Args:
        prompts: the folder's prompts that the settings' templates name, whose texts stand in no other file hashed.
    """
    total = _files_hash(folder)
    if prompts:
        total.update(f"{json.dumps(dict(prompts), sort_keys=True)}\n".encode())
    if modules is not None:
        weights = [file_digest(step.weights) for step in modules.steps if step.weights is not None]
        total.update(f"{modules.described()}\0{weights}\n".encode())
        if _reads_pairs_as_one_segment(folder):
            total.update(b"pairs as one segment\n")
    if not _encoded_as_ever(folder):
        total.update(b"encoded as transformers does it alone\n")
    root = next((place for place in (folder, folder.parent) if place.parent.name == "snapshots"), None)
    commit = None if root is None else root.name
    return EncoderIdentity(name=name, revision=commit, fingerprint=total.hexdigest())


def _reads_pairs_as_one_segment(folder: Path) -> bool:
    """Whether encode() gives this BERT no segment ids, its tokenizer being of no kind that makes them unasked; versions
    before gave it some."""
    settings = read_mapping(folder / "config.json")
    if settings.get("type_vocab_size", 0) in (0, 1):
        return False
    path = folder / "tokenizer_config.json"
    tokenizer = read_mapping(path) if path.is_file() else {}
    names, kind = tokenizer.get("model_input_names"), tokenizer.get("tokenizer_class")
    if isinstance(names, list):
        return "token_type_ids" not in names
    return kind in (None, "PreTrainedTokenizerFast", "TokenizersBackend")


def is_of_an_earlier_encoding(folder: Path, fingerprint: str) -> bool:
    """Whether a fingerprint is of this folder's files, made by a version that gave them different states."""
    return not _encoded_as_ever(folder) and _files_hash(folder).hexdigest() == fingerprint


def _files_hash(folder: Path) -> hashlib._Hash:
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *weight_files(folder), *tokenizer_files(folder)]):
        total.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return total


def _encoded_as_ever(folder: Path) -> bool:
    """Whether versions before the probe gave this kind of encoder the states that it has now: then stored results
    are still right. Others got positions, segments or batches that changed their states."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = content.get("model_type")
    except (OSError, ValueError, AttributeError):
        return True  # refused with an error when it is loaded
    return kind in _ENCODED_AS_EVER and not _ROPE_BY_LENGTH.search(json.dumps(content))


def file_digest(path: Path) -> str:
    """sha256 of a file, read once per process while its size and modification time are unchanged."""
    real = path.resolve()
    stat = real.stat()
    key = (str(real), stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        with real.open("rb") as stream:
            _digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _digests[key]


def encoder_folder(model: ModelConfig) -> Path:
    """The folder of `model.name`: itself, or the hub's snapshot, a cached one first, so that a sweep keeps its commit.

    Raises:
        EncoderError: nothing is found, or what is found cannot be read safely; says where and how to fix it.
    """
    folder = expanded(model.name)
    if folder.is_dir():
        found = transformer_folder(folder.absolute())
    elif folder.is_absolute() or model.name.startswith((".", "~")) or not _HUB_ID.fullmatch(model.name):
        raise EncoderError(f"model.name: {model.name}: no such folder{_near_folder(folder)}")
    else:
        found = transformer_folder(_snapshot(model))
    _check_folder(model.name, found)
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: one, or the shards its index names."""
    single, index = folder / "model.safetensors", folder / WEIGHTS_INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    shards = shard_names(index)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise EncoderError(
            f"model.name: {folder}: {len(missing)} of {len(shards)} weight files are missing, first {missing[0]}; "
            "download or copy the model again."
        )
    return [folder / shard for shard in shards]


def tokenizer_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and is_tokenizer_file(p.name))


def is_tokenizer_file(name: str) -> bool:
    return _TOKENIZER_FILES.fullmatch(name) is not None


def is_wanted(name: str) -> bool:
    """Whether the file is downloaded."""
    unwanted = any(fnmatch(name, pattern) for pattern in _UNWANTED)
    return not unwanted and any(fnmatch(name, pattern) for pattern in _WANTED)


def _check_folder(name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise EncoderError(
            f"model.name: {name} contains an adapter, which needs its base model; merge them and save the full model."
        )
    if not (folder / "config.json").is_file():
        raise EncoderError(f"model.name: {name}: no config.json in {folder}; name a folder written by save_pretrained.")
    check_weights_choice(name, read_mapping(folder / "config.json"), folder / "config.json")
    if not weight_files(folder):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise EncoderError(
            f"model.name: {name}: no model.safetensors in {folder}"
            + (
                "; pickled weights are not read: load them and save them once as safetensors (save_pretrained)."
                if pickled
                else "."
            )
        )
    if not tokenizer_files(folder):
        raise EncoderError(
            f"model.name: {name}: no tokenizer files in {folder}; save the tokenizer in the model's folder."
        )


def _near_folder(folder: Path) -> str:
    parent = folder.parent
    if not parent.is_dir():
        return f"; {parent} does not exist either."
    near = did_you_mean(folder.name, [p.name for p in parent.iterdir() if p.is_dir()])
    return near if near.startswith("; did you mean") else "; give a folder with config.json, or a hub id (org/name)."


def _snapshot(model: ModelConfig) -> Path:
    """The hub's files of one commit; downloads only what the cache lacks, and only if the hub may be used."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    asked = model.name + (f" at revision {model.revision}" if model.revision else "")
    options: dict[str, Any] = {"repo_id": model.name, "revision": model.revision}
    options |= {"allow_patterns": _WANTED, "ignore_patterns": _UNWANTED}
    try:
        cached = Path(snapshot_download(**options, local_files_only=True))
        if weight_files(transformer_folder(cached)):
            if constants.HF_HUB_OFFLINE or not is_native(model):
                return cached
            read_sentence_modules(transformer_folder(cached))  # transformers alone does not download the modules
            return cached
    except (LocalEntryNotFoundError, EncoderError):
        pass
    cache = constants.HF_HUB_CACHE
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(
            f"model.name: {asked} is neither a folder nor in the cache {cache}, and HF_HUB_OFFLINE is set"
            f"{_near_cached(model.name, Path(cache))}"
        )
    try:
        return Path(snapshot_download(**options))
    except GatedRepoError:
        raise EncoderError(
            f"model.name: {asked} is gated: accept its terms at https://huggingface.co/{model.name}, set HF_TOKEN to a "
            "token of that account (or `hf auth login`), or name a local folder: model.name=/path/to/folder."
        ) from None
    except RepositoryNotFoundError:
        near = _near_cached(model.name, Path(cache))
        raise EncoderError(f"model.name: the hub has no model {asked}, or HF_TOKEN has no access to it{near}") from None
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise EncoderError(
            f"model.name: {asked} is neither a folder nor in the cache {cache}, and the hub cannot be reached from "
            f"here ({type(error).__name__}); on a machine with a network: hf download {model.name} --local-dir DIR; "
            "copy DIR here, and set model.name=DIR."
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise EncoderError(
            f"model.name: {asked} is neither a folder nor in the cache {cache}, and downloading it failed "
            f"({type(error).__name__}: {reason}){_near_cached(model.name, Path(cache))}"
        ) from None


def _near_cached(name: str, cache: Path) -> str:
    repos = [p.name.removeprefix("models--").replace("--", "/") for p in cache.glob("models--*")]
    for near in (did_you_mean(name, repos), _near_folder(Path(name))):
        if near.startswith("; did you mean"):
            return near
    return (
        "; check the spelling, give a local folder, or download it first "
        "(`hf download`; gated models need `hf auth login`)."
    )
