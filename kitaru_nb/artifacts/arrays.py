"""NumPy arrays as ``.npy``, streamed without a second copy; NumPy scalars by dtype and bytes.

Memory order is a part of the value, as in the format: results computed from C and Fortran order may differ in the last
bit. An array without either order is stored, and comes back, in C order. A ``memmap`` comes back as an array in memory:
the file that it looked into isn't kept. Objects, masked arrays, other subclasses and dtypes that the format can't
describe are left to pickle.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import sys
from collections.abc import Iterator
from typing import Any

from kitaru_nb.artifacts.protocol import CHUNK, Buffer, Dumped, Serializer, Source, Unfit

_MAGIC = b"\x93NUMPY"


def scalar_node(value: Any) -> list[str] | None:
    """``[dtype, hexadecimal bytes]`` of a NumPy scalar; None for anything else. Raises `Unfit` for odd scalars."""
    np = sys.modules.get("numpy")
    if np is None or not isinstance(value, np.generic):
        return None
    dtype = value.dtype
    if type(value) is not dtype.type or dtype.hasobject or dtype.fields or dtype.kind == "V" or _is_padded(dtype):
        raise Unfit(f"a scalar of {dtype}")
    if dtype.kind == "U":  # an element of an array would lose characters of value zero at its end
        return ["U", value.encode("utf-32-le", "surrogatepass").hex()]
    return ["S" if dtype.kind == "S" else dtype.str, value.tobytes().hex()]


def scalar_value(node: list[str]) -> Any:
    """The scalar of `scalar_node`."""
    import numpy as np

    data = bytes.fromhex(node[1])
    if node[0] == "U":
        return np.str_(data.decode("utf-32-le", "surrogatepass"))
    return np.bytes_(data) if node[0] == "S" else np.ndarray((), np.dtype(node[0]), data)[()]


def _is_padded(dtype: Any) -> bool:
    """Whether some bytes of an element are no data, so that equal elements may have different bytes."""
    if dtype.subdtype is not None:
        return _is_padded(dtype.subdtype[0])
    if dtype.fields:
        inner = [dtype.fields[name][0] for name in dtype.names]
        return sum(d.itemsize for d in inner) != dtype.itemsize or any(map(_is_padded, inner))
    # An extended float has 10 bytes of data in 12 or 16.
    return dtype.kind in "fc" and dtype.itemsize not in (2, 4, 8, 16 if dtype.kind == "c" else 8)


def _header(array: Any) -> bytes:
    import numpy as np

    dtype = array.dtype
    if dtype.hasobject or dtype.metadata or dtype.kind not in "biufcmMSUV":
        raise Unfit(f"dtype {dtype} has no place in .npy")
    descr = np.lib.format.dtype_to_descr(dtype)
    again = np.lib.format.descr_to_dtype(descr)
    if again != dtype or again.isalignedstruct != dtype.isalignedstruct or again.itemsize != dtype.itemsize:
        raise Unfit(f"dtype {dtype} has no place in .npy")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    fields = {"descr": descr, "fortran_order": fortran, "shape": array.shape}
    text = "{" + "".join(f"{key!r}: {fields[key]!r}, " for key in fields) + "}"
    latin = text.isascii() and len(text) < 65_000
    # The data begins at a multiple of 64 bytes, for those who map the file.
    start = len(_MAGIC) + 2 + (2 if latin else 4)
    body = text.encode() + b" " * (-(start + len(text.encode()) + 1) % 64) + b"\n"
    return _MAGIC + (b"\x01\x00" if latin else b"\x03\x00") + struct.pack("<H" if latin else "<I", len(body)) + body


def _read_header(source: Source) -> tuple[Any, bool, tuple[int, ...]]:
    import numpy as np

    start = source.read(8)
    if start[:6] != _MAGIC:
        raise ValueError("these bytes are no .npy")
    wide = start[6] > 1
    (length,) = struct.unpack("<I" if wide else "<H", source.read(4 if wide else 2))
    fields = ast.literal_eval(source.read(length).decode("utf-8" if wide else "latin1"))
    return np.lib.format.descr_to_dtype(fields["descr"]), fields["fortran_order"], fields["shape"]


def _flat(array: Any) -> memoryview:
    """The data of a contiguous array as bytes, without a copy."""
    import numpy as np

    return memoryview(array.reshape(-1, order="A").view(np.uint8)).cast("B")


def owner_of(array: Any) -> Any:
    """The array whose memory a plain array looks into; itself when it has its own, or memory of something else."""
    np: Any = sys.modules["numpy"]
    owner = array
    while (base := getattr(owner, "base", None)) is not None:
        owner = base
    plain = type(owner) is np.ndarray and not owner.dtype.hasobject and not array.dtype.hasobject
    return owner if plain and (owner.flags.c_contiguous or owner.flags.f_contiguous) else array


def place_in(owner: Any, array: Any) -> tuple[Any, ...]:
    """Where an array looks into its owner's memory, for `view_of`."""
    start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return array.shape, array.dtype, start, array.strides, array.flags.writeable


