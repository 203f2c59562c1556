"""The table is complete: every row is a route in both hosts, a tool, a method of the client, and a line of the docs."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import typer

from kitaru_nb.client import Artifacts, Executions, KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruError, KitaruNotFoundError, KitaruUsageError
from kitaru_nb.promote.deployments import Deployments
from kitaru_nb.promote.schedules import Schedules
from kitaru_nb.stacks.views import Stacks
from kitaru_nb.surfaces.cli import app
from kitaru_nb.surfaces.http import openapi
from kitaru_nb.surfaces.http.api import match
from kitaru_nb.surfaces.jupyter import ApiHandler
from kitaru_nb.surfaces.mcp import tool
from kitaru_nb.surfaces.operations import limits
from kitaru_nb.surfaces.operations.base import Caller, Desk, Operation, Role, parse_role
from kitaru_nb.surfaces.operations.perform import TooManyTries, perform
from kitaru_nb.surfaces.operations.table import OPERATIONS, by_tool

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
#: What only a server knows, or starts.
SERVERS_OWN = {"info", "doctor", "executions.stats", "executions.run"}
GROUPS = {
    "executions": Executions,
    "artifacts": Artifacts,
    "deployments": Deployments,
    "schedules": Schedules,
    "stacks": Stacks,
}
#: Arguments of operations that the client takes too.
WITH_CLIENT = ("exec_id", "wait_id", "value", "from_", "overrides", "scope", "flow", "checkpoint", "source", "name")
OF_DEPLOYMENTS = ("version", "tag", "inputs", "stack", "key", "to")
#: Arguments of operations under the names that the client has for them.
AS_IN_CLIENT = {"exec_id": "exec_id", "wait_id": "wait", "value": "value", "from_": "from_", "call": "producing_call"}


def client_method(operation: Operation) -> object:
    """The method of the client that a program calls for an operation."""
    assert operation.client is not None
    group, _, name = operation.client.partition(".")
    return attrgetter(name)(GROUPS[group])


def commands() -> Iterator[tuple[str, str]]:
    """Each command of the command line as it is typed, and its help."""

    def below(found: Any, name: str) -> Iterator[tuple[str, str]]:
        if not hasattr(found, "commands"):
            yield name, found.help or ""
            return
        for word, child in found.commands.items():
            yield from below(child, f"{name} {word}")

    return below(typer.main.get_command(app), "kitaru")


def test_names_routes_and_tools_are_each_there_once() -> None:
    for what in ("name", "tool_name"):
        assert max(Counter(getattr(operation, what) for operation in OPERATIONS).values()) == 1
    assert max(Counter((operation.method, operation.path) for operation in OPERATIONS).values()) == 1


@EACH
def test_each_has_a_route_in_both_hosts(operation: Operation) -> None:
    path = re.sub(r"{(\w+)}", r"some%2F\1", operation.path)
    found, parameters = match(operation.method, path)
    assert found is operation
    assert parameters == {name: f"some/{name}" for name in operation.path_parameters}
    assert hasattr(ApiHandler, operation.method.lower())


@EACH
def test_each_is_a_tool_with_safe_annotations(operation: Operation) -> None:
    found = tool(operation)
    assert by_tool(found.name) is operation
    assert found.input_schema["type"] == "object"
    assert set(operation.path_parameters) <= set(found.input_schema["properties"])
    assert found.annotations is not None
    assert found.annotations.read_only_hint is (operation.role is Role.VIEW)
    assert not (found.annotations.read_only_hint and found.annotations.destructive_hint)


def test_what_ends_something_for_good_says_so() -> None:
    assert {o.name for o in OPERATIONS if o.destructive} == {
        "executions.cancel",
        "waits.abort",
        "deployments.delete",
    }
    assert {o.name for o in OPERATIONS if o.limited} == {"waits.resolve", "waits.abort"}


@EACH
def test_each_has_a_method_of_the_client(operation: Operation) -> None:
    if operation.client is None:
        assert operation.name in SERVERS_OWN
        return
    method = client_method(operation)
    assert callable(method)
    taken = inspect.signature(method).parameters
    for name in (*WITH_CLIENT, *(OF_DEPLOYMENTS if operation.name.startswith(("deployments.", "schedules.")) else ())):
        asked_of = name in operation.arguments.model_fields and operation.client != "executions.pending_waits"
        if asked_of and not (name == "exec_id" and "exec_id" in taken):
            assert AS_IN_CLIENT.get(name, name) in taken, f"{operation.client} takes no {name}"


@EACH
def test_each_is_in_the_openapi_document(operation: Operation) -> None:
    found = openapi.document()["paths"][f"/{operation.path}"][operation.method.lower()]
    assert found["summary"] == operation.help
    assert {p["name"] for p in found["parameters"] if p["in"] == "path"} == set(operation.path_parameters)


def test_the_openapi_document_refers_only_to_what_it_has() -> None:
    document = openapi.document()
    there = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r"'\$ref': '([^']+)'", str(document))) <= there
    artifact = document["components"]["schemas"]["Artifact"]["properties"]
    assert "data" not in artifact


@EACH
def test_each_is_a_line_of_the_docs(operation: Operation) -> None:
    page = (ROOT / "docs" / "how-to" / "http-api.md").read_text(encoding="utf-8")
    cells = (
        operation.name,
        f"`{operation.method} {operation.path}`",
        f"`{operation.tool_name}`",
        str(operation.role),
        operation.help,
    )
    assert f"| {' | '.join(cells)} |" in page


def test_the_docs_name_no_operation_that_is_gone() -> None:
    page = (ROOT / "docs" / "how-to" / "http-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.]+) \| `(?:GET|POST)", page, re.MULTILINE)
    assert rows == [operation.name for operation in OPERATIONS]


@pytest.mark.parametrize("group", ["server", "server token", "mcp", "executions webhook", "stack"])
def test_each_command_of_this_surface_is_in_the_docs_with_its_help(group: str) -> None:
    pages = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "how-to").glob("*.md"))
    found = typer.main.get_command(app)
    for word in group.split():
        found = found.commands[word]  # type: ignore[attr-defined]
    assert found.help
    for name in getattr(found, "commands", {"": None}):
        assert f"kitaru {group} {name}".strip() in pages


@pytest.mark.parametrize(("name", "told"), list(commands()), ids=[name for name, _ in commands()])
def test_each_command_is_in_the_reference_with_its_help(name: str, told: str) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    _, heading, section = reference.partition(f"\n### `{name}`\n")
    assert heading, f"docs/reference.md has no {name}: python docs/generate.py"
    assert told, f"{name} has no help"
    assert " ".join(told.split()) in " ".join(section.partition("\n### ")[0].split())


def test_every_command_answers_in_json_when_asked() -> None:
    def below(found: Any) -> Iterator[Any]:
        inner = getattr(found, "commands", None)
        yield from [found] if inner is None else (leaf for child in inner.values() for leaf in below(child))

    leaves = list(below(typer.main.get_command(app)))
    assert len(leaves) == len(list(commands()))
    assert [leaf.name for leaf in leaves if not any("--json" in p.opts for p in leaf.params)] == []


def test_the_reference_names_no_command_that_is_gone() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    told = re.findall(r"^### `(kitaru [^`]+)`$", reference, re.MULTILINE)
    assert sorted(told) == sorted(name for name, _ in commands())


def test_roles_are_ordered_and_parsed() -> None:
    assert [str(role) for role in sorted(Role)] == ["view", "operate", "work", "admin"]
    assert parse_role("work") is Role.WORK
    with pytest.raises(KitaruUsageError, match="Roles are: view, operate, work, admin"):
        parse_role("root")


@EACH
def test_a_lesser_role_is_told_which_one_it_takes(operation: Operation) -> None:
    for role in Role:
        caller = Caller("bo", role, "http")
        if role >= operation.role:
            operation.check_role(caller)
        else:
            with pytest.raises(KitaruError, match=f"bo has the role {role}; {operation.name} needs {operation.role}"):
                operation.check_role(caller)


def test_a_rate_limit_lets_a_burst_through_and_then_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    limit = limits.RateLimit(3, 2.0, clock=lambda: now[0])
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 2.0]
    assert limit.take("b") == 0
    now[0] = 1.0
    assert limit.wait("a") == 1.0
    now[0] = 2.0
    assert limit.take("a") == 0
    assert limit.take("a") == 2.0
    monkeypatch.setattr(limits, "REMEMBERED", 2)
    for name in ("c", "d", "e"):
        limit.take(name)
    assert limit.take("a") == 0  # forgotten: what a flood of names can do at most


def test_tries_are_counted_by_token_whatever_a_program_calls_itself(tmp_path: Path) -> None:
    runtime = Runtime(Settings(tmp_path, durability="process"))
    desk = Desk(KitaruClient(runtime), "mcp", tmp_path, answers=limits.RateLimit(burst=2, seconds=60.0))
    abort, given = by_tool("kitaru_waits_abort"), {"exec_id": "latest", "wait_id": "approve"}
    assert abort is not None
    for name, error in (("one", KitaruNotFoundError), ("two", KitaruNotFoundError), ("three", TooManyTries)):
        with pytest.raises(error):
            perform(abort, desk, Caller(f"{name} for ana", Role.ADMIN, "mcp", "ana"), given)
    with pytest.raises(KitaruNotFoundError):
        perform(abort, desk, Caller("four for bo", Role.ADMIN, "mcp", "bo"), given)
    runtime.journal.close()


def test_values_of_the_table_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OPERATIONS[0].name = "other"  # type: ignore[misc]
