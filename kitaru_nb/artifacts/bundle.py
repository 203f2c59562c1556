"""Containers that hold arrays, tables or pictures: exact JSON whose special parts stand beside it.

Layout: one line of JSON ``{"parts": [[serializer, digest, size], …], "json": size}``, the parts, the JSON. Parts come
first so that large arrays are read straight into place. Parts with equal bytes are stored once; the JSON names them by
digest, so it alone is the identity of the whole.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from kitaru_nb.artifacts import exact_json
from kitaru_nb.artifacts.protocol import Buffer, Dumped, Serializer, Source, Streaming, Unfit


class BundleSerializer(Serializer):
    """See the module.

    Args:
        choose: serializers to try on a part, in order; only canonical ones are used.
        named: the serializer of a name, for loading.
    """

    name = "bundle"
    media_type = "application/x-kitaru-bundle"
    canonical = True

    def __init__(self, choose: Callable[[Any], Iterator[Serializer]], named: Callable[[str], Serializer]) -> None:
        self._choose = choose
        self._named = named

    def accepts(self, value: Any) -> bool:
        return True

    def dump(self, value: Any) -> Dumped:
        parts: dict[str, tuple[str, Dumped]] = {}
        digests: dict[int, str] = {}

        def attach(part: Any) -> Any:
            digest = digests.get(id(part))
            if digest is None:
                serializer, dumped = self._dump_part(part)
                digest = digests[id(part)] = _digest(serializer.name, dumped)
                parts.setdefault(digest, (serializer.name, dumped))
            return {"$": "part", "d": digest}

        text, identity = exact_json.encode(value, attach)
        table = [[name, digest, dumped.size] for digest, (name, dumped) in parts.items()]
        head = json.dumps({"parts": table, "json": len(text)}, separators=(",", ":")).encode() + b"\n"
        size = len(head) + sum(dumped.size for _, dumped in parts.values()) + len(text)
        canonical = all(dumped.canonical for _, dumped in parts.values())
        pieces = _Pieces(head, [dumped for _, dumped in parts.values()], text)
        return Dumped(pieces, size, canonical=canonical, identity=identity or text)

    def _dump_part(self, part: Any) -> tuple[Serializer, Dumped]:
        for serializer in self._choose(part):
            if serializer.canonical and serializer.accepts(part):
                try:
                    dumped = serializer.dump(part)
                except Unfit:
                    continue
                return serializer, dumped if isinstance(dumped, Dumped) else Dumped((dumped,), len(dumped))
        raise Unfit(f"{type(part).__module__}.{type(part).__qualname__} has no canonical form")

    def load(self, data: bytes) -> Any:
        return self.load_from(io.BytesIO(data), len(data))

    def load_from(self, source: Source, size: int) -> Any:
        """As `load`; the arrays of the bundle are read straight into place."""
        head = json.loads(_line(source))
        loaded = {}
        for name, digest, length in head["parts"]:
            serializer = self._named(name)
            if isinstance(serializer, Streaming):
                loaded[digest] = serializer.load_from(source, length)
            else:
                loaded[digest] = serializer.load(source.read(length))
        used: set[str] = set()

        def part(node: Any) -> Any:
            digest = node["d"]
            if digest in used:  # stored once, but it was another object
                return copy.deepcopy(loaded[digest])
            used.add(digest)
            return loaded[digest]

        return exact_json.decode(source.read(head["json"]), part)


class _Pieces:
    def __init__(self, head: bytes, parts: list[Dumped], text: bytes) -> None:
        self.head = head
        self.parts = parts
        self.text = text

    def __iter__(self) -> Iterator[Buffer]:
        yield self.head
        for dumped in self.parts:
            yield from dumped.chunks
        yield self.text


def _digest(name: str, dumped: Dumped) -> str:
    hasher = sha256(name.encode() + b"\n")
    for chunk in dumped.chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def _line(source: Source) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = source.read(1)
        if not byte:
            raise ValueError("these bytes are no bundle")
        line += byte
    return bytes(line)
