"""What stands around posts and criteria: templates of the settings, or the prompts of a sentence-transformers folder,
before a text as `encode()` puts them there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.config.templates import PLACES, read_template, shown_template
from gemma_nli.model.loading import tokenizer as vocabulary
from gemma_nli.model.loading.folder_files import one_line
from gemma_nli.model.loading.identity import encoder_folder, file_digest, tokenizer_files
from gemma_nli.model.loading.sentence_modules import SentenceModules, named_prompt, native_modules
from gemma_nli.model.text_frames import Frame, check_room, frame_of, tokenize_framed
from gemma_nli.model.tokens import Tokens

if TYPE_CHECKING:
    from gemma_nli.model.encoder import Encoder


Prompt: TypeAlias = str | Frame
"""What stands before a text, or the frame that it (or its pair) is set into."""


@dataclass(frozen=True)
class Prompts:
    """`premise` stands before a post, `hypothesis` before a criterion that is encoded alone, `paired` before one in a
    joint pair; `pair` is the frame of joint pairs. All are empty unless the pooling is native or there are templates.
    """

    premise: Prompt = ""
    hypothesis: Prompt = ""
    paired: str = ""
    pair: Frame | None = None

    def pairs(
        self, premises: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[list[str], list[str], tuple[Prompt, ...] | None]:
        """What `Encoder.tokenize` takes for joint pairs: posts, criteria, and the posts' prompts if there are any."""
        before: Prompt = self.pair or self.premise
        prompts = (before,) * len(premises) if before else None
        return list(premises), [self.paired + text for text in hypotheses], prompts

    def alone(
        self, premises: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[list[str], None, tuple[Prompt, ...] | None]:
        """The same for texts encoded alone: the posts, then the criteria."""
        prompts = (self.premise,) * len(premises) + (self.hypothesis,) * len(hypotheses)
        return [*premises, *hypotheses], None, prompts if any(prompts) else None


def prompts_of(model: ModelConfig) -> Prompts:
    """The prompts and templates that the settings ask for, with what the encoder's folder says of them.

    Raises:
        EncoderError: the folder has no prompt of that name, no chat template, or cannot be used by native pooling.
    """
    folder = encoder_folder(model)
    modules = native_modules(model, folder)
    frames = {setting: _framed(model, setting, folder, modules) for setting in PLACES}
    if any(frame is not None for frame in frames.values()):  # which stand in place of the folder's prompts
        pair = frames["template"]
        assert not isinstance(pair, str)
        return Prompts(frames["premise_template"] or "", frames["hypothesis_template"] or "", "", pair)
    if modules is None:
        return Prompts()
    named = modules.prompt(model.hypothesis_prompt, "model.hypothesis_prompt")
    return Prompts(
        modules.prompt(model.premise_prompt, "model.premise_prompt"),
        named,
        "" if model.hypothesis_prompt is None else named,
    )


def _framed(model: ModelConfig, setting: str, folder: Path, modules: SentenceModules | None) -> Prompt | None:
    text = getattr(model, setting)
    found = read_template(text, PLACES[setting])
    source = f"model.{setting} {shown_template(text)}"
    if isinstance(found, str):
        if modules is not None:
            return modules.prompt(found, f"model.{setting}")
        return Frame((named_prompt(folder, found, f"model.{setting}"), ""), PLACES[setting], True, source)
    if found is None:
        return None
    return frame_of(found, source, lambda message: _in_chat(model.name, folder, message, source))


def _in_chat(name: str, folder: Path, message: str, source: str) -> str:
    """A user's message as the encoder's chat template shows it, up to where the answer would begin."""
    from jinja2 import TemplateError

    tokenizer = tokenizer_of(name, folder)
    if tokenizer.chat_template is None:
        raise EncoderError(
            f"{source} asks for the encoder's chat template, and {name} has none; write the template without `chat:`, "
            "or take an instruction-tuned model."
        )
    try:
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise EncoderError(f"{source}: the chat template of {name} cannot be applied: {one_line(error)}") from None
    return str(shown)


def tokenizer_of(name: str, folder: Path) -> Any:
    """The tokenizer of a folder, read once per process while its files are unchanged; it must not be changed."""
    return _tokenizer(name, folder, tuple(file_digest(path) for path in tokenizer_files(folder)))


@functools.lru_cache(maxsize=4)
def _tokenizer(name: str, folder: Path, digests: tuple[str, ...]) -> Any:
    return vocabulary.load_tokenizer(name, folder)


def tokenize_prompted(
    encoder: Encoder, premises: Sequence[str], hypotheses: Sequence[str] | None, prompts: Sequence[Prompt]
) -> Tokens:
    """Texts (or pairs) behind their prompts, or in their frames, as `Encoder.tokenize` gives them."""
    framed = [row for row, prompt in enumerate(prompts) if isinstance(prompt, Frame)]
    frames = [prompt for prompt in prompts if isinstance(prompt, Frame)]
    other = [row for row, prompt in enumerate(prompts) if not isinstance(prompt, Frame)]
    before = [prompt for prompt in prompts if not isinstance(prompt, Frame)]
    parts = []
    if framed:
        texts, partners = ([each[row] for row in framed] if each else None for each in (premises, hypotheses))
        assert texts is not None
        segments = encoder.segments
        found = tokenize_framed(encoder.tokenizer, encoder.max_length, frames, texts, partners, segments)
        parts.append((framed, encoder.usable(*found)))
    if other:
        whole = [prompt + premises[row] for prompt, row in zip(before, other, strict=True)]
        tokens = encoder.tokenize(whole, None if hypotheses is None else [hypotheses[row] for row in other])
        if encoder.sentence_modules is not None and encoder.sentence_modules.leaves_prompt_out:
            sizes = {prompt: encoder.prompt_tokens(prompt) for prompt in set(before)}
            tokens = replace(tokens, prompts=[sizes[prompt] for prompt in before])
        parts.append((other, tokens))
    return Tokens.merged(parts)


def check_templates(model: ModelConfig, criteria: Sequence[str]) -> None:
    """Whether the settings' templates can be used, and leave room for a post beside the longest criterion.

    Raises:
        EncoderError: they cannot, or leave none.
    """
    prompts = prompts_of(model)
    each = [(prompts.pair, criteria), (prompts.premise, None), (prompts.hypothesis, criteria)]
    framed = [(frame, partners) for frame, partners in each if isinstance(frame, Frame)]
    if not framed:
        return
    folder = encoder_folder(model)
    tokenizer, modules = tokenizer_of(model.name, folder), native_modules(model, folder)
    own = model.max_length if modules is None else modules.max_length or tokenizer.model_max_length
    for frame, partners in framed:
        check_room(tokenizer, min(model.max_length, own), frame, partners)


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
