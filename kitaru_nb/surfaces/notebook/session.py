"""The notebook as a flow: its kernel advances one execution, cell by cell.

Plain cells run each time; checkpoint cells are durable. The execution of a notebook is found again by the notebook's
path, so that a new kernel goes on where the last one was.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.source import Cell, read_cell
from kitaru_nb.core.advance import claim
from kitaru_nb.core.context import Frame, set_ambient
from kitaru_nb.core.create import write_created
from kitaru_nb.core.engine import WaitRequest
from kitaru_nb.core.failures import last_word
from kitaru_nb.core.run import Run
from kitaru_nb.core.runtime import Runtime, default_runtime, settings_in_use, whoami
from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruContextError,
    KitaruError,
    KitaruFencedError,
    KitaruLeaseError,
    KitaruNotFoundError,
    Paused,
)
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Event, ExecutionStatus
from kitaru_nb.surfaces.notebook import display
from kitaru_nb.surfaces.notebook.cell_run import CellRunner
from kitaru_nb.surfaces.notebook.late import LateCells
from kitaru_nb.surfaces.notebook.namespace import visible
from kitaru_nb.surfaces.notebook.provenance import Provenance
from kitaru_nb.surfaces.notebook.restoring import is_cell, restore_cell
from kitaru_nb.surfaces.notebook.transformer import tags_from, transform_body


class Session:
    """What `%load_ext kitaru_nb` starts in a kernel.

    Attributes:
        run: the claimed execution; None before the first checkpoint or wait, and while it waits.
        exec_id: the execution that this kernel works on, once known.
        headless: a runner executes the notebook, and named the execution.
    """

    def __init__(self, shell: Any, runtime: Runtime | None = None) -> None:
        self.shell = shell
        self._runtime = runtime
        self.run: Run | None = None
        self.exec_id: str | None = os.environ.get("KITARU_EXECUTION")
        self.headless = self.exec_id is not None
        self.provenance = Provenance()
        self.cells = CellRunner(self)
        self.late = LateCells()
        self.last_error: BaseException | None = None
        self.transform: Any = None
        self._before: dict[str, Any] = {}
        self._line: tuple[str, ...] = ()

    @property
    def runtime(self) -> Runtime:
        """Settings, journal and store; found when they are first needed."""
        if self._runtime is None:
            path = self.path
            if path is not None and "KITARU_HOME" not in os.environ:
                self._runtime = Runtime(settings_in_use(start=path.parent))
            else:
                self._runtime = default_runtime()
        return self._runtime

    @property
    def path(self) -> Path | None:
        """The notebook's file, where the front end tells it."""
        for found in (os.environ.get("KITARU_NOTEBOOK"), *self._told_by_front_end()):
            if found and str(found).endswith(".ipynb"):
                return Path(found).absolute()
        return None

    def _told_by_front_end(self) -> tuple[Any, ...]:
        return self.shell.user_ns.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")

    @property
    def has_widgets(self) -> bool:
        """Whether a person sits before a front end that shows live widgets."""
        if self.headless or os.environ.get("KITARU_CI") == "1":
            return False
        return any(self._told_by_front_end()) or "google.colab" in sys.modules

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
            KitaruStateError: a headless execution has ended.
        """
        if self.run is not None:
            if self.run.ending is None:
                return self.run
            self.let_go(self.run)  # it was cancelled, or another kernel took over, while no cell ran
        exec_id = self.current()
        if exec_id is not None and not self.headless and not self._can_go_on(exec_id):
            exec_id = None
        run = self.run = self._claim(exec_id or self._create())
        self.exec_id = run.exec_id
        return run

    def current(self) -> str | None:
        """Id of the execution that the notebook is on, or None before its first checkpoint."""
        return self.exec_id or self.runtime.journal.reference(self.identity)

    def _claim(self, exec_id: str) -> Run:
        try:
            run = claim(self.runtime, exec_id, poll_seconds=0.0, strict=False)
        except KitaruLeaseError as error:
            error.message = f"Another kernel works on this notebook. {error.message}"
            error.fix = "%kitaru new  # or shut the other kernel down, and run this cell again"
            raise
        run.told = self.cells.told
        run.parking.before_pause = self._before_pause
        run.after_answer = lambda wait, answer: display.show_answer(self.shell, run.exec_id, wait, answer)
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
        if status is ExecutionStatus.CANCELLED and self.exec_id == exec_id:
            display.show_note(self.shell, "The execution was cancelled; a fresh one begins.", colour=display.AMBER)
        return status not in (ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED)

    def _create(self) -> str:
        ref = {"kind": "notebook", "path": str(self.path or ""), "interactive": True}
        execution = write_created(self.runtime, self.flow_name, "local", {"ref": ref, "inputs": {}}, bytearray())
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
        """End the notebook's execution and begin a fresh one; its id. Raises `KitaruContextError` in a headless run."""
        self.end("%kitaru new")
        self.exec_id = None
        return self._create()

    def end(self, command: str) -> None:
        """End the notebook's execution: completed, or cancelled if a question is open. Another kernel's is left alone.

        Raises:
            KitaruContextError: a runner executes the notebook, and waits for this very execution.
        """
        if self.headless:
            raise KitaruContextError(
                f"{command} is for a person at the notebook; this notebook is being run by a runner.",
                fix="kitaru run notebook.ipynb  # begins a new execution",
            )
        exec_id = self.current()
        if exec_id is None or not self._can_go_on(exec_id):
            return
        try:
            self.ensure_run()
        except KitaruLeaseError:
            return
        if self.runtime.journal.waits(exec_id=exec_id):
            self.leave("execution.cancelled", {"by": whoami()})
        else:
            self.leave("execution.completed", {"result": None})

    def leave(self, kind: str, body: Mapping[str, Any]) -> None:
        """Give the lease back with a last event; without a live run nothing happens."""
        if self.run is None:
            return
        run, self.run = self.run, None
        try:
            run.let_go([Event(run.exec_id, kind, "", time.time(), body)])
        except KitaruFencedError:
            run.abandon()  # another kernel has gone on with it

    def let_go(self, run: Run) -> None:
        """What was asked of the run from outside is done: it was cancelled, or its lease is lost."""
        assert run.ending is not None
        if run.ending.kind == "cancelled":
            request = run.engine.cancel
            self.leave("execution.cancelled", {"by": request.body.get("by", "somebody") if request else "somebody"})
        else:
            self.leave("execution.paused", {"reason": run.ending.reason})

    def finish(self) -> None:
        """End a headless execution: failed if the last cell failed (interrupted by an outage), else completed."""
        run = self.ensure_run()
        if self.last_error is None:
            self.leave("execution.completed", {"result": None})
        else:
            last = last_word(run.exec_id, self.last_error)
            self.leave(last.kind, last.body)

    def pause(self, told: str) -> None:
        """A signal ends the worker whose kernel this is: the execution is free for the next one, and says why."""
        self.leave("execution.paused", {"reason": f"the worker got {told}", "signal": told})

    def close(self) -> None:
        """The kernel ends: the execution is free for the next one."""
        self.leave("execution.paused", {"reason": "the kernel ended"})

    # waits

    def _before_pause(self, wait: WaitRequest) -> None:
        run = self.run
        assert run is not None
        self._close_stale(run, wait)
        display.show_wait(self.shell, run.exec_id, wait, self._form(run, wait))
        if wait.wait_id == run.waiting_for[-1]:
            names = " and ".join(repr(run.engine.asked[w].body["name"]) for w in run.waiting_for)
            raise Paused(f"waiting for an answer to {names}; the cells below run after it")

    def refuse_late_cell(self) -> None:
        """What runs in place of a cell that was asked for before the notebook began to wait."""
        raise Paused("this cell was asked for before the notebook began to wait; run it after the answer")

    def _form(self, run: Run, wait: WaitRequest) -> Callable[[str, str], Mapping[str, Any]] | None:
        if not self.has_widgets:
            return None
        from kitaru_nb.surfaces.notebook.form import answer_form  # loads ipywidgets, which only a form needs

        return partial(answer_form, self.runtime, run.exec_id, wait)

    def _close_stale(self, run: Run, wait: WaitRequest) -> None:
        """The question of this wait has changed: the one that was asked before must not be answered any more."""
        for wait_id, event in list(run.engine.asked.items()):
            if event.body["name"] != wait.name or wait_id in run.waiting_for or wait_id in run.engine.resolved:
                continue
            body = {"aborted": True, "by": whoami(), "via": "notebook"}
            with contextlib.suppress(KitaruConflictError):  # answered in this moment: so it is closed
                run.commit([Event(run.exec_id, "wait.resolved", wait_id, time.time(), body)])
            run.look()

    # cells

    def pre_run_cell(self, info: Any = None) -> None:
        """Remember the namespace before a cell."""
        self._before = visible(self.shell.user_ns, self.shell.user_ns_hidden)
        self._line = self.run.frame.last if self.run is not None else ()

    def post_run_cell(self, result: Any) -> None:
        """After a cell: let go if it waits or must, and remember which plain cell made which variable."""
        before, self._before = self._before, {}
        self.last_error = error = result.error_in_exec or result.error_before_exec
        run = self.run
        if run is not None and run.ending is not None:
            self.let_go(run)
        elif isinstance(error, Paused) and run is not None and run.waiting_for:
            self.leave("execution.waiting", {"waits": list(dict.fromkeys(run.waiting_for))})
            self.late.stop()
        if error is not None or result.info is None:
            return
        try:
            cell = read_cell(result.info.raw_cell or "", tags_from(self.shell)())
            if cell.kind == "plain":
                self._note_plain_cell(cell, before)
        except (KitaruError, SyntaxError):
            return  # reported by the cell itself

    def _note_plain_cell(self, cell: Cell, before: Mapping[str, Any]) -> None:
        now = visible(self.shell.user_ns, self.shell.user_ns_hidden)
        self.provenance.forget([n for n in before if n not in now])
        changed = [n for n, v in now.items() if n not in before or before[n] is not v]
        if changed:
            self.provenance.by_plain_cell(changed, analyse(cell.body), before, self.runtime.store.token)
            if (asked := self._answered_wait()) is not None:
                self.provenance.makers.update(dict.fromkeys(changed, asked))
            self.provenance.defined(now, changed, transform_body(self.shell, cell.body))

    def _answered_wait(self) -> str | None:
        """The wait whose answer the cell that just ran has got, as a source of lineage."""
        line = self.run.frame.last if self.run is not None else ()
        return line[-1] if line and line is not self._line and line[-1].startswith("wait:") else None

    # restoring

    def restore(self, only: str | None = None) -> list[str]:
        """Put back the variables of completed checkpoint cells without running anything; names of the cells.

        Raises:
            KitaruNotFoundError: no such checkpoint cell; lists those there are.
        """
        run = self.ensure_run()
        latest: dict[str, Event] = {}
        for event in run.engine.completed.values():
            if is_cell(event):
                latest.pop(event.body["name"], None)
                latest[event.body["name"]] = event
        if only is not None and only not in latest:
            raise KitaruNotFoundError(
                f"This notebook has no completed checkpoint cell {only!r}. Completed: {', '.join(latest) or 'none'}.",
                fix="%kitaru status",
            )
        chosen = [e for n, e in latest.items() if only in (None, n)]
        for event in chosen:
            names = restore_cell(self.shell, run, Outputs(event, run.exec_id), event, leniently=True)
            partial = [row["name"] for row in event.body.get("partial", ())]
            self.provenance.by_checkpoint([*names, *partial], event.key)
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
