"""An S3 store on loopback (moto's, over real HTTP), and the trouble that tests give it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.http import http_date, parse_date
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from gemma_nli.storage import Prefix

BUCKET = "sweeps"
SECRET = "not-to-be-seen"
Respond = Callable[..., Any]


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        return None

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Of the header `Date`."""
        return http_date(time.time() + self.server.app.ahead_seconds)


class Store:
    """The store; the switches are read at each request."""

    def __init__(self, host: str) -> None:
        self.away = False  # answers nothing but 503
        self.refused = ""  # in a key: its writes are answered with 503
        self.lose_answers: list[str] = []  # keys' ends whose next write is done and answered with 500
        self.ahead_seconds = 0  # of its clock before ours
        self.no_conditions = False  # as stores do that do not know If-Match and If-None-Match
        self.requests: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self.server: BaseWSGIServer = make_server(host, 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://{host}:{self.server.server_port}"

    def __call__(self, environ: dict[str, Any], start: Respond) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if self.away or (self.refused and method == "PUT" and self.refused in path):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Service Unavailable", [("Content-Length", "0"), ("Retry-After", "0")])
            return []
        if self.no_conditions:
            environ.pop("HTTP_IF_MATCH", None)
            environ.pop("HTTP_IF_NONE_MATCH", None)
        ends = [end for end in self.lose_answers if method == "PUT" and path.endswith(end)]
        if ends:
            self.lose_answers.remove(ends[0])
            list(self._app(environ, lambda *_: None))
            start("500 Internal Server Error", [("Content-Length", "0")])
            return []
        answer: Iterable[bytes] = self._app(environ, self._by_its_clock(start))
        return answer

    def _by_its_clock(self, start: Respond) -> Respond:
        def respond(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            reported = {name.title(): value for name, value in headers}
            at = parse_date(reported.get("Last-Modified"))
            if at is not None:
                reported["Last-Modified"] = http_date(at + timedelta(seconds=self.ahead_seconds))
            return start(status, list(reported.items()), *more)

        return respond

    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id="any", aws_secret_access_key=SECRET)

    def empty(self) -> None:
        """Delete every object."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for entry in page.get("Contents", ()):
                client.delete_object(Bucket=BUCKET, Key=entry["Key"])

    def place(self, key: str = "") -> Prefix:
        return Prefix("s3", BUCKET, key)

    def names(self) -> list[str]:
        return [entry["Key"] for entry in self.client().list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def read(self, key: str) -> bytes:
        return bytes(self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def overwrite(self, key: str, data: bytes) -> None:
        """As somebody else's tool does."""
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client().delete_object(Bucket=BUCKET, Key=key)

    def environment(self) -> dict[str, str]:
        """What a node's processes find in their environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "3",
        }


@contextmanager
def answering(server: BaseWSGIServer) -> Iterator[None]:
    """While it is entered, the server answers in a thread."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Store]:
    store = Store(host)
    with answering(store.server):
        store.client().create_bucket(Bucket=BUCKET)
        yield store


def wait_for(true: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)
