"""How a fresh process finds the flow of an execution: by module, by script, by value, or as a notebook."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruError, KitaruNotFoundError, KitaruRuntimeError
from kitaru_nb.journal.fold import pack_artifact, unpack_artifact
from kitaru_nb.model import Event

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow

#: True while a script is executed for its definitions alone.
loading_script = False


class DefinitionsOnly(BaseException):
    """Ends the execution of a script that is loaded for its definitions, at the first flow that it would start."""


def reference_of(flow: Flow[..., Any], runtime: Runtime, blob: bytearray) -> dict[str, Any]:
    """A JSON reference to ``flow``; a flow that no module or script file defines travels by value.

    One that can't travel either (it refers to a client with open sockets, say) is known ``here`` only: a thread of this
    process runs it and resumes it. ``cwd`` is where it was started, so that relative paths mean the same later.

    Raises:
        KitaruRuntimeError: it can't travel, but its stack starts processes.
    """
    return _where(flow, runtime, blob) | {"cwd": os.getcwd()}


def _where(flow: Flow[..., Any], runtime: Runtime, blob: bytearray) -> dict[str, Any]:
    module, qualname = flow.func.__module__, flow.func.__qualname__
    if "<locals>" not in qualname:
        found = sys.modules.get(module)
        file = getattr(found, "__file__", None)
        if file and module == "__main__" and not _in_notebook(found):
            return {"kind": "script", "path": str(Path(file).absolute()), "qualname": qualname}
        # With other options it is another object, and the same program.
        if file and module != "__main__" and getattr(_resolve(found, qualname), "func", None) is flow.func:
            depth = module.count(".") + (1 if Path(file).name == "__init__.py" else 0)
            return {"kind": "module", "module": module, "qualname": qualname, "root": str(Path(file).parents[depth])}
    import cloudpickle

    try:
        data = cloudpickle.dumps(flow)
    except Exception as error:
        why = f"it is defined where no other process can import it, and it can't be sent by value: {error}"
        stack = flow.stack or runtime.settings.stack
        if stack == "local":
            return {"kind": "here", "why": why}
        raise KitaruRuntimeError(
            f"Flow {flow.name!r} can't run on stack {stack!r}: {why}",
            fix="move the flow into a module, or keep what it refers to picklable",
        ) from error
    return {"kind": "value", "flow": pack_artifact(runtime.store.write(data, name="flow", kind="blob"), blob)}


def _in_notebook(main: Any) -> bool:
    return "get_ipython" in vars(main)


def load_object(created: Event, runtime: Runtime) -> Any:
    """What an ``execution.created`` event refers to (a flow, if the code is still as it was; `flow.load_flow` checks).

    Raises:
        KitaruNotFoundError: its module or script is gone; the message says which.
    """
    ref: Mapping[str, Any] = created.body["ref"]
    kind = ref["kind"]
    if kind == "module":
        found: Any = _resolve(_import(ref["module"], ref["root"]), ref["qualname"])
    elif kind == "script":
        found = _resolve(_run_script(Path(ref["path"])), ref["qualname"])
    elif kind == "value":
        found = _load_value(created, ref, runtime)
    elif kind == "here":
        raise KitaruNotFoundError(
            f"The flow of {created.exec_id} exists only in the process that started it: {ref['why']}"
        )
    else:
        raise KitaruNotFoundError(f"{created.exec_id} runs a {kind}, which is not a function under @flow.")
    return found


def _import(module: str, root: str) -> types.ModuleType:
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KitaruNotFoundError(f"Module {module!r} can't be imported from {root}: {error}") from error


def _run_script(path: Path) -> types.ModuleType:
    """Execute a script as ``__main__`` up to the first flow that it starts, without its main guard."""
    global loading_script
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KitaruNotFoundError(f"The script {path} can't be read any more: {error}") from error
    tree = ast.parse(source, str(path))
    tree.body = [part for node in tree.body for part in (node.orelse if _is_main_guard(node) else [node])]
    # It is __main__ here as it was there: classes keep their names, and so do recorded values of them.
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path)]
    loading_script = True
    try:
        # What stands above the first .run(...) is defined then, and that is what was asked for.
        with contextlib.suppress(DefinitionsOnly):
            exec(compile(tree, str(path), "exec", dont_inherit=True), module.__dict__)
    finally:
        loading_script = False
    return module


def _is_main_guard(node: ast.stmt) -> TypeGuard[ast.If]:
    match node:
        case ast.If(
            test=ast.Compare(left=ast.Name("__name__"), ops=[ast.Eq()], comparators=[ast.Constant("__main__")])
        ):
            return True
        case ast.If(
            test=ast.Compare(left=ast.Constant("__main__"), ops=[ast.Eq()], comparators=[ast.Name("__name__")])
        ):
            return True
    return False


def _load_value(created: Event, ref: Mapping[str, Any], runtime: Runtime) -> Any:
    if not runtime.settings.trust_pickle:
        raise KitaruRuntimeError(
            f"The flow of {created.exec_id} travels as a pickle, and these settings don't trust pickles.",
            fix="KITARU_TRUST_PICKLE=true kitaru executions resume " + created.exec_id,
        )
    import cloudpickle

    data = runtime.store.read(unpack_artifact(ref["flow"], created.blob, created.exec_id))
    # Values whose type the notebook defined are looked up in __main__, which the worker's own module must not shadow.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        flow = cloudpickle.loads(data)
    except KitaruError:
        raise
    except Exception as error:
        raise KitaruNotFoundError(f"The flow of {created.exec_id} can't be rebuilt here: {error}") from error
    for name, value in flow.func.__globals__.items():
        vars(main).setdefault(name, value)
    return flow


def _resolve(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
