"""Native pooling gives what the sentence-transformers library's own encode() gives, or refuses the folder by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import DeviceConfig, ModelConfig
from gemma_nli.features import FeatureRequest, FeatureStore
from gemma_nli.model.classifier import PairClassifier
from gemma_nli.model.encoder import identify_encoder, load_encoder
from gemma_nli.model.loading.longest_text import check_max_length
from gemma_nli.model.prompts import prompts_of
from tests.model.sentence_folders import KINDS, PROMPTS, change, make_folder, vectors

CPU = DeviceConfig(device="cpu", mixed_precision="none")
POSTS = [
    "i feel so TIRED and sad every day",
    "fine",
    "my sleep is broken and nothing is fun anymore " * 6,
    "work was fine",
]
CRITERIA = ["fatigue", "fine"]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A folder of one kind, one's own to change; the library makes each once."""
    made: dict[str, Path] = {}

    def make(kind: str, transformer: Path = tiny_bert, **settings: Any) -> Path:
        key = f"{kind} {transformer} {settings}"
        if key not in made:
            made[key] = make_folder(tmp_path_factory.mktemp("made") / "folder", transformer, kind, **settings)
        return Path(shutil.copytree(made[key], tmp_path_factory.mktemp("own") / "folder"))

    return make


def native(folder: Path, **settings: Any) -> ModelConfig:
    return ModelConfig(name=str(folder), pooling_strategy="native", pair_encoding="separate", **settings)


def stored(folder: Path, root: Path, posts: list[str], criteria: list[str], **settings: Any) -> torch.Tensor:
    """The vectors of posts and criteria as a frozen trial gets them."""
    model = native(folder, **settings)
    texts, _, before = prompts_of(model).alone(posts, criteria)
    prompts = None if before is None else tuple(before)
    request = FeatureRequest(model, CPU, identify_encoder(model), tuple(texts), None, ("native",), prompts=prompts)
    block = FeatureStore(root).load(request)
    return block.view("native")[block.rows_of(request.digests)]


def trained(folder: Path, posts: list[str], criteria: list[str], **settings: Any) -> torch.Tensor:
    """The same vectors as a trained encoder's classifier makes them."""
    encoder = load_encoder(native(folder, **settings), CPU)
    tokens = encoder.tokenize(*encoder.prompts.alone(posts, criteria))
    return PairClassifier(encoder, native(folder)).vectors(encoder.collate(tokens)).detach()


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_gives_what_the_library_gives(make: Make, tmp_path: Path, kind: str) -> None:
    folder = make(kind)
    wanted = vectors(folder, POSTS)
    assert_same(stored(folder, tmp_path / "features", POSTS, []), wanted)
    assert_same(trained(folder, POSTS, []), wanted)


@pytest.mark.parametrize("kind", ["all modes side by side", "prompt left out"])
def test_a_causal_decoder_that_pads_on_the_left_there_gives_it_too(
    make: Make, tiny_gemma3: Path, tmp_path: Path, kind: str
) -> None:
    folder = make(kind, tiny_gemma3)
    change(folder / "tokenizer_config.json", padding_side="left")
    assert_same(stored(folder, tmp_path, POSTS, []), vectors(folder, POSTS))


def test_the_real_minilm_gives_its_published_vectors(minilm: Path, tmp_path: Path) -> None:
    assert_same(stored(minilm, tmp_path, POSTS, CRITERIA), vectors(minilm, [*POSTS, *CRITERIA]))


def test_texts_are_lower_cased_and_cut_as_the_folder_says(make: Make, tiny_gemma3: Path, tmp_path: Path) -> None:
    folder = make("mean", tiny_gemma3, max_seq_length=9)
    change(folder / "sentence_bert_config.json", do_lower_case=True)
    assert_same(stored(folder, tmp_path / "a", POSTS, []), vectors(folder, POSTS))
    model = native(folder, max_length=9)
    plain = ModelConfig(**{**model.model_dump(), "pooling_strategy": "mean"})
    reads = [load_encoder(each, CPU).tokenize([POSTS[0]]).ids for each in (model, plain)]
    assert reads[0] != reads[1]
    change(folder / "sentence_bert_config.json", do_lower_case=False)
    assert load_encoder(model, CPU).tokenize([POSTS[0]]).ids == reads[1]


def test_without_max_seq_length_the_tokenizers_own_and_the_positions_count(make: Make, tmp_path: Path) -> None:
    folder = make("mean")
    change(folder / "tokenizer_config.json", model_max_length=11)
    assert_same(stored(folder, tmp_path, POSTS, []), vectors(folder, POSTS))
    assert load_encoder(native(folder), CPU).max_length == 11
    change(folder / "sentence_bert_config.json", max_seq_length=14)
    assert load_encoder(native(folder), CPU).max_length == 14
    assert load_encoder(native(folder, max_length=12), CPU).max_length == 12


