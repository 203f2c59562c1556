"""`KitaruClient`: what it refuses and loads; Kitaru's ways to write things, and its names that aren't here."""

from __future__ import annotations

import ast
import pydoc
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

import kitaru_nb
from kitaru_nb import KitaruClient, checkpoint, flow, wait
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruContextError, KitaruNotFoundError, KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.promote.program import waits_of


@checkpoint
def double(number: int) -> int:
    print(f"doubles {number}")
    return number * 2


@flow
def doubled() -> list[int]:
    return [double(1), double(2)]


@flow
def asks() -> list[object]:
    first = wait(bool, name="ok", question="Publish?", timeout=0)
    return [first, wait(Literal["a", "b"], name="which", timeout=0), wait(int, timeout=0)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[KitaruClient]:
    """A client of a journal in which a flow ran."""
    runtime = Runtime(Settings(tmp_path, durability="process"))
    advance(runtime, create_execution(runtime, doubled, {}).exec_id, doubled, poll_seconds=0.0)
    yield KitaruClient(runtime)
    runtime.journal.close()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"before": "latest"}, "before='latest' is no id of an execution"),
        ({"size": -1}, "page=1 of -1 can't be"),
        ({"limit": -5}, "page=1 of -5 can't be"),
        ({"page": 0}, "page=0 of 50 can't be"),
    ],
    ids=["before", "size", "limit", "page"],
)
def test_a_page_that_cannot_be_is_told(client: KitaruClient, asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(KitaruUsageError, match=problem) as caught:
        client.executions.list(**asked)
    assert str(caught.value.fix).startswith("executions.list(")


def test_artifacts_of_results_and_of_calls_are_loaded(client: KitaruClient) -> None:
    execution = client.executions.latest()
    assert execution.result is not None
    assert execution.result.load() == [2, 4]
    assert [a.load() for a in execution.artifacts] == [2, 4]
    assert [call.artifacts[0].load() for call in execution.list_checkpoints()] == [2, 4]


def test_an_artifact_without_a_client_says_where_to_get_one(client: KitaruClient) -> None:
    artifact = client.executions.latest().checkpoints[0].artifacts[0]
    with pytest.raises(KitaruContextError) as caught:
        artifact.load()
    assert caught.value.fix == f"KitaruClient().artifacts.get('{artifact.artifact_id}').load()"
    assert client.artifacts.get(artifact.artifact_id).load() == 2


def test_lines_are_found_by_the_selector_of_a_call(client: KitaruClient) -> None:
    exec_id = client.executions.latest().exec_id
    lines = client.executions.logs(exec_id, checkpoint="double#2")
    assert [line.message for line in lines] == ["doubles 2"]
    with pytest.raises(KitaruNotFoundError, match="It has: double, double#2"):
        client.executions.logs(exec_id, checkpoint="triple")


def test_help_names_all_groups() -> None:
    text = pydoc.plain(pydoc.render_doc(KitaruClient))
    for group in ("executions", "artifacts", "deployments", "schedules", "stacks"):
        assert group in text


def test_a_wait_as_kitaru_has_it_takes_the_type_first_and_the_name_by_name(client: KitaruClient) -> None:
    exec_id = create_execution(client.runtime, asks, {}).exec_id
    for name, schema, value in (
        ("ok", {"type": "boolean"}, True),
        ("which", {"enum": ["a", "b"]}, "b"),
        ("wait", {}, 3),
    ):
        advance(client.runtime, exec_id, asks, poll_seconds=0.0)
        (pending,) = client.executions.pending_waits(exec_id)
        assert pending.name == name
        assert schema.items() <= dict(pending.schema).items()
        answer = {"value": value, "by": "ana", "via": "client"}
        client.runtime.journal.append(exec_id, [Event(exec_id, "wait.resolved", pending.wait_id, time.time(), answer)])
    advance(client.runtime, exec_id, asks, poll_seconds=0.0)
    assert client.executions.get(exec_id).result.load() == [True, "b", 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(("given", "problem"), [(("a",), "has two names, 'a' and 'b'"), ((), "name=5 can't be")])
def test_a_wait_has_one_name(client: KitaruClient, given: tuple[str, ...], problem: str) -> None:
    @flow
    def confused() -> None:
        wait(*given, name="b" if given else 5)  # type: ignore[call-overload]

    exec_id = create_execution(client.runtime, confused, {}).exec_id
    advance(client.runtime, exec_id, confused, poll_seconds=0.0)
    failure = client.executions.get(exec_id).failure
    assert failure is not None
    assert problem in failure.message


def test_what_a_notebook_waits_for_is_read_in_that_form_too() -> None:
    source = "wait(bool, name='ok')\nwait(Review, name='review', question='?')\nwait('plain')\nwait(int)"
    assert [(w["name"], w["schema"]) for w in waits_of([ast.parse(source)])] == [
        ("ok", "bool"),
        ("review", "Review"),
        ("plain", "bool"),
    ]


def test_values_that_a_deployment_has_for_others_may_be_given_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    @flow
    def brief(topic: str, times: int = 1) -> str:
        return topic * times

    made: list[dict[str, Any]] = []
    monkeypatch.setattr(
        type(brief), "_deployed", lambda *_: SimpleNamespace(create=lambda _, **given: made.append(given))
    )
    brief.deploy("tides", tags={"prod": True}, times=2)
    assert made == [{"inputs": {"topic": "tides", "times": 2}, "tags": {"prod": True}, "stack": None}]
    with pytest.raises(KitaruUsageError, match=r"too many positional arguments. It takes brief\(topic: "):
        brief.deploy("a", 1, 2)


@pytest.mark.parametrize("name", ["configure", "connect", "create_stack", "use_stack", "create_secret", "adapters"])
def test_a_name_of_kitaru_that_is_not_here_is_told_with_what_is(name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; ") as caught:
        getattr(kitaru_nb, name)
    assert not hasattr(kitaru_nb, name)
    assert "kitaru" in str(caught.value).partition("; instead: ")[2].lower()


def test_any_other_name_is_missing_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"^module 'kitaru_nb' has no attribute 'nothing'$"):
        kitaru_nb.nothing  # noqa: B018
