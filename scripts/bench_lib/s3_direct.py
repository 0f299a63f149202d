"""The S3 library by itself: boto3 in plain threads, without a file system around it."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import boto3
import urllib3
from botocore.config import Config

PART_BYTES = 8 << 20
THREADS = 8
"""Both as in recfs's configuration by default."""
RECEIVE_BYTES = 192 << 10
_DELETE_BATCH = 1000

Item = TypeVar("Item")


def make_client(endpoint: str, threads: int = THREADS, *, signed: bool = True, verify: bool = True) -> Any:
    """A boto3 client; `signed`: with the payload's hash in the signature, as AWS wants it over http."""
    if not verify:
        urllib3.disable_warnings()
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        verify=None if verify else False,
        config=Config(
            max_pool_connections=threads + 2,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3={"addressing_style": "path", "payload_signing_enabled": signed},
        ),
    )


class Direct:
    """One bucket, and threads."""

    def __init__(
        self, endpoint: str, bucket: str, threads: int = THREADS, *, signed: bool = True, verify: bool = True
    ) -> None:
        self._client = make_client(endpoint, threads, signed=signed, verify=verify)
        self._bucket = bucket
        self._threads = threads

    def make_bucket(self) -> None:
        """Create the bucket unless it is there."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except self._client.exceptions.ClientError:
            self._client.create_bucket(Bucket=self._bucket)

    def _spread(self, work: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(work, items))

    def upload(self, path: Path, key: str) -> None:
        """Send a file in parts, side by side."""
        target = {"Bucket": self._bucket, "Key": key}
        target["UploadId"] = self._client.create_multipart_upload(**target)["UploadId"]
        with path.open("rb") as file:

            def send(number: int) -> dict[str, Any]:
                body = os.pread(file.fileno(), PART_BYTES, (number - 1) * PART_BYTES)
                sent = self._client.upload_part(PartNumber=number, Body=body, **target)
                return {"PartNumber": number, "ETag": sent["ETag"]}

            count = -(-path.stat().st_size // PART_BYTES)
            parts = self._spread(send, range(1, count + 1))
        self._client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **target)

    def download(self, key: str, size: int, path: Path) -> None:
        """Fetch an object into a file, range by range, side by side."""
        with path.open("wb") as file:

            def fetch(start: int) -> None:
                wanted = f"bytes={start}-{min(start + PART_BYTES, size) - 1}"
                body = self._client.get_object(Bucket=self._bucket, Key=key, Range=wanted)["Body"]
                for block in body.iter_chunks(RECEIVE_BYTES):
                    start += os.pwrite(file.fileno(), block, start)

            self._spread(fetch, range(0, size, PART_BYTES))
        if path.stat().st_size != size:
            raise AssertionError(f"{key}: {path.stat().st_size} of {size} bytes came")

    def put_all(self, files: Iterable[Path], prefix: str) -> None:
        """Store whole files, each in one request."""

        def put(path: Path) -> None:
            self._client.put_object(
                Bucket=self._bucket, Key=f"{prefix}{path.parent.name}/{path.name}", Body=path.read_bytes()
            )

        self._spread(put, files)

    def put_bytes(self, body: bytes, keys: Iterable[str]) -> None:
        """Store the same few bytes under each key."""
        self._spread(lambda key: self._client.put_object(Bucket=self._bucket, Key=key, Body=body), keys)

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys below a prefix."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            for found in page.get("Contents", ()):
                yield found["Key"]

    def clear(self, prefix: str) -> None:
        """Delete everything below a prefix, and uploads that were not finished."""
        keys = self.keys(prefix)
        while batch := list(islice(keys, _DELETE_BATCH)):
            objects = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
            self._client.delete_objects(Bucket=self._bucket, Delete=objects)
        left = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix).get("Uploads", ())
        for upload in left:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
