"""Tables: equal in all that can be seen, or pickled."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitaru_nb.artifacts import ArtifactStore
from kitaru_nb.artifacts.frames import identical
from kitaru_nb.errors import KitaruSerializationError

PARQUET = "pandas-parquet"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path), durability="process")


def agree(one: Any, other: Any) -> bool:
    """Equality as pandas' own testing sees it, and the types of objects."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.Index):
        return one.identical(other) and getattr(one, "freq", None) == getattr(other, "freq", None)
    if isinstance(one, pd.Series):
        one, other = (
            one.to_frame("x").assign(name=[one.name] * len(one)),
            other.to_frame("x").assign(name=[other.name] * len(other)),
        )
    try:
        pd.testing.assert_frame_equal(one, other, check_exact=True, check_column_type="exact", check_index_type="exact")
    except AssertionError:
        return False
    if not one.columns.identical(other.columns) or one.attrs != other.attrs or list(one.dtypes) != list(other.dtypes):
        return False
    return all(
        list(map(type, one.iloc[:, i])) == list(map(type, other.iloc[:, i]))
        for i in range(one.shape[1])
        if one.dtypes.iloc[i].kind == "O"
    )


def attributed() -> pd.DataFrame:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"unit": "m", "n": (1, Decimal(1))}
    return frame


DAYS = pd.date_range("2024", periods=2, freq="D", tz="Europe/Paris", name="day")
EXACT: dict[str, Any] = {
    "plain": pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", None]}),
    "empty": pd.DataFrame(),
    "no columns": pd.DataFrame(index=[1, 5]),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="i4")}),
    "default names": pd.DataFrame(np.zeros((2, 3))),
    "int names": pd.DataFrame({3: [1], 1: [2]}),
    "mixed names": pd.DataFrame([[1, 2]], columns=pd.Index(["a", 1], dtype=object)),
    "duplicate names": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "named columns": pd.DataFrame([[1]], columns=pd.Index(["a"], name="letters")),
    "two levels of names": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])),
    "regular days": pd.DataFrame({"a": [1, 2]}, index=DAYS),
    "range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(4, 0, -2, name="r")),
    "two levels of rows": pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_product([["x"], [1, 2]], names=["p", None])
    ),
    "ordered category": pd.DataFrame({"c": pd.Categorical(["b", "a"], ["b", "a", "z"], ordered=True)}),
    "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int8"), "b": pd.array([True, None], dtype="boolean")}),
    "times": pd.DataFrame({"s": np.array(["2024"], "M8[s]"), "d": pd.to_timedelta([1]), "z": DAYS[:1]}),
    "small numbers": pd.DataFrame({"a": np.array([1], "i1"), "b": np.array([1], "f4"), "c": np.array([1], "u8")}),
    "strings as objects": pd.DataFrame({"a": ["x", None]}, dtype=object),
    "attributes": attributed(),
    "series": pd.Series([1, 2], name=("a", 1), index=["x", "y"]),
    "unnamed series": pd.Series(["a", "b"]),
    "index": pd.Index([1, 2], name="n"),
    "days": DAYS,
}
PICKLED: dict[str, Any] = {
    "mixed objects": pd.DataFrame({"a": [1, "x", True, None]}, dtype=object),
    "arrays as objects": pd.DataFrame({"a": [np.arange(2), np.arange(3)]}),
    "lists": pd.DataFrame({"a": [[1], (2,)]}),
    "not a number among strings": pd.DataFrame({"a": ["x", float("nan")]}, dtype=object),
    "odd attributes": pd.DataFrame({"a": [1]}),
}
PICKLED["odd attributes"].attrs = {"type": int}


@pytest.mark.parametrize("label", EXACT)
def test_a_pandas_value_comes_back_from_parquet_exactly(store: ArtifactStore, label: str) -> None:
    value = EXACT[label]
    artifact = store.write(value, name="t")
    found = store.read(artifact)
    assert artifact.serializer == PARQUET
    assert identical(found, value)
    assert agree(found, value)
    assert artifact.token == store.token(value) == store.token(found) == store.token(value.copy())


@pytest.mark.parametrize("label", PICKLED)
def test_what_parquet_cant_hold_exactly_goes_to_pickle(store: ArtifactStore, label: str) -> None:
    artifact = store.write(PICKLED[label], name="t")
    assert artifact.serializer == "pickle"
    assert store.token(PICKLED[label]) is None
    assert store.read(artifact).equals(PICKLED[label]) or "arrays" in label


def test_tables_that_differ_only_in_names_index_or_dtype_have_different_tokens(store: ArtifactStore) -> None:
    base = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    alike = [
        base,
        base.rename(columns={"a": "c"}),
        base[["b", "a"]].rename(columns={"b": "a", "a": "b"}),
        base.set_axis([0, 1], axis=1),
        base.set_axis(["0", "1"], axis=1),
        base.set_axis([1, 2]),
        base.set_axis([1.0, 2.0]),
        base.rename_axis("i"),
        base.rename_axis("i", axis=1),
        base.astype("f8"),
        base.astype("Int64"),
        base.astype("category"),
        base.astype(object),
        base.iloc[::-1],
        base["a"],
        base[["a"]],
    ]
    tokens = [store.token(frame) for frame in alike]
    assert len(set(tokens)) == len(alike)


