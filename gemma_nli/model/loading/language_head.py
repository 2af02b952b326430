"""A language model's own answer: its output matrix at the tokens of yes and no, read from a folder's safetensors.

P(yes) against P(no) needs no more of the head than these rows: the rest of the vocabulary cancels out of their ratio.

Letters: B rows, H hidden, A tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading.folder_files import one_line, read_mapping
from gemma_nli.model.loading.identity import encoder_folder, weight_files
from gemma_nli.model.loading.tokenizer import load_tokenizer

WORDS = ("yes", "no")
_BLANKS = "▁Ġ "
"""How vocabularies write the blank before a word."""
_SCALES = {"logit_scale": 1.0, "lm_head_multiplier": 1.0, "logits_scaling": -1.0}
"""Settings of some families by which logits are multiplied (1) or divided (-1)."""


@dataclass(frozen=True)
class AnswerHead:
    """What turns a last state into log P(yes) - log P(no).

    Args:
        rows_AH: the output matrix at all tokens of both answers.
        is_yes_A: which of them say yes.
        words: these tokens as the vocabulary writes them, for reports.
    """

    rows_AH: Tensor
    bias_A: Tensor
    is_yes_A: Tensor
    words: tuple[str, ...]
    scale: float = 1.0
    softcap: float | None = None

    def log_odds(self, h_BH: Tensor) -> Tensor:
        """(B,) of last hidden states as the model's own head takes them (after the final norm)."""
        logits_BA = (h_BH.float() @ self.rows_AH.T + self.bias_A) * self.scale
        if self.softcap is not None:
            logits_BA = torch.tanh(logits_BA / self.softcap) * self.softcap
        yes_B = torch.logsumexp(logits_BA[:, self.is_yes_A], dim=1)
        return yes_B - torch.logsumexp(logits_BA[:, ~self.is_yes_A], dim=1)


def read_answer_head(model: ModelConfig) -> AnswerHead:
    """The head of `model.name` at yes and no, in every casing and with or without a blank before it.

    Raises:
        EncoderError: it has none (BERT, EmbeddingGemma), or one that does more than multiply; says which.
    """
    folder = encoder_folder(model)
    why = why_no_language_head(model)
    if why:
        raise EncoderError(why)
    tokens = _answer_tokens(model.name, load_tokenizer(model.name, folder))
    ids = [token for token, _, _ in tokens]
    matrix, bias = _output_names(model.name, folder)
    config = _text_config(folder)
    scale = 1.0
    for setting, power in _SCALES.items():
        if isinstance(config.get(setting), (int, float)):
            scale *= float(config[setting]) ** power
    softcap = config.get("final_logit_softcapping")
    return AnswerHead(
        rows_AH=_rows(folder, matrix, ids),
        bias_A=torch.zeros(len(ids)) if bias is None else _rows(folder, bias, ids),
        is_yes_A=torch.tensor([word == "yes" for _, word, _ in tokens]),
        words=tuple(text for _, _, text in tokens),
        scale=scale,
        softcap=float(softcap) if softcap else None,
    )


def why_no_language_head(model: ModelConfig) -> str:
    """A sentence that says why this encoder cannot be asked yes or no; empty if it can. Reads config.json only."""
    content = read_mapping(encoder_folder(model) / "config.json")
    made = content.get("architectures") or []
    kind = str(made[0]) if isinstance(made, list) and made else ""
    if kind not in _language_models() or content.get("is_encoder_decoder"):
        what = f"its config.json says {kind}" if kind else "its config.json names no architecture"
        return f"model.name: {model.name} has no language-model head to answer yes or no with ({what})."
    return ""


def _language_models() -> set[str]:
    """Classes of transformers that continue a text."""
    from transformers.models.auto import modeling_auto

    tables = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    names = [name for table in tables for name in table.values()]
    return {each for name in names for each in ((name,) if isinstance(name, str) else name)}


def _text_config(folder: Path) -> Mapping[str, Any]:
    """The settings of the text part, with the defaults of its family."""
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{folder / 'config.json'}: cannot be read: {one_line(error)}") from None
    settings: Mapping[str, Any] = {**whole.to_dict(), **whole.get_text_config().to_dict()}
    return settings


def _answer_tokens(name: str, tokenizer: Any) -> list[tuple[int, str, str]]:
    """(id, `yes` or `no`, the token as written) of each token that is one of the words alone, by id."""
    found = []
    for text, token in tokenizer.get_vocab().items():
        word = text.strip(_BLANKS).casefold()
        if word in WORDS and token < len(tokenizer):
            found.append((int(token), word, str(text)))
    for word in WORDS:
        if not any(other == word for _, other, _ in found):
            raise EncoderError(f"model.name: {name}: its vocabulary has no token '{word}', so it cannot be asked.")
    return sorted(found)


def _output_names(name: str, folder: Path) -> tuple[str, str | None]:
    """Names, in the weight files, of the output matrix and its bias; the input's if config.json ties the two."""
    names = [key for path in weight_files(folder) for key in _keys(path)]
    wanted = ("lm_head.weight", "embed_out.weight", "output.weight")
    matrix = next((key for end in wanted for key in names if key == end or key.endswith(f".{end}")), None)
    if matrix is not None:
        bias = matrix.removesuffix("weight") + "bias"
        return matrix, bias if bias in names else None
    if _text_config(folder).get("tie_word_embeddings"):
        inputs = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
        tied = [key for end in inputs for key in names if key == end or key.endswith(f".{end}")]
        if tied:
            return tied[0], None
    raise EncoderError(f"model.name: {name}: its weight files contain no output matrix (lm_head.weight).")


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _rows(folder: Path, name: str, ids: list[int]) -> Tensor:
    """Some rows of a tensor, in float32; the others are not read."""
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                rows = file.get_slice(name)
                return torch.cat([rows[token : token + 1] for token in ids]).float()
    raise AssertionError(f"{name} was found before")
