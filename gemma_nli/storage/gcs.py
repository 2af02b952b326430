"""A bucket of Google Cloud Storage through google-cloud-storage.

$GOOGLE_APPLICATION_CREDENTIALS and the other ways that google-auth knows give the credentials; $STORAGE_EMULATOR_HOST
names another server with its JSON API.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import StorageError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.storage.bucket import Bucket, Changed, Seen, backend

PATIENCE_SECONDS = 40.0
"""Per request, before its caller gets the error. An object accepts about one write per second, and answers 429 before
that.
"""
_TIMEOUT = (5.0, 60.0)  # seconds, to connect and to read
_CONNECTIONS = 32


@backend("gs")
class GcsBucket(Bucket):
    """Versions are generations."""

    endpoints = ("STORAGE_EMULATOR_HOST",)
    names = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            from google.cloud import storage
            from google.cloud.storage.retry import DEFAULT_RETRY
        except ImportError:
            raise StorageError(
                f"{self}: needs google-cloud-storage on every node: {install_line('gemma-nli[gcs]')}"
            ) from None
        from requests.adapters import HTTPAdapter

        retry = DEFAULT_RETRY.with_delay(initial=0.3, maximum=5.0).with_timeout(PATIENCE_SECONDS)
        self._options: dict[str, Any] = {"retry": retry, "timeout": _TIMEOUT}
        self._answered = threading.local()
        self.client: Any = None
        with self._explained():
            self.client = storage.Client(project="<none>")  # bucket names are global over all projects
            self._bucket = self.client.bucket(name)
            session = self.client._http  # the library has no public name for the store's clock
        session.mount("https://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
        session.hooks["response"].append(self._note_clock)

    def get(self, key: str) -> Seen | None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        while (seen := self.head(key)) is not None:
            with self._explained():
                try:
                    blob = self._bucket.blob(key)
                    data = blob.download_as_bytes(if_generation_match=int(seen.version), **self._options)
                    return Seen(seen.version, seen.age_seconds, seen.writer, data)
                except (NotFound, PreconditionFailed):
                    continue  # written or deleted since the last look: look again
        return None

    def head(self, key: str) -> Seen | None:
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(key)
        with self._explained():
            try:
                blob.reload(**self._options)
            except NotFound:
                return None
        age = (self._answered.at - blob.time_created).total_seconds()
        return Seen(str(blob.generation), age, (blob.metadata or {}).get("writer", ""))

    def put(self, key: str, data: bytes, if_match: str | None = None, if_absent: bool = False) -> str:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(key)
        writer = uuid.uuid4().hex
        blob.metadata = {"writer": writer}
        generation = int(if_match) if if_match else 0 if if_absent else None
        with self._explained():
            try:
                blob.upload_from_string(data, if_generation_match=generation, **self._options)
                return str(blob.generation)
            except PreconditionFailed:
                seen = self.head(key)
                if seen is not None and seen.writer == writer:  # its answer was lost, and the library had retried
                    return seen.version
                raise Changed(f"{self}/{key}") from None

    def store(self, key: str, source: bytes | Path) -> None:
        blob = self._bucket.blob(key)
        with self._explained():
            if isinstance(source, bytes):
                blob.upload_from_string(source, **self._options)
            else:
                blob.upload_from_filename(str(source), **self._options)

    def _download(self, key: str, target: Path) -> bool:
        from google.api_core.exceptions import NotFound

        with self._explained():
            try:
                self._bucket.blob(key).download_to_filename(str(target), **self._options)
                return True
            except NotFound:
                return False

    def keys(self, prefix: str) -> list[str]:
        with self._explained():
            return [blob.name for blob in self.client.list_blobs(self._bucket, prefix=prefix, **self._options)]

    def delete(self, key: str) -> None:
        from google.api_core.exceptions import NotFound

        with self._explained():
            try:
                self._bucket.blob(key).delete(**self._options)
            except NotFound:
                return

    def check(self) -> None:
        """Asks for a list: the right to objects (Storage Object User) does not include looking at their bucket."""
        with self._explained():
            next(iter(self.client.list_blobs(self._bucket, max_results=1, **self._options)), None)

    def _note_clock(self, response: Any, *_: object, **__: object) -> None:
        self._answered.at = parsedate_to_datetime(response.headers["Date"])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests.exceptions import RequestException

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, RequestException) as error:
            raise StorageError(f"{self}: {self._cause(error)}") from None

    def _cause(self, error: Exception) -> str:
        from google.api_core.exceptions import RetryError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from requests.exceptions import RequestException

        if isinstance(error, RetryError) and isinstance(error.cause, Exception):
            return self._cause(error.cause)
        if isinstance(error, DefaultCredentialsError):
            return "no credentials; set GOOGLE_APPLICATION_CREDENTIALS, or give each node a service account."
        if isinstance(error, RequestException | TransportError):
            endpoint = mask_credentials(str(getattr(self.client, "api_endpoint", "the server that signs in")))
            return f"{endpoint} does not answer ({type(error).__name__}); run the same command again when it is back."
        answered = getattr(getattr(error, "response", None), "status_code", 0)
        status = int(getattr(error, "code", None) or answered or 0)
        kind = type(error).__name__
        if status == 404:
            return "there is no such bucket; create it, or set storage= to an existing one."
        if status in (401, 403) or isinstance(error, GoogleAuthError):
            return f"these credentials may not use it ({status or kind}); they need Storage Object User."
        return f"a request failed ({kind}, status {status}); run the same command again when it is fixed."
