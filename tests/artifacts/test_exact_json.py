"""Exact JSON: what goes in comes out, and bytes are equal exactly when values are."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import math
import struct
import sys
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitaru_nb.artifacts import ArtifactStore, Unfit
from kitaru_nb.artifacts.exact_json import MAX_DEPTH, decode, encode
from kitaru_nb.errors import KitaruArtifactError, KitaruSerializationError


def same(one: Any, other: Any) -> bool:
    """Equality that sees types, signs of zero, bits of NaN and the order of dictionaries."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (datetime, time)):
        return one == other and one.fold == other.fold and one.isoformat() == other.isoformat()
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    return bool(one == other)


def again(value: Any) -> Any:
    """The value after a round trip."""
    return decode(encode(value)[0])


def identity(value: Any) -> bytes:
    """What the token is the hash of."""
    data, other = encode(value)
    return other or data


zones = st.sampled_from(
    [
        None,
        timezone.utc,
        timezone(timedelta(hours=-3), "BRT"),
        zoneinfo.ZoneInfo("Europe/Paris"),
        zoneinfo.ZoneInfo("UTC"),
    ]
)
hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=1 << 62, max_value=1 << 70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(alphabet="$\ud83d\ude00a", max_size=3)
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.timedeltas()
    | st.builds(datetime.replace, st.datetimes(), tzinfo=zones, fold=st.sampled_from([0, 1]))
    | st.builds(time.replace, st.times(), fold=st.sampled_from([0, 1]))
    | st.uuids()
    | st.builds(PurePosixPath, st.text(alphabet="ab/.$", max_size=5)),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables | st.floats() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(st.text(alphabet="$ab", max_size=2), inner, max_size=4)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3).map(OrderedDict)
        | st.sets(hashables, max_size=4)
        | st.lists(inner, min_size=1, max_size=2).map(lambda items: [items, items])
    ),
    max_leaves=12,
)
thorough = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@thorough
@given(values)
def test_any_nesting_of_builtins_comes_back_exactly(value: Any) -> None:
    assert same(again(value), value)


@thorough
@given(values)
def test_an_equal_value_has_equal_identity(value: Any) -> None:
    assert identity(copy.deepcopy(value)) == identity(again(value)) == identity(value)


@thorough
@given(values, values)
def test_identities_are_equal_only_for_the_same_value(one: Any, other: Any) -> None:
    assert (identity(one) == identity(other)) == same(one, other)


alike = st.recursive(
    st.sampled_from([0, False, 0.0, -0.0, "0", b"0", None, Decimal(0), Decimal("0.0"), Fraction(0), 0j, timedelta(0)]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["$", "v", 0, False, "0", None]), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(max_examples=1000, deadline=None)
@given(alike, alike)
def test_values_that_python_calls_equal_are_told_apart(one: Any, other: Any) -> None:
    assert (identity(one) == identity(other)) == same(one, other)


@thorough
@given(st.permutations([1, "a", None, (1, 2), 2.5, b"x", frozenset({"p", "q"})]))
def test_sets_are_written_in_one_order(items: list[Any]) -> None:
    forwards, backwards = set(items), set()
    backwards.update(*([item] for item in reversed(items)))
    assert encode(forwards) == encode(backwards)


def test_native_values_are_plain_json() -> None:
    value = {"text": "é\n", "n": [1, -2.5, True, None, {}], "$ref": "#/x"}
    assert json.loads(encode(value)[0]) == value
    assert encode(value)[0] == b'{"text":"\xc3\xa9\\n","n":[1,-2.5,true,null,{}],"$ref":"#/x"}'


class Colour(enum.Enum):
    RED = 1
    NAN = math.nan


class Size(enum.IntEnum):
    S = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Any = None


Old = namedtuple("Old", "a b")


@dataclasses.dataclass
class Plain:
    a: int
    b: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: Any = ()


@dataclasses.dataclass
class Partial:
    a: int = 1
    b: int = dataclasses.field(init=False)


class Inner(pydantic.BaseModel):
    n: int = 0
    when: datetime | None = None


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    inner: Inner
    anything: Any = None
    _secret: int = pydantic.PrivateAttr(default=1)


T = TypeVar("T")


class Box(pydantic.BaseModel, Generic[T]):
    item: T


class Root(pydantic.RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class Checked:
    n: int


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Size.S,
        Mode.FAST,
        Right.READ | Right.WRITE,
        Right(0),
        Point(1, Size.S),
        Old(1, [2]),
        Plain(1, Plain(2, (3,))),
        Slotted(1, frozenset({2})),
        Checked(3),
        Box[int](item=1),
        Box[Inner](item=Inner()),
        Root([1, 2]),
        Inner(when=datetime(2024, 1, 1)),
        {Point(1): Slotted(2), Colour.RED: 1},
        defaultdict(list, {"a": [1]}),
        defaultdict(None, {1: 2}),
        Counter("abca"),
        deque([1, 2], maxlen=2),
        bytearray(b"ab"),
        range(1, 9, 2),
        slice(None, 5),
        PureWindowsPath("c:/x"),
        [..., None],
        [Size.S, 1, True, 1.0, np.int64(1), np.float64(1), np.bool_(True)],
        [np.float32(0.1), np.datetime64("2024-01-01"), np.str_("é"), np.bytes_(b"x\x00"), np.complex64(1j)],
        uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe),
    ],
    ids=repr,
)
def test_a_typed_value_comes_back_with_its_type(value: Any) -> None:
    found = again(value)
    assert found == value
    assert type(found) is type(value)
    assert encode(found) == encode(value)
    if isinstance(value, list):
        assert list(map(type, found)) == list(map(type, value))


