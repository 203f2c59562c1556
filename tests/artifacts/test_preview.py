"""Previews: short, safe, and of anything."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, OrderedDict, deque, namedtuple
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaru_nb.artifacts import preview
from kitaru_nb.artifacts.preview import MAX_TEXT

builtins = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.integers())
    ),
    max_leaves=10,
)


@given(builtins)
def test_a_small_builtin_shows_its_repr(value: Any) -> None:
    shown = preview(value)
    json.dumps(shown, allow_nan=False).encode()
    text = repr(value)
    if len(text) < 400 and "…" not in shown["text"]:
        assert shown == {"text": text}


class Faulty:
    def __repr__(self) -> str:
        raise ValueError("no")


class Odd:
    def __repr__(self) -> str:
        return "\ud800" + "x" * 10_000


class Reader:
    """Counts how many of its items were looked at."""

    seen = 0

    def __repr__(self) -> str:
        Reader.seen += 1
        return "r"


@dataclasses.dataclass
class Note:
    text: str
    items: Any = None
    secret: str = dataclasses.field(default="hidden", repr=False)


class Model(pydantic.BaseModel):
    items: Any
    key: pydantic.SecretStr = pydantic.SecretStr("hidden")


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Faulty(), "<Faulty: repr failed: ValueError>"),
        ([1, Faulty()], "[1, <Faulty: repr failed: ValueError>]"),
        (Note("a", [Pair(1, None)]), "Note(text='a', items=[Pair(a=1, b=None)])"),
        (Model(items=(1,)), "Model(items=(1,), key=SecretStr('**********'))"),
        (Counter("aab"), "Counter({'a': 2, 'b': 1})"),
        (OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (deque([1]), "deque([1])"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (10**5000, "<int of 16610 bits>"),
        (np.arange(3, dtype="i2"), "ndarray int16 (3) [0, 1, 2]"),
        (np.zeros((2,) * 20), f"ndarray float64 ({', '.join('2' * 20)}) [{', '.join(['0.0'] * 10)}, …]"),
        ({"x": np.arange(2.0)}, "{'x': ndarray float64 (2) [0.0, 1.0]}"),
        (np.float32(0.5), "np.float32(0.5)"),
        ({"t": pd.DataFrame({"a": [1]})}, "{'t': DataFrame 1 rows × 1 columns}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_shows_what_it_is(value: Any, text: str) -> None:
    assert preview(value) == {"text": text}


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        "\ud800" * 5000,
        Odd(),
        [Odd()],
        ["x" * 1_000_000] * 50,
        Note("x" * 1_000_000),
        Model(items="x" * 1_000_000),
        list(range(1_000_000)),
        {i: [i] * 10 for i in range(10_000)},
        b"x" * 1_000_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_preview_is_short(value: Any) -> None:
    text = preview(value)["text"]
    assert 5 < len(text) <= MAX_TEXT * 6  # a lone surrogate is shown by its escape
    assert text.encode()
    assert text.isascii() is False or len(text) <= MAX_TEXT


def test_a_preview_looks_at_the_front_only() -> None:
    Reader.seen = 0
    assert "…" in preview([Reader()] * 100_000)["text"]
    assert preview(Note("a", [Reader()] * 100_000))
    assert Reader.seen < 3 * MAX_TEXT


def test_cycles_and_deep_nesting_are_shown_in_part() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert "…" in preview(cycle)["text"] or "..." in preview(cycle)["text"]
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": [deep]}
    assert "…" in preview(deep)["text"]


COLUMNS = ["a", "b", "c"]
ROWS = [[1, 0.5, "x"], [2, "nan", None]]


def test_a_table_shows_its_head() -> None:
    pandas = pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": pd.Series(["x", None], dtype=object)})
    polars = pl.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": ["x", None]})
    for value in (pandas, polars, polars.to_arrow()):
        shown = preview(value)
        assert shown["table"] == {"columns": COLUMNS, "rows": ROWS, "shape": [2, 3]}
        assert shown["text"].endswith("2 rows × 3 columns")
        json.dumps(shown, allow_nan=False)


def test_a_wide_and_long_table_shows_ten_by_ten() -> None:
    wide = pd.DataFrame(np.zeros((1000, 50)))
    for value in (wide, pl.from_pandas(wide.rename(columns=str)), pa.Table.from_pandas(wide.rename(columns=str))):
        table = preview(value)["table"]
        assert (len(table["columns"]), len(table["rows"]), len(table["rows"][0])) == (10, 10, 10)
        assert table["shape"] == [1000, 50]


def test_odd_cells_are_short_text() -> None:
    frame = pd.DataFrame({("a", 1): ["x" * 1000, Faulty(), 1 << 60, [1] * 1000], "t": pd.to_datetime(["2024"] * 4)})
    rows = preview(frame)["table"]["rows"]
    assert all(len(str(cell)) <= 100 for row in rows for cell in row)
    assert rows[1][0] == "<Faulty: repr failed: ValueError>"
    assert rows[2] == [str(1 << 60), "2024-01-01 00:00:00"]
    assert preview(pd.Series([1, 2], name="n"))["table"] == {"columns": ["n"], "rows": [[1], [2]], "shape": [2, 1]}
