"""One new file is one new pooling, head, loss or rule that stops trials: shown in a copy of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contributed import shown_files
from tests.package_copy import ask_copy

POOLING = shown_files()["model/pooling/middle_k.py"]
HEAD = '''"""One linear map of a vector that is brought to mean 0 and variance 1 first.

Shapes: K models, B rows, D input width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gemma_nli.model.heads.classifier_head import Drop, Head, draw_uniform, head, logits_of, no_drop


@head("normed", reads=())
class Normed(Head):
    """Layer normalization without weights, dropout, and one linear map."""

    def __init__(self, in_features: int, hidden: int | None = None, num_models: int = 1) -> None:
        super().__init__(in_features, hidden, num_models)
        self.weight_KD = nn.Parameter(torch.zeros(num_models, in_features))
        self.bias_K = nn.Parameter(torch.zeros(num_models))

    def reset(self, model: int, generator: torch.Generator) -> None:
        draw_uniform(self.weight_KD[model], self.in_features, generator)
        with torch.no_grad():
            self.bias_K[model] = 0.0

    def forward(self, x_KBD: Tensor, drop: Drop = no_drop) -> Tensor:
        normed_KBD = F.layer_norm(x_KBD, (self.in_features,))
        return logits_of(drop(normed_KBD, 0), self.weight_KD, self.bias_K)

    def drop_widths(self) -> tuple[int, ...]:
        return (self.in_features,)
'''
LOSS = '''"""The squared error of the probability."""

from __future__ import annotations

from torch import Tensor

from gemma_nli.config.parts import SettingsRead
from gemma_nli.training.losses.pair_loss import PairBatch, loss


@loss("brier", reads=())
def brier(batch: PairBatch, training: SettingsRead) -> Tensor:
    """(K, B) squared distances of probability and (smoothed) label."""
    return (batch.logit_KB.sigmoid() - batch.target_KB) ** 2
'''
RULE = shown_files()["search/rules/behind_best.py"]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Any]:
    """What the copy answers (`added_parts.py`)."""
    folder = tmp_path_factory.mktemp("added_parts")
    added = {
        "model/pooling/middle_k.py": POOLING,
        "model/heads/normed.py": HEAD,
        "training/losses/brier.py": LOSS,
        "search/rules/behind_best.py": RULE,
    }
    facts = {"folder": str(folder / "written"), "encoder": str(tiny_bert)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMA_NLI_HOME", str(folder / "home"))
        return ask_copy(folder, added, Path(__file__).with_name("added_parts.py"), facts)


def test_a_pooling_is_offered_listed_and_searched_and_its_k_is_part_of_the_key(answer: dict[str, Any]) -> None:
    found = answer["settings"]
    assert len(set(found["keys"])) == 3
    assert found["cells"] == ["mean", "middle_k", "middle_k", "middle_k"]
    strategies, k = found["listed"]
    assert "`middle_k`" in strategies
    assert k.endswith("read by first_k, last_k, middle_k")
    assert "did you mean 'middle_k'" in found["refused"]


def test_a_pooling_trains_heads_on_cached_vectors_with_other_numbers_per_k(answer: dict[str, Any]) -> None:
    found = answer["frozen"]
    assert all(found["finite"])
    assert len({*found["loss"], found["mean_loss"]}) == 4


def test_a_head_and_a_loss_are_offered_and_train(answer: dict[str, Any]) -> None:
    found = answer["frozen"]
    assert len({found["mean_loss"], found["normed_loss"], found["brier_loss"]}) == 3


def test_a_pooling_trains_with_the_encoder(answer: dict[str, Any]) -> None:
    assert answer["fine_tuned"]["status"] == ["finished", "finished"]
    assert len(set(answer["fine_tuned"]["loss"])) == 2


def test_a_pooling_is_bundled_and_scores_as_it_was_trained(answer: dict[str, Any]) -> None:
    assert answer["bundle"]["pooling"] == [True, 3]
    assert answer["bundle"]["difference"] < 1e-5


def test_a_rule_is_offered_listed_and_judges_trials_in_place_of_every_other(answer: dict[str, Any]) -> None:
    found = answer["rule"]
    assert found["ends"] == {"behind_best": ["STOP", "late"], "median": ["CONTINUE"]}
    assert found["reason"] == "mean F1 0.7000, the best trial had 0.9000"
    kinds, min_trials = found["listed"]
    assert "`behind_best`" in kinds
    assert min_trials.endswith("read by behind_best, median")
    assert "did you mean 'behind_best'" in found["refused"]
