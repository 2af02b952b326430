"""The prompts of a sentence-transformers folder, before posts and criteria as `encode()` puts them before a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.loading import tokenizer as vocabulary
from gemma_nli.model.loading.identity import encoder_folder
from gemma_nli.model.loading.sentence_modules import SentenceModules, native_modules

if TYPE_CHECKING:
    from gemma_nli.model.encoder import Encoder


@dataclass(frozen=True)
class Prompts:
    """`premise` stands before a post, `hypothesis` before a criterion that is encoded alone, `paired` before one in a
    joint pair. All are empty unless the pooling is native."""

    premise: str = ""
    hypothesis: str = ""
    paired: str = ""

    @classmethod
    def of(cls, model: ModelConfig, modules: SentenceModules | None) -> Prompts:
        if modules is None:
            return cls()
        named = modules.prompt(model.hypothesis_prompt, "model.hypothesis_prompt")
        return cls(
            modules.prompt(model.premise_prompt, "model.premise_prompt"),
            named,
            "" if model.hypothesis_prompt is None else named,
        )

    def pairs(
        self, premises: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[list[str], list[str], tuple[str, ...] | None]:
        """What `Encoder.tokenize` takes for joint pairs: posts, criteria, and the posts' prompts if there are any."""
        prompts = (self.premise,) * len(premises) if self.premise else None
        return list(premises), [self.paired + text for text in hypotheses], prompts

    def alone(
        self, premises: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[list[str], None, tuple[str, ...] | None]:
        """The same for texts encoded alone: the posts, then the criteria."""
        prompts = (self.premise,) * len(premises) + (self.hypothesis,) * len(hypotheses)
        return [*premises, *hypotheses], None, prompts if any(prompts) else None


def prompts_of(model: ModelConfig) -> Prompts:
    """The prompts that the settings ask for, read from the encoder's folder.

    Raises:
        EncoderError: the folder has no prompt of that name, or cannot be used by native pooling.
    """
    return Prompts.of(model, native_modules(model, encoder_folder(model)))


def text_length(model: ModelConfig, modules: SentenceModules | None, tokenizer: Any, network: Any) -> int:
    """Tokens that a text keeps: under native pooling no more than the folder's own."""
    if modules is None:
        return model.max_length
    positions = getattr(network.config, "max_position_embeddings", None)
    own = [tokenizer.model_max_length, *([positions] if isinstance(positions, int) and positions > 0 else [])]
    return int(min([model.max_length, *([modules.max_length] if modules.max_length is not None else own)]))


def read_natively(encoder: Encoder, modules: SentenceModules) -> None:
    """Reads texts as the folder asks for, once the tokenizer has been looked through as its files have it."""
    modules.width(encoder.hidden_size)
    if modules.lower_case:
        vocabulary.lower_cased(encoder.identity.name, encoder.tokenizer)
    for setting, prompt in (("premise", encoder.prompts.premise), ("hypothesis", encoder.prompts.hypothesis)):
        taken = encoder.prompt_tokens(prompt)
        if taken + 2 > encoder.max_length:
            raise EncoderError(
                f"model.{setting}_prompt: the prompt takes {taken} tokens of {encoder.max_length}; raise "
                "model.max_length, or set another prompt."
            )
