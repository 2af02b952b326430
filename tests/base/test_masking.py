"""No secret part of any form of address survives the mask, and a text without a secret stays as it is."""

from __future__ import annotations

import os
import shlex
import threading
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gemma_nli.base.masking import MASK, mask_address, mask_credentials
from tests.growth import growth
from tests.tracking.conftest import empty_database, sqlite_uri

__all__ = ["empty_database", "sqlite_uri"]

CANARY = "Qx9vLm7"
SCHEMES = ["http", "HTTPS", "postgresql", "postgresql+psycopg2", "mysql", "mssql+pyodbc", "mongodb+srv", "redis", "s3"]
SCHEMES += ["jdbc:postgresql", "ftp", "amqp", "clickhouse+native"]
KEYS = ["password", "passwd", "pwd", "sslpassword", "token", "auth_token", "access_token", "refresh_token", "api_key"]
KEYS += ["apikey", "api-key", "key", "sig", "signature", "secret", "client_secret", "Password", "PWD", "AccountKey"]
KEYS += ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "AWSAccessKeyId", "jwt"]
KEYS += ["SharedAccessSignature", "subscription-key", "private_token", "sas_token", "hub.verify_token"]
HOSTS = ["db", "db.example.org:5432", "[::1]:5432", "10.0.0.5", "h1:1,h2:2", "[fe80::1%25eth0]"]
odd = st.text(st.sampled_from("aZ09@:/?#%&=+;,.!$'()[]{}~-_ \"<>|\\^"), min_size=0, max_size=12)
plain = st.text(st.sampled_from("aZ09@:/#%+,.!$()[]~-_"), min_size=0, max_size=12)
EXAMPLES = settings(max_examples=400, deadline=None, database=None, derandomize=True)


@EXAMPLES
@given(st.sampled_from(SCHEMES), odd, odd, st.sampled_from(HOSTS), st.sampled_from(["", "/db", "/a@b", "/db?x=1"]))
def test_no_password_of_an_address_survives(scheme, before, after, host, path):
    password = f"{before}{CANARY}{after}"
    assert CANARY not in mask_address(f"{scheme}://ann:{password}@{host}{path}")
    assert CANARY not in mask_address(f"{scheme}://ann:{quote(password, safe='')}@{host}{path}")


@EXAMPLES
@given(st.sampled_from(SCHEMES), plain, plain, st.sampled_from(HOSTS), st.sampled_from(["", "/db", "/db?x=1"]))
def test_no_password_of_an_address_in_a_sentence_survives(scheme, before, after, host, path):
    password = f"{before}{CANARY}{after}"
    assume("://" not in password)
    for text in (
        f"cannot reach {scheme}://ann:{password}@{host}{path}: refused",
        f"({scheme}://ann:{password}@{host})",
    ):
        assert CANARY not in mask_credentials(text)


@EXAMPLES
@given(st.text(st.sampled_from("aZ09@:/%+. -_"), max_size=12), st.sampled_from(HOSTS))
def test_no_password_with_blanks_survives_where_the_address_is_quoted(password, host):
    address = f"postgresql://ann:{CANARY}{password}@{host}/x"
    for text in (repr(address), f'at "{address}".', f"--tracking-uri {shlex.quote(address + ' ')} --json"):
        assert CANARY not in mask_credentials(text)


@EXAMPLES
@given(st.sampled_from(KEYS), st.sampled_from("?&#"), st.text(st.sampled_from("aZ09@:/?%+.;,!~-_="), max_size=12))
def test_no_secret_of_a_query_or_a_fragment_survives(key, sign, after):
    for secret in (CANARY + after, quote(CANARY + after)):
        for text in (
            f"https://host/path{sign}{key}={secret}",
            f"at https://host/path?a=1{sign}{key}={secret}&z=1 now",
            f"'postgresql://host/x?user=ann{sign}{key}={secret}'",
        ):
            assert CANARY not in mask_credentials(text)
            assert CANARY not in mask_address(text)
        assert mask_credentials(f"https://host/x?a=1&{key}={secret}&z=1") == f"https://host/x?a=1&{key}=***&z=1"