def test_an_enum_member_is_the_member_itself() -> None:
    assert again([Colour.RED, Colour.NAN])[0] is Colour.RED
    assert again([Colour.RED, Colour.NAN])[1] is Colour.NAN


def test_the_fold_and_zone_of_a_time_are_kept() -> None:
    value = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    assert again(value).utcoffset() == timedelta(hours=1)
    assert again(value).tzinfo is value.tzinfo


def test_a_model_keeps_fields_set_extra_and_private() -> None:
    model = Model(inner=Inner(), anything=Plain(1), more=(1, 2))
    model._secret = 7
    found = again(model)
    assert found == model
    assert found.model_fields_set == {"inner", "anything", "more"}
    assert found.inner.model_fields_set == set()
    assert (found._secret, found.more, type(found.anything)) == (7, (1, 2), Plain)


def test_state_that_init_did_not_make_is_kept() -> None:
    partial = Partial()
    partial.note = "extra"  # type: ignore[attr-defined]
    found = again(partial)
    assert vars(found) == {"a": 1, "note": "extra"}
    assert again(Inner.model_construct(n="no number")).n == "no number"
    assert again(Plain("no number")).a == "no number"


def test_shared_objects_are_shared_again_but_identity_leaves_that_out() -> None:
    row = [0]
    found = again({"rows": [row, row], "same": (row,)})
    assert found["rows"][0] is found["rows"][1] is found["same"][0]
    assert identity([row, row]) == identity([[0], [0]])
    assert encode([row, row])[0] != encode([[0], [0]])[0]
    assert encode([Colour.RED] * 2)[1] is None


@dataclasses.dataclass(eq=False)
class Mutable:
    n: int


def test_sharing_through_a_set_is_left_to_pickle() -> None:
    one = Mutable(1)
    with pytest.raises(Unfit):
        encode([{one, Mutable(0)}, one])


class MyList(list[int]):
    pass


class MyStr(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [MyList([1]), MyStr("a"), {"a": MyStr("a")}, {MyStr("a"): 1}, object(), types, len])
def test_what_is_not_exact_is_unfit(value: Any) -> None:
    with pytest.raises(Unfit):
        encode(value)


def test_a_class_without_a_name_is_unfit() -> None:
    @dataclasses.dataclass
    class Local:
        n: int

    with pytest.raises(Unfit, match="by its name"):
        encode(Local(1))


def test_cycles_and_deep_nesting_go_to_pickle_or_are_refused(tmp_path: Any) -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    store = ArtifactStore(str(tmp_path))
    artifact = store.write(cycle, name="cycle")
    found = store.read(artifact)
    assert artifact.serializer == "pickle"
    assert found[1] is found
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    assert store.read(store.write(deep, name="deep")) == deep
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(KitaruSerializationError, match="deep"):
        store.write(deep, name="deep")
    assert store.token(deep) is None


def test_a_value_that_explodes_when_unshared_goes_to_pickle() -> None:
    value: list[Any] = [[]]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(Unfit, match="shares"):
        encode(value)


