"""A bucket: conditional writes that hold, and one sentence for whatever is wrong with it."""

from __future__ import annotations

import pickle

import pytest

from gemma_nli.errors import StorageError
from gemma_nli.storage import Changed, Prefix, folder_of, open_bucket, parse_address, place_of
from tests.s3_server import BUCKET, SECRET


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gs://bucket/x", "gs:// is not known; name a folder .* or s3://bucket/prefix"),
        ("s3://", "must be followed by a bucket's name"),
        ("s3://me:secret@bucket/x", "credentials belong in the environment"),
        ("s3://bucket/../x", "the prefix after the bucket"),
        ("s3://bucket/a?b", "the prefix after the bucket"),
    ],
)
def test_an_address_that_is_none_is_refused_with_a_sentence(text, told):
    with pytest.raises(ValueError, match=told) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


def test_a_place_travels_and_is_the_same_however_it_is_written():
    place = place_of("s3://bucket//a/b/")
    assert str(place) == "s3://bucket/a/b"
    assert pickle.loads(pickle.dumps(place / "c")) == Prefix("bucket", "a/b/c")
    assert str(Prefix("bucket")) == "s3://bucket"


def test_two_stores_never_share_a_mirror(monkeypatch):
    place = Prefix("bucket", "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    first = folder_of(place)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://two")
    assert folder_of(place) != first


def test_a_write_holds_its_condition(s3):
    bucket = open_bucket(BUCKET)
    first = bucket.put("k", b"1", if_absent=True)
    with pytest.raises(Changed):
        bucket.put("k", b"2", if_absent=True)
    second = bucket.put("k", b"2", if_match=first)
    with pytest.raises(Changed):
        bucket.put("k", b"3", if_match=first)
    with pytest.raises(Changed):
        bucket.put("gone", b"3", if_match=first)
    found = bucket.get("k")
    assert (found.data, found.etag) == (b"2", second)
    assert 0 <= found.age_seconds < 5


@pytest.mark.parametrize("again", [{"if_absent": True}, {"if_match": ""}])
def test_a_write_whose_answer_is_lost_is_no_conflict_with_itself(s3, again):
    bucket = open_bucket(BUCKET)
    if "if_match" in again:
        again = {"if_match": bucket.put("k", b"0")}
    s3.lose_answers.append("/k")
    etag = bucket.put("k", b"mine", **again)
    assert bucket.get("k").data == b"mine"
    assert not s3.lose_answers
    bucket.put("k", b"next", if_match=etag)


def test_a_store_that_ignores_conditions_is_refused(s3):
    open_bucket(BUCKET).check_conditions("probe")
    s3.no_conditions = True
    with pytest.raises(StorageError, match="ignores If-None-Match and If-Match on writes"):
        open_bucket(BUCKET).check_conditions("probe")
    assert s3.names() == []


def test_what_is_wrong_with_a_bucket_is_one_sentence(s3, monkeypatch, tmp_path):
    with pytest.raises(StorageError, match=r"^s3://nobucket: there is no such bucket; make it"):
        open_bucket("nobucket").check()
    with pytest.raises(StorageError, match=r"^s3://nobucket: there is no such bucket; make it"):
        open_bucket("nobucket").put("k", b"")
    s3.away = True
    with pytest.raises(StorageError, match=r"status 503\); the same command goes on"):
        open_bucket(BUCKET).get("k")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:pass-word@127.0.0.1:1")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1 does not answer \(EndpointConnectionError\)") as caught:
        open_bucket(BUCKET).check()
    assert "pass-word" not in str(caught.value)
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{s3.url}/")
    with pytest.raises(StorageError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        open_bucket(BUCKET).check()
