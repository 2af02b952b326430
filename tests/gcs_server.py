"""A small Google Cloud Storage on loopback: its JSON API as documented, as much of it as a bucket of ours asks for.

Objects by generation, preconditions, multipart and resumable uploads, checksums, pages of a list; and the trouble that
tests give it. It is ours, so it shows that the library's requests say what we mean, not that Google's server agrees.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import google_crc32c
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from gemma_nli.storage import Prefix
from tests.s3_server import BUCKET, Quiet, answering

PAGE = 50


@dataclass
class Object:
    data: bytes
    generation: int
    created: float
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


class Store:
    """The store; the switches are read at each request, and mean what those of the S3 store mean."""

    def __init__(self, host: str) -> None:
        self.away = False
        self.refused = ""
        self.lose_answers: list[str] = []
        self.ahead_seconds = 0
        self.no_conditions = False
        self.too_often: list[str] = []  # keys' ends whose next write is answered with 429
        self.forbidden = False
        self.requests: list[tuple[str, str]] = []
        self._objects: dict[str, Object] = {}
        self._uploads: dict[str, dict[str, Any]] = {}
        self._generation = time.time_ns() // 1000
        self._lock = threading.Lock()
        self.server: BaseWSGIServer = make_server(host, 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://{host}:{self.server.server_port}"

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        body = request.get_data()
        path = unquote(environ.get("REQUEST_URI", request.path).partition("?")[0])
        self.requests.append((request.method, path))
        try:
            response = self._answer(request, path, body)
        except Refused as refusal:
            error = {"code": refusal.status, "message": refusal.reason}
            response = Response(json.dumps({"error": error}), refusal.status, content_type="application/json")
        return response(environ, start)

    def _answer(self, request: Request, path: str, body: bytes) -> Response:
        if self.away:
            raise Refused(503, "Backend Error")
        if self.forbidden:
            raise Refused(403, "Forbidden")
        asked = re.fullmatch(r"(?:/(?:up|down)load)?/storage/v1/b/([^/]+)(/o/?)?(.*)", path, re.DOTALL)
        assert asked is not None, path
        bucket, objects, rest = asked.groups()
        if bucket != BUCKET:
            raise Refused(404, "The specified bucket does not exist.")
        if not objects:  # which the library looks at by itself, and which takes a right that a sweep does not need
            raise Refused(403, "storage.buckets.get denied.")
        with self._lock:
            if path.startswith("/upload/"):
                return self._upload(request, body)
            if not rest:
                return self._list(request)
            if request.method == "DELETE":
                self._meet(request, rest)
                self._found(rest)
                del self._objects[rest]
                return Response(status=204)
            self._meet(request, rest)
            found = self._found(rest)
            if request.args.get("alt") == "media":
                headers = {"X-Goog-Generation": str(found.generation), "X-Goog-Hash": f"crc32c={found.crc32c}"}
                return Response(found.data, headers=headers, content_type="application/octet-stream")
            return _json(self._resource(rest))

    def _list(self, request: Request) -> Response:
        names = sorted(name for name in self._objects if name.startswith(request.args.get("prefix", "")))
        first, size = int(request.args.get("pageToken", 0)), int(request.args.get("maxResults", PAGE))
        answer: dict[str, Any] = {"items": [self._resource(name) for name in names[first : first + size]]}
        if first + size < len(names):
            answer["nextPageToken"] = str(first + size)
        return _json(answer)

    def _upload(self, request: Request, body: bytes) -> Response:
        kind = request.args["uploadType"]
        if kind == "multipart":
            reported, data = _parts(body)
            return self._write(request, json.loads(reported), data)
        if "upload_id" not in request.args:
            upload_id = uuid.uuid4().hex
            self._uploads[upload_id] = {"told": json.loads(body), "data": b""}
            return Response(headers={"Location": f"{request.url}&upload_id={upload_id}"})
        upload = self._uploads[request.args["upload_id"]]
        upload["data"] += body
        total = request.headers["Content-Range"].rpartition("/")[2]
        if total == "*" or len(upload["data"]) < int(total):
            return Response(status=308, headers={"Range": f"bytes=0-{len(upload['data']) - 1}"})
        return self._write(request, upload["told"], upload["data"])

    def _write(self, request: Request, reported: dict[str, Any], data: bytes) -> Response:
        name = reported["name"]
        if self.refused and self.refused in name:
            raise Refused(503, "Backend Error")
        if _took(self.too_often, name):
            raise Refused(429, "The object exceeded the rate limit for object mutation operations.")
        self._meet(request, name)
        self._generation += 1
        written = Object(data, self._generation, time.time() + self.ahead_seconds, reported.get("metadata", {}))
        if reported.get("crc32c", written.crc32c) != written.crc32c:
            raise Refused(400, "Provided CRC32C does not match the data.")
        self._objects[name] = written
        if _took(self.lose_answers, name):
            raise Refused(500, "Backend Error")
        return _json(self._resource(name))

    def _meet(self, request: Request, name: str) -> None:
        wanted = request.args.get("ifGenerationMatch")
        found = self._objects.get(name)
        if wanted is not None and not self.no_conditions and int(wanted) != (found.generation if found else 0):
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")

    def _found(self, name: str) -> Object:
        if name not in self._objects:
            raise Refused(404, f"No such object: {BUCKET}/{name}")
        return self._objects[name]

    def _resource(self, name: str) -> dict[str, Any]:
        found = self._objects[name]
        created = datetime.fromtimestamp(found.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "generation": str(found.generation),
            "metageneration": "1",
            "size": str(len(found.data)),
            "crc32c": found.crc32c,
            "timeCreated": created,
            "updated": created,
            "metadata": found.metadata,
        }

    def place(self, key: str = "") -> Prefix:
        return Prefix("gs", BUCKET, key)

    def empty(self) -> None:
        self._objects.clear()

    def names(self) -> list[str]:
        return sorted(self._objects)

    def read(self, key: str) -> bytes:
        return self._objects[key].data

    def overwrite(self, key: str, data: bytes) -> None:
        """As somebody else's tool does."""
        self._generation += 1
        self._objects[key] = Object(data, self._generation, time.time())

    def delete(self, key: str) -> None:
        del self._objects[key]

    def environment(self) -> dict[str, str]:
        """What a node's processes find in their environment."""
        return {"STORAGE_EMULATOR_HOST": self.url}


def _took(ends: list[str], name: str) -> bool:
    found = [end for end in ends if f"/{name}".endswith(end)]
    if found:
        ends.remove(found[0])
    return bool(found)


def _parts(body: bytes) -> tuple[bytes, bytes]:
    """The two parts of a multipart/related body, without their headers."""
    boundary = body.partition(b"\r\n")[0]
    reported, data, _ = body.removeprefix(boundary).split(b"\r\n" + boundary)
    return reported.partition(b"\r\n\r\n")[2], data.partition(b"\r\n\r\n")[2]


def _json(answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer), content_type="application/json; charset=UTF-8")


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Store]:
    store = Store(host)
    with answering(store.server):
        yield store
