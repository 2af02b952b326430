"""Folders and bundles that mean harm, or are spoiled: each is refused in a sentence, and no pickle is ever opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gemma_nli.base.errors import EncoderError
from gemma_nli.config import ModelConfig
from gemma_nli.model.bundles.bundle import load_bundle
from gemma_nli.model.encoder import load_encoder
from gemma_nli.model.loading.identity import encoder_folder
from tests.model.test_bundle import CPU, make, save


@pytest.fixture
def pickles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `torch.load` was asked to open."""
    asked: list[Any] = []
    monkeypatch.setattr(torch, "load", lambda path, *args, **kwargs: asked.append(path))
    return asked


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """An encoder whose weights are also there as a pickle, in the folder and beside it."""
    made = Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))
    tensors = load_file(made / "model.safetensors")
    for path in (
        made / "pytorch_model.bin",
        made / "adapter_model.bin",
        tmp_path / "x.bin",
        tmp_path / "a.safetensors",
    ):
        torch.save(tensors, path)
    return made


INDEXED = [
    "pytorch_model.bin", "../x.bin", "../a.safetensors", "/tmp/a.safetensors", "a/../b.safetensors", "..",
    ".safetensors",
    "sub/a.safetensors", "a.safetensors.bin", "a.SAFETENSORS", "a\\b.safetensors", "a.safetensors\n", "a\0.safetensors",
    "-a.safetensors", "", "file:///a.safetensors", 7, None, ["a.safetensors"], {"a": 1}, True,
]  # fmt: skip


@pytest.mark.parametrize("entry", INDEXED)
def test_an_index_names_plain_safetensors_files_of_its_folder_alone(folder, pickles, entry):
    keys = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(keys, entry)}))
    with pytest.raises(EncoderError, match=r"not a safetensors file in its folder") as caught:
        load_encoder(ModelConfig(name=str(folder)), CPU)
    assert all(letter.isprintable() for letter in str(caught.value))
    assert pickles == []


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000, "\xff", "null"]
)
def test_an_index_of_another_form_is_refused(folder, pickles, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text, encoding="latin-1")
    with pytest.raises(EncoderError, match=r"index\.json"):
        load_encoder(ModelConfig(name=str(folder)), CPU)
    assert pickles == []


def test_a_shard_that_is_a_link_out_is_refused_and_the_hubs_own_links_are_not(folder, tmp_path):
    keys = load_file(folder / "model.safetensors")
    index = json.dumps({"weight_map": dict.fromkeys(keys, "model-1.safetensors")})
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.parent.mkdir()
    shutil.move(folder / "model.safetensors", tmp_path / "blobs" / "1")
    (folder / "model-1.safetensors").symlink_to("../blobs/1")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(EncoderError, match="is a link to outside its folder"):
        encoder_folder(ModelConfig(name=str(folder)))
    shutil.move(folder, snapshot)
    (snapshot / "model-1.safetensors").unlink()
    (snapshot / "model-1.safetensors").symlink_to("../../blobs/1")
    assert encoder_folder(ModelConfig(name=str(snapshot))) == snapshot


@pytest.mark.parametrize("named", ["adapter_model.bin", "pytorch_model.bin", "../x.bin", "other.safetensors", 3])
def test_a_configuration_that_names_its_weights_is_refused(folder, pickles, named):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": named}))
    with pytest.raises(EncoderError, match="transformers_weights"):
        load_encoder(ModelConfig(name=str(folder)), CPU)
    assert pickles == []


@pytest.mark.parametrize("spoil", ["not a safetensors", "adapter", "sentence-transformers"])
def test_a_pickle_beside_is_never_opened(folder, pickles, spoil):
    if spoil == "sentence-transformers":
        (folder / "modules.json").write_text(
            '[{"idx": 0, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]'
        )
        (folder / "2_Dense").mkdir()
        shutil.copy(folder / "pytorch_model.bin", folder / "2_Dense")
        load_encoder(ModelConfig(name=str(folder)), CPU)
    else:
        if spoil == "adapter":
            (folder / "adapter_config.json").write_text("{}")
        else:
            (folder / "model.safetensors").unlink()
            (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
        with pytest.raises(EncoderError):
            load_encoder(ModelConfig(name=str(folder)), CPU)
    assert pickles == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "[]", "9" * 10_000, ""])
def test_a_folders_json_that_is_nested_or_no_mapping_is_no_traceback(folder, name, text):
    (folder / name).write_text(text)
    try:
        load_encoder(ModelConfig(name=str(folder)), CPU)
    except EncoderError as error:
        assert len(str(error)) < 1000  # noqa: PT017


