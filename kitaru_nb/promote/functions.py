"""Snapshots of flows that are functions: from a module, a script, or cells of a notebook."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.graph import CellGraph
from kitaru_nb.cells.notebook import read_notebook
from kitaru_nb.cells.source import Cell
from kitaru_nb.core.answers import example
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.reference import load_object
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.promote.checks import Refusal, refusals_of_files, refusals_of_imports, refuse_if
from kitaru_nb.promote.environment import lock_environment, runtime_for
from kitaru_nb.promote.inputs import check_value, hints_of
from kitaru_nb.promote.modules import Closure, Import, closure_of, imports_of
from kitaru_nb.promote.notebooks import describe, flow_name, package
from kitaru_nb.promote.program import Program, Step, object_schema, read_program, waits_of
from kitaru_nb.promote.snapshot import FLOW, Snapshot

_CALLER = "<flow>"


def snapshot_flow(
    runtime: Runtime, flow: Flow[..., Any], *, name: str | None = None, defaults: Mapping[str, Any] | None = None
) -> Snapshot:
    """Package a flow with the modules and packages that it needs. Nothing is stored.

    Args:
        defaults: inputs that need not be given any more.

    Raises:
        Refused: there is something to mend; lists all of it.
        KitaruUsageError: the flow is defined where its source can't be found, or takes what can't be sent as JSON.
    """
    called = flow_name(name or flow.name)
    parameters = input_schema(flow, defaults or {})
    entry, source, closure = _located(flow)
    refusals = [*refusals_of_imports(closure), *refusals_of_files({**closure.files, **source})]
    refuse_if(refusals, called)
    settings = replace(runtime.settings, executor=flow.executor or runtime.settings.executor)
    lock = lock_environment({*closure.distributions, runtime_for(settings)})
    trees = [ast.parse(content) for content in dict.fromkeys(source.values())]
    manifest = describe(called, "function", entry, parameters, trees, closure, lock)
    modules = [ast.parse(content) for path, content in closure.files.items() if path.endswith(".py")]
    every = [*trees, *modules]
    manifest = replace(manifest, checkpoints=_checkpoints(every), waits=waits_of(every))
    return package(manifest, dict(source), closure, lock)


def find_flow(runtime: Runtime, target: str) -> Flow[..., Any]:
    """The flow that ``file.py:flow`` or ``package.module:flow`` names. A script runs up to the first flow it starts.

    Raises:
        KitaruUsageError: the target can't be read.
        KitaruNotFoundError: there is no such file, module or flow; lists the flows there are.
    """
    where, colon, qualname = target.rpartition(":")
    if not colon or not where or not qualname:
        raise KitaruUsageError(
            f"{target!r} names no flow; expected a file or a module, a colon, and the flow's name.",
            fix="kitaru deploy flows.py:brief",
        )
    if where.endswith(".py"):
        path = Path(where).absolute()
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in path.parent.glob("*.py"))[:5]) or "none"
            raise KitaruNotFoundError(
                f"There is no file {path}. Scripts in {path.parent}: {there}.", fix=f"kitaru deploy FILE.py:{qualname}"
            )
        ref = {"kind": "script", "path": str(path), "qualname": qualname}
    else:
        ref = {"kind": "module", "module": where, "qualname": qualname, "root": str(Path.cwd())}
    found = load_object(Event("", "execution.created", "", 0.0, {"ref": ref}), runtime)
    if isinstance(found, Flow):
        return found
    module = sys.modules["__main__" if where.endswith(".py") else where]
    there = ", ".join(sorted(n for n, v in vars(module).items() if isinstance(v, Flow))) or "none"
    raise KitaruNotFoundError(
        f"{where} has no flow {qualname!r}. Flows are: {there}.", fix="kitaru deploy FILE.py:FLOW"
    )


# inputs


def input_schema(flow: Flow[..., Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of what a flow takes. Raises `KitaruUsageError` for a type that JSON can't express."""
    if unknown := sorted(set(defaults) - set(flow.signature.parameters)):
        raise KitaruUsageError(
            f"Flow {flow.name!r} has no input {unknown[0]!r}. It takes {flow.name}{flow.signature}.",
            fix=f"{flow.name}.deploy({', '.join(f'{n}=...' for n in flow.signature.parameters)})",
        )
    hints = hints_of(flow)
    properties: dict[str, Any] = {}
    required = []
    open_ended = False
    for name, parameter in flow.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = True
            continue
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise KitaruUsageError(
                f"Flow {flow.name!r} takes {parameter}, and a deployment's inputs go by name.",
                fix=f"def {flow.name}(items: list[...]): ...",
            )
        properties[name] = _schema(flow, name, hints.get(name, Any))
        if name in defaults or parameter.default is not inspect.Parameter.empty:
            given = defaults.get(name, parameter.default)
            if name in defaults:
                given = as_json(name, given)
                fix = f"{flow.name}.deploy({name}=...)  # in a shell: --input {name}={example(properties[name])}"
                check_value(f"Input {name!r} of flow {flow.name!r}", name, given, properties[name], fix)
            if name in defaults or _is_json(given):
                properties[name] = {**properties[name], "default": as_json(name, given)}
        else:
            required.append(name)
    schema = object_schema(properties, required)
    definitions = {n: s for p in properties.values() for n, s in p.pop("$defs", {}).items()}
    schema |= {"additionalProperties": True} if open_ended else {}
    return schema | ({"$defs": definitions} if definitions else {})