@pytest.fixture
def module() -> Any:
    """A module whose classes can be changed between writing and reading."""
    made = types.ModuleType("changing_classes")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def define(module: Any, source: str) -> None:
    exec(f"import dataclasses, enum, typing, pydantic\nfrom typing import *\n{source}", vars(module))


@pytest.mark.parametrize(
    ("before", "make", "after", "problem"),
    [
        ("@dataclasses.dataclass\nclass C:\n a: int", "C(1)", "C = None", "class changing_classes.C is gone"),
        ("@dataclasses.dataclass\nclass C:\n a: int", "C(1)", "class C: pass", "no longer a dataclass"),
        (
            "@dataclasses.dataclass\nclass C:\n a: int\n b: int",
            "C(1, 2)",
            "@dataclasses.dataclass\nclass C:\n a: int",
            "no field 'b' any more",
        ),
        (
            "@dataclasses.dataclass\nclass C:\n a: int",
            "C(1)",
            "@dataclasses.dataclass\nclass C:\n a: int\n z: int",
            "new field 'z' has no default",
        ),
        (
            "@dataclasses.dataclass\nclass C:\n a: int",
            "C(1)",
            "@dataclasses.dataclass\nclass C:\n a: str",
            "field 'a' is str now, and the stored value is int",
        ),
        (
            "class C(pydantic.BaseModel):\n a: int",
            "C(a=1)",
            "class C(pydantic.BaseModel):\n a: str",
            "a: Input should be a valid string",
        ),
        (
            "class C(pydantic.BaseModel):\n a: int",
            "C(a=1)",
            "class C(pydantic.BaseModel):\n b: int = 0",
            "no field 'a' any more",
        ),
        ("class C(pydantic.BaseModel):\n a: int", "C(a=1)", "class C: pass", "no longer a pydantic model"),
        ("class C(enum.Enum):\n A = 1", "C.A", "class C(enum.Enum):\n B = 1", "no member 'A' any more"),
        ("class C(enum.Enum):\n A = 1", "C.A", "class C(enum.Enum):\n A = 2", "A is 2 now and was 1"),
        ("class C(enum.Enum):\n A = 1", "C.A", "class C: pass", "no enum any more"),
        ("class C(NamedTuple):\n a: int", "C(1)", "class C(NamedTuple):\n b: int", "has changed"),
    ],
)
def test_a_changed_class_is_refused_with_what_changed(
    tmp_path: Any, module: Any, before: str, make: str, after: str, problem: str
) -> None:
    define(module, before)
    store = ArtifactStore(str(tmp_path))
    artifact = store.write([eval(make, vars(module))], name="value")
    define(module, after)
    with pytest.raises(KitaruArtifactError, match=f"value.*{problem}"):
        store.read(artifact)


def test_a_class_that_gained_a_default_still_loads(module: Any) -> None:
    define(module, "@dataclasses.dataclass\nclass C:\n a: int\nclass M(pydantic.BaseModel):\n a: int")
    data = encode([module.C(1), module.M(a=1)])[0]
    define(
        module,
        "@dataclasses.dataclass\nclass C:\n a: int\n z: list = dataclasses.field(default_factory=list)\n"
        "class M(pydantic.BaseModel):\n a: float\n z: int = 5",
    )
    one, other = decode(data)
    assert (one.a, one.z) == (1, [])
    assert (other.a, other.z) == (1.0, 5)


def test_a_module_that_is_gone_is_named(module: Any) -> None:
    define(module, "@dataclasses.dataclass\nclass C:\n a: int")
    data = encode(module.C(1))[0].replace(b"changing_classes", b"no_such_module")
    with pytest.raises(Exception, match="no_such_module can't be imported"):
        decode(data)


def test_a_tag_of_a_later_version_is_refused() -> None:
    with pytest.raises(Exception, match="'hologram', which this version"):
        decode(b'{"$":"hologram","v":1}')


def test_a_date_is_no_datetime() -> None:
    assert identity(date(2024, 1, 1)) != identity(datetime(2024, 1, 1))
    assert identity(Size.S) != identity(1) != identity(np.int64(1))
    assert identity(Mode.FAST) != identity("fast")
    assert identity(Fraction(1)) != identity(Decimal(1))
    assert identity(np.float32(1)) != identity(np.float64(1))
