"""A head's input is brought to one scale as `model.head_norm` says, for each of the models trained side by side."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gemma_nli.base.errors import ConfigError
from gemma_nli.model.head_norms import HEAD_NORMS, HeadNorm, build_head_norm, head_input

MODELS, ROWS, WIDTH = 2, 40, 6
SCALES = torch.tensor([1.0, 300.0, 1e-2, 1.0, 40.0, 1e4])


def draw(rows: int = ROWS, seed: int = 1) -> Tensor:
    return (torch.randn(MODELS, rows, WIDTH, generator=torch.Generator().manual_seed(seed)) + 3) * SCALES


def fitted(x_KBD: Tensor, real_KB: Tensor | None = None, cut: int = ROWS) -> HeadNorm:
    norm = build_head_norm("standardize", WIDTH, MODELS)
    real_KB = torch.ones(x_KBD.shape[:2], dtype=torch.bool) if real_KB is None else real_KB
    norm.fit((x_KBD[:, part : part + cut], real_KB[:, part : part + cut]) for part in range(0, x_KBD.shape[1], cut))
    return norm


@pytest.mark.parametrize("cut", [ROWS, 7])
def test_standardize_gives_each_number_mean_0_and_spread_1_over_its_models_own_rows(cut):
    x_KBD = draw()
    real_KB = torch.arange(ROWS) < torch.tensor([[ROWS], [25]])
    x_KBD[1, 25:] = 1e9  # padding counts for nothing
    z_KBD = fitted(x_KBD, real_KB, cut)(x_KBD)
    for model, rows in enumerate((ROWS, 25)):
        kept = z_KBD[model, :rows].double()
        torch.testing.assert_close(kept.mean(0), torch.zeros(WIDTH).double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(kept.std(0, correction=0), torch.ones(WIDTH).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.0, -7e3])
def test_a_number_that_all_training_rows_share_up_to_rounding_is_left_out_of_later_rows_too(value):
    x_KBD = draw()
    x_KBD[..., 2] = value
    x_KBD[..., 4] = value * (1 + 1e-7 * torch.randn(MODELS, ROWS, generator=torch.Generator().manual_seed(5)))
    norm = fitted(x_KBD)
    z_KBD = norm(draw(5, seed=2))
    assert bool((z_KBD[..., [2, 4]] == 0).all())
    assert bool((z_KBD[..., [0, 1, 3, 5]] != 0).all())
    assert bool(norm(x_KBD).isfinite().all())


def test_vectors_that_are_all_alike_up_to_rounding_say_nothing():
    """As a causal model's first token, whose states differ by what stands beside a text in its batch."""
    noise = torch.randn(MODELS, ROWS, WIDTH, generator=torch.Generator().manual_seed(3))
    norm = fitted(SCALES.expand(MODELS, ROWS, WIDTH) * (1 + 3e-7 * noise))
    assert bool((norm(draw()) == 0).all())


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_layernorm_gives_each_texts_vector_mean_0_and_spread_1_whatever_its_length(scale):
    norm = build_head_norm("layernorm", 2 * WIDTH)
    x_BW = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    z_BW = norm.of_text(x_BW * scale)
    torch.testing.assert_close(z_BW, torch.nn.functional.layer_norm(x_BW, (WIDTH,), eps=0.0), atol=1e-5, rtol=1e-5)
    assert bool((norm.of_text(torch.full((2, WIDTH), 3.1 * scale)).abs() < 0.2).all()), "rounding is not made large"
    assert bool((norm.of_text(torch.zeros(2, WIDTH)) == 0).all())


@pytest.mark.parametrize("name", sorted(HEAD_NORMS))
def test_two_texts_are_normed_each_before_and_together_after_they_are_combined(name):
    norm = build_head_norm(name, 4 * WIDTH)
    u_BW, v_BW = draw()
    x_BD = head_input(norm, [u_BW, v_BW])
    u_BW, v_BW = norm.of_text(u_BW), norm.of_text(v_BW)
    assert torch.equal(x_BD, torch.cat([u_BW, v_BW, (u_BW - v_BW).abs(), u_BW * v_BW], dim=-1))
    norm.fit([(x_BD[None], torch.ones(1, ROWS))])
    spread_D = norm(x_BD[None])[0].std(0, correction=0)
    assert bool(((spread_D - 1).abs() < 1e-3).all()) == (name == "standardize")


def test_a_norm_is_never_trained():
    assert not [p for kind in HEAD_NORMS for p in build_head_norm(kind, WIDTH).parameters() if p.requires_grad]


def test_an_unknown_norm_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"standardise.*did you mean 'standardize'"):
        build_head_norm("standardise", WIDTH)
