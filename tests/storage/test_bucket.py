"""A bucket: conditional writes that hold, and one sentence for whatever is wrong with it."""

from __future__ import annotations

import os
import pickle

import pytest

from gemma_nli.base.errors import StorageError
from gemma_nli.storage import Changed, Prefix, folder_of, parse_address, place_of
from gemma_nli.storage.bucket import Bucket, Seen
from tests.s3_server import SECRET


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("az://bucket/x", "az:// is not supported; name a folder .* s3://bucket/prefix .* gs://bucket/prefix"),
        ("gs://", "gs:// must be followed by a bucket's name"),
        ("s3://", "must be followed by a bucket's name"),
        ("s3://me:secret@bucket/x", "credentials belong in the environment"),
        ("s3://bucket/../x", "the prefix after the bucket"),
        ("s3://bucket/a?b", "the prefix after the bucket"),
    ],
)
def test_an_address_that_is_none_is_refused_with_a_sentence(text, reported):
    with pytest.raises(ValueError, match=reported) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_place_travels_and_is_the_same_however_it_is_written(scheme):
    place = place_of(f"{scheme}://bucket//a/b/")
    assert str(place) == f"{scheme}://bucket/a/b"
    assert pickle.loads(pickle.dumps(place / "c")) == Prefix(scheme, "bucket", "a/b/c")
    assert str(Prefix(scheme, "bucket")) == f"{scheme}://bucket"


def test_two_stores_never_share_a_mirror(monkeypatch):
    mirrors = {folder_of(Prefix("s3", "bucket", "a")), folder_of(Prefix("gs", "bucket", "a"))}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://one")
    mirrors |= {folder_of(Prefix("s3", "bucket", "a")), folder_of(Prefix("gs", "bucket", "a"))}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
    assert len(mirrors | {folder_of(Prefix("s3", "bucket", "a"))}) == 5


def test_a_write_holds_its_condition(store):
    bucket = store.place().bucket
    first = bucket.put("k", b"1", if_absent=True)
    with pytest.raises(Changed):
        bucket.put("k", b"2", if_absent=True)
    second = bucket.put("k", b"2", if_match=first)
    with pytest.raises(Changed):
        bucket.put("k", b"3", if_match=first)
    with pytest.raises(Changed):
        bucket.put("gone", b"3", if_match=first)
    found = bucket.get("k")
    assert (found.data, found.version) == (b"2", second)
    assert -1 <= found.age_seconds < 5


@pytest.mark.parametrize("again", [{"if_absent": True}, {"if_match": ""}])
def test_a_write_whose_answer_is_lost_is_no_conflict_with_itself(store, again):
    bucket = store.place().bucket
    if "if_match" in again:
        again = {"if_match": bucket.put("k", b"0")}
    store.lose_answers.append("/k")
    version = bucket.put("k", b"mine", **again)
    assert bucket.get("k").data == b"mine"
    assert not store.lose_answers
    bucket.put("k", b"next", if_match=version)


def test_objects_of_any_size_are_put_there_brought_back_listed_and_deleted(store, tmp_path):
    bucket, large = store.place().bucket, os.urandom(9 * 2**20)
    (tmp_path / "large").write_bytes(large)
    bucket.store("large", tmp_path / "large")
    bucket.store("many/small", b"\r\n--\n")
    for number in range(60):
        bucket.put(f"many/{number:03}", b"")
    assert bucket.fetch("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large
    assert bucket.get("many/small").data == b"\r\n--\n"
    assert not bucket.fetch("gone", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["back", "large"]
    assert len(bucket.keys("many/")) == 61
    bucket.delete("many/000")
    bucket.delete("many/000")
    assert (bucket.get("many/000"), bucket.head("many/000"), len(bucket.keys("many/"))) == (None, None, 60)


def test_a_store_that_ignores_conditions_is_refused(store):
    bucket = store.place().bucket
    bucket.check_conditions("probe")
    store.no_conditions = True
    with pytest.raises(StorageError, match="ignores the conditions of a write"):
        bucket.check_conditions("probe")
    assert store.names() == []


def test_an_object_that_is_written_too_often_is_written_a_little_later(gcs):
    gcs.too_often.append("/k")
    assert gcs.place().bucket.put("k", b"1", if_absent=True)
    assert not gcs.too_often


def test_what_is_wrong_with_a_bucket_of_s3_is_one_sentence(s3, monkeypatch, tmp_path):
    with pytest.raises(StorageError, match=r"^s3://nobucket: there is no such bucket; create it"):
        Prefix("s3", "nobucket").bucket.check()
    with pytest.raises(StorageError, match=r"^s3://nobucket: there is no such bucket; create it"):
        Prefix("s3", "nobucket").bucket.put("k", b"")
    s3.away = True
    with pytest.raises(StorageError, match=r"status 503\); run the same command again"):
        s3.place().bucket.get("k")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:pass-word@127.0.0.1:1")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1 does not answer \(EndpointConnectionError\)") as caught:
        s3.place().bucket.check()
    assert "pass-word" not in str(caught.value)
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{s3.url}/")
    with pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        s3.place().bucket.check()


def test_what_is_wrong_with_a_bucket_of_google_is_one_sentence(gcs, monkeypatch, tmp_path):
    with pytest.raises(StorageError, match=r"^gs://nobucket: there is no such bucket; create it"):
        Prefix("gs", "nobucket").bucket.check()
    with pytest.raises(StorageError, match=r"^gs://nobucket: there is no such bucket; create it"):
        Prefix("gs", "nobucket").bucket.put("k", b"")
    gcs.forbidden = True
    with pytest.raises(StorageError, match=r"may not use it \(403\); they need Storage Object User"):
        gcs.place().bucket.check()
    gcs.forbidden, gcs.away = False, True
    for request in (lambda bucket: bucket.get("k"), lambda bucket: bucket.put("k", b"")):
        with pytest.raises(StorageError, match=r"status 503\); run the same command again"):
            request(gcs.place().bucket)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://me:pass-word@127.0.0.1:1")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1 does not answer \(ConnectionError\)") as caught:
        gcs.place().bucket.check()
    assert "pass-word" not in str(caught.value)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StorageError, match="no credentials; set GOOGLE_APPLICATION_CREDENTIALS"):
        gcs.place().bucket.check()


class Forgetful(Bucket):
    """A store that honours some conditions of a write and does as if the others were not there."""

    scheme = "s3"

    def __init__(self, honoured: str) -> None:
        super().__init__("bucket")
        self.honoured, self.kept, self.writes = honoured, dict[str, tuple[str, bytes]](), 0

    def put(self, key: str, data: bytes, if_match: str | None = None, if_absent: bool = False) -> str:
        there = self.kept.get(key)
        absent_fails = if_absent and there is not None and "absent" in self.honoured
        match_fails = if_match is not None and (there is None or there[0] != if_match) and "match" in self.honoured
        if absent_fails or match_fails:
            raise Changed(key)
        self.writes += 1
        self.kept[key] = (str(self.writes), data)
        return str(self.writes)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    def get(self, key: str) -> Seen | None:
        raise NotImplementedError

    head = store = _download = keys = check = get


@pytest.mark.parametrize("honoured", ["", "absent", "match"])
def test_a_store_that_ignores_one_kind_of_condition_is_refused_as_one_that_ignores_both(honoured):
    Forgetful("absent and match").check_conditions("probe")
    bucket = Forgetful(honoured)
    with pytest.raises(StorageError, match="ignores the conditions of a write"):
        bucket.check_conditions("probe")
    assert bucket.kept == {}
