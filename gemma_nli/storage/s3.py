"""An S3 bucket through boto3: AWS's own, MinIO's, Ceph's.

$AWS_ENDPOINT_URL, $AWS_ACCESS_KEY_ID and the other ways that boto3 knows name the store and the credentials;
$AWS_MAX_ATTEMPTS how often a request is tried.
"""

from __future__ import annotations

import io
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from gemma_nli.base.advice import install_line
from gemma_nli.base.errors import StorageError
from gemma_nli.base.masking import mask_credentials
from gemma_nli.storage.bucket import Bucket, Changed, Seen, backend

TRIES = 8
"""Per request, before its caller gets the error: with standard back-off, about half a minute."""
_CONFLICTS = 5


@backend("s3")
class S3Bucket(Bucket):
    """Versions are ETags."""

    endpoints = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    names = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
    terms = " of a store that honours conditional writes"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise StorageError(f"{self}: needs boto3 on every node: {install_line('gemma-nli[s3]')}") from None
        tries = int(os.environ.get("AWS_MAX_ATTEMPTS", TRIES))
        patience = {"mode": "standard", "total_max_attempts": tries}
        with self._explained():
            config = Config(retries=patience, connect_timeout=5, read_timeout=60, max_pool_connections=32)
            self.client: Any = boto3.session.Session().client("s3", config=config)

    def get(self, key: str) -> Seen | None:
        with self._explained():
            try:
                answer = self.client.get_object(Bucket=self.name, Key=key)
                return _seen(answer, answer["Body"].read())
            except self.client.exceptions.NoSuchKey:
                return None

    def head(self, key: str) -> Seen | None:
        with self._explained():
            try:
                return _seen(self.client.head_object(Bucket=self.name, Key=key))
            except self.client.exceptions.ClientError as error:
                if _status(error) == 404:
                    return None
                raise

    def put(self, key: str, data: bytes, if_match: str | None = None, if_absent: bool = False) -> str:
        writer = uuid.uuid4().hex
        conditions = {"IfMatch": if_match} if if_match else {"IfNoneMatch": "*"} if if_absent else {}
        with self._explained():
            for conflict in range(1, _CONFLICTS + 1):
                try:
                    answer = self.client.put_object(
                        Bucket=self.name, Key=key, Body=data, Metadata={"writer": writer}, **conditions
                    )
                    return str(answer["ETag"])
                except self.client.exceptions.ClientError as error:
                    if _status(error) == 409 and conflict < _CONFLICTS:  # another write to the key is in progress
                        time.sleep(0.1 * conflict)
                        continue
                    gone = if_match is not None and _code(error) == "NoSuchKey"
                    if not conditions or not (_status(error) in (409, 412) or gone):
                        raise
                seen = self.head(key)
                if seen is not None and seen.writer == writer:  # its answer was lost, and boto3 had retried
                    return seen.version
                raise Changed(f"{self}/{key}")
            raise AssertionError("the last conflict has raised")

    def store(self, key: str, source: bytes | Path) -> None:
        with self._explained():
            if isinstance(source, bytes):
                self.client.upload_fileobj(io.BytesIO(source), self.name, key)
            else:
                self.client.upload_file(str(source), self.name, key)

    def _download(self, key: str, target: Path) -> bool:
        with self._explained():
            try:
                self.client.download_file(self.name, key, str(target))
                return True
            except self.client.exceptions.ClientError as error:
                if _status(error) == 404:
                    return False
                raise

    def keys(self, prefix: str) -> list[str]:
        with self._explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def delete(self, key: str) -> None:
        with self._explained():
            self.client.delete_object(Bucket=self.name, Key=key)

    def check(self) -> None:
        with self._explained():
            self.client.head_bucket(Bucket=self.name)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise StorageError(f"{self}: {self._cause(error)}") from None

    def _cause(self, error: Exception) -> str:
        from botocore.exceptions import (
            ClientError,
            ConnectionError,  # botocore's own
            HTTPClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, on every node."
        if isinstance(error, HTTPClientError | ConnectionError):
            endpoint = mask_credentials(str(self.client.meta.endpoint_url))
            return f"{endpoint} does not answer ({type(error).__name__}); run the same command again when it is back."
        if not isinstance(error, ClientError):
            return f"{mask_credentials(' '.join(str(error).split()))[:300]} ({type(error).__name__})."
        status, code = _status(error), _code(error)
        if code == "NoSuchBucket" or (status == 404 and error.operation_name == "HeadBucket"):
            return "there is no such bucket; create it, or set storage= to an existing one."
        if status in (401, 403):
            return (
                f"these credentials may not use it ({code}); they need permission to get, put, list and delete objects."
            )
        if status in (301, 400) and error.operation_name == "HeadBucket":
            return f"it answers {status}; set AWS_DEFAULT_REGION to the bucket's region and check the credentials."
        return f"{error.operation_name} failed ({code}, status {status}); run the same command again when it is fixed."


def _seen(answer: dict[str, Any], data: bytes = b"") -> Seen:
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    written: datetime = answer["LastModified"]
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}  # MinIO answers `Writer`
    return Seen(answer["ETag"], (now - written).total_seconds(), metadata.get("writer", ""), data)


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "?"))
