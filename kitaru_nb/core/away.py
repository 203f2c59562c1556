"""Where a checkpoint runs outside its flow's process: the order is carried out, and what came of it is recorded.

The run of such a process (`AwayRun`) is one checkpoint deep. Its body may call checkpoints, log and save as it does
anywhere: they become children of the call.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import io
import math
import sys
import tempfile
import threading
import time
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.core.advance import INSTRUMENTS, as_task
from kitaru_nb.core.checkpoint import Checkpoint
from kitaru_nb.core.engine import Call, Input
from kitaru_nb.core.failures import failure_body, outage_in, pickled
from kitaru_nb.core.function_work import FunctionWork, parts_of
from kitaru_nb.core.logs import captured
from kitaru_nb.core.orders import RETURNED
from kitaru_nb.core.retry import Retry
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruBackendError, KitaruNotFoundError, KitaruUserCodeError, Paused
from kitaru_nb.journal.fold import pack_outputs, unpack_artifact
from kitaru_nb.model import Artifact, Event

#: How many checkpoints a process keeps loaded.
KEPT = 64


class AwayRun(Run):
    """The part of an execution that is inside one checkpoint. Its lease is the flow's, who renews it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._renewed = math.inf


def perform(run: AwayRun, order: Event, where: str) -> Event:
    """Carry out an order; its outcome, good or bad, as it was recorded last.

    Raises:
        Paused: the run was interrupted, or its lease is lost; there is no outcome.
    """
    call_id = order.key
    try:
        with captured():
            returned = _outcome(run, order, where)
            run.check()
            run.commit([*_lines(run, call_id), returned])
            return returned
    except BaseException:
        # Without the lease nobody would read it; without storage there is no place for it.
        with contextlib.suppress(Paused, KitaruBackendError):
            run.commit(_lines(run, call_id))
        raise
    finally:
        run.abandon()


def _lines(run: AwayRun, call_id: str) -> list[Event]:
    now = time.time()
    return [
        Event(run.exec_id, "log.lines", key or call_id, now, {"lines": lines})
        for key, lines in run.logs.take_all().items()
    ]


def _outcome(run: AwayRun, order: Event, where: str) -> Event:
    body: dict[str, Any] = {name: order.body[name] for name in ("name", "attempt", "epoch")}
    blob: bytes | None
    try:
        try:
            found = _run_order(run, order)
        except SystemExit as error:
            raise KitaruUserCodeError(f"Checkpoint {order.body['name']!r} called sys.exit({error.code!r}).") from error
        body |= found[0]
        blob = found[1]
    except Exception as error:
        run.submitted.stop()
        run.check()  # a pause that a library made an error of its own
        body["failure"] = failure_body(error)
        if outage_in(error) is not None:
            body["outage"] = True
        # Frames don't travel; the text of the traceback does.
        error.add_note(f"On {where}:\n{body['failure']['traceback'].rstrip()}")
        blob = _portable(error)
    except BaseException:
        run.submitted.stop()
        raise
    return Event(run.exec_id, RETURNED, order.key, time.time(), body, blob)


