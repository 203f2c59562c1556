"""Pictures as PNG that any viewer opens, with what an exact reload needs in a private chunk of the file.

The chunk ``knBd`` comes before ``IEND``; viewers pass over it. For a PIL image it holds the exact state; for a
matplotlib figure a pickle of it, so loading a figure needs a trusted store while showing it doesn't.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import warnings
import zlib
from typing import Any

from kitaru_nb.artifacts import exact_json
from kitaru_nb.artifacts.pickles import CloudpickleSerializer
from kitaru_nb.artifacts.protocol import Serializer, Unfit

_CHUNK = b"knBd"
# Pillow refuses to open larger pictures, as they may be bombs.
_MAX_PIXELS = 50_000_000
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def _with_chunk(png: bytes, data: bytes) -> bytes:
    if not png.endswith(_END):
        raise Unfit("the PNG has no end")
    chunk = struct.pack(">I", len(data)) + _CHUNK + data + struct.pack(">I", zlib.crc32(_CHUNK + data))
    return png[: -len(_END)] + chunk + _END


def _chunk_of(png: bytes) -> bytes:
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == _CHUNK:
            return png[at + 8 : at + 8 + length]
        at += 12 + length
    raise ValueError("the picture doesn't hold what its reload needs")


class ImageSerializer(Serializer):
    """``PIL.Image``: mode, size, pixels, palette and ``info``. An opened file comes back as an image in memory."""

    name = "image"
    media_type = "image/png"
    canonical = True

    def accepts(self, value: Any) -> bool:
        image = sys.modules.get("PIL.Image")
        known = image is not None and isinstance(value, image.Image)
        return known and type(value).__module__.partition(".")[0] == "PIL"

    def dump(self, value: Any) -> bytes:
        # Only PNG's own modes are stored once; of the others the PNG is a picture for people.
        native = value.mode in ("L", "LA", "RGB", "RGBA") and value.width * value.height <= _MAX_PIXELS
        try:
            palette = value.palette and (value.palette.mode, bytes(value.getpalette(value.palette.mode)))
            pixels = None if native else zlib.compress(value.tobytes(), 6)
            data, _ = exact_json.encode((value.mode, value.size, dict(value.info), palette, pixels))
            return _with_chunk(_png(value) if native else _shrunk(value, 1024), data)
        except (ValueError, OSError, SystemError) as error:
            raise Unfit(f"no PNG of an image of mode {value.mode}: {error}") from error

    def load(self, data: bytes) -> Any:
        from PIL import Image

        mode, size, info, palette, pixels = exact_json.decode(_chunk_of(data))
        if pixels is None:
            image = Image.open(io.BytesIO(data)).copy()
        else:
            image = Image.frombytes(mode, size, zlib.decompress(pixels))
        if palette is not None:
            image.putpalette(palette[1], palette[0])
        image.info = info
        return image


class FigureSerializer(Serializer):
    """``matplotlib.figure.Figure``: a PNG with its pickle inside. It comes back without a window."""

    name = "figure"
    media_type = "image/png"
    executes = True

    def accepts(self, value: Any) -> bool:
        figure = sys.modules.get("matplotlib.figure")
        return figure is not None and isinstance(value, figure.Figure)

    def dump(self, value: Any) -> bytes:
        try:
            data = pickle.dumps(value, protocol=5)
        except Exception:  # a formatter may be a lambda
            data = CloudpickleSerializer().dump(value)
        return _with_chunk(figure_png(value), data)

    def load(self, data: bytes) -> Any:
        figure = pickle.loads(_chunk_of(data))
        close_window(figure)
        return figure


def close_window(value: Any) -> None:
    """Close the window that unpickling gave a figure which had one; ``value`` is the figure, or a plot of it."""
    pyplot, figure = sys.modules.get("matplotlib.pyplot"), getattr(value, "figure", None)
    if pyplot is not None and FigureSerializer().accepts(figure):
        pyplot.close(figure)


def figure_png(figure: Any, dpi: float | None = None) -> bytes:
    """A PNG of a matplotlib figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing glyphs and tight layouts are the user's to see, when they show it
        figure.savefig(buffer, format="png", dpi=dpi or "figure")
    return buffer.getvalue()


def thumbnail(value: Any, limit: int) -> bytes | None:
    """A PNG of a figure or image of at most ``limit`` bytes, or None for anything else."""
    if FigureSerializer().accepts(value):
        return _smallest(limit, lambda edge: figure_png(value, dpi=edge / max(value.get_size_inches())))
    if ImageSerializer().accepts(value):
        return _smallest(limit, lambda edge: _shrunk(value, edge))
    return None


def _smallest(limit: int, draw: Any) -> bytes | None:
    for edge in (480, 240, 120, 60):
        png: bytes = draw(edge)
        if len(png) <= limit:
            return png
    return None


def _shrunk(image: Any, edge: int) -> bytes:
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((edge, edge))
    return _png(small)


def _png(image: Any) -> bytes:
    plain = image.copy()
    plain.info = {}
    buffer = io.BytesIO()
    plain.save(buffer, format="PNG")
    return buffer.getvalue()
