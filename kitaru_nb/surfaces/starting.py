"""``python -m kitaru_nb.surfaces.starting``: start a notebook or a flow of a Python file, for a server.

Code of users runs in a process of its own, never in the server: this one loads the flow, creates the execution, hands
it to a worker, and ends. It reads a JSON object from stdin and answers with one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitaru_nb.core.control import Started
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.reference import load_object
from kitaru_nb.core.runners import runner_of
from kitaru_nb.core.runtime import Runtime, acting_as, default_runtime
from kitaru_nb.errors import KitaruError, KitaruNotFoundError, KitaruRuntimeError, KitaruUsageError
from kitaru_nb.model import Event, Execution, ExecutionStatus
from kitaru_nb.stacks.process import environment

SECONDS = 120.0
_EXPECTED = "expected notebook.ipynb or file.py:flow"


def run(runtime: Runtime, root: Path, target: str, inputs: Mapping[str, Any], *, key: str | None, by: str) -> Started:
    """Start ``target`` (a path below ``root``, with ``:flow`` for a Python file) as a new execution.

    Raises:
        KitaruUsageError: the target or an input can't be right, or the file lies outside ``root``.
        KitaruNotFoundError: there is no such file or flow.
        KitaruRuntimeError: the file can't be loaded.
    """
    path, flow = locate(root, target)
    asked = {"path": str(path), "flow": flow, "inputs": dict(inputs), "key": key, "by": by}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "kitaru_nb.surfaces.starting"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=os.environ | environment(runtime.settings),
            cwd=root,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KitaruRuntimeError(f"{target} took longer than {SECONDS:g} s to load; nothing was started.") from error
    lines = ended.stdout.splitlines()
    if ended.returncode != 0 or not lines:
        raise KitaruRuntimeError(f"{target} can't be loaded: {ended.stderr.strip()[-500:] or 'its process ended'}")
    answer = json.loads(lines[-1])
    if "error" in answer:
        kinds = {kind.__name__: kind for kind in (KitaruUsageError, KitaruNotFoundError)}
        raise kinds.get(answer["type"], KitaruRuntimeError)(answer["error"], fix=answer["fix"])
    return Started(answer["exec_id"], answer["worker"])


def locate(root: Path, target: str) -> tuple[Path, str | None]:
    """The file, below ``root``, and the flow's name that a target means. Raises as `run`."""
    name, colon, flow = target.partition(":")
    if "\0" in target or (name.endswith(".ipynb") == bool(colon)) or (colon and not flow.isidentifier()):
        raise KitaruUsageError(f"{target!r} can't be started: {_EXPECTED}.")
    base = root.resolve()
    try:
        path = (base / name).resolve()
        inside = path.is_relative_to(base)
        there = inside and path.is_file()
    except (OSError, ValueError) as error:
        raise KitaruUsageError(f"{target!r} can't be started: {_EXPECTED}.") from error
    if not inside:
        raise KitaruUsageError(f"{target!r} lies outside the folder of the server; {_EXPECTED} below it.")
    if not there:
        raise KitaruNotFoundError(f"There is no file {name!r} in the folder of the server.")
    return path, flow or None


def begin(asked: Mapping[str, Any]) -> Execution:
    """Create the execution that is asked for."""
    runtime, path = default_runtime(), Path(asked["path"])
    with acting_as(asked["by"]):
        if asked["flow"] is None:
            from kitaru_nb import headless  # loads Jupyter, which functions don't need

            given = {n: v if isinstance(v, str) else json.dumps(v) for n, v in asked["inputs"].items()}
            return headless.begin(runtime, path, given, key=asked["key"])
        flow = _flow(path, asked["flow"])
        options = {"stack": "process"} | ({"key": asked["key"]} if asked["key"] else {})
        return create_execution(runtime, flow.with_options(**options), flow.bind((), asked["inputs"]))


def _flow(path: Path, name: str) -> Flow[..., Any]:
    ref = {"kind": "script", "path": str(path), "qualname": name}
    found = load_object(Event("", "execution.created", "", 0.0, {"ref": ref}), default_runtime())
    if not isinstance(found, Flow):
        there = ", ".join(n for n, value in vars(sys.modules["__main__"]).items() if isinstance(value, Flow)) or "none"
        raise KitaruNotFoundError(f"{path.name} has no flow {name!r}. Its flows are: {there}.")
    return found


def main() -> int:
    """The command."""
    asked = json.load(sys.stdin)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the file prints is not the answer
            execution = begin(asked)
            fresh = execution.status is ExecutionStatus.PENDING
            runtime = default_runtime()
            worker = runner_of("process").submit(runtime, execution.exec_id) if fresh else None
        answer = {"exec_id": execution.exec_id, "worker": worker}
    except KitaruError as error:
        answer = {"type": type(error).__name__, "error": error.message, "fix": error.fix}
    except Exception as error:
        answer = {"type": "", "error": f"{Path(asked['path']).name}: {type(error).__name__}: {error}", "fix": None}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # without a word about the worker, which goes on


if __name__ == "__main__":
    sys.exit(main())
