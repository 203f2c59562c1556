"""What is never persisted, what only pickle can hold, and what the user is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import dataclasses
import io
import multiprocessing
import queue
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kitaru_nb.artifacts import ArtifactStore, Dumped, Serializer, Unfit, register_serializer, serializers
from kitaru_nb.errors import KitaruArtifactError, KitaruSerializationError, KitaruUsageError


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), durability="process", inline_max_bytes=0)


def a_traceback() -> Any:
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


async def a_coroutine() -> None: ...


async def an_async_generator() -> AsyncIterator[int]:
    yield 1


class Cursor:
    """Looks like a database cursor."""

    def execute(self) -> None: ...
    def fetchone(self) -> None: ...
    def fetchall(self) -> None: ...
    def close(self) -> None: ...


class Connection:
    """Looks like a database connection."""

    def cursor(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


def nothing(value: Any) -> None: ...


def close(value: Any) -> None:
    value.close()


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
LIVING: dict[str, tuple[Callable[[], Any], str, Callable[[Any], Any]]] = {
    "text file": (lambda: open(__file__), "read", close),  # noqa: SIM115
    "binary file": (lambda: open(__file__, "rb"), "read", close),  # noqa: SIM115
    "temporary file": (tempfile.NamedTemporaryFile, "read", close),
    "socket": (socket.socket, "process", close),
    "lock": (threading.Lock, "lock", nothing),
    "rlock": (threading.RLock, "lock", nothing),
    "condition": (threading.Condition, "lock", nothing),
    "semaphore": (threading.BoundedSemaphore, "lock", nothing),
    "event": (threading.Event, "lock", nothing),
    "barrier": (lambda: threading.Barrier(2), "lock", nothing),
    "thread local": (threading.local, "lock", nothing),
    "process lock": (multiprocessing.Lock, "lock", nothing),
    "async lock": (asyncio.Lock, "lock", nothing),
    "async event": (asyncio.Event, "lock", nothing),
    "async queue": (asyncio.Queue, "lock", nothing),
    "thread": (threading.Thread, "process", nothing),
    "process": (multiprocessing.Process, "process", nothing),
    "executor": (concurrent.futures.ThreadPoolExecutor, "process", lambda pool: pool.shutdown()),
    "future": (concurrent.futures.Future, "result", nothing),
    "queue": (queue.Queue, "process", nothing),
    "loop": (asyncio.new_event_loop, "process", close),
    "coroutine": (a_coroutine, "await", close),
    "generator": (lambda: (i for i in [1]), r"list\(", nothing),
    "async generator": (an_async_generator, "async for", nothing),
    "traceback": (a_traceback, "format_exc", nothing),
    "frame": (lambda: a_traceback().tb_frame, "format_exc", nothing),
    "connection": (lambda: sqlite3.connect(":memory:"), "connect", close),
    "other cursor": (Cursor, "fetchall", nothing),
    "other connection": (Connection, "connect", nothing),
    "memoryview": (lambda: memoryview(b"x"), r"bytes\(", nothing),
    "context": (contextvars.copy_context, "process", nothing),
    "context variable": (lambda: variable, "process", nothing),
    "module": (lambda: sys, "import", nothing),
}


@dataclasses.dataclass
class Holder:
    inside: Any


class Plain:
    def __init__(self, inside: Any) -> None:
        self.inside = inside


class Model(pydantic.BaseModel):
    inside: Any


def nest(value: Any) -> list[tuple[Any, str]]:
    """The value in all kinds of places, with the path that the error must name."""
    return [
        (value, "v is"),
        ({"a": [1, value]}, r"\['a'\]\[1\]"),
        (Holder((value,)), r"\.inside\[0\]"),
        (Plain({1: value}), r"\.inside\[1\]"),
        (Model(inside=value), r"\.inside"),
        ([Plain(Holder(value))], r"\[0\]\.inside\.inside"),
    ]


@pytest.mark.parametrize("label", LIVING)
def test_a_living_thing_is_refused_wherever_it_hides(store: ArtifactStore, tmp_path: Path, label: str) -> None:
    make, fix, dispose = LIVING[label]
    value = make()
    for nested, path in nest(value):
        with pytest.raises(KitaruSerializationError, match=path) as caught:
            store.write(nested, name="v")
        assert type(value).__name__ in str(caught.value)
        assert caught.value.fix
        assert store.token(nested) is None
        assert re.search(fix, caught.value.fix)
    assert not (tmp_path / "store").exists()
    dispose(value)


def test_a_task_and_its_future_are_refused(store: ArtifactStore) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        future = asyncio.get_running_loop().create_future()
        for value in (task, future):
            with pytest.raises(KitaruSerializationError, match=r"\[0\] is a _asyncio"):
                store.write([value], name="v")
        await task

    asyncio.run(main())


def test_a_cursor_and_a_context_token_are_refused(store: ArtifactStore) -> None:
    connection = sqlite3.connect(":memory:")
    token = contextvars.copy_context().run(variable.set, 1)
    for value, fix in ((connection.cursor(), "fetchall"), (token, "process")):
        with pytest.raises(KitaruSerializationError) as caught:
            store.write({"conn": value}, name="v")
        assert fix in str(caught.value.fix)
    connection.close()


def test_a_running_process_is_refused(store: ArtifactStore) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", ""]) as process,
        pytest.raises(KitaruSerializationError, match="Popen"),
    ):
        store.write([process], name="v")


def test_a_file_that_a_lambda_closes_over_is_refused(store: ArtifactStore) -> None:
    with open(__file__) as file, pytest.raises(KitaruSerializationError, match="TextIOWrapper"):
        store.write(lambda: file.read(), name="reader")


def test_files_in_memory_are_data(store: ArtifactStore) -> None:
    assert store.read(store.write(io.BytesIO(b"abc"), name="f")).getvalue() == b"abc"
    assert store.read(store.write({"f": io.StringIO("abc")}, name="f"))["f"].getvalue() == "abc"


class LeavesOutItsLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n = 5

    def __getstate__(self) -> dict[str, int]:
        return {"n": self.n}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.n, self.lock = state["n"], threading.Lock()


def test_a_class_that_pickles_itself_well_is_left_alone(store: ArtifactStore) -> None:
    assert store.read(store.write([LeavesOutItsLock()], name="v"))[0].n == 5


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


def test_the_part_that_cant_be_pickled_is_named(store: ArtifactStore) -> None:
    with pytest.raises(KitaruSerializationError, match=r"\['b'\]\.inside\[1\] is a .*Unpicklable.*not this one"):
        store.write({"a": object(), "b": Plain([1, Unpicklable()])}, name="v")


def top_level(x: int) -> int:
    return x + 1


def test_functions_and_classes_go_by_name_and_lambdas_by_value(store: ArtifactStore) -> None:
    named = store.write(top_level, name="f")
    assert named.serializer == "pickle"
    assert store.read(named) is top_level
    made = store.write(lambda x: x + 2, name="f")
    assert made.serializer == "cloudpickle"
    assert store.read(made)(1) == 3

    class Local:
        n = 5

    local = store.write(Local(), name="v")
    assert local.serializer == "cloudpickle"
    assert store.read(local).n == 5
    assert named.token is made.token is local.token is None


def test_a_pickle_whose_class_is_gone_is_a_bad_artifact(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = store.write(Plain(1), name="thing")
    monkeypatch.delattr(sys.modules[__name__], "Plain")
    with pytest.raises(KitaruArtifactError, match=r"thing.*Plain"):
        store.read(artifact)


def test_pandas_without_pyarrow_goes_to_pickle(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    frame = pd.DataFrame([[1]])  # its names aren't strings, which pandas keeps in Arrow where it finds it
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    artifact = store.write(frame, name="t")
    assert (artifact.serializer, artifact.token) == ("pickle", None)


@pytest.fixture
def registry() -> Iterator[None]:
    """Takes registered serializers away again."""
    yield
    serializers._first.clear()
    serializers._last.clear()
    for name in set(serializers._by_name) - serializers._OWN:
        del serializers._by_name[name]


class PlainSerializer(Serializer):
    """A user's own format."""

    name = "plain"
    media_type = "text/plain"
    canonical = True

    def accepts(self, value: Any) -> bool:
        return isinstance(value, Plain)

    def dump(self, value: Plain) -> bytes:
        if not isinstance(value.inside, str):
            raise Unfit("only text")
        return value.inside.encode()

    def load(self, data: bytes) -> Plain:
        return Plain(data.decode())


