"""Every registered pooler keeps the same promises about padding, junk and its textbook definition."""

import typing
from pathlib import Path

import pytest
import torch

from gemma_nli.base.errors import ConfigError
from gemma_nli.config import ModelConfig
from gemma_nli.model.heads import HEADS
from gemma_nli.model.loading.sentence_modules import SentenceModules
from gemma_nli.model.loading.sentence_steps import MODES, TOKENS, VECTOR, Step
from gemma_nli.model.pooling import POOLERS, build_pooler, view_name

HIDDEN = 4
MODULES = SentenceModules(
    Path("folder"),
    (
        Step("Pooling", {"modes": list(MODES), "include_prompt": True, "reads": TOKENS, "writes": VECTOR}),
        Step("Normalize", {}),
    ),
)
"""What a folder may say of its vectors: every mode, side by side."""


def build(name: str, models: int = 1):
    pool = build_pooler(name, HIDDEN, k=2, num_models=models, modules=MODULES)
    for model in range(models):
        pool.reset(model, torch.Generator().manual_seed(model))
    return pool


def padded(row_TH, left=0, right=0, junk=0.0):
    def fill(n):
        return torch.full((n, HIDDEN), junk)

    h_TH = torch.cat([fill(left), row_TH, fill(right)])
    mask_T = torch.cat([torch.zeros(left), torch.ones(len(row_TH)), torch.zeros(right)]).long()
    return h_TH[None, None], mask_T[None, None]


@pytest.mark.parametrize("name", sorted(POOLERS))
@pytest.mark.parametrize("junk", [99.0, -99.0, float("nan"), float("inf")])
@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (2, 2)])
@pytest.mark.parametrize("level", [-10.0, 0.0, 10.0])  # states on one side of zero, where a masked zero would win
def test_padding_never_changes_the_vector(name, left, right, junk, level):
    row_TH = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(3)) + level
    pool = build(name)
    if not torch.isfinite(torch.tensor(junk)) and pool.learned:
        junk = 1e6  # a score of NaN is the encoder's fault, not padding's: encoders give finite states everywhere
    torch.testing.assert_close(pool(*padded(row_TH, left, right, junk)), pool(*padded(row_TH)))


@pytest.mark.parametrize("name", sorted(POOLERS))
def test_a_row_of_padding_gives_zeros_and_spoils_no_neighbour(name):
    pool = build(name)
    row_TH = torch.randn(3, HIDDEN)
    h_KBTH = torch.stack([row_TH, torch.full((3, HIDDEN), 7.0)])[None]
    mask_KBT = torch.tensor([[[1, 1, 1], [0, 0, 0]]])
    out_KBH = pool(h_KBTH, mask_KBT)
    assert not out_KBH[0, 1].any()
    torch.testing.assert_close(out_KBH[0, 0], pool(*padded(row_TH))[0, 0])


@pytest.mark.parametrize("level", [-10.0, 0.0, 10.0])
def test_each_plain_strategy_is_its_definition(level):
    row_TH = torch.randn(5, HIDDEN) + level
    want = {
        "cls": row_TH[0],
        "last": row_TH[-1],
        "mean": row_TH.mean(0),
        "max": row_TH.amax(0),
        "first_k": row_TH[:2].mean(0),
        "last_k": row_TH[-2:].mean(0),
    }
    for name, vector_H in want.items():
        torch.testing.assert_close(build(name)(*padded(row_TH, 1, 1, 5.0))[0, 0], vector_H)


def test_attention_kv_is_the_textbook_form():
    pool = build("attention_kv")
    row_TH = torch.randn(5, HIDDEN)
    with torch.no_grad():
        keys_TH, values_TH = row_TH @ pool.key_KHH[0].T, row_TH @ pool.value_KHH[0].T
        weight_T = (keys_TH @ pool.query_KH[0] / HIDDEN**0.5).softmax(0)
        torch.testing.assert_close(pool(*padded(row_TH))[0, 0], weight_T @ values_TH)


@pytest.mark.parametrize("name", sorted(n for n, kind in POOLERS.items() if kind.learned))
def test_models_side_by_side_are_the_models_alone(name):
    h_KBTH, mask_KBT = torch.randn(3, 2, 5, HIDDEN), torch.ones(3, 2, 5).long()
    together = build(name, models=3)(h_KBTH, mask_KBT)
    for model in range(3):
        alone = build_pooler(name, HIDDEN)
        alone.reset(0, torch.Generator().manual_seed(model))
        torch.testing.assert_close(together[model], alone(h_KBTH[model : model + 1], mask_KBT[:1])[0])


def test_the_settings_offer_exactly_the_registered_parts():
    def choices(setting):
        return set(typing.get_args(ModelConfig.model_fields[setting].annotation))

    assert choices("pooling_strategy") == set(POOLERS)
    assert choices("head") == set(HEADS)


def test_an_unknown_name_is_met_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'last'"):
        build_pooler("lats", HIDDEN)


def test_views_are_named_by_what_they_hold():
    assert (view_name("mean", 4), view_name("first_k", 4), view_name("attention", 4)) == ("mean", "first_k:4", None)