def old_layout(folder: Path, target: Path, **pooling: bool) -> Path:
    """As versions before 3 saved: the transformer in a folder of its own, a flag for each pooling mode."""
    shutil.copytree(folder, target / "0_Transformer")
    for path in list((target / "0_Transformer").iterdir()):
        if path.is_dir() or path.name == "config_sentence_transformers.json":
            shutil.move(path, target / path.name)
    modules = json.loads((target / "0_Transformer" / "modules.json").read_text())
    for module in modules:
        name = module["type"].rsplit(".", 1)[-1]
        module |= {"type": f"sentence_transformers.models.{name}", "path": module["path"] or "0_Transformer"}
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "0_Transformer" / "modules.json").unlink()
    settings = target / "0_Transformer" / "sentence_bert_config.json"
    settings.with_name("sentence_roberta_config.json").write_text('{"max_seq_length": 21, "do_lower_case": false}')
    settings.unlink()
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return target


def test_a_folder_of_the_old_layout_gives_it(make: Make, tmp_path: Path) -> None:
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}
    folder = old_layout(make("mean"), tmp_path / "old", **flags)
    found = stored(folder, tmp_path / "features", POSTS, [])
    assert found.shape[1] == 64
    assert_same(found, vectors(folder, POSTS))


@pytest.mark.parametrize("kind", ["default prompt", "prompt left out"])
@pytest.mark.parametrize(
    ("premise", "hypothesis"), [(None, None), ("document", "query"), ("", "query"), ("clustering", "")]
)
def test_posts_and_criteria_stand_behind_their_prompts(
    make: Make, tmp_path: Path, kind: str, premise: str | None, hypothesis: str | None
) -> None:
    folder = make(kind)
    own = KINDS[kind][1]["default_prompt_name"]
    names = [own if name is None else name for name in (premise, hypothesis)]
    wanted = [
        vectors(folder, texts, prompt=PROMPTS[name] if name else "")
        for texts, name in zip((POSTS, CRITERIA), names, strict=True)
    ]
    settings = {"premise_prompt": premise, "hypothesis_prompt": hypothesis}
    assert_same(stored(folder, tmp_path, POSTS, CRITERIA, **settings), torch.cat(wanted))
    assert_same(trained(folder, POSTS, CRITERIA, **settings), torch.cat(wanted))


def test_a_joint_pair_has_one_prompt_as_there_and_a_second_one_where_it_is_named(make: Make, tiny_gemma3: Path) -> None:
    folder = make("prompt left out", tiny_gemma3)
    pairs = [(post, CRITERIA[0]) for post in POSTS if len(post) < 99]
    encoder = load_encoder(native(folder), CPU)
    classifier = PairClassifier(encoder, native(folder))
    tokens = encoder.tokenize(*encoder.prompts.pairs(*map(list, zip(*pairs, strict=True))))
    found = classifier.vectors(encoder.collate(tokens)).detach()
    assert_same(found, vectors(folder, pairs))  # type: ignore[arg-type]
    named = prompts_of(native(folder, hypothesis_prompt="query"))
    assert named.pairs(["a"], ["b"]) == (["a"], [f"{PROMPTS['query']}b"], (PROMPTS["clustering"],))


@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_a_berts_joint_pair_has_segments_where_encode_gives_it_any(make: Make, names: list[str]) -> None:
    folder = make("mean")
    before = identify_encoder(native(folder)).fingerprint
    change(folder / "tokenizer_config.json", model_input_names=names)
    pairs = [(post, criterion) for post in POSTS for criterion in CRITERIA]
    encoder = load_encoder(native(folder), CPU)
    tokens = encoder.tokenize(*encoder.prompts.pairs(*map(list, zip(*pairs, strict=True))))
    assert (tokens.types is not None) == ("token_type_ids" in names)
    found = PairClassifier(encoder, native(folder)).vectors(encoder.collate(tokens)).detach()
    assert_same(found, vectors(folder, pairs))  # type: ignore[arg-type]
    assert encoder.identity.fingerprint != before, "the tokenizer's file is another"


