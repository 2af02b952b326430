"""Every head is its definition, for each of the models that are trained side by side; two texts are compared so too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gemma_nli.base.errors import ConfigError
from gemma_nli.model.heads import HEADS, Head, build_head, combine

MODELS, ROWS, WIDTH, HIDDEN = 3, 5, 6, 4


def drawn(name: str) -> Head:
    head = build_head(name, WIDTH, HIDDEN, MODELS)
    for model in range(MODELS):
        head.reset(model, torch.Generator().manual_seed(model))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9))
    return head


def by_hand(head: Head, model: int, x_BD: Tensor) -> Tensor:
    own = {name.rsplit("_", 1)[0]: parameter[model] for name, parameter in head.named_parameters()}
    if "inner" in own:
        x_BD = F.gelu(x_BD @ own["inner"] + own["inner_bias"])
    return x_BD @ own["weight"] + own["bias"]


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_head_is_its_definition_in_each_model_by_itself(name):
    head, x_KBD = drawn(name), torch.randn(MODELS, ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    logit_KB = head(x_KBD)
    for model in range(MODELS):
        torch.testing.assert_close(logit_KB[model], by_hand(head, model, x_KBD[model]))


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_head_drops_at_each_of_its_sites_what_it_is_told_to(name):
    head, x_KBD = drawn(name), torch.randn(MODELS, ROWS, WIDTH)
    sites: list[tuple[int, int]] = []

    def drop(x: Tensor, site: int) -> Tensor:
        sites.append((site, x.shape[-1]))
        return x

    torch.testing.assert_close(head(x_KBD, drop), head(x_KBD))
    assert sites == list(enumerate(head.drop_widths()))
    nothing = head(x_KBD, lambda x, site: torch.zeros_like(x))
    torch.testing.assert_close(nothing, nothing[:, :1].expand_as(nothing))  # whatever the row, nothing is seen of it


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_models_first_weights_come_from_its_generator_alone_and_leave_the_others(name):
    head = build_head(name, WIDTH, HIDDEN, MODELS)
    before = [parameter.clone() for parameter in head.parameters()]
    head.reset(1, torch.Generator().manual_seed(4))
    again = build_head(name, WIDTH, HIDDEN, 1)
    again.reset(0, torch.Generator().manual_seed(4))
    for parameter, old, alone in zip(head.parameters(), before, again.parameters(), strict=True):
        assert torch.equal(parameter[1], alone[0])
        assert torch.equal(parameter[[0, 2]], old[[0, 2]])
    biases = [p for n, p in head.named_parameters() if "bias" in n]
    assert all(not bias.any() for bias in biases)


def test_two_texts_are_seen_side_by_side_by_their_distance_and_by_their_product():
    """Source: Conneau et al. 2017, InferSent, section 3.1."""
    u_BH, v_BH = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[4.0, 1.0], [0.5, -1.0]])
    want = [[1, -2, 4, 1, 3, 3, 4, -2], [0.5, 3, 0.5, -1, 0, 4, 0.25, -3]]
    torch.testing.assert_close(combine(u_BH, v_BH), torch.tensor(want))
    torch.testing.assert_close(combine(u_BH, v_BH)[:, 4:], combine(v_BH, u_BH)[:, 4:])


def test_an_unknown_head_is_met_with_the_nearest_one():
    with pytest.raises(ConfigError, match="unknown name 'lineer'; did you mean 'linear'"):
        build_head("lineer", WIDTH)
