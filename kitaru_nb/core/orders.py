"""What travels to where a checkpoint runs outside its flow's process: its code and its inputs.

An order is a ``checkpoint.sent`` event, its outcome a ``checkpoint.returned`` event. Code travels by reference where it
can be imported and by value where it can't (a notebook, a script), together with the local modules that it names.
"""

from __future__ import annotations

import importlib
import io
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitaru_nb.errors import KitaruSerializationError, KitaruUsageError
from kitaru_nb.journal.fold import pack_artifact
from kitaru_nb.model import Artifact, Event

if TYPE_CHECKING:
    from kitaru_nb.core.checkpoint import Checkpoint
    from kitaru_nb.core.engine import Call, Input
    from kitaru_nb.core.run import Run

SENT = "checkpoint.sent"
RETURNED = "checkpoint.returned"

#: CPython 3.11 fails with a SystemError when several threads parse code at once.
parsing = threading.RLock()

_INSTALLED = ("site-packages", "dist-packages")
#: The oldest date of a zip archive: equal modules give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


class Orders:
    """The orders of one run. Code, modules and large inputs are stored once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._codes: dict[tuple[Any, ...], list[Artifact]] = {}
        self._large: dict[str, Artifact] = {}

    def order(self, checkpoint: Checkpoint[..., Any], call: Call, attempt: int, where: str) -> Event:
        """The order of one attempt. Values in it are small; the rest is in the store.

        Raises:
            KitaruSerializationError: an input can't travel; says which, and why. And as `code`.
            KitaruUsageError: as `code`.
        """
        run = self._run
        blob = bytearray()
        code, *modules = self.code(checkpoint)
        body: dict[str, Any] = {
            "name": call.name,
            "attempt": attempt,
            "epoch": run.lease.epoch,
            "scope": call.scope,
            "code": pack_artifact(code, blob),
            "modules": [pack_artifact(each, blob) for each in modules],
            "inputs": [pack_artifact(self._input(given, call, where), blob) for given in call.inputs],
            "sources": call.sources,
        }
        return Event(run.exec_id, SENT, call.call_id, time.time(), body, bytes(blob) or None)

    def _input(self, given: Input, call: Call, where: str) -> Artifact:
        if given.token is not None and (known := self._large.get(given.token)) is not None:
            return known
        try:
            artifact = self._run.store.write(given.value, name=given.name, kind="input")
        except KitaruSerializationError as error:
            raise KitaruSerializationError(
                f"Input {given.name!r} of checkpoint {call.name!r} can't travel to {where}: {error.message}",
                fix=error.fix,
            ) from error
        if given.token is not None and artifact.data is None:
            self._large[given.token] = artifact
        return artifact

    def code(self, checkpoint: Checkpoint[..., Any]) -> list[Artifact]:
        """The pickle of a checkpoint, and the archive of the local modules that it names, if there are any.

        Raises:
            KitaruSerializationError: the code can't travel.
            KitaruUsageError: it couldn't be loaded where it arrives.
        """
        if not self._run.runtime.settings.trust_pickle:
            raise KitaruUsageError(
                f"The code of checkpoint {checkpoint.name!r} travels to another process as a pickle, and these "
                "settings don't trust pickles.",
                fix="KITARU_TRUST_PICKLE=true, or run it in the flow's process",
            )
        classes = main_classes()
        key = (checkpoint, *map(id, classes.values()))
        with self._lock:
            if (known := self._codes.get(key)) is None:
                data = _pickled(checkpoint, classes)
                parts = {"code": data, "modules": archive(local_modules(data))}
                write = self._run.store.write
                known = [write(part, name=name, kind="blob") for name, part in parts.items() if part]
                self._codes[key] = known
            return known


def main_classes() -> Mapping[str, type]:
    """Classes that the notebook or script defines: its values refer to them by name."""
    main = vars(sys.modules["__main__"])
    return {n: v for n, v in list(main.items()) if isinstance(v, type) and v.__module__ == "__main__"}


def _pickled(checkpoint: Checkpoint[..., Any], classes: Mapping[str, type]) -> bytes:
    import cloudpickle

    def dumps(value: Any) -> bytes | None:
        try:
            return bytes(cloudpickle.dumps(value))
        except Exception:
            return None

    if (data := dumps((checkpoint, classes))) is not None:
        return data
    travelling = {name: cls for name, cls in classes.items() if dumps(cls) is not None}
    try:
        return bytes(cloudpickle.dumps((checkpoint, travelling)))
    except Exception as error:
        raise KitaruSerializationError(
            f"The code of checkpoint {checkpoint.name!r} can't travel to another process: {error}.",
            fix="make clients, locks and open files inside the function, or move it into a module",
        ) from error


def local_modules(code: bytes) -> dict[str, bytes]:
    """Files of the modules that a pickle names and that aren't installed, with the local ones that they import."""
    import pickletools  # few flows need it, and all would wait for it

    names = {arg for _, arg, _ in pickletools.genops(code) if isinstance(arg, str) and arg in sys.modules}
    found: dict[str, bytes] = {}
    for top in sorted({name.partition(".")[0] for name in names}):
        if (folder := _folder_of(top)) is not None and f"{top}.py" not in found and f"{top}/__init__.py" not in found:
            # A room above, so by name: what code imports, only `kitaru_nb.promote` knows.
            modules = importlib.import_module("kitaru_nb.promote.modules")
            with parsing:
                found |= modules.closure_of([modules.Import(top, 0)], folder).files
    return found


def _folder_of(top: str) -> Path | None:
    """The folder that a top-level module was imported from, unless it is installed or part of Python."""
    if top in sys.stdlib_module_names or top in ("__main__", "kitaru_nb"):
        return None
    module = sys.modules.get(top)
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if place is None or any(part in _INSTALLED for part in Path(place).parts):
        return None
    return Path(place).parents[1] if Path(place).name == "__init__.py" else Path(place).parent


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of some files; equal files, equal bytes. Empty for none."""
    if not files:
        return b""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, files[name])
    return buffer.getvalue()


def children_of(call_id: str, events: Iterable[Event]) -> list[Event]:
    """The completed calls among ``events`` that were made inside a call, at any depth."""
    by_parent: dict[str, list[Event]] = {}
    for event in events:
        if parent := event.body.get("parent"):
            by_parent.setdefault(parent, []).append(event)
    found: list[Event] = []
    todo = [call_id]
    while todo:
        inside = by_parent.get(todo.pop(), [])
        found += inside
        todo += [event.key for event in inside]
    return found