columns = st.sampled_from([["a", "b"], ["b", "a"], [0, 1], ["0", "1"], ["a", "a"], [("a", 1), ("b", 2)]])
indexes = st.sampled_from([None, [0, 1], [1, 0], ["x", "y"], pd.date_range("2024", periods=2), [0.0, 1.0]])
columns_of = st.sampled_from(["i8", "f8", "i4", "Int64", "category", "str", "bool", "object", "M8[ns]"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_any_two_frames_have_equal_tokens_only_when_identical(store: ArtifactStore, data: st.DataObject) -> None:
    def draw() -> pd.DataFrame:
        dtypes = [data.draw(columns_of), data.draw(columns_of)]
        frame = pd.concat([pd.Series([0, 1]).astype(dtype) for dtype in dtypes], axis=1)
        frame.columns = data.draw(columns)
        index = data.draw(indexes)
        return frame if index is None else frame.set_axis(index)

    one, other = draw(), draw()
    artifact = store.write(one, name="t")
    assert agree(store.read(artifact), one)
    if artifact.token is not None:
        assert (artifact.token == store.token(other)) == agree(one, other)


def test_chunks_of_strings_dont_change_the_token(store: ArtifactStore) -> None:
    whole = pd.DataFrame({"a": ["x", "y", "z"]})
    parts = pd.concat([whole[:1], whole[1:]])
    assert store.token(parts.reset_index(drop=True)) == store.token(whole)


@pytest.mark.parametrize(
    "value",
    [
        pl.DataFrame({"a": [1, None], "b": ["x", None], "c": [[1], []], "s": [{"x": 1}, {"x": None}]}),
        pl.DataFrame({"e": pl.Series(["a"], dtype=pl.Enum(["a", "b"])), "c": pl.Series(["q"], dtype=pl.Categorical)}),
        pl.DataFrame({"n": [float("nan"), -0.0], "d": [Decimal("1.50"), None]}),
        pl.DataFrame({"i": pl.Series([1], dtype=pl.Int8), "t": pl.Series([1], dtype=pl.Duration("ms"))}),
        pl.DataFrame(),
        pl.Series("named", [1, 2, None]),
    ],
    ids=["nested", "categories", "numbers", "small", "empty", "series"],
)
def test_polars_comes_back_with_its_schema(store: ArtifactStore, value: Any) -> None:
    artifact = store.write(value, name="t")
    found = store.read(artifact)
    assert artifact.serializer in ("polars-parquet", "polars-series")
    assert type(found) is type(value)
    assert found.equals(value)
    assert (found.to_frame() if isinstance(found, pl.Series) else found).schema == (
        value.to_frame() if isinstance(value, pl.Series) else value
    ).schema
    assert artifact.token == store.token(value) == store.token(found)


def test_polars_tables_that_differ_only_in_names_or_dtype_have_different_tokens(store: ArtifactStore) -> None:
    base = pl.DataFrame({"a": [1, 2]})
    alike = [base, base.rename({"a": "b"}), base.cast(pl.Int32), base.reverse(), base["a"], base["a"].alias("b")]
    assert len({store.token(value) for value in alike}) == len(alike)


def test_polars_objects_go_to_pickle_or_are_refused(store: ArtifactStore) -> None:
    frame = pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)})
    assert store.token(frame) is None
    with pytest.raises(KitaruSerializationError, match="polars"):
        store.write(frame, name="t")


def test_a_lazy_frame_is_asked_to_be_collected(store: ArtifactStore) -> None:
    with pytest.raises(KitaruSerializationError, match=r"\['plan'\].*LazyFrame") as caught:
        store.write({"plan": pl.DataFrame({"a": [1]}).lazy()}, name="t")
    assert "collect()" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        pa.table({"a": [1, None], "b": [["x"], []]}),
        pa.table({"a": pa.chunked_array([[1], [2, 3]])}).replace_schema_metadata({"k": "v"}),
        pa.record_batch({"a": [1, 2], "d": pa.array(["x", "y"]).dictionary_encode()}),
        pa.table({}),
    ],
    ids=["nulls", "chunks", "batch", "empty"],
)
def test_arrow_comes_back_with_its_schema_and_chunks(store: ArtifactStore, value: Any) -> None:
    found = store.read(store.write(value, name="t"))
    assert type(found) is type(value)
    assert found.equals(value)
    assert found.schema.equals(value.schema, check_metadata=True)
    if isinstance(value, pa.Table):
        assert [c.num_chunks for c in found.columns] == [c.num_chunks for c in value.columns]


def test_an_arrow_table_has_a_token_where_equal_tables_have_equal_bytes(store: ArtifactStore) -> None:
    table = pa.table({"a": [5, 1, 2], "s": ["w", "x", "y"]})
    tail = pa.table({"a": [1, 2], "s": ["x", "y"]})
    assert store.token(tail) is not None
    assert store.token(table.slice(1)) == store.token(tail)
    assert store.token(table) != store.token(tail)
    assert store.token(pa.table({"a": [1, None]})) is None


def test_a_frame_inside_a_container_keeps_everything(store: ArtifactStore) -> None:
    value = {"train": EXACT["regular days"], "scores": [pl.Series("s", [1])]}
    artifact = store.write(value, name="data")
    found = store.read(artifact)
    assert artifact.serializer == "bundle"
    assert identical(found["train"], value["train"])
    assert found["scores"][0].equals(pl.Series("s", [1]))
    assert artifact.token == store.token(value)
