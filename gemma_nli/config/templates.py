"""The words around a post and a criterion, as a setting gives them: `Post: {premise}\\nStatement: {hypothesis}`.

`native` is the tokenizer's own pair (or the text alone), `chat:` before a template makes it the user's message in the
encoder's chat template, `prompt:NAME` is a prompt of a sentence-transformers folder. A literal brace is written twice.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemma_nli.base.errors import did_you_mean

if TYPE_CHECKING:
    from gemma_nli.config.sections import ModelConfig

NATIVE, CHAT, PROMPT = "native", "chat:", "prompt:"
PREMISE, HYPOTHESIS = "premise", "hypothesis"
PLACES = {
    "template": (PREMISE, HYPOTHESIS),
    "premise_template": (PREMISE,),
    "hypothesis_template": (HYPOTHESIS,),
}
"""The settings of `model` that hold templates, and the places of each."""
_SHOWN = 60


@dataclass(frozen=True)
class Template:
    """`words[i]` stands before the text of `places[i]`, the last of `words` behind all; `chat`: a user's message."""

    words: tuple[str, ...]
    places: tuple[str, ...]
    chat: bool = False


def read_template(text: str, places: tuple[str, ...]) -> Template | str | None:
    """A setting's template, the name of a folder's prompt, or None for `native`.

    Args:
        places: what it must have, each once: `premise`, `hypothesis`, or both.
    Raises:
        ValueError: it lacks a place, has one twice or another one, or is no template at all.
    """
    if text == NATIVE:
        return None
    if text.startswith(PROMPT):
        name = text.removeprefix(PROMPT).strip()
        if not name:
            raise ValueError("prompt: names no prompt; write prompt:NAME, a prompt of the encoder's folder")
        if len(places) > 1:
            raise ValueError(
                f"{text!r} names a prompt, which stands before one text; a pair needs {_braced(places)}: quote the "
                "prompt in the template, or use model.premise_template with model.pair_encoding=separate"
            )
        return name
    chat = text.startswith(CHAT)
    words, found = _parsed(text.removeprefix(CHAT).removeprefix(" ") if chat else text)
    wanted = _braced(places)
    for name in found:
        if name not in places:
            near = did_you_mean(name, places) if name else ""
            near = near if near.startswith("; did") else ""
            raise ValueError(
                f"{shown_template(text)} has the place {{{name}}}; its places are {wanted}{near.rstrip('?')}; a "
                "literal brace is written twice, {{ and }}"
            )
    lacking = [name for name in places if name not in found]
    if lacking:
        raise ValueError(f"{shown_template(text)} lacks {_braced(lacking)}; write {wanted} where the text is to stand")
    twice = [name for name in places if found.count(name) > 1]
    if twice:
        raise ValueError(f"{shown_template(text)} has {_braced(twice)} more than once")
    return Template(words, found, chat)


def check_fit(model: ModelConfig) -> None:
    """A template is for one way of encoding, and stands in place of the folder's prompts.

    Raises:
        ValueError: with both settings and their values.
    """
    given = {name: getattr(model, name) for name in PLACES if getattr(model, name) != NATIVE}
    for name, text in given.items():
        needed = "joint" if name == "template" else "separate"
        if model.pair_encoding != needed:
            takes = "model.premise_template and model.hypothesis_template" if needed == "joint" else "model.template"
            raise ValueError(
                f"model.{name} is {shown_template(text)} but model.pair_encoding is {model.pair_encoding}, which takes "
                f"{takes}; set model.pair_encoding={needed}, or model.{name}=native"
            )
        for prompt in ("premise_prompt", "hypothesis_prompt"):
            named = getattr(model, prompt)
            if named is not None:
                raise ValueError(
                    f"model.{name} is {shown_template(text)} and model.{prompt} is {named!r}; a template stands in "
                    f"place of prompts: set model.{prompt}=null, or model.{name}=native"
                )


def shown_template(text: str) -> str:
    """A template in a message, quoted, shortened in its middle."""
    half = _SHOWN // 2
    return repr(text if len(text) <= _SHOWN else f"{text[:half]} ... {text[-half:]}")


def quoted(words: str) -> str:
    """Words as a template has them, their braces doubled."""
    return words.replace("{", "{{").replace("}", "}}")


def refuse_mapping(value: Any) -> Any:
    """YAML reads `{premise}` and `Post: {premise}` without quotes as mappings; anything else as it is.

    Raises:
        ValueError: a mapping.
    """
    if isinstance(value, dict):
        raise ValueError("must be text; put it in quotes, since YAML reads {...} and `word: ` as a mapping")
    return value


def _parsed(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words, places = [""], []
    try:
        for literal, name, form, conversion in string.Formatter().parse(text):
            words[-1] += literal
            if name is not None:
                places.append(name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else ""))
                words.append("")
    except ValueError:
        raise ValueError(
            f"{shown_template(text)} has a brace that is not closed or not opened; a literal brace is written twice, "
            "{{ and }}"
        ) from None
    return tuple(words), tuple(places)


def _braced(places: tuple[str, ...] | list[str]) -> str:
    return " and ".join(f"{{{name}}}" for name in places)
