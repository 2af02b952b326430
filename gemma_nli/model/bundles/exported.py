"""A pair classifier as plain tensors in, logits out: traceable by torch.export and callable from any torch program.

Shapes: B pairs, T tokens of the first sequence, U of the second.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gemma_nli.base.errors import EncoderError
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import PROMPT_TOKENS
from gemma_nli.model.prompts import Prompt

_EXAMPLES = (["a long night without sleep", "fine"], ["sleeps too little, nearly every day", "mood"])


class JointTensors(nn.Module):
    """(B, T) ids and mask of joint sequences, segments if the encoder has them -> logit_B."""

    def __init__(self, classifier: PairClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.prompt_tokens = _left_out(classifier, classifier.encoder.prompts.premise)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits: Tensor = self.classifier(batch | _prompt_tokens(input_ids, self.prompt_tokens))
        return logits


class TypedJointTensors(JointTensors):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:  # type: ignore[override]
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        logits: Tensor = self.classifier(batch | _prompt_tokens(input_ids, self.prompt_tokens))
        return logits


class SeparateTensors(nn.Module):
    """(B, T) ids and mask of the posts, (B, U) of the criteria -> logit_B; a text alone is one segment."""

    def __init__(self, classifier: PairClassifier, typed: bool) -> None:
        super().__init__()
        self.classifier, self.typed = classifier, typed
        prompts = classifier.encoder.prompts
        self.prompt_tokens = [_left_out(classifier, prompt) for prompt in (prompts.premise, prompts.hypothesis)]

    def forward(
        self, premise_ids: Tensor, premise_mask: Tensor, hypothesis_ids: Tensor, hypothesis_mask: Tensor
    ) -> Tensor:
        sides = []
        inputs = ((premise_ids, premise_mask), (hypothesis_ids, hypothesis_mask))
        for (ids, mask), left_out in zip(inputs, self.prompt_tokens, strict=True):
            batch = {"input_ids": ids, "attention_mask": mask} | _prompt_tokens(ids, left_out)
            sides.append(batch | {"token_type_ids": torch.zeros_like(ids)} if self.typed else batch)
        logits: Tensor = self.classifier((sides[0], sides[1]))
        return logits


def _left_out(classifier: PairClassifier, prompt: Prompt) -> int:
    """Tokens of a prompt that the pooling leaves out: the ids that the program is given begin with them."""
    modules = classifier.encoder.sentence_modules
    return classifier.encoder.prompt_tokens(prompt) if modules is not None and modules.leaves_prompt_out else 0


def _prompt_tokens(ids_BT: Tensor, count: int) -> dict[str, Tensor]:
    return {PROMPT_TOKENS: torch.full_like(ids_BT[:, 0], count)} if count else {}


def exportable(classifier: PairClassifier) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module to export and example inputs by name: two pairs of made-up text, all int64 of shape (2, length).

    Raises:
        EncoderError: the encoder takes only rows of equal length, or keeps state from earlier ones: a program of
        tensors
            in and logits out would give a text different logits in different batches.
    """
    encoder, (premises, hypotheses) = classifier.encoder, _EXAMPLES
    manner = encoder.manner
    if "right" not in manner.padding or manner.put_back:
        raise EncoderError(
            f"{encoder.identity.name} gives a text different states in a batch with longer ones or after others, "
            "which an exported program cannot correct; serve the bundle"
        )
    if not classifier.separate:
        batch = encoder.collate(encoder.tokenize(*encoder.prompts.pairs(premises, hypotheses)))
        batch.pop(PROMPT_TOKENS, None)
        typed = "token_type_ids" in batch
        return (TypedJointTensors if typed else JointTensors)(classifier).eval(), batch
    tokens = encoder.tokenize(*encoder.prompts.alone(premises, hypotheses))
    rows = np.arange(len(premises))
    posts, criteria = encoder.collate(tokens, rows), encoder.collate(tokens, rows + len(premises))
    inputs = {"premise_ids": posts["input_ids"], "premise_mask": posts["attention_mask"]}
    inputs |= {"hypothesis_ids": criteria["input_ids"], "hypothesis_mask": criteria["attention_mask"]}
    return SeparateTensors(classifier, "token_type_ids" in posts).eval(), inputs
