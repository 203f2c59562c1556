"""What a serializer is, and the two ways in which it says no."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

Buffer: TypeAlias = bytes | bytearray | memoryview

#: Large values are hashed, written and read in pieces of this many bytes.
CHUNK = 1 << 20


class Unfit(Exception):
    """Raised by ``dump``: this serializer can't store the value exactly. The next one is asked."""


class Unreadable(Exception):
    """Raised by ``load``: the bytes are sound, but their value can't be made here (a class is gone or has changed)."""


class Source(Protocol):
    """Stored bytes, read once from front to back; they are hashed on the way."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes (all that are left by default); fewer only at the end."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer``; return how many bytes it got, fewer than its length only at the end."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """The bytes of a value.

    Attributes:
        chunks: the bytes in order; may be iterated more than once, and each chunk is used before the next is asked for.
        size: their total length.
        canonical: whether equal values give equal bytes, and different values different ones.
        identity: canonical bytes where they aren't the stored ones; None when they are.
    """

    chunks: Iterable[Buffer]
    size: int
    canonical: bool = True
    identity: bytes | None = None


class Serializer(ABC):
    """Turns values of some types into bytes and back. Subclass it and hand an instance to `register_serializer`.

    Attributes:
        name: recorded with every artifact; loading looks it up, so it is for ever.
        media_type: of the bytes, for those who download them.
        canonical: equal values give equal bytes and different values different ones; such a value has a token.
        executes: loading may execute code from the bytes, so it is refused where the store isn't trusted.
    """

    name: str
    media_type: str = "application/octet-stream"
    canonical: bool = False
    executes: bool = False

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether ``dump`` should be tried on this value. Cheap; has no effect."""

    @abstractmethod
    def dump(self, value: Any) -> bytes | Dumped:
        """The bytes of ``value``. Raises `Unfit` when they could not be exact."""

    @abstractmethod
    def load(self, data: bytes) -> Any:
        """A new value from what ``dump`` gave. Raises `Unreadable`; other errors are reported as a bad artifact."""


@runtime_checkable
class Streaming(Protocol):
    """A serializer that can also read from a `Source`, without holding all bytes beside the value."""

    def load_from(self, source: Source, size: int) -> Any:
        """As `Serializer.load`; ``size`` is the number of bytes that the source has for it."""
