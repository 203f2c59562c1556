"""Snapshots of notebooks."""

from __future__ import annotations

import ast
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kitaru_nb.cells.notebook import read_notebook
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.promote.checks import Evidence, Refusal, refusals_of, refusals_of_files, refuse_if
from kitaru_nb.promote.environment import Lock, lock_environment, runtime_for
from kitaru_nb.promote.manifest import Manifest
from kitaru_nb.promote.modules import Closure, Import, closure_of, imports_of
from kitaru_nb.promote.program import (
    Program,
    checkpoints_of,
    notebook_text,
    parameter_schema,
    percent_text,
    read_program,
    waits_of,
)
from kitaru_nb.promote.secrets import environment_names, is_secret_name
from kitaru_nb.promote.snapshot import FLOW, LOCK, NOTEBOOK, Snapshot, make_snapshot

#: A file beside the notebook larger than this belongs into a bucket.
MAX_FILE_BYTES = 20 << 20

_FLOW_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_WRITES = re.compile(r"(to|save|write|dump)(_\w+)?|savetxt|mkdir|makedirs")
_READS = re.compile(r"open|Path|PurePath|loadtxt|(read|load|parse|scan)(_\w+)?")


def snapshot_notebook(
    runtime: Runtime,
    path: Path,
    *,
    name: str | None = None,
    evidence: Evidence | None = None,
    recorded: Runtime | None = None,
) -> Snapshot:
    """Check a notebook, and package it with all that it needs. Nothing is stored.

    Args:
        runtime: where its executions will be kept, which their workers must reach.
        name: of the flow; default: the file's name.
        evidence: what the notebook's own kernel knows; without it the journal is asked what ran.
        recorded: where the notebook's own executions are; default: in ``runtime``.

    Raises:
        Refused: there is something to mend; lists all of it.
        KitaruUsageError: it is no notebook, the name can't be, or the environment can't be locked.
    """
    path = path.absolute()
    flow = flow_name(name or path.stem)
    program = read_program(read_notebook(path), path)
    known = evidence or Evidence()
    known = replace(known, completed=recorded_cells(recorded or runtime, path))
    closure = closure_of(_imports(program), path.parent)
    closure.distributions |= set(program.installs)
    data = _data_files(program)
    refusals = [*refusals_of(program, closure, known), *data.refusals]
    refusals += refusals_of_files({**data.files, **closure.files})
    refuse_if(sorted(refusals, key=lambda r: r.cell or 0), path.name)
    lock = lock_environment({*closure.distributions, runtime_for(runtime.settings)})
    trees = [step.tree for step in program.promoted if step.tree is not None]
    files = {
        **data.files,
        FLOW: percent_text(program).encode(),
        NOTEBOOK: notebook_text(program).encode(),
    }
    manifest = describe(
        flow, "notebook", {"kind": "notebook"}, parameter_schema(program.notebook), trees, closure, lock
    )
    manifest = replace(manifest, checkpoints=checkpoints_of(program), waits=waits_of(trees))
    return package(manifest, files, closure, lock)


def flow_name(name: str) -> str:
    """The name of a flow, if it can be one. Raises `KitaruUsageError`."""
    if _FLOW_NAME.fullmatch(name) is None:
        better = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_.-0123456789") or "flow"
        raise KitaruUsageError(
            f"{name!r} can't be the name of a flow; expected a letter or _, then letters, digits, _ . or -.",
            fix=f"%promote {better}  # or: kitaru promote notebook.ipynb --name {better}",
        )
    return name


def recorded_cells(runtime: Runtime, path: Path) -> Sequence[Event]:
    """The completed checkpoint cells of the notebook's current execution, the newest last."""
    exec_id = runtime.journal.reference(f"notebook:{path}")
    history = runtime.journal.history(exec_id) if exec_id else []
    return [e for e in history if e.kind == "checkpoint.completed" and "cell" in e.body]


def describe(
    flow: str,
    kind: Any,
    entry: dict[str, str],
    parameters: dict[str, Any],
    trees: Iterable[ast.AST],
    closure: Closure,
    lock: Lock,
) -> Manifest:
    """What notebooks and functions say alike."""
    names: dict[str, bool] = {}
    modules = [ast.parse(content) for path, content in closure.files.items() if path.endswith(".py")]
    for tree in (*trees, *modules):
        for name, needed in environment_names(tree).items():
            names[name] = names.get(name, False) or needed
    return Manifest(
        flow=flow,
        kind=kind,
        entry=entry,
        parameters=parameters,
        python=platform.python_version(),
        platform=f"{sys.platform}-{platform.machine()}",
        environment=dict(sorted(names.items())),
        secrets=sorted(name for name in names if is_secret_name(name)),
        packages=lock.packages,
    )


def package(manifest: Manifest, files: dict[str, bytes], closure: Closure, lock: Lock) -> Snapshot:
    """The snapshot of a program with its modules, wheels and lock. Raises `Refused` when two files share a name."""
    parts = [closure.files, lock.wheels, {LOCK: lock.text.encode()}]
    for part in parts:
        for path, content in part.items():
            if files.setdefault(path, content) != content:
                message = f"{path} is a name that the snapshot itself needs."
                refuse_if([Refusal(None, message, f"rename {path}, and its imports")], manifest.flow)
    return make_snapshot(manifest, files)


def _imports(program: Program) -> list[Import]:
    return [i for step in program.promoted if step.tree is not None for i in imports_of(step.tree)]


# data beside the notebook


@dataclass(frozen=True, slots=True)
class _Data:
    files: dict[str, bytes]
    refusals: list[Refusal]


def _data_files(program: Program) -> _Data:
    """Files beside the notebook that it reads by a literal name, or that a parameter names by default."""
    folder = program.path.parent.resolve()
    found = _Data({}, [])
    for step in program.promoted:
        if step.tree is None:
            continue
        names = _constants(step.tree) if step.is_parameters else _read_paths(step.tree)
        for name in names:
            target = folder / name
            if not name or len(name) > 500 or "\n" in name or Path(name).is_absolute() or not _is_file(target):
                continue
            if not target.resolve().is_relative_to(folder):
                fix = "put the file beside the notebook, or make its place a parameter"
                found.refusals.append(Refusal(step.number, f"{name!r} lies outside of the notebook's folder.", fix))
            elif target.stat().st_size > MAX_FILE_BYTES:
                fix = "put it into a bucket, and make its URL a parameter"
                message = f"{name!r} has {target.stat().st_size >> 20} MB; a snapshot carries code and small files."
                found.refusals.append(Refusal(step.number, message, fix))
            else:
                found.files[target.resolve().relative_to(folder).as_posix()] = target.read_bytes()
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _read_paths(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        value = node.args[0].value
        if isinstance(value, str) and _READS.fullmatch(name) and not _WRITES.fullmatch(name) and not _is_writing(node):
            yield value


def _is_writing(call: ast.Call) -> bool:
    """Whether a call of ``open`` begins a file anew."""
    modes = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
    return any(isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax") for m in modes)
