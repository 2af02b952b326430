"""One pair classifier: encoder, pooling and head of a ModelConfig.

Shapes: B rows, T tokens, H hidden, W pooled, D head input (W joint, 4W separate). The leading 1 is the one model of
a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.adapters import load_trainable_state, trainable_encoder, trainable_state
from gemma_nli.model.encoder import PROMPT_TOKENS, Encoder, Tokens
from gemma_nli.model.head_norms import build_head_norm, head_input
from gemma_nli.model.heads import build_head, head_width
from gemma_nli.model.layers import build_layers_pooler
from gemma_nli.model.length_batches import token_batches
from gemma_nli.model.scaling import UNSCALED

__all__ = ["Batch", "PairClassifier", "load_trainable_state", "trainable_encoder", "trainable_state"]

Batch = Mapping[str, Tensor]


class PairClassifier(nn.Module):
    """Texts in, one logit per pair out; its sigmoid is the probability of `matched`.

    `scaling` calibrates the logits of a model that was trained (`training.calibration`); training has none. Dropout
    (`model.dropout`) works before each linear map of the head in training mode. Pooling and head compute in
    float32, whatever the encoder's precision.
    """

    def __init__(self, encoder: Encoder, model: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.separate, self.dropout = encoder, model.pair_encoding == "separate", model.dropout
        self.pooler = build_layers_pooler(model, encoder.choice, encoder.hidden_size, modules=encoder.sentence_modules)
        width = head_width(model, self.pooler.width)
        self.norm = build_head_norm(model.head_norm, width)
        self.head = build_head(model.head, width, model.head_hidden, 1)
        for part in (self.pooler, self.norm, self.head):
            part.to(encoder.device)
        self.scaling = UNSCALED

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial weights of pooling and head."""
        self.pooler.reset(0, generator)
        self.head.reset(0, generator)

    def head_state(self) -> dict[str, Tensor]:
        """Copies of pooling, norm and head on the CPU: `pooler.*`, `norm.*`, `head.*`, each with its leading 1."""
        own = [(n, p) for n, p in self.named_parameters() if not n.startswith("encoder.")]
        return {name: parameter.detach().cpu().clone() for name, parameter in own}

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `head_state`, or one model of a trained stack, gave; `encoder.*` entries are left alone.

        Raises:
            EncoderError: the state belongs to other settings.
        """
        own = {n: p for n, p in self.named_parameters() if not n.startswith("encoder.")}
        given = {n: t for n, t in state.items() if not n.startswith("encoder.")}
        odd = sorted(own.keys() ^ given.keys()) or sorted(n for n in own if own[n].shape != given[n].shape)
        if odd:
            raise EncoderError(f"weights of pooling and head do not fit these settings, first {odd[0]}.")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(given[name])

    def forward(self, batch: Batch | tuple[Batch, Batch]) -> Tensor:
        """logit_B of joint pairs (one batch), or of texts encoded alone (a batch of posts and one of criteria)."""
        if isinstance(batch, tuple):
            return self.classify(self.vectors(batch[0]), self.vectors(batch[1]))
        return self.classify(self.vectors(batch))

    def vectors(self, batch: Batch) -> Tensor:
        """Pooled x_BW in float32."""
        return self.pooled(self.encoder(batch), batch)

    def pooled(self, h_BTH: Tensor, batch: Batch) -> Tensor:
        """The same of the encoder's states of this batch."""
        mask_BT = batch["attention_mask"].to(h_BTH.device)
        with torch.autocast(h_BTH.device.type, enabled=False):
            inputs = [h_BTH.float().unsqueeze(0), mask_BT.unsqueeze(0)]
            if PROMPT_TOKENS in batch:
                inputs.append(batch[PROMPT_TOKENS].to(h_BTH.device).unsqueeze(0))
            x_1BW: Tensor = self.pooler(*inputs)
        return x_1BW[0]

    def classify(self, *sides: Tensor) -> Tensor:
        """logit_B of pooled vectors x_BW: the pairs', or the posts' and the criteria's."""
        with torch.autocast(sides[0].device.type, enabled=False):
            logit_1B: Tensor = self.head(self.norm(self.head_input(*sides)), self._drop)
            logit_B: Tensor = self.scaling.of(logit_1B[0])
        return logit_B

    def head_input(self, *sides: Tensor) -> Tensor:
        """(1, B, D): what the norm is fitted to."""
        return head_input(self.norm, [side.float().unsqueeze(0) for side in sides])

    def _drop(self, x: Tensor, site: int) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def predict(self, premises: Sequence[str], hypotheses: Sequence[str], batch_tokens: int = 4096) -> np.ndarray:
        """(N,) float32 logits in the order asked, computed in batches of similar length, without dropout.

        Texts that are encoded alone are encoded once each.
        """
        return np.asarray(predict_each([self], premises, hypotheses, batch_tokens)[0])

    def by_length(
        self, tokens: Tokens, rows_R: np.ndarray, batch_tokens: int, compute: Callable[[Batch], Tensor]
    ) -> Tensor:
        """(R, ...) float32: what `compute` gives of these rows of `tokens`, in their order; batches of like length."""
        if not len(rows_R):
            return torch.zeros(0)
        batches = [np.asarray(batch) for batch in token_batches(tokens.lengths[rows_R], batch_tokens, least_fill=0.0)]
        found = torch.cat([compute(self.encoder.collate(tokens, rows_R[batch])).float() for batch in batches])
        back = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return found[back.to(found.device)]