def view_of(owner: Any, shape: Any, dtype: Any, start: int, strides: Any, writeable: bool) -> Any:
    """The array that looks into ``owner`` there; see `place_in`."""
    import numpy as np

    found = np.ndarray(shape, dtype, owner.reshape(-1, order="A").view(np.uint8), start, strides)
    found.flags.writeable = writeable
    return found


class _Pieces:
    """The bytes of an array, as often as they are asked for."""

    def __init__(self, header: bytes, array: Any) -> None:
        self.header = header
        self.array = array

    def __iter__(self) -> Iterator[Buffer]:
        import numpy as np

        yield self.header
        array = self.array
        if not array.nbytes:
            return
        if array.flags.c_contiguous or array.flags.f_contiguous:
            data = _flat(array)
            for start in range(0, len(data), CHUNK):
                yield data[start : start + CHUNK]
            return
        flags: Any = ["external_loop", "buffered", "zerosize_ok"]
        for piece in np.nditer(array, flags=flags, buffersize=max(CHUNK // array.itemsize, 1), order="C"):
            yield piece.tobytes("C")  # type: ignore[attr-defined]


class ArraySerializer(Serializer):
    """``numpy.ndarray`` as ``.npy``."""

    name = "npy"
    media_type = "application/x-npy"
    canonical = True

    def accepts(self, value: Any) -> bool:
        np = sys.modules["numpy"]
        return type(value) is np.ndarray or type(value) is np.memmap

    def dump(self, value: Any) -> Dumped:
        import numpy as np

        array = value if type(value) is np.ndarray else np.asarray(value).view(np.ndarray)
        header = _header(array)
        return Dumped(_Pieces(header, array), len(header) + array.nbytes, canonical=not _is_padded(array.dtype))

    def load(self, data: bytes) -> Any:
        return self.load_from(io.BytesIO(data), len(data))

    def load_from(self, source: Source, size: int) -> Any:
        """As `load`; the data is read straight into the new array."""
        import numpy as np

        dtype, fortran, shape = _read_header(source)
        if math.prod(shape) * dtype.itemsize > size:  # before memory is taken for what a damaged header says
            raise ValueError("the array's data ends too early")
        array = np.empty(shape, dtype, order="F" if fortran else "C")
        if array.nbytes:
            data = _flat(array)
            for start in range(0, len(data), CHUNK):
                piece = data[start : start + CHUNK]
                if source.readinto(piece) != len(piece):
                    raise ValueError("the array's data ends too early")
        return array


class ScalarSerializer(Serializer):
    """NumPy scalars that JSON can't hold: structured ones and extended floats, as an array without dimensions."""

    name = "npy-scalar"
    media_type = "application/x-npy"
    canonical = True

    def accepts(self, value: Any) -> bool:
        np = sys.modules["numpy"]
        return isinstance(value, np.generic) and type(value) is value.dtype.type

    def dump(self, value: Any) -> Dumped:
        import numpy as np

        return ArraySerializer().dump(np.asarray(value, dtype=value.dtype))

    def load(self, data: bytes) -> Any:
        return ArraySerializer().load(data)[()]