class _AsItIs:
    """Pickles as an exception, without calling its ``__init__`` again: that may take other arguments than ``args``."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self.error), self.error.args, vars(self.error))


def _rebuilt(kind: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


def _portable(error: Exception) -> bytes | None:
    """The exception for the flow's process; its class by value where that can't be imported."""
    if (data := pickled(error)) is not None:
        return data
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(_AsItIs(error)))
    except Exception:
        return None  # it holds what can't travel; the failure's text remains


def _run_order(run: AwayRun, order: Event) -> tuple[dict[str, Any], bytes | None]:
    body = order.body
    checkpoint = load_checkpoint(run.store, order)
    importlib.import_module(INSTRUMENTS).install_imported()
    work = FunctionWork(checkpoint, run)
    inputs = [_input(run, order, packed) for packed in body["inputs"]]
    for given, sources in zip(inputs, body["sources"] or [[]] * len(inputs), strict=True):
        if len(sources) == 1:
            run.engine.produced(given.token, sources[0])
    call = Call(order.key, body["name"], work, run.frame, inputs, Retry(), scope=body["scope"])
    value = _invoke(run, checkpoint, work, call, body["attempt"])
    run.submitted.finish()
    artifacts, more = work.outputs(run, call, value)
    blob = bytearray()
    packed = pack_outputs(artifacts, blob, exec_id=run.exec_id, call_id=call.call_id, name=call.name)
    return {"outputs": packed, **more}, bytes(blob) or None


def _invoke(run: AwayRun, checkpoint: Checkpoint[..., Any], work: FunctionWork, call: Call, attempt: int) -> Any:
    if checkpoint.is_async:
        return asyncio.run(as_task(run, lambda: work.invoke_async(call, attempt)))
    run.back_to_user_code()
    try:
        return work.invoke(call, attempt)
    finally:
        run.user_code.leave()


def _input(run: AwayRun, order: Event, packed: Mapping[str, Any]) -> Input:
    artifact = unpack_artifact(packed, order.blob, order.exec_id)
    value = run.store.read(artifact)
    return Input(artifact.name, value, artifact.token, parts_of(value, run.store.token))


# code


def load_checkpoint(store: ArtifactStore, order: Event) -> Checkpoint[..., Any]:
    """The checkpoint of an order; its modules are put in place first. Loaded once per process.

    Raises:
        KitaruNotFoundError: a module that it needs isn't installed here.
        KitaruArtifactError: its code is missing or damaged in the store.
    """
    code = unpack_artifact(order.body["code"], order.blob, order.exec_id)
    modules = [unpack_artifact(each, order.blob, order.exec_id) for each in order.body["modules"]]
    key = "".join(artifact.digest for artifact in (code, *modules))
    with _loading:
        if (known := _loaded.get(key)) is None:
            for artifact in modules:
                _unpack(store, artifact)
            known = _loaded[key] = _load(store, code, order.body["name"])
            for old in list(_loaded)[:-KEPT]:
                del _loaded[old]
    return known


def _load(store: ArtifactStore, code: Artifact, name: str) -> Checkpoint[..., Any]:
    import cloudpickle

    data = store.read(code)
    main = _user_main()
    try:
        checkpoint, classes = cloudpickle.loads(data)
    except Exception as error:
        raise KitaruNotFoundError(
            f"Checkpoint {name!r} can't be rebuilt where it should run: {type(error).__name__}: {error}.",
            fix="install there what it imports, in the versions that are installed here",
        ) from error
    vars(main).update(classes)
    found: Checkpoint[..., Any] = checkpoint
    return found


def _user_main() -> types.ModuleType:
    """``__main__`` as user code knows it. The module that this process was started with must not be looked up by it."""
    global _main
    if _main is None:
        _main = sys.modules["__main__"] = types.ModuleType("__main__")
    return _main


def _unpack(store: ArtifactStore, modules: Artifact) -> None:
    """Put an archive of modules on the path. What was imported before in another version is imported again."""
    folder = _code_folder() / modules.digest
    with zipfile.ZipFile(io.BytesIO(store.read(modules))) as packed:
        packed.extractall(folder)
        contents = {name: packed.read(name) for name in packed.namelist()}
    for name, module in list(sys.modules.items()):
        path = name.replace(".", "/")
        mine = contents.get(f"{path}.py", contents.get(f"{path}/__init__.py"))
        if mine is not None and _source_of(module) != mine:
            del sys.modules[name]
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


@functools.lru_cache(maxsize=1)
def _code_folder() -> Path:
    """A folder of this process alone, for modules that came with orders."""
    folder = tempfile.TemporaryDirectory(prefix="kitaru-code-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _source_of(module: types.ModuleType) -> bytes | None:
    try:
        return Path(str(module.__file__)).read_bytes()
    except OSError:
        return None


_main: types.ModuleType | None = None
_loading = threading.Lock()
_loaded: dict[str, Checkpoint[..., Any]] = {}
