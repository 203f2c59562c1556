"""Large uploads in parts, of which none has to be sent twice: also not by the next process, when this one dies.

An object of a bucket appears whole, when its parts are put together; parts that nobody put together are no object, and
the bucket forgets them when its owner says so (S3: a lifecycle rule for incomplete uploads) or by itself (Azure: after
a week). What an address already has is compared by size and MD5 of each part, so a part that differs is sent again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from hashlib import md5
from typing import Any, Protocol

from kitaru_nb.artifacts.protocol import Buffer

#: Bytes of a part, where that gives no more parts than `MOST`.
PART = 8 << 20
#: S3 takes 10,000.
MOST = 9_000


class Gone(Exception):
    """The upload isn't there any more: another writer of the same bytes has ended it."""


class Upload(Protocol):
    """An object that goes up in parts, numbered from 1. Every method may raise what the store's driver raises."""

    def put(self, number: int, data: bytes) -> bool:
        """Send a part, unless it is there already; whether it was sent. Raises `Gone`."""

    def finish(self, count: int) -> None:
        """Put the object together from that many parts. Raises `Gone`."""


def part_size(size: int) -> int:
    """Bytes of a part of an object: for the same object always the same, or what is there would be of no use."""
    needed = -(-size // MOST)
    return max(PART, -(-needed // (1 << 20)) << 20)


def parts_of(chunks: Iterable[Buffer], size: int) -> Iterator[bytes]:
    """The same bytes in parts of one size; the last may be smaller."""
    part = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        while len(rest):
            taken = rest[: size - len(part)]
            part += taken
            rest = rest[len(taken) :]
            if len(part) == size:
                yield bytes(part)
                part.clear()
    if part:
        yield bytes(part)


def upload_to(fs: Any, path: str) -> Upload | None:
    """The upload of an object, with the parts that are there; None where the store can't go on with one."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "s3" in protocols:
        return S3Upload(fs, path)
    if "abfs" in protocols:
        return AzureUpload(fs, path)
    return None  # Google's resumable uploads belong to the process that began them


class S3Upload:
    """A multipart upload: the newest of this object that isn't ended, else a new one."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        bucket, key, _ = fs.split_path(path)
        self._object = {"Bucket": bucket, "Key": key}
        try:
            found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", [])
        except PermissionError:
            found = []  # who may write need not be allowed to list: then it begins anew
        mine = sorted((u["Initiated"], u["UploadId"]) for u in found if u["Key"] == key)
        self._id = mine[-1][1] if mine else fs.call_s3("create_multipart_upload", **self._object)["UploadId"]
        self._there = self._parts() if mine else {}

    def _parts(self) -> dict[int, Mapping[str, Any]]:
        found: dict[int, Mapping[str, Any]] = {}
        after = 0
        while True:
            page = self._fs.call_s3("list_parts", **self._object, UploadId=self._id, PartNumberMarker=after)
            found |= {part["PartNumber"]: part for part in page.get("Parts", [])}
            if not page.get("IsTruncated"):
                return found
            after = page["NextPartNumberMarker"]

    def put(self, number: int, data: bytes) -> bool:
        """As `Upload.put`."""
        known = self._there.get(number, {})
        if known.get("Size", len(data)) == len(data) and known.get("ETag", "").strip('"') == _md5(data).hex():
            return False
        sent = self._call("upload_part", PartNumber=number, Body=data)
        self._there[number] = {"ETag": sent["ETag"], "Size": len(data)}
        return True

    def finish(self, count: int) -> None:
        """As `Upload.finish`."""
        parts = [{"PartNumber": number, "ETag": self._there[number]["ETag"]} for number in range(1, count + 1)]
        self._call("complete_multipart_upload", MultipartUpload={"Parts": parts})

    def _call(self, method: str, **options: Any) -> Any:
        try:
            return self._fs.call_s3(method, **self._object, UploadId=self._id, **options)
        except FileNotFoundError as error:
            raise Gone from error  # NoSuchUpload; the bucket was there when this began


class AzureUpload:
    """Blocks of a blob that isn't committed. A block's name says what is in it, so equal names are equal bytes."""

    def __init__(self, fs: Any, path: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        self._fs = fs
        self._container, self._key, _ = fs.split_path(path)
        self._names: dict[int, str] = {}
        self._there: set[str] = set()
        try:
            _, staged = self._call("get_block_list", "uncommitted")
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", "") == "ContainerNotFound":
                raise FileNotFoundError(self._container) from error
            return  # nobody has sent any
        self._there = {block.id for block in staged}

    def put(self, number: int, data: bytes) -> bool:
        """As `Upload.put`."""
        name = base64.b64encode(f"{number:05}".encode() + _md5(data)).decode()
        self._names[number] = name
        if name in self._there:
            return False
        self._call("stage_block", name, data, length=len(data))
        self._there.add(name)
        return True

    def finish(self, count: int) -> None:
        """As `Upload.finish`."""
        from azure.storage.blob import BlobBlock

        self._call("commit_block_list", [BlobBlock(self._names[number]) for number in range(1, count + 1)])

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        async def call() -> Any:
            async with self._fs.service_client.get_blob_client(self._container, self._key) as blob:
                # The caller tries again; by itself this client waits 15 seconds before it does.
                return await getattr(blob, method)(*args, **options, retry_total=0)

        return sync(self._fs.loop, call)


def _md5(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()