@torch.no_grad()
def predict_each(
    classifiers: Sequence[PairClassifier], premises: Sequence[str], hypotheses: Sequence[str], batch_tokens: int = 4096
) -> np.ndarray:
    """(M, N) float32 logits by each of M classifiers, which share one encoder: a text is encoded once for all."""
    first, training = classifiers[0], [each.training for each in classifiers]
    if any(each.encoder is not first.encoder or each.separate != first.separate for each in classifiers):
        raise ValueError("classifiers that predict together share one encoder, and how it is given pairs")
    encoder, prompts = first.encoder, first.encoder.prompts
    for each in classifiers:
        each.eval()

    def of_all(tokens: Tokens, compute: Callable[[PairClassifier, Tensor, Batch], Tensor]) -> Tensor:
        """(B, ...) side by side, on the CPU: what is served may be more than a GPU holds."""

        def batch_of_all(batch: Batch) -> Tensor:
            h_BTH = encoder(batch)
            return torch.cat([compute(each, h_BTH, batch).cpu() for each in classifiers], dim=1)

        return first.by_length(tokens, np.arange(len(tokens)), batch_tokens, batch_of_all)

    try:
        if not first.separate:
            tokens = encoder.tokenize(*prompts.pairs(premises, hypotheses))
            logit_NM = of_all(tokens, lambda each, h_BTH, batch: each.classify(each.pooled(h_BTH, batch))[:, None])
            return logit_NM.reshape(-1, len(classifiers)).T.numpy()
        sides = [[(prompts.premise, t) for t in premises], [(prompts.hypothesis, t) for t in hypotheses]]
        texts = list(dict.fromkeys([*sides[0], *sides[1]]))
        place = {text: row for row, text in enumerate(texts)}
        before = [prompt for prompt, _ in texts]
        tokens = encoder.tokenize([text for _, text in texts], None, before if any(before) else None)
        x_UW = of_all(tokens, lambda each, h_BTH, batch: each.pooled(h_BTH, batch))
        logit_MN = np.zeros((len(classifiers), len(premises)), dtype=np.float32)
        for start in range(0, len(premises), 4096):
            part = slice(start, start + 4096)
            pair = [x_UW[[place[text] for text in side[part]]].to(encoder.device) for side in sides]
            widths, at = [each.pooler.width for each in classifiers], 0
            for row, (each, width) in enumerate(zip(classifiers, widths, strict=True)):
                own = [side[:, at : at + width] for side in pair]
                logit_MN[row, part], at = each.classify(*own).cpu().numpy(), at + width
        return logit_MN
    finally:
        for each, was in zip(classifiers, training, strict=True):
            each.train(was)
