"""Stored bytes of an artifact over HTTP: whole or a range, always as an attachment, never as a page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.model import Artifact
from kitaru_nb.surfaces.operations.base import Content

#: Types that a browser shows without running anything; all else is bytes.
HARMLESS = frozenset({"text/plain", "application/json", "image/png"})
_CHUNK = 256 * 1024
#: Where an answer holds all its bytes at once, and nobody said how many.
_PART = 65_536
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_SUFFIXES = {"text/plain": ".txt", "application/json": ".json", "image/png": ".png"}


@dataclass(frozen=True, slots=True)
class Bytes:
    """A part of an open file. Whoever sends it closes it."""

    file: BinaryIO
    start: int
    length: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes in pieces; the file is closed after the last one."""
        with self.file as file:
            file.seek(self.start)
            left = self.length
            while left > 0 and (piece := file.read(min(_CHUNK, left))):
                left -= len(piece)
                yield piece

    def close(self) -> None:
        """Give the file back unread."""
        self.file.close()


def answer(
    store: ArtifactStore, found: Content, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes | Bytes]:
    """Status, headers and body for a request of an artifact's bytes. Raises `KitaruArtifactError`."""
    artifact = found.artifact
    sent = {
        "content-type": media_type(artifact),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(_file_name(artifact), safe='')}",
        "etag": f'"{artifact.digest}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
    }
    if headers.get("if-none-match") == sent["etag"]:
        return 304, sent, b""
    file = store.open(artifact)
    size = file.seek(0, os.SEEK_END)
    asked = _RANGE.fullmatch(headers.get("range", "").strip())
    # A range that isn't understood, or of another version, is as none.
    if asked is None or not any(asked.groups()) or headers.get("if-range", sent["etag"]) != sent["etag"]:
        start, end = _window(found, size)
        return 200, sent | {"content-length": str(end - start)}, Bytes(file, start, end - start)
    span = _span(asked, size)
    if span is None:
        file.close()
        return 416, sent | {"content-range": f"bytes */{size}"}, b""
    start, end = span
    sent["content-length"] = str(end - start)
    if (start, end) == (0, size):
        return 200, sent, Bytes(file, 0, size)
    sent["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return 206, sent, Bytes(file, start, end - start)


def _span(asked: re.Match[str], size: int) -> tuple[int, int] | None:
    """First byte of a range and the one after the last; None where it can't be met."""
    first, last = asked.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= size or end <= start:
        return None if not (size == 0 and not first) else (0, 0)
    return start, end


def _window(found: Content, size: int) -> tuple[int, int]:
    """First byte that ``offset`` and ``length`` ask for, and the one after the last."""
    start = min(found.offset, size)
    return start, size if found.length is None else min(start + found.length, size)


def media_type(artifact: Artifact) -> str:
    """The type to send; of text, with its encoding."""
    kind = artifact.media_type.partition(";")[0].strip().lower()
    if kind not in HARMLESS:
        return "application/octet-stream"
    return kind if kind == "image/png" else f"{kind}; charset=utf-8"


def _file_name(artifact: Artifact) -> str:
    kind = artifact.media_type.partition(";")[0].strip().lower()
    name = re.sub(r"[^\w.-]+", "_", artifact.name)[:80] or "artifact"
    return name + _SUFFIXES.get(kind, "")


def part(store: ArtifactStore, found: Content) -> tuple[bytes, int]:
    """The bytes that ``offset`` and ``length`` ask for, no more than fits an answer, and the size of all.

    Raises `KitaruArtifactError`.
    """
    with store.open(found.artifact) as file:
        size = file.seek(0, os.SEEK_END)
        start, end = _window(found, size)
        file.seek(start)
        return file.read(min(end - start, found.length or _PART)), size
