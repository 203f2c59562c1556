"""Tables: pandas and Polars as Parquet, Arrow as its IPC format.

A table is stored in these formats only when reading the very same bytes back gives the very same table: names, index
and its frequency, dtypes, categories and their order, attributes, mixed objects. That is checked at each write, because
what Parquet keeps depends on the versions of three packages; a table that fails goes to pickle. The bytes name the
version of their writer, so tokens of equal tables are equal inside one environment.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from typing import Any

from kitaru_nb.artifacts import exact_json
from kitaru_nb.artifacts.protocol import Dumped, Serializer, Unfit

_META = b"kitaru"
_VALUE = "value"


class PandasSerializer(Serializer):
    """pandas ``DataFrame``, ``Series`` and ``Index`` (not their subclasses by others) as Parquet, through pyarrow."""

    name = "pandas-parquet"
    media_type = "application/vnd.apache.parquet"
    canonical = True

    def accepts(self, value: Any) -> bool:
        pd = sys.modules["pandas"]
        ours = type(value) is pd.DataFrame or type(value) is pd.Series
        return (ours or _is_index(value)) and importlib.util.find_spec("pyarrow") is not None

    def dump(self, value: Any) -> bytes:
        try:
            data = _write_parquet(value)
            same = identical(value, self.load(data))
        except Unfit:
            raise
        except Exception as error:  # pyarrow and pandas refuse with a dozen types
            raise Unfit(f"Parquet: {error}") from error
        if not same:
            raise Unfit("Parquet doesn't give this table back exactly")
        return data

    def load(self, data: bytes) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(pa.BufferReader(data))
        note = exact_json.decode(table.schema.metadata[_META])
        frame = table.to_pandas()
        _restore_columns(frame, note)
        _restore_index(frame, note)
        if note["kind"] == "index":
            return frame.index
        value = frame.iloc[:, 0] if note["kind"] == "series" else frame
        if note["kind"] == "series":
            value.name = note["name"]
        value.attrs = note["attrs"]
        return value


def _is_index(value: Any) -> bool:
    pd = sys.modules["pandas"]
    return isinstance(value, pd.Index) and type(value).__module__.partition(".")[0] == "pandas"


def _write_parquet(value: Any) -> bytes:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    note: dict[str, Any] = {"kind": "frame", "attrs": dict(getattr(value, "attrs", {}))}
    if isinstance(value, pd.Index):
        note |= {"kind": "index"}
        frame = pd.DataFrame({_VALUE: True}, index=value)
    elif isinstance(value, pd.Series):
        note |= {"kind": "series", "name": value.name}
        frame = value.to_frame(_VALUE)
    else:
        frame = value.copy(deep=False)
    frame.attrs = {}
    note["dtypes"] = [str(dtype) for dtype in frame.dtypes]
    regular = isinstance(frame.index, (pd.DatetimeIndex, pd.TimedeltaIndex))
    note["freq"] = getattr(frame.index, "freqstr", None) if regular else None
    note["columns"] = _columns_note(frame.columns)
    if note["columns"] is not None:
        frame.columns = pd.Index([str(i) for i in range(frame.shape[1])])
    table = pa.Table.from_pandas(frame).combine_chunks()
    metadata = {**(table.schema.metadata or {}), _META: exact_json.encode(note)[0]}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def _columns_note(columns: Any) -> dict[str, Any] | None:
    """What Parquet can't keep of the column names; None for unique strings without more to them."""
    import pandas as pd

    if isinstance(columns, pd.RangeIndex):
        return {"range": range(columns.start, columns.stop, columns.step), "name": columns.name}
    if isinstance(columns, pd.MultiIndex):
        return None
    if columns.is_unique and len(columns) and columns.dtype == pd.Index(["a"]).dtype and columns.name is None:
        return None
    return {"values": columns.tolist(), "dtype": str(columns.dtype), "name": columns.name}


def _restore_columns(frame: Any, note: dict[str, Any]) -> None:
    import pandas as pd

    for position, wanted in enumerate(note["dtypes"]):
        if str(frame.dtypes.iloc[position]) != wanted:
            column = frame.iloc[:, position]
            made = column.astype(wanted)
            # Among objects, what is missing in Parquet was None; a NaN there fails the check and goes to pickle.
            frame.isetitem(position, made.where(column.notna(), None) if wanted == "object" else made)
    columns = note["columns"]
    if columns is None:
        return
    if "range" in columns:
        frame.columns = pd.RangeIndex(columns["range"], name=columns["name"])
    else:
        frame.columns = pd.Index(columns["values"], dtype=columns["dtype"], name=columns["name"])


def _restore_index(frame: Any, note: dict[str, Any]) -> None:
    if note["freq"] is not None:
        frame.index = type(frame.index)(frame.index, freq=note["freq"])


def identical(one: Any, other: Any) -> bool:
    """Whether two pandas objects are equal in all that can be seen of them."""
    import pandas as pd

    if type(one) is not type(other):
        return False
    if isinstance(one, pd.Index):
        return _same_index(one, other)
    if one.shape != other.shape or not _same_index(one.index, other.index):
        return False
    if not _same_json(dict(one.attrs), dict(other.attrs)) or one.flags != other.flags:
        return False
    if isinstance(one, pd.Series):
        return _same_json(one.name, other.name) and _same_array(one.array, other.array)
    if not _same_index(one.columns, other.columns):
        return False
    return all(_same_array(one.iloc[:, i].array, other.iloc[:, i].array) for i in range(one.shape[1]))