class Shout(Serializer):
    """Takes strings away from the built-in serializer."""

    name = "shout"

    def accepts(self, value: Any) -> bool:
        return type(value) is str

    def dump(self, value: str) -> Dumped:
        return Dumped((b"!", value.encode()), len(value.encode()) + 1, canonical=False)

    def load(self, data: bytes) -> str:
        return data[1:].decode()


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("first", [True, False])
def test_a_users_serializer_is_asked_before_pickle(store: ArtifactStore, first: bool) -> None:
    register_serializer(PlainSerializer(), first=first)
    artifact = store.write(Plain("hello"), name="p")
    assert (artifact.serializer, artifact.media_type) == ("plain", "text/plain")
    assert store.read(artifact).inside == "hello"
    assert artifact.token == store.token(Plain("hello")) != store.token(Plain("other"))
    assert store.write(Plain(5), name="p").serializer == "pickle"
    assert store.read(store.write([Plain("in a list")], name="p"))[0].inside == "in a list"
    assert store.token([Plain("in a list")]) is not None


@pytest.mark.usefixtures("registry")
def test_a_users_serializer_may_come_before_the_builtin_ones(store: ArtifactStore) -> None:
    register_serializer(Shout(), first=False)
    assert store.write("x", name="s").serializer == "text"
    register_serializer(Shout())
    artifact = store.write("x", name="s")
    assert (artifact.serializer, artifact.token, store.token("x")) == ("shout", None, None)
    assert store.read_bytes(artifact) == b"!x"
    assert store.read(artifact) == "x"