def _schema(flow: Flow[..., Any], name: str, hint: Any) -> dict[str, Any]:
    from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        schema = TypeAdapter(hint).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, PydanticUserError) as error:
        shown = getattr(hint, "__name__", str(hint))
        raise KitaruUsageError(
            f"Input {name!r} of flow {flow.name!r} is a {shown}, which can't be sent as JSON.",
            fix=f"{name}: str  # or another type that JSON has: a number, list, dict, dataclass or pydantic model",
        ) from error
    return {n: v for n, v in schema.items() if n != "title"}


def as_json(name: str, value: Any) -> Any:
    """A value as JSON values. Raises `KitaruUsageError`."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise KitaruUsageError(
            f"Input {name!r} is a {type(value).__qualname__}, which can't be sent as JSON.",
            fix=f"{name}=...  # text, number, true, false, null, list, dict, dataclass or pydantic model",
        ) from error


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


# where it is defined


def _located(flow: Flow[..., Any]) -> tuple[dict[str, str], dict[str, bytes], Closure]:
    """(entry, files with the flow's own source, what they import)."""
    module, qualname = flow.func.__module__, flow.func.__qualname__
    if "<locals>" in qualname:
        raise KitaruUsageError(
            f"Flow {flow.name!r} is defined inside a function, where no other process can find it.",
            fix=f"define {flow.name} at the top level of its file",
        )
    found = sys.modules.get(module)
    if module == "__main__" and "get_ipython" in vars(found):
        return _from_notebook(flow)
    file = getattr(found, "__file__", None)
    if file is None:
        raise KitaruUsageError(
            f"Flow {flow.name!r} is defined in {module}, which has no file.", fix="write it into a .py file"
        )
    path = Path(file).resolve()
    source = path.read_bytes()
    if module == "__main__":
        closure = closure_of(imports_of(ast.parse(source)), path.parent)
        return {"kind": "script", "path": path.name, "qualname": qualname}, {path.name: source, FLOW: source}, closure
    depth = module.count(".") + (1 if path.name == "__init__.py" else 0)
    closure = closure_of([Import(module, 1)], path.parents[depth])
    files = {} if FLOW in closure.files else {FLOW: source}
    return {"kind": "module", "module": module, "qualname": qualname}, files, closure


def _from_notebook(flow: Flow[..., Any]) -> tuple[dict[str, str], dict[str, bytes], Closure]:
    """The cells that a flow of a notebook needs, as a script."""
    session = getattr(vars(sys.modules["__main__"])["get_ipython"](), "kitaru_session", None)
    path = getattr(session, "path", None)
    if path is None or not path.exists():
        raise KitaruUsageError(
            f"Flow {flow.name!r} is defined in a notebook whose file is not known.",
            fix="%load_ext kitaru_nb, and save the notebook",
        )
    program = read_program(read_notebook(path), path)
    steps = _needed(program, flow.func.__name__)
    parts = [f"# {flow.name}, from the notebook {path.name}"]
    parts += ["# %%\n" + "\n".join(_plain_lines(step)).strip() for step in steps]
    source = ("\n\n".join(parts) + "\n").encode()
    closure = closure_of(imports_of(ast.parse(source)), path.parent)
    return {"kind": "script", "path": FLOW, "qualname": flow.func.__qualname__}, {FLOW: source}, closure


def _needed(program: Program, name: str) -> list[Step]:
    """The cells that a name needs, directly or through others. Raises `Refused` for what a script can't be."""
    readable = [(s.id, s.head, s.analysis) for s in program.promoted if s.head and s.analysis]
    caller = (_CALLER, Cell("plain", name), analyse(name))
    graph = CellGraph([*readable, caller])
    gaps = [g.variable for g in graph.undefined() if g.cell_id == _CALLER]
    fix = "save the notebook, and run its cells again"
    refusals = [Refusal(None, f"no saved cell defines {gap}.", fix) for gap in gaps]
    above = set(graph.upstream(_CALLER))
    steps = [s for s in program.promoted if s.id in above]
    for step in steps:
        if step.is_checkpoint:
            refusals.append(Refusal(step.number, "it is a checkpoint cell, which a function can't use.", "%promote"))
        elif step.analysis is not None and (step.analysis.shell or step.analysis.awaits):
            message = "it awaits, or runs a shell line, at the top level."
            refusals.append(Refusal(step.number, message, f"move what {name} needs of it into a cell of its own"))
    refuse_if(refusals, name)
    return steps


def _plain_lines(step: Step) -> list[str]:
    return [line for line in step.source.split("\n") if not re.match(r"%\w", line)]


def _checkpoints(trees: Sequence[ast.AST]) -> list[dict[str, Any]]:
    """The functions under ``@checkpoint``, with what they take."""
    found = []
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                map(_is_checkpoint, node.decorator_list)
            ):
                arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                found.append({"name": node.name, "inputs": arguments, "outputs": ["result"]})
    return found


def _is_checkpoint(decorator: ast.expr) -> bool:
    named = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", "")) == "checkpoint"
