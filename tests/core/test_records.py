"""What a flow writes down: logs, metadata, saved values; and errors that cross processes."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import threading
from typing import Any

import pytest

import kitaru_nb
from core.bench import Bench, let_go, until
from kitaru_nb import (
    KitaruConflictError,
    KitaruContextError,
    KitaruError,
    KitaruNotFoundError,
    KitaruUsageError,
    KitaruUserCodeError,
    Paused,
    checkpoint,
    flow,
    idempotency_key,
    load,
    log,
    save,
)
from kitaru_nb.core.logs import LogBuffer, Tee

logger = logging.getLogger("user.module")


def lines_of(bench: Bench, handle: Any, checkpoint: str | None = None) -> list[tuple[str, str, str]]:
    """(source, level, message) of each line."""
    return [(e.source, e.level, e.message) for e in bench.executions.logs(handle.exec_id, checkpoint=checkpoint)]


def test_output_of_concurrent_checkpoints_goes_to_their_own_logs(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    together = threading.Barrier(4)

    @checkpoint
    def speak(me: int) -> int:
        for word in ("one", "two", "three"):
            together.wait(60)
            print(me, word)
        print(me, "to stderr", file=sys.stderr)
        logger.warning("%s logs", me)
        print(me, "without an end", end="")
        return me

    @checkpoint
    async def whisper(me: int) -> int:
        for word in ("one", "two"):
            await asyncio.sleep(0)
            print(me, word)
        return me

    @flow
    def talking() -> None:
        print("the flow itself")
        speak.map(range(4)).results()
        whisper.map(range(4, 6)).results()

    handle = bench.run(talking)
    handle.wait()
    for call in bench.get(handle).checkpoints:
        me = call.inputs[0].preview
        found = lines_of(bench, handle, call.call_id)
        if call.name == "whisper":
            assert found == [("stdout", "INFO", f"{me} one"), ("stdout", "INFO", f"{me} two")]
            continue
        assert found == [
            *(("stdout", "INFO", f"{me} {word}") for word in ("one", "two", "three")),
            ("stderr", "ERROR", f"{me} to stderr"),
            ("logging", "WARNING", f"{me} logs"),
            ("stdout", "INFO", f"{me} without an end"),
        ]
    everything = bench.executions.logs(handle.exec_id)
    assert [e.message for e in everything if e.call_id is None] == ["the flow itself"]
    assert len(bench.executions.logs(handle.exec_id, source="stderr")) == 4
    assert len(bench.executions.logs(handle.exec_id, limit=3)) == 3
    assert "the flow itself\n" in capsys.readouterr().out  # shown as ever


def test_streams_are_as_they_were_when_no_flow_runs(bench: Bench) -> None:
    @flow
    def quiet() -> bool:
        return isinstance(sys.stdout, Tee) and isinstance(sys.stderr, Tee)

    before = sys.stdout, sys.stderr, list(logging.getLogger().handlers)
    handle = bench.run(quiet)
    assert handle.wait() is True
    let_go(handle)
    assert (sys.stdout, sys.stderr, logging.getLogger().handlers) == before


def test_writelines_are_logged_too(bench: Bench) -> None:
    @checkpoint
    def speak() -> None:
        sys.stdout.writelines(["a\n", "b\n"])

    @flow
    def talking() -> None:
        speak()

    handle = bench.run(talking)
    handle.wait()
    assert lines_of(bench, handle, "speak") == [("stdout", "INFO", "a"), ("stdout", "INFO", "b")]


def test_the_log_of_an_interrupted_call_is_kept(bench: Bench) -> None:
    @checkpoint
    def speak() -> None:
        print("said")
        print("half", end="")
        raise Paused("cut off")

    @flow
    def talking() -> None:
        speak()

    handle = bench.run(talking)
    let_go(handle)
    assert [line[2] for line in lines_of(bench, handle)] == ["said", "half"]


def test_the_log_of_a_long_call_is_there_while_it_runs(bench: Bench) -> None:
    go_on = threading.Event()

    @checkpoint
    def long() -> None:
        print("working")
        assert go_on.wait(60)

    @flow
    def working() -> None:
        long()

    handle = bench.run(working)
    until(lambda: lines_of(bench, handle, "long") == [("stdout", "INFO", "working")])
    assert bench.statuses(handle) == {"long": "running"}
    go_on.set()
    handle.wait()


def test_a_line_keeps_the_level_of_its_source() -> None:
    buffer = LogBuffer()
    buffer.add("c", "stderr", "ERROR", "no end")
    buffer.add("c", "stdout", "INFO", "first\nsecond")
    buffer.add("d", "stdout", "INFO", "other\n")
    assert [line[1:] for line in buffer.take("c")] == [
        ["stdout", "INFO", "first"],
        ["stdout", "INFO", "second"],
        ["stderr", "ERROR", "no end"],
    ]
    assert list(buffer.take_all()) == ["d"]
    assert buffer.take_all() == {}


def test_metadata_belongs_to_the_running_checkpoint_or_to_the_execution(bench: Bench) -> None:
    @checkpoint
    def model() -> None:
        log(tokens=5, cost=0.1)
        log(model="m", nested={"list": [1, None, True]})

    @flow
    def working() -> None:
        log(kind="test", run=1)
        model()
        log(run=2)

    handle = bench.run(working)
    handle.wait()
    execution = bench.get(handle)
    assert dict(execution.metadata) == {"kind": "test", "run": 2}
    assert dict(execution.checkpoints[0].metadata) == {
        "tokens": 5,
        "cost": 0.1,
        "model": "m",
        "nested": {"list": [1, None, True]},
    }


@pytest.mark.parametrize("value", [{1, 2}, b"x", float("nan"), float("inf"), object, {1: 2}])
def test_metadata_that_is_not_json_is_refused_and_harms_nothing(bench: Bench, value: Any) -> None:
    @checkpoint
    def fine() -> str:
        return "fine"

    @flow
    def working() -> str:
        with pytest.raises(KitaruUsageError, match="metadata must be JSON"):
            log(value=value)
        return fine()

    assert bench.run(working).wait() == "fine"


def test_saved_values_are_loaded_by_other_executions(bench: Bench) -> None:
    @checkpoint
    def make(n: int) -> list[int]:
        save("inside", {"n": n}, type="context", tags=["a"])
        return [n, n + 1]

    @flow
    def making(n: int) -> str:
        save("notes", "v1")
        save("notes", "v2")
        make(n)
        return "result"

    @checkpoint
    def use(values: list[int]) -> int:
        return sum(values)

    @flow
    def using(exec_id: str) -> list[Any]:
        values = load(exec_id, "make")
        return [use(values), load(exec_id, "notes"), load(exec_id, "inside"), load(exec_id, "result")]

    first = bench.run(making, 1)
    first.wait()
    second = bench.run(using, first.exec_id)
    assert second.wait() == [3, "v2", {"n": 1}, "result"]
    (call,) = bench.get(second).checkpoints
    assert call.inputs[0].sources[0].startswith(f"artifact:{first.exec_id}/")
    assert load(first.exec_id, "make", runtime=bench.runtime) == [1, 2]
    with pytest.raises(KitaruNotFoundError, match="It has: make, inside, notes, result"):
        load(first.exec_id, "nots", runtime=bench.runtime)
    inside = next(a for a in bench.get(first).artifacts if a.name == "inside")
    assert (inside.kind, inside.tags, inside.producing_call) == (
        "context",
        ("a",),
        bench.get(first).checkpoints[0].call_id,
    )
    with pytest.raises(KitaruUsageError, match="no kind of artifact"):
        bench.finish(bench.create(wrong_kind), wrong_kind)


@flow
def wrong_kind() -> None:
    save("x", 1, type="picture")


def test_a_resumed_flow_does_not_save_again_what_it_saved(bench: Bench) -> None:
    cut = [True]

    @flow
    def saving() -> None:
        save("notes", "v1")
        if cut:
            cut.clear()
            raise Paused("cut off")
        save("notes", "v2")

    exec_id = bench.create(saving)
    bench.advance(exec_id, saving)
    bench.advance(exec_id, saving)
    assert [e.body["artifact"]["preview"]["text"] for e in bench.events(exec_id) if e.kind == "artifact.saved"] == [
        "'v1'",
        "'v2'",
    ]


def test_outside_an_execution_the_record_is_refused_with_what_to_do() -> None:
    for call in (lambda: log(a=1), lambda: save("x", 1), idempotency_key):
        with pytest.raises(KitaruContextError, match=r"outside a flow"):
            call()


def test_the_body_of_a_flow_has_no_idempotency_key(bench: Bench) -> None:
    @flow
    def body() -> str:
        return idempotency_key()

    with pytest.raises(KitaruUserCodeError, match="expected inside a function under @checkpoint"):
        bench.run(body).wait()


ERRORS = [name for name in kitaru_nb.__all__ if name.startswith("Kitaru") and name.endswith("Error")]


@pytest.mark.parametrize("name", ERRORS)
def test_errors_survive_pickling_with_their_fix(name: str) -> None:
    error: KitaruError = getattr(kitaru_nb, name)("what was found", fix="the line to type")
    if isinstance(error, KitaruConflictError):
        error.existing = {"by": "ann"}
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.message, again.fix) == (str(error), "what was found", "the line to type")
    assert str(error) == "what was found\n  fix: the line to type"
    if isinstance(error, KitaruConflictError):
        assert again.existing == {"by": "ann"}


def test_an_error_of_the_runtime_in_a_checkpoint_is_the_same_error_on_resume(bench: Bench) -> None:
    cut = [True]
    seen: list[Exception] = []

    @checkpoint
    def asking() -> None:
        log(value=object())

    @flow
    def careful() -> None:
        try:
            asking()
        except KitaruUsageError as error:
            seen.append(error)
        if cut:
            cut.clear()
            raise Paused("cut off")

    exec_id = bench.create(careful)
    bench.advance(exec_id, careful)
    bench.finish(exec_id, careful)
    assert str(seen[0]) == str(seen[1])
    assert type(seen[0]) is type(seen[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [(5, {}), ("", {}), ("lone \ud800", {}), ("a", {"tags": "draft"}), ("a", {"tags": [1]}), ("a", {"type": "x"})],
    ids=["number", "empty", "surrogate", "tags text", "tags numbers", "type"],
)
def test_what_cannot_be_saved_is_refused_and_harms_nothing(bench: Bench, name: Any, options: Any) -> None:
    @checkpoint
    def fine() -> str:
        return "fine"

    @flow
    def working() -> str:
        with pytest.raises(KitaruUsageError) as caught:
            save(name, 1, **options)
        assert caught.value.fix
        return fine()

    assert bench.run(working).wait() == "fine"