def test_the_identity_holds_modules_weights_and_prompts_and_only_under_native_pooling(
    make: Make, tiny_bert: Path
) -> None:
    folder = make("dense tanh")
    mean = ModelConfig(name=str(folder))
    first = identify_encoder(native(folder)).fingerprint
    plain = identify_encoder(mean).fingerprint
    assert first != plain
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, folder / "2_Dense" / "model.safetensors")
    second = identify_encoder(native(folder)).fingerprint
    change(folder / "config_sentence_transformers.json", prompts={"query": "q: "})
    third = identify_encoder(native(folder)).fingerprint
    change(folder / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.ReLU")
    fourth = identify_encoder(native(folder)).fingerprint
    change(folder / "config_sentence_transformers.json", __version__={"sentence_transformers": "9.9"})
    assert identify_encoder(native(folder)).fingerprint == fourth
    assert len({first, second, third, fourth}) == 4
    assert identify_encoder(mean).fingerprint == plain


def _modules(folder: Path, **last: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules[:-1], {**modules[-1], **last}]))


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{name} for its Dense": (
            lambda folder, kind=kind: _modules(folder, type=kind),
            rf"asks for {kind.replace('.', '[.]')}, and only Transformer, Pooling, Dense",
        )
        for name, kind in {
            "word weights": "sentence_transformers.models.WordWeights",
            "a CNN": "sentence_transformers.sentence_transformer.modules.CNN",
            "an LSTM": "sentence_transformers.models.LSTM",
            "a router": "sentence_transformers.models.Router",
            "weighted layers": "sentence_transformers.models.WeightedLayerPooling",
            "sparse pooling": "sentence_transformers.sparse_encoder.modules.SpladePooling",
            "code of its own": "custom_st.Dense",
        }.items()
    },
    "no Pooling": (
        lambda folder: (folder / "modules.json").write_text(
            json.dumps([m for m in json.loads((folder / "modules.json").read_text()) if "Pooling" not in m["type"]])
        ),
        "reads sentence_embedding, which no module before it gives",
    ),
    "another mode": (lambda f: change(f / "1_Pooling" / "config.json", pooling_mode="median"), "pooling median"),
    "another activation": (
        lambda f: change(f / "2_Dense" / "config.json", activation_function="my_code.Activation"),
        "the activation function my_code.Activation",
    ),
    "another shape": (
        lambda f: change(f / "2_Dense" / "config.json", out_features=13),
        r"2_Dense should hold linear\.bias of \[13\], its file has \[12\]",
    ),
    "no weights": (lambda f: (f / "2_Dense" / "model.safetensors").unlink(), "2_Dense/model.safetensors is missing"),
    "pickled weights": (
        lambda f: (f / "2_Dense" / "model.safetensors").rename(f / "2_Dense" / "pytorch_model.bin"),
        "pickled weights are not read",
    ),
    "weights elsewhere": (
        lambda f: [
            shutil.move(f / "2_Dense" / "model.safetensors", f.parent / "weights"),
            (f / "2_Dense" / "model.safetensors").symlink_to(f.parent / "weights"),
        ],
        "is a link out of its folder",
    ),
    "a chat template": (
        lambda f: change(f / "sentence_bert_config.json", modality_config={"message": {}, "text": {}}),
        "sets modality_config",
    ),
    "another task": (
        lambda f: change(f / "sentence_bert_config.json", transformer_task="fill-mask"),
        'sets transformer_task "fill-mask"',
    ),
    "an unknown setting": (lambda f: change(f / "sentence_bert_config.json", newest=1), "sets newest 1"),
    "a prompt that is not there": (
        lambda f: change(f / "config_sentence_transformers.json", default_prompt_name="qeury"),
        "its default_prompt_name 'qeury' is none of its prompts",
    ),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_what_cannot_be_applied_is_refused_by_name_before_weights_are_loaded(make: Make, spoiled: str) -> None:
    folder = make("dense tanh")
    spoil, words = SPOILED[spoiled]
    spoil(folder)
    with pytest.raises(EncoderError, match=words):
        identify_encoder(native(folder)) if spoiled != "no Pooling" else load_encoder(native(folder), CPU)
    assert "\n" not in words


@pytest.mark.parametrize("first", ["WordEmbeddings", "StaticEmbedding", "BoW", "Router", "CLIPModel"])
def test_a_folder_without_a_transformer_is_refused_by_the_module_it_begins_with(tmp_path: Path, first: str) -> None:
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "0_X", "type": f"sentence_transformers.models.{first}"}])
    )
    with pytest.raises(
        EncoderError, match=rf"begins with sentence_transformers\.models\.{first}, which gives no states"
    ):
        identify_encoder(native(tmp_path))


def test_a_plain_folder_and_a_wrong_prompt_are_refused_at_once(make: Make, tiny_bert: Path) -> None:
    with pytest.raises(EncoderError, match=r"native does what a folder of sentence-transformers says, and .* is none"):
        identify_encoder(native(tiny_bert))
    with pytest.raises(EncoderError, match=r"premise_prompt: .* has no prompt 'documnet'; did you mean 'document'"):
        identify_encoder(native(make("default prompt"), premise_prompt="documnet"))
    with pytest.raises(EncoderError, match="the prompt takes"):
        load_encoder(native(make("default prompt"), premise_prompt="clustering", max_length=8), CPU)


def test_the_folders_own_length_may_be_shorter_than_the_one_asked_for(make: Make) -> None:
    folder = make("mean", max_seq_length=128)
    check_max_length(native(folder, max_length=1024))
    with pytest.raises(EncoderError, match="has 512 positions"):
        check_max_length(ModelConfig(name=str(folder), max_length=1024))
