"""Ask a person, on a terminal, for the answer of a wait: the prompts follow from its JSON Schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from kitaru_nb.core.control import Started, describe_schema, find_wait
from kitaru_nb.errors import KitaruUsageError, KitaruWaitValidationError
from kitaru_nb.model import Wait
from kitaru_nb.surfaces.console import is_machine, report, show
from kitaru_nb.surfaces.render import Line, Span, escaped, line

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient

_DEEPEST = 8
_PYTHON: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}


def can_ask() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty() and not is_machine()


def answer_interactively(client: KitaruClient, exec_id: str, selector: str | None, by: str | None) -> Started:
    """Show the question, ask until the answer fits, and give it.

    Raises:
        KitaruUsageError: nobody can be asked here.
        KitaruNotFoundError, KitaruConflictError: as `KitaruClient.executions.input`.
    """
    if not can_ask():
        raise KitaruUsageError(
            "--interactive needs a terminal, and the input is none.",
            fix=f"kitaru executions input {exec_id} --value VALUE",
        )
    wait = _chosen(client, exec_id, selector)
    show([Line((Span("⏸ ", "yellow"), Span(wait.name, "bold"))), line(wait.question or "(no question)", indent=2)])
    while True:
        value = ask(wait.name, wait.schema, wait.schema)
        try:
            return client.executions.input(exec_id, value=value, wait=wait.wait_id, by=by, via="cli")
        except KitaruWaitValidationError as error:
            report(error)


def _chosen(client: KitaruClient, exec_id: str, selector: str | None) -> Wait:
    pending = client.executions.pending_waits(exec_id)
    if selector is not None or len(pending) < 2:
        return find_wait(client.runtime, exec_id, selector)
    labels = [f"{wait.name}: {wait.question or '(no question)'}" for wait in pending]
    return pending[_choose("Which wait", labels)]


def ask(label: str, schema: Mapping[str, Any], root: Mapping[str, Any], *, depth: int = 0) -> Any:
    """Ask for one value. ``root`` is where ``$ref`` leads; deeper than a few levels JSON is typed."""
    label = escaped(str(schema.get("title") or label))  # the title of a type that it refers to names the type
    schema = _resolved(schema, root)
    if description := schema.get("description"):
        show([line(str(description), "dim", indent=2)])
    if "enum" in schema:
        return schema["enum"][_choose(label, [_shown(value) for value in schema["enum"]])]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if kind == "boolean":
        return typer.confirm(label)
    if kind == "object" and schema.get("properties") and depth < _DEEPEST:
        if depth:
            show([line(f"{label}:")])
        return _ask_fields(schema, root, depth)
    if kind == "string":
        return str(typer.prompt(label, default="", show_default=False))
    return _ask_json(f"{label} ({escaped(describe_schema(schema))})", _PYTHON.get(str(kind)))


def _ask_fields(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    values = {}
    for name, field in schema["properties"].items():
        required = name in schema.get("required", ())
        if not required:
            default = f", default {_shown(field['default'])}" if "default" in field else ""
            if not typer.confirm(f"Give {escaped(name)} (optional{escaped(default)})?", default=False):
                continue
        values[name] = ask(name, field, root, depth=depth + 1)
    return values


def _ask_json(label: str, expected: tuple[type, ...] | None) -> Any:
    """JSON, else text; asks until it is of the expected type, if one is."""
    while True:
        text = str(typer.prompt(label))
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if expected is None or (isinstance(value, expected) and not isinstance(value, bool)):
            return value
        show([line(f"{text} is no such value.", "red", indent=2)])


def _choose(label: str, choices: Sequence[str]) -> int:
    """The index of the choice that was named by number or text; asks until it is one."""
    show([line(f"{number}. {choice}", indent=2) for number, choice in enumerate(choices, 1)])
    while True:
        text = str(typer.prompt(f"{label} (1-{len(choices)})"))
        if text in choices:
            return choices.index(text)
        if text.isdecimal() and 1 <= int(text) <= len(choices):
            return int(text) - 1
        show([line(f"{text} is none of them.", "red", indent=2)])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a local ``$ref`` (``#/$defs/NAME``) means."""
    found: Any = schema
    for _ in range(_DEEPEST):
        reference = found.get("$ref", "")
        if not reference.startswith("#/"):
            break
        found = root
        for part in reference[2:].split("/"):
            found = found[part]
    return found  # type: ignore[no-any-return]
