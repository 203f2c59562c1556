"""Where a worker runs an execution of a deployment: the verified snapshot in a folder of its own, in its environment.

A worker that finds itself in another environment than the locked one builds that (once for each lock) and becomes it.
The folder is there while somebody works in it, or may go on: of an execution that has ended only what it wrote is left.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from kitaru_nb.core.flow import Flow
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruArtifactError, KitaruBackendError, KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.promote.environment import build_environment, environment_key, is_running
from kitaru_nb.promote.inputs import hints_of
from kitaru_nb.promote.manifest import load_manifest
from kitaru_nb.promote.snapshot import LOCK, MANIFEST, NOTEBOOK, WHEELS, Snapshot, load_snapshot, unpack

#: Set in a process that has become the environment of this key.
_BECAME = "KITARU_ENVIRONMENT_KEY"


def enter(runtime: Runtime, created: Event) -> None:
    """Make this process the worker of a deployment's execution; for other executions nothing happens.

    It goes into the work folder, and, where its own environment isn't exactly the locked one, it is replaced by a
    Python of that.

    Raises:
        KitaruArtifactError: the snapshot is missing, damaged, or refused.
        KitaruUsageError: a secret that the flow can't do without is not set here.
        KitaruBackendError: the environment can't be built, or the folder not written.
        KitaruFeatureNotAvailableError: uv is missing.
    """
    if created.body["ref"]["kind"] != "snapshot":
        return
    snapshot = _snapshot_of(runtime, created)
    folder = _unpacked(runtime, created.exec_id, snapshot)
    _check_secrets(snapshot, created.exec_id)
    os.chdir(folder)
    lock, wheels = _locked(snapshot)
    key = environment_key(lock, snapshot.manifest.python)
    # Taken away: what this worker starts may belong to other deployments.
    if os.environ.pop(_BECAME, None) == key or (_fits(snapshot) and is_running(lock, wheels)):
        return
    python = build_environment(lock, wheels, snapshot.manifest.python)
    options = [argument for argument in sys.argv[1:] if argument != created.exec_id]
    _become(python, ["-m", "kitaru_nb.worker", *options, created.exec_id], {_BECAME: key})


def _become(python: Path, arguments: list[str], more: dict[str, str]) -> None:
    """Replace this process. Paths of the old environment must not lead into the new one."""
    environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")} | more
    environment["PATH"] = os.pathsep.join([str(python.parent), environment.get("PATH", "")])
    command = [str(python), *arguments]
    sys.stdout.flush()
    if os.name == "nt":  # there a replaced process would leave its parent alone
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    os.execve(python, command, environment)


def _fits(snapshot: Snapshot) -> bool:
    return snapshot.manifest.python.split(".")[:2] == platform.python_version().split(".")[:2]


def _locked(snapshot: Snapshot) -> tuple[str, dict[str, bytes]]:
    wheels = {path: content for path, content in snapshot.files.items() if path.startswith(WHEELS)}
    return snapshot.files[LOCK].decode(), wheels


def _check_secrets(snapshot: Snapshot, exec_id: str) -> None:
    manifest = snapshot.manifest
    missing = [name for name, needed in manifest.environment.items() if needed and name not in os.environ]
    if missing:
        raise KitaruUsageError(
            f"Flow {manifest.flow!r} reads {', '.join(missing)} from its environment, and this worker has no such "
            "variable.",
            fix=f"export {missing[0]}=...  # where workers are started, then: kitaru executions retry {exec_id}",
        )


def work_folder(runtime: Runtime, exec_id: str) -> Path:
    """The folder that an execution of a deployment works in: its snapshot, and what it writes beside it."""
    return runtime.home / "work" / exec_id


def localised(runtime: Runtime, created: Event) -> Event:
    """The ``execution.created`` event with a reference that holds on this machine; other events as they are.

    Raises as `enter`, without the environment.
    """
    ref = created.body["ref"]
    if ref["kind"] != "snapshot":
        return created
    snapshot = _snapshot_of(runtime, created)
    folder = _unpacked(runtime, created.exec_id, snapshot)
    entry = dict(snapshot.manifest.entry)
    if entry["kind"] == "notebook":
        name = snapshot.manifest.flow
        entry |= {
            "path": str(folder / f"{name}.ipynb"),
            "source": str(folder / NOTEBOOK),
            "output": str(folder / f"{name}.executed.ipynb"),
        }
    elif entry["kind"] == "script":
        entry["path"] = str(folder / entry["path"])
    else:
        entry["root"] = str(folder)
    return created._replace(body={**created.body, "ref": entry})


def _unpacked(runtime: Runtime, exec_id: str, snapshot: Snapshot) -> Path:
    """The work folder with the snapshot in it; nobody clears it before this process ends or leaves it."""
    folder = work_folder(runtime, exec_id)
    if folder not in _occupied and os.name != "nt":
        try:
            _occupied[folder] = _locked_folder(folder, alone=False)
        except OSError as error:
            raise KitaruBackendError(
                f"The work folder {folder} can't be had: {error.strerror or error}.",
                fix=f"make {runtime.home} writable",
            ) from error
    unpack(snapshot, folder)
    return folder


def leave(runtime: Runtime, exec_id: str) -> None:
    """Let go of the work folder of an execution, if it has one here, and clear it if the execution has ended.

    What came with its snapshot goes; what it wrote or changed itself stays. While another process works there (a job
    of an isolated checkpoint, the worker of a retry), all of it does.

    Raises:
        KitaruBackendError: the journal can't be asked.
    """
    folder = work_folder(runtime, exec_id)
    if not folder.is_dir() or os.name == "nt":
        return
    if (place := _occupied.pop(folder, None)) is not None:
        os.chdir(runtime.home)
        os.close(place)
    # Asked after letting go: of a worker that ends and somebody who cancels at this moment, one clears it.
    if not runtime.journal.execution(exec_id).status.ended:
        return
    with suppress(OSError, KitaruArtifactError):  # somebody works there, or it can't be cleared: then it stays
        place = _locked_folder(folder, alone=True)
        try:
            _clear(folder)
        finally:
            os.close(place)


def _locked_folder(folder: Path, *, alone: bool) -> int:
    """A descriptor of the folder, made where it isn't, by which this process has it; ``alone``, or with others.

    Raises:
        OSError: it can't be made, or others have it.
    """
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # cleared at this moment; a new one
            place = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(place), folder.stat()):
                    return place
            except BaseException:
                os.close(place)
                raise
            os.close(place)


def _clear(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        for path, digest in load_manifest((folder / MANIFEST).read_bytes(), "").files.items():
            target = folder / path
            if target.is_file() and sha256(target.read_bytes()).hexdigest() == digest:
                target.unlink()
            if path.endswith(".py"):
                shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)
        (folder / MANIFEST).unlink()
    for below, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # something is left in it
            os.rmdir(below)


#: Work folder → the descriptor by which this process has it.
_occupied: dict[Path, int] = {}

_snapshots: dict[str, Snapshot] = {}


def _snapshot_of(runtime: Runtime, created: Event) -> Snapshot:
    """The execution's snapshot; a worker reads it once."""
    digest = created.body["ref"]["digest"]
    if digest not in _snapshots:
        _snapshots.clear()
        _snapshots[digest] = load_snapshot(runtime, digest, created.body["ref"]["size"])
    return _snapshots[digest]


def with_json_inputs(flow: Flow[..., Any]) -> Flow[..., Any]:
    """The same flow, whose inputs come as JSON values and are made what its annotations say."""
    hints = hints_of(flow)

    def converted(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from pydantic import TypeAdapter

        bound = flow.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = TypeAdapter(hints[name]).validate_json(json.dumps(value))
        return bound.args, bound.kwargs

    return Flow(
        _wrapped(flow, converted),
        name=flow.name,
        stack=flow.stack,
        cache=flow.cache,
        retries=flow.retry,
        executor=flow.executor,
    )


def _wrapped(
    flow: Flow[..., Any], converted: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]
) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(flow.func):

        @functools.wraps(flow.func)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = converted(args, kwargs)
            return await flow.func(*args, **kwargs)

        return call_async

    @functools.wraps(flow.func)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = converted(args, kwargs)
        return flow.func(*args, **kwargs)

    return call
