from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gemma_nli.base.errors import FeatureError
from gemma_nli.config import FeaturesConfig
from gemma_nli.features import EncodedTexts, FeatureBlock, FeatureStore, encode, load_for
from gemma_nli.features import shard_file as shard_module
from gemma_nli.features.shard_file import DamagedShard, open_shard, write_shard
from gemma_nli.features.shard_index import KeyIndex
from gemma_nli.model.pooling import build_pooler
from tests.growth import growth

TEXTS = [f"{number} " + "so tired and sad, nothing is fun " * (1 + number * 5 % 7) for number in range(12)]


@pytest.fixture
def ask(request_for, tiny_bert):
    return lambda texts=TEXTS, **settings: request_for(tiny_bert, texts, **settings)


def only_shard(store, request) -> Path:
    (path,) = (store.root / request.key).glob("shard-*.safetensors")
    return path


def directly(request, view="mean", k=4) -> torch.Tensor:
    """The request's vectors one text at a time, past the store and its batches."""
    encoder = load_for(request)
    tokens = encoder.tokenize(request.premises, request.hypotheses)
    pool, rows = build_pooler(view, encoder.hidden_size, k), []
    for row in range(len(tokens)):
        batch = encoder.collate(tokens, [row])
        with torch.inference_mode():
            rows.append(pool(encoder(batch), batch["attention_mask"]))
    return torch.cat(rows).clone()


def vectors(store, request, view=None) -> torch.Tensor:
    block = store.load(request)
    return block.view(view or request.views[0])[block.positions(request.premises, request.hypotheses)]


def test_a_second_request_encodes_nothing_whatever_process_asked_first(tmp_path, ask):
    request = ask()
    first = FeatureStore(tmp_path).ensure(request)
    again = FeatureStore(tmp_path).ensure(request)
    assert (first.encoded, first.reused) == (12, 0)
    assert (again.encoded, again.reused) == (0, 12)


def test_a_text_asked_for_twice_is_encoded_once(tmp_path, ask):
    assert FeatureStore(tmp_path).ensure(ask(TEXTS + TEXTS)).encoded == 12