def _same_index(one: Any, other: Any) -> bool:
    import pandas as pd

    if type(one) is not type(other) or not _same_json(list(one.names), list(other.names)):
        return False
    if isinstance(one, pd.MultiIndex):
        # Level by level: equal tuples may come from levels of other dtypes or orders.
        return all(_same_index(a, b) for a, b in zip(one.levels, other.levels, strict=True)) and all(
            list(a) == list(b) for a, b in zip(one.codes, other.codes, strict=True)
        )
    if getattr(one, "freq", None) != getattr(other, "freq", None):
        return False
    if isinstance(one, pd.RangeIndex):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return _same_array(one.array, other.array)


def _same_array(one: Any, other: Any) -> bool:
    import pandas as pd

    if type(one) is not type(other) or one.dtype != other.dtype or str(one.dtype) != str(other.dtype):
        return False
    if isinstance(one, pd.Categorical):
        same = _same_index(one.categories, other.categories) and one.ordered == other.ordered
        return same and bool((one.codes == other.codes).all())
    if isinstance(one, pd.arrays.NumpyExtensionArray):
        return _same_numbers(one.to_numpy(), other.to_numpy())
    return bool(one.equals(other)) if hasattr(one, "equals") else bool(pd.Series(one).equals(pd.Series(other)))


def _same_numbers(one: Any, other: Any) -> bool:
    import numpy as np

    if one.dtype == object:
        return _same_json(list(one), list(other))
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "mM"))
    # Not a number is missing data in pandas, whatever its bits; a zero keeps its sign.
    present = ~np.isnan(one)
    alike = (one == other) & (np.signbit(one) == np.signbit(other))
    return bool(np.array_equal(present, ~np.isnan(other)) and alike[present].all())


def _same_json(one: Any, other: Any) -> bool:
    # Elements of objects: 1, True and 1.0 are equal but not the same. What has no exact JSON raises Unfit.
    first, second = exact_json.encode(one), exact_json.encode(other)
    return (first[1] or first[0]) == (second[1] or second[0])


class PolarsSerializer(Serializer):
    """Polars ``DataFrame`` as Parquet, by Polars itself."""

    name = "polars-parquet"
    media_type = "application/vnd.apache.parquet"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return type(value) is sys.modules["polars"].DataFrame

    def dump(self, value: Any) -> bytes:
        return _polars_bytes(value)

    def load(self, data: bytes) -> Any:
        return _polars_frame(data)


class PolarsSeriesSerializer(Serializer):
    """Polars ``Series``, as a table with one column."""

    name = "polars-series"
    media_type = "application/vnd.apache.parquet"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return type(value) is sys.modules["polars"].Series

    def dump(self, value: Any) -> bytes:
        return _polars_bytes(value.to_frame())

    def load(self, data: bytes) -> Any:
        return _polars_frame(data).to_series()


def _polars_bytes(frame: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        frame.rechunk().write_parquet(buffer)
        again = _polars_frame(buffer.getvalue())
    except BaseException as error:
        # Polars raises a BaseException of its own where its code panics.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise Unfit(f"Parquet: {error}") from error
    same = again.schema == frame.schema and again.shape == frame.shape
    if not same or not again.equals(frame, null_equal=True):
        raise Unfit("Parquet doesn't give this table back exactly")
    return buffer.getvalue()


def _polars_frame(data: bytes) -> Any:
    import polars as pl

    return pl.read_parquet(io.BytesIO(data))


class ArrowSerializer(Serializer):
    """``pyarrow.Table`` as an Arrow IPC stream, its chunks as they are.

    Arrow leaves open what stands in a buffer where a value is null; so only a table in one piece, of plain columns
    without nulls, has a token.
    """

    name = "arrow"
    media_type = "application/vnd.apache.arrow.stream"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return type(value) is sys.modules["pyarrow"].Table

    def dump(self, value: Any) -> Dumped:
        import pyarrow as pa

        data = _arrow_bytes(value, value.schema)
        plain = all(
            column.num_chunks <= 1
            and column.null_count == 0
            and not pa.types.is_boolean(column.type)
            and _is_flat(column)
            for column in value.columns
        )
        return Dumped((data,), len(data), canonical=plain)

    def load(self, data: bytes) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(pa.BufferReader(data)).read_all()


class BatchSerializer(ArrowSerializer):
    """``pyarrow.RecordBatch``, as a stream of one batch."""

    name = "arrow-batch"

    def accepts(self, value: Any) -> bool:
        return type(value) is sys.modules["pyarrow"].RecordBatch

    def dump(self, value: Any) -> Dumped:
        import pyarrow as pa

        whole = super().dump(pa.Table.from_batches([value]))
        data = _arrow_bytes(value, value.schema)
        return Dumped((data,), len(data), canonical=whole.canonical)

    def load(self, data: bytes) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(pa.BufferReader(data)).read_next_batch()


def _arrow_bytes(value: Any, schema: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write(value)
    except pa.ArrowException as error:
        raise Unfit(f"Arrow: {error}") from error
    return bytes(sink.getvalue())


def _is_flat(column: Any) -> bool:
    import pyarrow as pa

    return not pa.types.is_nested(column.type) and not pa.types.is_dictionary(column.type)