@pytest.mark.parametrize("length", ["x", [3], {"a": 1}])
def test_a_tokenizers_setting_of_a_wrong_type_is_refused_in_a_sentence(folder, length):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": length}))
    with pytest.raises(EncoderError, match=r"the tokenizer of .* cannot be loaded"):
        load_encoder(ModelConfig(name=str(folder)), CPU)


@pytest.mark.parametrize("within", [False, True])
def test_a_configuration_of_endless_layers_is_refused_before_they_are_made(folder, within):
    path = folder / "config.json"
    reported = {"num_hidden_layers": 10**9}
    path.write_text(json.dumps({**json.loads(path.read_text()), **({"text_config": reported} if within else reported)}))
    with pytest.raises(EncoderError, match="says num_hidden_layers 1,000,000,000"):
        load_encoder(ModelConfig(name=str(folder)), CPU)


@pytest.fixture(scope="module")
def bundle(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, classifier = make(tiny_bert)
    return save(tmp_path_factory.mktemp("bundles") / "bundle", config, classifier)


def refused(bundle: Path, record: Any, why: str) -> None:
    """With this as its record, and the true one back afterwards."""
    path = bundle / "bundle.json"
    kept = path.read_text()
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    try:
        with pytest.raises(EncoderError, match=why) as caught:
            load_bundle(bundle, CPU)
        assert len(str(caught.value)) < 1000
    finally:
        path.write_text(kept)


@pytest.mark.parametrize(
    "threshold", [-0.01, 1.01, float("nan"), float("inf"), 10**400, True, False, "0.5", None, [0.5], {"a": 0.5}, 2]
)
def test_a_threshold_that_is_no_number_in_0_to_1_is_refused(bundle, threshold):
    record = json.loads((bundle / "bundle.json").read_text())
    refused(bundle, {**record, "threshold": threshold}, "threshold")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", "[" * 100_000, '{"format":' * 1000 + "1" + "}" * 1000, '{"format": 1', "9" * 10_000, "{}",
     '{"format": true}', '{"format": "1"}', '{"format": 1}', '{"format": 1e999}'],
)  # fmt: skip
def test_a_record_that_is_no_bundles_is_refused(bundle, text):
    refused(bundle, text, r"bundle\.json")


def test_a_record_larger_than_any_is_not_read(bundle):
    refused(bundle, " " * (64 * 2**20 + 1), "the maximum is")


@pytest.mark.parametrize("key", ["config", "threshold", "encoder", "classifier_sha256", "metadata"])
@pytest.mark.parametrize("value", [None, 7, True, [], "", [["a", 1]]])
def test_a_record_of_wrong_types_or_without_a_key_is_refused(bundle, key, value):
    record = json.loads((bundle / "bundle.json").read_text())
    refused(bundle, {**record, key: value}, r"bundle\.json")
    refused(bundle, {name: item for name, item in record.items() if name != key}, r"bundle\.json")


def test_a_checksum_cannot_be_left_out(bundle):
    record = json.loads((bundle / "bundle.json").read_text())
    for value in (None, "", "0" * 63, "0" * 64):
        refused(bundle, {**record, "classifier_sha256": value}, "sha256")


def test_weights_of_another_shape_are_refused(bundle, tmp_path):
    from gemma_nli.model.loading.identity import file_digest

    spoiled = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    tensors = load_file(spoiled / "classifier.safetensors")
    save_file({name: torch.zeros(3, 3) for name in tensors}, spoiled / "classifier.safetensors")
    record = json.loads((spoiled / "bundle.json").read_text())
    refused(spoiled, {**record, "classifier_sha256": file_digest(spoiled / "classifier.safetensors")}, "do not fit")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_record_with_anything_anywhere_loads_or_is_refused_in_a_sentence(bundle, data):
    path = bundle / "bundle.json"
    kept = path.read_text()
    record = json.loads(kept)
    place = record
    keys = [data.draw(st.sampled_from(sorted(record)))]
    while isinstance(place[keys[-1]], dict) and place[keys[-1]] and data.draw(st.booleans()):
        place = place[keys[-1]]
        keys.append(data.draw(st.sampled_from(sorted(place))))
    place[keys[-1]] = data.draw(JSON)
    path.write_text(json.dumps(record))
    try:
        load_bundle(bundle, CPU)
    except EncoderError as error:
        assert str(bundle) in str(error)  # noqa: PT017
    finally:
        path.write_text(kept)