@pytest.mark.parametrize(
    "text",
    [
        f"https://{CANARY}@host/path",
        f"https://{CANARY}:x-oauth-basic@github.com/org/repo",
        f"https://:{CANARY}@host",
        f"http://u:8080/{CANARY}@host",
        f"http://u:12 {CANARY}@host/x",
        f"postgresql://u:my {CANARY} word@host/x",
        f"postgresql://user@server:{CANARY}@host/x",
        f"postgresql://u:a@h1:1,v:{CANARY}@h2/x",
        f"http://v:b@h/ and http://u:{CANARY}@h2/ and me@x.org",
        f"mssql+pyodbc:///?odbc_connect=UID=sa;PWD={{a;{CANARY}}};x=1",
        f"mssql:///?odbc_connect=UID%3Dsa%3BPWD%3D{CANARY}%3Bx",
        f"Server=db;User Id=sa;Password={CANARY};",
        f"host=db user=ann password={CANARY} dbname=x",
        f"host=db password='it\\'s {CANARY}' user=ann",
        f'dsn: "host=db password={CANARY}"',
        f"connect(host='db', password='{CANARY} two', port=1)",
        f"{{'user': 'ann', 'password': '{CANARY}'}}",
        f'{{"token": "a {CANARY}"}}',
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CANARY}==;EndpointSuffix=core",
        f"sv=2022-11-02&ss=b&sig={CANARY}%3D",
        f"SharedAccessSignature sr=x&sig={CANARY}&se=1",
        f"https://hooks.slack.com/services/T000/B000/{CANARY}",
        f"https://discord.com/api/webhooks/123/{CANARY}?wait=1",
        f"https://chat.example.org/hooks/{CANARY}",
        f"https://x.webhook.office.com/webhookb2/a@b/IncomingWebhook/{CANARY}/c",
        f"https://api.telegram.org/bot12:{CANARY}/sendMessage",
        f"https://hooks.zapier.com/hooks/catch/1/{CANARY}/",
        f"https://chat.googleapis.com/v1/spaces/A/messages?key=a&token={CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"authorization: {CANARY}",
        f"{{'Authorization': 'Basic {CANARY}=='}}",
        f"curl -H 'X-Api-Key={CANARY}'",
        f"MLFLOW_TRACKING_PASSWORD={CANARY} gemma-nli runs",
        f"WANDB_API_KEY={CANARY}",
        f"hf_{CANARY}{CANARY}{CANARY} is no token",
        f"AKIA{CANARY.upper()}ABCDEFGHI"[:20],
        f"-----BEGIN RSA PRIVATE KEY-----\nMII{CANARY}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_no_secret_of_another_form_survives(text):
    masked = mask_credentials(text)
    assert CANARY not in masked
    assert CANARY.upper() not in masked
    assert MASK in masked
    assert mask_credentials(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "mail me at a@b.c",
        "see http://localhost:5000/x or mail me at a@b.c",
        "see https://mlflow.example.org/#/experiments/1 and write to ann@example.org",
        "http://mlflow:5000: the server does not answer; ask ann@example.org",
        "http://[::1]:5000/x, ann@example.org",
        "https://example.org/x?mail=ann@example.org&page=2",
        "http://db.example.org:8080/x?mail=ann@example.org",
        "s3://bucket/key=value/token=abc/part.csv",
        "/data/password=x/key=value/part-0.parquet",
        "gs://bucket/run@2/model.safetensors",
        "models:/gemma_nli_demo@production",
        "https://github.com/org/repo@v1.2",
        "git@github.com:org/repo.git",
        "training.batch_tokens=5 features.batch_tokens=2048 model.tokenizer=x",
        "params.training.seed = 3 and key=value",
        "a token is a word; its key: 'value'",
        "the password is not stored; set $MLFLOW_TRACKING_URI",
        "sqlite:////data/me@home/mlflow.db",
        "file:///a/b@c:d@e",
        "Basic understanding and bearer of bad tidings",
        "https://sqlalche.me/e/20/e3q8",
        'special tokens {"pad_token_id": 0, "eos_token_id": 1}',
        "--tag researcher=ann --storage s3://bucket/prefix",
        "File /x/y.py, line 3, in pass_through",
        "",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text):
    assert mask_credentials(text) == text


@EXAMPLES
@given(st.text(st.sampled_from("ab 1.:/@=?&'\"(),-\n"), max_size=40))
def test_what_is_masked_once_is_masked_for_good(text):
    once = mask_credentials(text)
    assert mask_credentials(once) == once


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("shape", ["{}", "refused: '{}'.", "user ann, {}", "?x={}"])
def test_the_value_of_a_secret_variable_is_masked_wherever_it_stands(name, shape, monkeypatch):
    secret = f"{CANARY}/+ 'x"
    monkeypatch.setenv(name, secret)
    for form in (secret, quote(secret, safe=""), repr(secret)[1:-1]):
        assert CANARY not in mask_credentials(shape.format(form))


def test_the_password_of_the_tracking_uri_is_masked_by_itself(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ann:{CANARY}%40b@db/x")
    assert mask_credentials(f"password authentication failed: {CANARY}@b") == "password authentication failed: ***"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-and-no-secret")
    assert mask_credentials("false-and-no-secret") == "false-and-no-secret"


def test_a_long_text_is_masked_in_time_that_grows_with_its_length():
    for part in ("http://a:b ", "password= ", "https://x/?a=b&", "'token': '", "x;y=", "https://h/a/b/", "a@b:c//d "):
        assert growth(lambda times, part=part: mask_credentials(part * times), 1_000, 10_000) < 60, part


def test_every_way_to_mlflow_and_to_a_stored_spec_masks_an_address_with_a_blank(tmp_path, sqlite_uri):
    from gemma_nli.spec.spec import SweepSpec
    from gemma_nli.tracking.store.mlflow_store import Store
    from gemma_nli.tracking.write.experiment_tracker import ExperimentTracker

    address = f"postgresql://ann:my {CANARY} word@db/x?sslpassword=a {CANARY}"
    spec = SweepSpec.from_mapping({
        "name": "p", "question": f"Is '{address}' the place?", "space": {"training.seed": {"grid": [1]}},
        "base": {"mlflow": {"tracking_uri": address}}, "tags": {"note": f"kept at '{address}'"},
    })  # fmt: skip
    assert CANARY not in spec.to_yaml()
    assert CANARY not in Store(address, None, None).shown
    with ExperimentTracker("masking", tracking_uri=sqlite_uri, run_name=f"at '{address}'") as tracker:
        tracker.log_params({"data.place": address})
        tracker.set_tags({"note": f"kept at '{address}'"})
    (database,) = tmp_path.rglob("*.db")
    assert CANARY.encode() not in database.read_bytes()


def test_the_report_shows_no_address_with_its_password():
    from gemma_nli.analysis.report.figure_parts import label
    from gemma_nli.analysis.report.html import esc as page
    from gemma_nli.analysis.report.markdown import esc as markdown

    for show in (label, markdown, page):
        assert CANARY not in show(f"s3://key:{CANARY}@bucket/x?sig={CANARY}")


def test_variables_that_another_thread_sets_and_unsets_break_no_message(monkeypatch):
    """MLflow's telemetry thread does so while runs are written: a sweep ended with its KeyError."""
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for number in range(50):
                os.environ[f"_COMES_AND_GOES_{number}"] = "x"
            for number in range(50):
                os.environ.pop(f"_COMES_AND_GOES_{number}", None)

    monkeypatch.setenv("SOME_TOKEN", "s3cret-s3cret")
    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert {mask_credentials("sent s3cret-s3cret") for _ in range(3000)} == {"sent ***"}
    finally:
        done.set()
        other.join()
