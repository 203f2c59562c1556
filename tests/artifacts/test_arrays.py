"""NumPy arrays and scalars: dtype, order, shape and every bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.errors import KitaruArtifactError
from kitaru_nb.model import Artifact


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path), durability="process")


def same(one: Any, other: Any) -> bool:
    """Equality of type, dtype, shape, order and bytes."""
    flags = ("C_CONTIGUOUS", "F_CONTIGUOUS")
    return (
        type(one) is type(other)
        and one.dtype == other.dtype
        and one.dtype.str == other.dtype.str
        and one.shape == other.shape
        and all(one.flags[flag] == other.flags[flag] for flag in flags)
        and one.tobytes() == other.tobytes()
    )


dtypes = (
    hnp.scalar_dtypes()
    | hnp.array_dtypes(hnp.scalar_dtypes(), allow_subarrays=True)
    | hnp.unicode_string_dtypes()
    | hnp.byte_string_dtypes()
)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(array=arrays, order=st.sampled_from("CF"))
def test_arrays_of_any_dtype_and_order_come_back_exactly(store: ArtifactStore, array: Any, order: str) -> None:
    array = np.array(array, order=order)  # type: ignore[call-overload]
    artifact = store.write(array, name="a")
    assert artifact.serializer == "npy"
    assert same(store.read(artifact), array)
    assert store.token(array) == artifact.token == store.token(array.copy(order="K"))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(one=arrays, other=arrays)
def test_tokens_are_equal_only_for_the_same_array(store: ArtifactStore, one: Any, other: Any) -> None:
    assert (store.token(one) == store.token(other)) == same(one, other)


def test_arrays_that_differ_only_in_dtype_order_or_shape_have_different_tokens(store: ArtifactStore) -> None:
    base = np.arange(6).reshape(2, 3)
    alike = [
        base,
        np.asfortranarray(base),
        base.T.copy(),
        base.T,
        base.ravel(),
        base.astype(">i8"),
        base.astype("u8"),
        base.view("f8"),
        base.view("M8[s]"),
        base.view("M8[ns]"),
    ]
    assert len({store.token(array) for array in alike}) == len(alike)


def test_a_view_without_order_comes_back_in_c_order(store: ArtifactStore) -> None:
    array = np.arange(3_000_000).reshape(1000, 3000)[::2, ::3]
    artifact = store.write(array, name="view")
    found = store.read(artifact)
    assert found.flags.c_contiguous
    assert np.array_equal(found, array)
    assert artifact.token == store.token(found) == store.token(array)


def test_a_memmap_comes_back_in_memory(store: ArtifactStore, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "data", dtype="f4", shape=(10,), mode="w+")
    mapped[:] = 3
    artifact = store.write(mapped, name="mapped")
    assert artifact.python_type == "numpy.memmap"
    assert type(store.read(artifact)) is np.ndarray
    assert np.array_equal(store.read(artifact), mapped)
    mapped._mmap.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None], dtype=object),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.array(["a", "bc"], dtype=np.dtypes.StringDType()),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(1, dtype=np.dtype("i4", metadata={"unit": "m"})),
    ],
    ids=["objects", "masked", "strings", "records", "metadata"],
)
def test_what_npy_cant_describe_goes_to_pickle(store: ArtifactStore, array: Any) -> None:
    artifact = store.write(array, name="a")
    found = store.read(artifact)
    assert artifact.serializer == "pickle"
    assert artifact.token is None
    assert type(found) is type(array)
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, np.dtype([("a", "i1"), ("b", "i8")], align=True)])
def test_elements_with_padding_have_no_token(store: ArtifactStore, dtype: Any) -> None:
    artifact = store.write(np.ones(3, dtype), name="a")
    assert artifact.token is None
    assert store.token(np.ones(3, dtype)) is None
    assert store.read(artifact).dtype == dtype
    assert (store.read(artifact) == np.ones(3, dtype)).all()


@pytest.mark.parametrize(
    "scalar",
    [
        np.int8(-1),
        np.float16(0.1),
        np.float64("nan"),
        np.complex128(1j),
        np.datetime64("NaT", "D"),
        np.timedelta64(5, "ms"),
        np.str_("é\x00"),
        np.bytes_(b"a\x00"),
        np.longdouble("0.1"),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
    ],
    ids=lambda scalar: type(scalar).__name__,
)
def test_scalars_come_back_with_their_type(store: ArtifactStore, scalar: Any) -> None:
    found = store.read(store.write(scalar, name="s"))
    assert type(found) is type(scalar)
    assert found.dtype == scalar.dtype
    assert found == scalar or str(found) == str(scalar)


def test_containers_of_arrays_come_back_with_arrays_in_place(store: ArtifactStore) -> None:
    x = np.arange(100_000.0)
    value = {"x": x, "again": x, "equal": x.copy(), "pair": (np.eye(2, order="F"), "label"), "mean": x.mean()}
    artifact = store.write(value, name="data")
    found = store.read(artifact)
    assert artifact.serializer == "bundle"
    assert artifact.size < 2 * x.nbytes
    assert found["x"] is found["again"]
    assert found["x"] is not found["equal"]
    assert found["equal"].flags.writeable
    assert np.array_equal(found["x"], found["equal"])
    assert same(found["pair"][0], value["pair"][0])  # type: ignore[index]
    assert artifact.token == store.token(value) == store.token(found)
    assert artifact.token == store.token({**value, "again": x.copy()})
    assert artifact.token != store.token({**value, "x": x.astype("f4")})


@pytest.mark.parametrize("position", [0, 10, 200, 5_000_000, -1])
def test_a_damaged_large_array_is_never_a_value(store: ArtifactStore, position: int) -> None:
    artifact = store.write(np.arange(1_000_000), name="big")
    path = Path(store.location(artifact.digest))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(KitaruArtifactError, match=r"big.*damaged"):
        store.read(artifact)
    os.truncate(path, len(data) // 2)
    with pytest.raises(KitaruArtifactError, match=r"big.*damaged"):
        store.read(artifact)


def test_an_array_survives_any_store(tmp_path: Path) -> None:
    array = np.arange(1_000_000)
    written: list[Artifact] = []
    for url in (str(tmp_path), f"memory://{tmp_path.name}"):
        store = ArtifactStore(url)
        written.append(store.write(array, name="a"))
        assert same(store.read(written[-1]), array)
    assert written[0].digest == written[1].digest