@pytest.mark.usefixtures("registry")
def test_a_serializer_that_isnt_registered_here_is_named(store: ArtifactStore) -> None:
    register_serializer(PlainSerializer())
    artifact = store.write(Plain("x"), name="p")
    serializers._by_name.pop("plain")
    with pytest.raises(KitaruArtifactError, match=r"p,.*'plain'"):
        store.read(artifact)


@pytest.mark.usefixtures("registry")
def test_a_failing_serializer_is_named(store: ArtifactStore) -> None:
    class Broken(PlainSerializer):
        def dump(self, value: Plain) -> bytes:
            raise ZeroDivisionError("oh")

    register_serializer(Broken())
    with pytest.raises(KitaruSerializationError, match=r"'plain' failed.*ZeroDivisionError: oh"):
        store.write(Plain("x"), name="p")


def test_a_serializer_needs_a_name_of_its_own() -> None:
    class Taken(PlainSerializer):
        name = "json"

    with pytest.raises(KitaruUsageError, match="'json' is one of"):
        register_serializer(Taken())


def test_a_serializer_can_be_asked_for_by_name(store: ArtifactStore) -> None:
    artifact = store.write([1], name="v", serializer="pickle")
    assert (artifact.serializer, artifact.token) == ("pickle", None)
    assert store.read(artifact) == [1]
    assert store.read(store.write("x", name="v", serializer="json")) == "x"
    with pytest.raises(KitaruSerializationError, match=r"'npy' can't hold v, a builtins\.list"):
        store.write([1], name="v", serializer="npy")
    with pytest.raises(KitaruUsageError, match=r"no serializer 'xml'\. There are: .*json"):
        store.write([1], name="v", serializer="xml")
