"""Pictures: a PNG for people, and the very same object for programs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from kitaru_nb.artifacts import ArtifactStore, preview
from kitaru_nb.errors import KitaruArtifactError

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path), durability="process")


def noise(mode: str) -> Image.Image:
    """A picture of this mode with all kinds of pixels."""
    rng = np.random.default_rng(0)
    if mode == "F":
        return Image.fromarray(rng.random((9, 11), dtype="f4"))
    if mode == "I":
        return Image.fromarray(rng.integers(-(2**31), 2**31 - 1, (9, 11), dtype="i4"))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, (9, 11), dtype="u2"))
    picture = Image.fromarray(rng.integers(0, 255, (9, 11, 3), dtype="u1"))
    return picture.quantize(7) if mode == "P" else picture.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
def test_an_image_of_any_mode_comes_back_exactly(store: ArtifactStore, mode: str) -> None:
    image = noise(mode)
    image.info = {"dpi": (72, 72), "note": "naïve", "icc_profile": b"\x00\x01"}
    artifact = store.write(image, name="i")
    found = store.read(artifact)
    assert artifact.serializer == "image"
    assert found == image
    assert (found.mode, found.size, found.info) == (image.mode, image.size, image.info)
    assert found.getpalette(None) == image.getpalette(None) if mode == "P" else found.palette is None
    assert artifact.token == store.token(image) == store.token(found)
    assert Image.open(io.BytesIO(store.read_bytes(artifact))).format == "PNG"


def test_images_that_differ_have_different_tokens(store: ArtifactStore) -> None:
    image = noise("P")
    recoloured = image.copy()
    recoloured.putpalette([255 - c for c in image.getpalette() or []])
    noted = image.copy()
    noted.info["note"] = "x"
    alike = [
        image,
        recoloured,
        noted,
        image.convert("RGB"),
        image.convert("RGBA"),
        image.transpose(Image.Transpose.ROTATE_180),
    ]
    assert len({store.token(i) for i in alike}) == len(alike)


def test_transparency_of_a_palette_is_kept(store: ArtifactStore) -> None:
    image = noise("P")
    image.info["transparency"] = 3
    found = store.read(store.write(image, name="i"))
    assert found.convert("RGBA") == image.convert("RGBA")


def test_an_opened_file_comes_back_as_an_image_in_memory(store: ArtifactStore, tmp_path: Path) -> None:
    noise("RGB").save(tmp_path / "photo.jpg", quality=80)
    with Image.open(tmp_path / "photo.jpg") as opened:
        artifact = store.write(opened, name="photo")
        found = store.read(artifact)
        assert type(found) is Image.Image
        assert found.tobytes() == opened.tobytes()


def test_an_image_without_pixels_goes_to_pickle(store: ArtifactStore) -> None:
    artifact = store.write(Image.new("RGB", (0, 5)), name="i")
    assert store.read(artifact).size == (0, 5)


def drawn(figure: Any) -> Any:
    axes = figure.add_subplot()
    axes.plot([1, 2, 3], label="line")
    axes.set_title("a title")
    return figure


def test_a_figure_is_a_png_that_loads_as_the_figure(store: ArtifactStore) -> None:
    figure = drawn(plt.figure(figsize=(3, 2)))
    artifact = store.write(figure, name="plot")
    assert plt.get_fignums() == [figure.number]
    found = store.read(artifact)
    assert plt.get_fignums() == [figure.number]
    plt.close(figure)
    assert (artifact.serializer, artifact.media_type, artifact.token) == ("figure", "image/png", None)
    assert Image.open(io.BytesIO(store.read_bytes(artifact))).size == (300, 200)
    assert isinstance(found, Figure)
    assert found.axes[0].get_title() == "a title"
    assert found.axes[0].lines[0].get_ydata().tolist() == [1, 2, 3]


def test_a_figure_with_a_lambda_in_it_still_loads(store: ArtifactStore) -> None:
    figure = drawn(Figure())
    figure.axes[0].xaxis.set_major_formatter(lambda x, position: f"<{x}>")
    found = store.read(store.write(figure, name="plot"))
    assert found.axes[0].xaxis.get_major_formatter()(1) == "<1>"


def test_a_figure_is_shown_but_not_loaded_where_the_store_isnt_trusted(tmp_path: Path) -> None:
    artifact = ArtifactStore(str(tmp_path)).write(drawn(Figure()), name="plot")
    careful = ArtifactStore(str(tmp_path), trust_pickle=False)
    assert careful.read_bytes(artifact).startswith(b"\x89PNG")
    with pytest.raises(KitaruArtifactError, match=r"plot.*trusted"):
        careful.read(artifact)


@pytest.mark.parametrize(
    "value", [noise("RGBA").resize((2000, 3000)), noise("P"), noise("F"), drawn(Figure(figsize=(20, 30)))]
)
def test_a_picture_is_previewed_by_a_small_png(value: Any) -> None:
    shown = preview(value)
    assert len(shown["image"]) <= 64 * 1024
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image"])))
    assert picture.format == "PNG"
    assert max(picture.size) <= 480