def test_only_new_texts_are_encoded(tmp_path, ask):
    store = FeatureStore(tmp_path)
    store.ensure(ask(TEXTS[:7]))
    report = store.ensure(ask(TEXTS))
    assert (report.encoded, report.reused) == (5, 7)
    torch.testing.assert_close(vectors(store, ask()), directly(ask()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("view", ["mean", "max", "cls", "last", "first_k:4", "last_k:4"])
def test_one_pass_gives_every_pooling(tmp_path, ask, view, monkeypatch):
    store = FeatureStore(tmp_path)
    store.ensure(ask(views=("mean",)))
    monkeypatch.setattr("gemma_nli.features.store.load_for", None)  # no second pass
    request = ask(views=(view,))
    torch.testing.assert_close(vectors(store, request), directly(request, view.split(":")[0]), atol=1e-5, rtol=1e-5)


def test_another_k_comes_from_stored_token_states_without_the_encoder(tmp_path, ask, monkeypatch):
    store = FeatureStore(tmp_path)
    store.ensure(ask(with_tokens=True))
    monkeypatch.setattr("gemma_nli.features.store.load_for", None)
    request = ask(views=("last_k:2",))
    assert store.ensure(request).encoded == 0
    torch.testing.assert_close(vectors(store, request), directly(request, "last_k", 2), atol=1e-5, rtol=1e-5)


def test_another_k_without_token_states_takes_another_pass_and_keeps_the_rest(tmp_path, ask):
    store = FeatureStore(tmp_path)
    store.ensure(ask())
    request = ask(views=("first_k:2", "mean"))
    assert store.ensure(request).encoded == 12
    assert FeatureStore(tmp_path).ensure(request).encoded == 0
    torch.testing.assert_close(vectors(store, request), directly(request, "first_k", 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vectors(store, request, "mean"), directly(request), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changed", [{"max_length": 32}, {"attention": "bidirectional"}], ids=["max_length", "attention"]
)
def test_what_changes_vectors_changes_the_key(ask, changed):
    assert ask(**changed).key != ask().key


def test_what_leaves_vectors_alone_leaves_the_key(ask):
    same = [ask(TEXTS[:2]), ask(views=("max",)), ask(with_tokens=True), ask(pooling_strategy="max", dropout=0.5)]
    assert {request.key for request in same} == {ask().key}


def test_other_weights_have_another_key(request_for, tiny_gemma2, tiny_gemma3):
    assert request_for(tiny_gemma2, TEXTS).key != request_for(tiny_gemma3, TEXTS).key


def test_a_pair_and_its_texts_alone_never_meet(ask, request_for, tiny_bert):
    pair = request_for(tiny_bert, ["a b"], ["c"])
    assert pair.key != ask(["a b"]).key
    for premise, hypothesis in (("a", "b c"), ("a bc", ""), ("", "a bc"), ("c", "a b")):
        assert pair.digests != request_for(tiny_bert, [premise], [hypothesis]).digests
    assert request_for(tiny_bert, ["ab"], ["c"]).digests != request_for(tiny_bert, ["a"], ["bc"]).digests


def test_precision_is_part_of_the_key_and_bfloat16_states_come_back_to_the_bit(tmp_path, ask):
    import dataclasses

    plain = ask(with_tokens=True)
    request = dataclasses.replace(plain, precision="bfloat16")
    assert request.key != plain.key
    block = FeatureStore(tmp_path).load(request)
    assert block.tokens is not None
    assert block.tokens.tensors()[0].dtype == torch.bfloat16
    done = encode(request, load_for(request), FeaturesConfig())
    assert done.tokens is not None
    np.testing.assert_array_equal(np.asarray(block.tokens.layers["tokens"]), done.tokens.layers["tokens"])


def test_features_of_other_weights_are_refused(ask, request_for, tiny_gemma2, tmp_path):
    with pytest.raises(FeatureError, match="not the files the request names"):
        FeatureStore(tmp_path).ensure(ask(), encoder=load_for(request_for(tiny_gemma2, TEXTS)))


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FeatureError, match="must be a folder"):
        FeatureStore(tmp_path / "file")


# -- damage ----


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def flip_a_bit_in_the_header(path):
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [flip_a_bit, flip_a_bit_in_the_header, cut_short, empty])
def test_a_damaged_shard_is_removed_and_its_texts_are_encoded_again(tmp_path, ask, harm, caplog):
    request = ask()
    FeatureStore(tmp_path).ensure(request)
    path = only_shard(FeatureStore(tmp_path), request)
    harm(path)
    store = FeatureStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert store.ensure(request).encoded == 12
    assert "encoded again" in caplog.text
    torch.testing.assert_close(vectors(store, request), directly(request), atol=1e-5, rtol=1e-5)
    assert FeatureStore(tmp_path).ensure(request).encoded == 0


def test_foreign_files_do_no_harm(tmp_path, ask):
    request = ask()
    FeatureStore(tmp_path).ensure(request)
    folder = tmp_path / request.key
    (folder / "notes.txt").write_text("hello")
    (folder / "shard-abc.safetensors").write_bytes(b"junk" * 100)
    (folder / ".tmp-1-dead").write_bytes(b"half")
    store = FeatureStore(tmp_path)
    assert store.ensure(request).encoded == 0
    torch.testing.assert_close(vectors(store, request), directly(request), atol=1e-5, rtol=1e-5)
    assert (folder / "notes.txt").exists()


def test_a_sound_shard_of_another_key_is_not_believed(tmp_path, ask):
    mine, other = ask(), ask(max_length=8)
    store = FeatureStore(tmp_path)
    store.ensure(other)
    path = only_shard(store, other)
    (tmp_path / mine.key).mkdir()
    os.rename(path, tmp_path / mine.key / path.name)
    fresh = FeatureStore(tmp_path)
    assert fresh.ensure(mine).encoded == 12
    torch.testing.assert_close(vectors(fresh, mine), directly(mine), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_on_a_full_disk_the_result_is_used_from_memory(tmp_path, ask, call, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    request, store = ask(with_tokens=True), FeatureStore(tmp_path)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(f"gemma_nli.features.shard_file.os.{call}", full)
        assert store.ensure(request).encoded == 12
        torch.testing.assert_close(vectors(store, request), directly(request), atol=1e-5, rtol=1e-5)
        assert store.ensure(request).encoded == 0
    assert "No space left" in caplog.text
    assert list((tmp_path / request.key).iterdir()) == []
    assert FeatureStore(tmp_path).ensure(request).encoded == 12


def test_a_file_size_limit_leaves_no_torn_shard(tmp_path, ask, caplog):
    """The kernel's own refusal in the middle of a write, not a patched one."""
    import resource
    import signal

    request, store = ask(with_tokens=True), FeatureStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        store.ensure(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in caplog.text
    assert [path.name for path in (tmp_path / request.key).iterdir()] == ["meta.json"]
    torch.testing.assert_close(vectors(store, request), directly(request), atol=1e-5, rtol=1e-5)


def test_a_root_that_cannot_be_written_still_serves(tmp_path, ask, monkeypatch, caplog):
    """Root (who runs some CIs) ignores permissions, so a file stands where the folder would have to be made."""
    store = FeatureStore(tmp_path / "blocked" / "store")
    (tmp_path / "blocked").write_text("in the way")
    assert store.ensure(ask()).encoded == 12
    assert "continuing without one" in caplog.text
    torch.testing.assert_close(vectors(store, ask()), directly(ask()), atol=1e-5, rtol=1e-5)


def test_a_shard_is_plain_safetensors(tmp_path, ask):
    from safetensors.numpy import load_file

    request = ask(with_tokens=True)
    store = FeatureStore(tmp_path)
    store.ensure(request)
    arrays = load_file(only_shard(store, request))
    opened = open_shard(only_shard(store, request), request.key)
    assert set(arrays) == set(opened.arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, opened.arrays[name])


def test_a_shard_is_read_in_place(tmp_path, ask):
    block = (store := FeatureStore(tmp_path)).load(ask(with_tokens=True))
    assert block.tokens is not None
    for array in (block.views["mean"], block.tokens.layers["tokens"], block.digests):
        assert not array.flags.owndata
        assert not array.flags.writeable
    mapped = Path("/proc/self/maps").read_text()
    assert only_shard(store, ask()).name in mapped


def test_a_checksum_is_verified_once_a_process(tmp_path, ask, monkeypatch):
    request = ask()
    FeatureStore(tmp_path).ensure(request)
    monkeypatch.setattr(shard_module.hashlib, "sha256", None)
    KeyIndex(tmp_path / request.key, request.key).refresh()


def test_a_shard_whose_parts_disagree_is_refused(tmp_path):
    arrays = {"digests": np.zeros((2, 32), np.uint8), "lengths": np.ones(2, np.int32)}
    arrays["view:mean"] = np.ones((3, 4), np.float32)
    with pytest.raises(DamagedShard, match="disagree"):
        open_shard(write_shard(tmp_path, "key", arrays, {}), "key")


# -- token states ----


@pytest.mark.parametrize("gib", [4.0, 0.0, 15_000 / 2**30], ids=["all kept", "none kept", "some kept"])
def test_token_states_are_the_same_kept_or_recomputed(tmp_path, ask, gib):
    request = ask(with_tokens=True)
    settings = FeaturesConfig(token_budget_gib=gib)
    store = FeatureStore(tmp_path, settings)
    block = store.load(request)
    kept = block.kept_share()
    assert kept == 1 if gib == 4.0 else kept == 0 if gib == 0 else 0 < kept < 1
    encoder = load_for(request)
    tokens = encoder.tokenize(request.premises, None)
    rows = block.positions(request.premises)[[5, 0, 11, 5]]
    h_BTH, mask_BT = block.token_batch(rows)
    assert h_BTH.dtype == torch.float32
    for place, text in enumerate([5, 0, 11, 5]):
        batch = encoder.collate(tokens, [text])
        with torch.inference_mode():
            want_TH = encoder(batch)[0].clone()
        assert int(mask_BT[place].sum()) == len(want_TH)
        torch.testing.assert_close(h_BTH[place, : len(want_TH)], want_TH, atol=1e-5, rtol=1e-5)
        assert not h_BTH[place, len(want_TH) :].any()
    assert FeatureStore(tmp_path, settings).ensure(request).encoded == 0


def test_token_states_past_the_budget_are_not_missing_after_the_request_grew(tmp_path, ask):
    settings = FeaturesConfig(token_budget_gib=15_000 / 2**30)
    for count in (4, 8, 12):
        request = ask(TEXTS[:count], with_tokens=True)
        FeatureStore(tmp_path, settings).ensure(request)
        assert FeatureStore(tmp_path, settings).missing(request) == []
        block = FeatureStore(tmp_path, settings).load(request)
        assert block.tokens is not None
        assert block.tokens.layers["tokens"].nbytes <= 15_000


def test_token_states_can_be_trained_through(tmp_path, ask):
    block = FeatureStore(tmp_path, FeaturesConfig(token_budget_gib=0)).load(ask(with_tokens=True))
    h_BTH, _ = block.token_batch([0, 1])
    query_H = torch.ones(h_BTH.shape[-1], requires_grad=True)
    (h_BTH @ query_H).sum().backward()
    assert query_H.grad is not None


# -- blocks ----


@pytest.mark.parametrize("gib", [4.0, 15_000 / 2**30])
def test_a_block_passes_through_plain_read_only_arrays(tmp_path, ask, gib, recwarn):
    request = ask(with_tokens=True, views=("mean", "last"))
    block = FeatureStore(tmp_path, FeaturesConfig(token_budget_gib=gib)).load(request)
    arrays = {name: np.array(array) for name, array in block.to_arrays().items()}
    for array in arrays.values():
        array.flags.writeable = False
    again = FeatureBlock.from_arrays(arrays, request)
    rows = again.positions(request.premises)
    assert again.view("last").data_ptr() == arrays["view:last"].ctypes.data
    torch.testing.assert_close(again.view("mean")[rows], block.view("mean")[rows])
    torch.testing.assert_close(again.token_batch(rows)[0], block.token_batch(rows)[0], atol=1e-5, rtol=1e-5)
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


def test_a_tensor_keeps_the_memory_it_stands_on(tmp_path, ask):
    import gc

    request = ask()
    want = directly(request)
    block = FeatureStore(tmp_path).load(request)
    rows, view = block.positions(request.premises), block.view("mean")
    del block
    gc.collect()
    torch.testing.assert_close(view[rows], want, atol=1e-5, rtol=1e-5)


def test_a_text_never_encoded_is_named_by_number_only(tmp_path, ask):
    block = FeatureStore(tmp_path).load(ask())
    with pytest.raises(FeatureError, match=r"1 of 2 texts were never encoded") as error:
        block.positions([TEXTS[0], "a private post"])
    assert "private" not in str(error.value)


def test_a_view_never_asked_for_is_an_error_that_names_those_there(tmp_path, ask):
    with pytest.raises(FeatureError, match="no view 'max' in this block; it has mean"):
        FeatureStore(tmp_path).load(ask()).view("max")


@pytest.mark.parametrize("view", ["median", "attention", "first_k", "first_k:0", "mean:3"])
def test_an_unknown_view_is_refused_when_it_is_asked_for(ask, view):
    with pytest.raises(FeatureError, match=f"view '{view}'"):
        ask(views=(view,))


def test_pairs_find_their_rows_in_time_by_their_number():
    count = 15_000
    draw = np.random.default_rng(0)
    premises = [" ".join(["word"] * 200) + f"{number // 10}" for number in range(count)]
    hypotheses = [f"criterion {number % 10}" for number in range(count)]
    from gemma_nli.features.request import digest_array, text_digests

    order = draw.permutation(count)
    all_digests = text_digests(premises, hypotheses)
    digests = digest_array([all_digests[row] for row in order])
    block = FeatureBlock(digests, np.ones(count, np.int32), 1, {})
    np.testing.assert_array_equal(order[block.positions(premises, hypotheses)], np.arange(count))
    assert growth(lambda size: block.positions(premises[:size], hypotheses[:size]), 1_500, count) < 10 * 2.5


# -- the steps apart ----


def test_pieces_encoded_apart_become_one_shard(tmp_path, ask):
    request, store = ask(with_tokens=True), FeatureStore(tmp_path)
    rows = store.missing(request)
    encoder = load_for(request)
    pieces = [encode(request.subset(part), encoder, store.settings) for part in (rows[::2], rows[1::2])]
    path = store.put(request, EncodedTexts.joined(pieces))
    assert path == only_shard(store, request)
    assert store.missing(request) == []
    torch.testing.assert_close(vectors(store, request), directly(request), atol=1e-5, rtol=1e-5)
    block = store.load(request)
    assert block.kept_share() == 1


def test_putting_what_is_there_writes_nothing(tmp_path, ask):
    request, store = ask(), FeatureStore(tmp_path)
    store.ensure(request)
    assert store.put(request, encode(request, load_for(request), store.settings)) is None
    only_shard(store, request)
