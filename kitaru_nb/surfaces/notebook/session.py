"""The notebook as a flow: its kernel advances one execution, cell by cell.

Plain cells run each time; checkpoint cells are durable. The execution of a notebook is found again by the notebook's
path, so that a new kernel goes on where the last one was.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.keys import cell_key, input_tokens
from kitaru_nb.cells.source import Cell, read_cell
from kitaru_nb.config import load_settings
from kitaru_nb.core.advance import claim
from kitaru_nb.core.context import Frame, set_ambient
from kitaru_nb.core.create import write_created
from kitaru_nb.core.engine import Call, Input, WaitRequest, digest
from kitaru_nb.core.logs import captured
from kitaru_nb.core.retry import Retry
from kitaru_nb.core.run import Run, failure_body
from kitaru_nb.core.runtime import Runtime, default_runtime, whoami
from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruError,
    KitaruFencedError,
    KitaruLeaseError,
    KitaruNotFoundError,
    Paused,
)
from kitaru_nb.journal.fold import unpack_artifact
from kitaru_nb.model import Event, ExecutionStatus
from kitaru_nb.surfaces.notebook import display
from kitaru_nb.surfaces.notebook.cell_work import CellWork, restore_cell
from kitaru_nb.surfaces.notebook.namespace import visible
from kitaru_nb.surfaces.notebook.transformer import tags_from

_CHEAP = (bool, int, float, str, bytes, type(None))


class Session:
    """What `%load_ext kitaru_nb` starts in a kernel.

    Attributes:
        makers: variable → call id of the checkpoint cell that set it last.
        producers: variable → token of the plain cell that set it last, for values without a digest.
        last_used: checkpoint → (call id, whether it was reused) of its last run in this kernel.
    """

    def __init__(self, shell: Any, runtime: Runtime | None = None) -> None:
        self.shell = shell
        self._runtime = runtime
        self.run: Run | None = None
        self.exec_id: str | None = os.environ.get("KITARU_EXECUTION")
        self.headless = self.exec_id is not None
        self.makers: dict[str, str] = {}
        self.producers: dict[str, str] = {}
        self.last_used: dict[str, tuple[str, bool]] = {}
        self.last_error: BaseException | None = None
        self.transform: Any = None
        self._before: dict[str, Any] = {}

    @property
    def runtime(self) -> Runtime:
        """Settings, journal and store; found when they are first needed."""
        if self._runtime is None:
            path = self.path
            if path is not None and "KITARU_HOME" not in os.environ:
                self._runtime = Runtime(load_settings(start=path.parent))
            else:
                self._runtime = default_runtime()
        return self._runtime

    @property
    def path(self) -> Path | None:
        """The notebook's file, where the front end tells it."""
        for found in (
            os.environ.get("KITARU_NOTEBOOK"),
            self.shell.user_ns.get("__vsc_ipynb_file__"),
            os.environ.get("JPY_SESSION_NAME"),
        ):
            if found and str(found).endswith(".ipynb"):
                return Path(found).absolute()
        return None

    @property
    def identity(self) -> str:
        """Under which the notebook's current execution is remembered."""
        return f"notebook:{self.path or Path.cwd() / 'untitled'}"

    @property
    def flow_name(self) -> str:
        """Name of the notebook's flow: the file's stem."""
        return self.path.stem if self.path else "notebook"

    # the execution

    def ensure_run(self) -> Run:
        """The run of the notebook's execution: claimed again after a wait, created when there is none.

        Raises:
            KitaruLeaseError: another kernel has this notebook's execution.
        """
        if self.run is not None and self.run.ending is None:
            return self.run
        journal = self.runtime.journal
        exec_id = self.exec_id or journal.reference(self.identity)
        if exec_id is not None and not self._can_go_on(exec_id):
            exec_id = None
        if exec_id is None:
            exec_id = self._create()
        try:
            run = claim(self.runtime, exec_id, poll_seconds=0.0, strict=False)
        except KitaruLeaseError as error:
            error.fix = "close the other kernel of this notebook, or begin a fresh execution: %kitaru new"
            raise
        run.before_pause = self._before_pause
        self.run, self.exec_id = run, exec_id
        return run

    def frame(self) -> Frame:
        """The frame of plain cells, for `wait`, `save` and `log` at cell level."""
        run = self.ensure_run()
        run.frame.line = (0, 0)
        return run.frame

    def _can_go_on(self, exec_id: str) -> bool:
        try:
            status = self.runtime.journal.execution(exec_id).status
        except KitaruNotFoundError:
            return False
        return status not in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED)

    def _create(self, *, body: Mapping[str, Any] | None = None) -> str:
        ref = {"kind": "notebook", "path": str(self.path or ""), "interactive": True}
        execution = write_created(
            self.runtime, self.flow_name, "local", {"ref": ref, "inputs": {}, **(body or {})}, bytearray()
        )
        self.adopt(execution.exec_id)
        return execution.exec_id

    def adopt(self, exec_id: str) -> None:
        """Make ``exec_id`` the notebook's current execution."""
        journal = self.runtime.journal
        while True:
            known = journal.reference(self.identity)
            try:
                journal.set_reference(self.identity, exec_id, expected=known, by=whoami())
            except KitaruConflictError:
                continue  # another kernel of this notebook was faster: look again
            break
        self.exec_id = exec_id

    def new(self) -> str:
        """End the notebook's execution and begin a fresh one; its id."""
        self.leave("execution.completed", {"result": None})
        self.exec_id = None
        return self._create()

    def switch(self, exec_id: str) -> None:
        """Go on with another execution of this notebook (a replay)."""
        self.leave("execution.paused", {"reason": f"the notebook went on with {exec_id}"})
        self.adopt(exec_id)

    def leave(self, kind: str, body: Mapping[str, Any]) -> None:
        """Give the lease back with a last event; without a live run nothing happens."""
        if self.run is None:
            return
        run, self.run = self.run, None
        try:
            run.let_go([Event(run.exec_id, kind, "", time.time(), body)])
        except KitaruFencedError:
            run.abandon()  # another kernel has gone on with it

    def finish(self) -> None:
        """End a headless execution: failed if the last cell failed, else completed."""
        self.ensure_run()
        if self.last_error is None:
            self.leave("execution.completed", {"result": None})
        else:
            self.leave("execution.failed", {"failure": failure_body(self.last_error)})

    def close(self) -> None:
        """The kernel ends: the execution is free for the next one."""
        self.leave("execution.paused", {"reason": "the kernel ended"})

    # waits

    def _before_pause(self, wait: WaitRequest) -> None:
        assert self.exec_id is not None
        display.show_wait(self.shell, self.exec_id, wait)

    # plain cells

    def pre_run_cell(self, info: Any = None) -> None:
        """Remember the namespace before a cell."""
        self._before = visible(self.shell.user_ns, self.shell.user_ns_hidden)

    def post_run_cell(self, result: Any) -> None:
        """After a cell: let go if it waits, and remember which plain cell made which variable."""
        self.last_error = error = result.error_in_exec or result.error_before_exec
        if isinstance(error, Paused) and self.run is not None:
            waits = list(dict.fromkeys(self.run.waiting_for))
            if waits:
                self.leave("execution.waiting", {"waits": waits})
            return
        if error is not None or result.info is None:
            return
        try:
            cell = read_cell(result.info.raw_cell or "")
            if cell.kind == "plain":
                self._note_producers(cell)
        except (KitaruError, SyntaxError):
            return  # reported by the cell itself

    def _note_producers(self, cell: Cell) -> None:
        now = visible(self.shell.user_ns, self.shell.user_ns_hidden)
        changed = [n for n, v in now.items() if n not in self._before or self._before[n] is not v]
        if not changed:
            return
        analysis = analyse(cell.body)
        tokens = input_tokens(analysis, self._before, digest=self._cheap_token, producers=self.producers)
        token = cell_key(analysis, tokens).digest
        for name in changed:
            self.makers.pop(name, None)
            self.producers[name] = f"{name}@{token}"

    def _cheap_token(self, value: object) -> str | None:
        if isinstance(value, _CHEAP) and (not isinstance(value, str | bytes) or len(value) < 1_000_000):
            return self.runtime.store.token(value)
        return None

    # checkpoint cells

    def run_cell(self, source: str) -> None:
        """Run a checkpoint cell without top-level await."""
        __tracebackhide__ = True
        prepared = self._prepare(source)
        if prepared is None:
            return
        call, work = prepared
        assert self.run is not None
        try:
            with captured():
                self.run.call(call)
        except BaseException as error:
            self._clean_traceback(error)
            raise
        self._after(call, work)

    async def run_cell_async(self, source: str) -> None:
        """Run a checkpoint cell that awaits."""
        __tracebackhide__ = True
        prepared = self._prepare(source)
        if prepared is None:
            return
        call, work = prepared
        assert self.run is not None
        try:
            with captured():
                await self.run.call_async(call)
        except BaseException as error:
            self._clean_traceback(error)
            raise
        self._after(call, work)

    def _prepare(self, source: str) -> tuple[Call, CellWork] | None:
        cell = read_cell(source, tags_from(self.shell)())
        options = cell.options
        if options.condition is not None and not eval(
            options.condition, self.shell.user_global_ns, self.shell.user_ns
        ):
            display.show_skipped(self.shell, options.name or "cell", options.condition)
            return None
        run = self.ensure_run()
        namespace = visible(self.shell.user_ns, self.shell.user_ns_hidden)
        analysis = analyse(cell.body)
        tokens = input_tokens(
            analysis,
            namespace,
            digest=run.store.token,
            names=options.inputs,
            producers=self.producers,
            preview=lambda v: self.runtime.preview(v)["text"][:60],
        )
        key = cell_key(analysis, tokens)
        name = options.name or "cell"
        inputs = [
            Input(n, namespace.get(n), t.text if t.kind == "val" else f"{t.kind}:{t.text}", ())
            for n, t in tokens.items()
            if n in namespace
        ]
        work = CellWork(self.shell, cell, key, {i.name: run.store.token(i.value) for i in inputs})
        call_id = self._identify(run, name, key.digest, forced=options.force or options.reuse == "never")
        call_id = self._already_applied(run, name, key.parts, call_id, forced=options.force)
        generation = run.engine.generations.get(name, 0)
        call = Call(
            call_id,
            name,
            work,
            run.frame,
            inputs,
            Retry(attempts=options.retries),
            options.type or "cell",
            digest("cell", name, str(generation)),
            None,
            key.parts["code"],
            digest("cell", key.digest) if options.reuse == "content" else None,
        )
        call.sources = [[self.makers[i.name]] if i.name in self.makers else s for i, s in zip(inputs, run.engine.trace(inputs), strict=True)]
        return call, work

    def _identify(self, run: Run, name: str, key: str, *, forced: bool) -> str:
        """This very cell with these very inputs; a forced run is one more of the same."""
        number, call_id = 0, digest("", "cell", name, key)
        while digest("", "cell", name, key, str(number)) in run.engine.completed:
            number += 1
        if number and not forced:
            number -= 1
        call_id = digest("", "cell", name, key, str(number))
        return call_id

    def _already_applied(self, run: Run, name: str, parts: Mapping[str, Any], call_id: str, *, forced: bool) -> str:
        """A cell that changed its own input in place, run again on its own result, is not applied twice."""
        if forced or call_id in run.engine.completed:
            return call_id
        for event in reversed(list(run.engine.completed.values())):
            recorded = event.body.get("cell", {}).get("key")
            if event.body["name"] != name or recorded is None or recorded["code"] != parts["code"]:
                continue
            own = {
                n: unpack_artifact(a, None, run.exec_id).token
                for a in event.body["outputs"]
                for n in a.get("names", ())
            }
            differing = [n for n, t in parts["inputs"].items() if recorded["inputs"].get(n) != t]
            if differing and all(
                own.get(n) is not None and own[n] == parts["inputs"][n]["text"] for n in differing
            ):
                display.show_already_applied(self.shell, name, differing)
                return event.key
            return call_id
        return call_id

    def _after(self, call: Call, work: CellWork) -> None:
        assert self.run is not None
        event = self.run.engine.completed[call.call_id]
        for name in work.names:
            self.makers[name] = call.call_id
            self.producers[name] = f"{name}@{call.call_id}"
        self.last_used[call.name] = (call.call_id, work.reused is not None)
        display.show_done(self.shell, self.run.exec_id, event, work)

    def _clean_traceback(self, error: BaseException) -> None:
        """Show the frames of the cell and what it called, not those of the runtime between."""
        if isinstance(error, Paused) or hasattr(error, "_render_traceback_") or not hasattr(error, "__dict__"):
            return
        tb = error.__traceback__
        tb = tb.tb_next if tb is not None else None  # the outer cell's frame is the caller's, not in this traceback
        while tb is not None and tb.tb_frame.f_globals is not self.shell.user_global_ns:
            tb = tb.tb_next
        if tb is None:
            return
        error._render_traceback_ = lambda: self.shell.InteractiveTB.structured_traceback(  # type: ignore[attr-defined]
            type(error), error, tb, tb_offset=0
        )

    # restoring

    def restore(self, only: str | None = None) -> list[str]:
        """Put back the variables of completed checkpoint cells without running anything; names of the cells.

        Raises:
            KitaruNotFoundError: no such checkpoint cell; lists those there are.
        """
        run = self.ensure_run()
        latest: dict[str, Event] = {}
        for event in run.engine.completed.values():
            if "cell" in event.body:
                latest.pop(event.body["name"], None)
                latest[event.body["name"]] = event
        if only is not None and only not in latest:
            raise KitaruNotFoundError(
                f"{run.exec_id} has no completed checkpoint cell {only!r}. Completed: {', '.join(latest) or 'none'}.",
                fix="%kitaru status",
            )
        chosen = [e for n, e in latest.items() if only in (None, n)]
        for event in chosen:
            artifacts = [unpack_artifact(a, event.blob, run.exec_id) for a in event.body["outputs"]]
            restore_cell(self.shell, run, artifacts, event)
            for artifact in artifacts:
                for name in artifact.names:
                    self.makers[name] = event.key
                    self.producers[name] = f"{name}@{event.key}"
        return [e.body["name"] for e in chosen]


def start(shell: Any) -> Session:
    """Begin a session in this shell: hooks, names, and the frame for plain cells."""
    session = Session(shell)
    shell.events.register("pre_run_cell", session.pre_run_cell)
    shell.events.register("post_run_cell", session.post_run_cell)
    set_ambient(session.frame)
    atexit.register(session.close)
    return session


def stop(shell: Any, session: Session) -> None:
    """Undo `start`."""
    session.close()
    set_ambient(None)
    atexit.unregister(session.close)
    shell.events.unregister("pre_run_cell", session.pre_run_cell)
    shell.events.unregister("post_run_cell", session.post_run_cell)


