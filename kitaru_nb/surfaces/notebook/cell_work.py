"""A checkpoint cell as a unit of work: run its body, persist what it changed, bring that back."""

from __future__ import annotations

import ast
import asyncio
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from IPython.core.displayhook import DisplayHook

from kitaru_nb.cells.analysis import recreated_names
from kitaru_nb.cells.keys import CellKey
from kitaru_nb.cells.source import Cell
from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.engine import Call
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.errors import KitaruSerializationError
from kitaru_nb.model import Artifact, Event
from kitaru_nb.surfaces.notebook.live_calls import LiveCalls
from kitaru_nb.surfaces.notebook.namespace import Before, Changes, compare, visible
from kitaru_nb.surfaces.notebook.recording import Recorder, show_again
from kitaru_nb.surfaces.notebook.restoring import cell_of, restore_cell
from kitaru_nb.surfaces.notebook.time_limit import time_limit, too_long
from kitaru_nb.surfaces.notebook.transformer import file_of, transform_body

DISPLAY = "display"

#: A statement, compiled, and whether its value is shown.
Step = tuple[types.CodeType, bool]


def compile_body(shell: Any, body: str) -> list[Step]:
    """The statements of a cell's body, compiled as IPython compiles a plain cell: line N is the cell's line N.

    Raises:
        SyntaxError: as a plain cell would.
    """
    code = transform_body(shell, body)
    name = file_of(shell, code, body)
    tree = shell.transform_ast(shell.compile.ast_parse(code, filename=name))
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    shown = tree.body and isinstance(tree.body[-1], ast.Expr)
    shown = shown and not DisplayHook.semicolon_at_end_of_expression(code)  # type: ignore[no-untyped-call]
    steps = []
    for node in tree.body:
        if shown and node is tree.body[-1]:
            steps.append((compile(ast.Expression(node.value), name, "eval", flags=flags, dont_inherit=True), True))
        else:
            steps.append((compile(ast.Module([node], []), name, "exec", flags=flags, dont_inherit=True), False))
    return steps


class CellWork:
    """One run of a checkpoint cell in the user's namespace.

    Attributes:
        marks: for each input what tells whether it changed in place, from `mark`.
        reused: set when the outcome came from the journal, with the event that had it.
        names: variables that the cell set, or that were brought back.
        partial: variables that could not be persisted, as rows ``name type why do``.
        live: the display of the calls inside, while the cell runs.
    """

    def __init__(
        self,
        shell: Any,
        cell: Cell,
        steps: Sequence[Step],
        key: CellKey,
        marks: Mapping[str, str | None],
        mark: Callable[[Any], str | None],
    ) -> None:
        self.shell = shell
        self.cell = cell
        self.steps = steps
        self.key = key
        self.marks = marks
        self.mark = mark
        self.reused: Event | None = None
        self.names: list[str] = []
        self.partial: list[dict[str, str]] = []
        self.recorder = Recorder(shell)
        self.live: LiveCalls | None = None
        self._before: Before | None = None
        self._recreated: frozenset[str] = frozenset()

    # running

    def invoke(self, call: Call, attempt: int) -> Any:
        """Run the body in this thread."""
        with self._around(call, attempt), time_limit(call.name, self.cell.options.timeout):
            for code, shows in self.steps:
                value = eval(code, self.shell.user_global_ns, self.shell.user_ns)
                if shows:
                    self.recorder.show_result(value)

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """Run the body in this task. A timeout takes effect where the body awaits."""
        seconds = self.cell.options.timeout
        with self._around(call, attempt):
            try:
                async with asyncio.timeout(seconds) as limit:
                    await self._steps_async()
            except TimeoutError:
                if seconds is not None and limit.expired():
                    raise too_long(call.name, seconds) from None
                raise

    async def _steps_async(self) -> None:
        for code, shows in self.steps:
            value = eval(code, self.shell.user_global_ns, self.shell.user_ns)
            if code.co_flags & inspect.CO_COROUTINE:
                value = await value
            if shows:
                self.recorder.show_result(value)

    @contextmanager
    def _around(self, call: Call, attempt: int) -> Iterator[None]:
        frame = Frame(call.frame.run, call.call_id, call.scope, call.name, strict=False, attempt=attempt)
        call.inside = frame
        if self._before is None:  # what a failed attempt left behind is an output of the next one
            self._before = Before(self._visible(), self.marks)
        self.recorder = Recorder(self.shell)
        if self.live is not None:
            self.recorder.after_clear = self.live.cleared
        token = current.set(frame)
        try:
            with self.recorder.recording():
                yield
        finally:
            current.reset(token)

    def _visible(self) -> dict[str, Any]:
        return visible(self.shell.user_ns, self.shell.user_ns_hidden)

    # persisting

    def outputs(self, run: Run, call: Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """Variables that the cell set or changed, and what it displayed."""
        assert self._before is not None
        after = self._visible()
        changes = compare(self._before, after, self.mark, self.cell.options.outputs)
        self.partial = self._missing(after)
        modules, groups = self._recipes(changes, after)
        artifacts = [a for names in groups for a in self._write(run, call, names, changes, after)]
        stored = [n for a in artifacts for n in a.names if n in changes.changed]
        self.names = [*stored, *changes.aliases]
        shown = self.recorder.storable()
        if shown:
            artifacts.append(self._display(run, call, shown))
        cell = {
            "key": self.key.parts,
            "deleted": list(changes.deleted),
            "source": self.cell.body,
            "aliases": changes.aliases,
            "modules": modules,
            "calls": 0 if self.live is None else len(self.live.tree),
            "after": {n: run.store.token(after[n]) for g in groups if len(g) > 1 for n in g},
        }
        body: dict[str, Any] = {"cell": cell, "scope": call.scope}
        if call.inside is not None and call.inside.metadata:
            body["metadata"] = call.inside.metadata
        if self.partial:
            body["partial"] = self.partial
        return artifacts, body

    def _recipes(self, changes: Changes, after: Mapping[str, Any]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
        """({name: module to import}, groups to store): without what running the cell's definitions brings back."""
        self._recreated = recreated = recreated_names(self.cell.body)
        others = sorted(changes.changed - recreated)
        modules = {n: after[n].__name__ for n in others if isinstance(after[n], types.ModuleType)}
        groups = [g for g in changes.groups if not all(n in recreated or n in modules for n in g)]
        return modules, groups

    def _missing(self, after: Mapping[str, Any]) -> list[dict[str, str]]:
        why = "The cell ended without this variable."
        do = "take it out of --out, or set it on every path"
        return [
            {"name": n, "type": "missing", "why": why, "do": do}
            for n in self.cell.options.outputs or ()
            if n not in after
        ]

    def _write(
        self, run: Run, call: Call, names: Sequence[str], changes: Changes, after: Mapping[str, Any]
    ) -> list[Artifact]:
        """Artifacts of one group; what can't be persisted goes to ``partial`` if the cell changed it."""
        roots = {id(after[n]) for n in names}
        try:
            if len(roots) == 1:
                return [self._artifact(run, call, names[0], tuple(names), after[names[0]])]
            together = {n: after[n] for n in names}
            return [self._artifact(run, call, "+".join(names), tuple(names), together, serializer="group")]
        except KitaruSerializationError as error:
            if len(roots) > 1:
                changed = [n for n in names if n in changes.changed and n not in self._recreated]
                return [a for n in changed for a in self._write(run, call, (n,), changes, after)]
            self.partial += [_partial_row(n, after[n], error) for n in names if n in changes.changed]
            return []

    def _display(self, run: Run, call: Call, shown: Sequence[Mapping[str, Any]]) -> Artifact:
        artifact = self._artifact(run, call, DISPLAY, (), shown, kind="blob")
        return replace(artifact, preview={"text": "1 output" if len(shown) == 1 else f"{len(shown)} outputs"})

    def _artifact(
        self,
        run: Run,
        call: Call,
        name: str,
        names: tuple[str, ...],
        value: Any,
        *,
        kind: str = "output",
        serializer: str | None = None,
    ) -> Artifact:
        return run.store.write(
            value,
            name=name,
            kind=kind,
            artifact_id=f"{run.exec_id}/{call.call_id}/{name}",
            exec_id=run.exec_id,
            producing_call=call.call_id,
            names=names,
            serializer=serializer,
        )

    # bringing back

    def restore(self, run: Run, call: Call, artifacts: Sequence[Artifact], event: Event) -> Any:
        """Definitions run again, data is loaded, the display is shown again."""
        self.reused = event
        self.partial = [dict(row) for row in event.body.get("partial", ())]
        restore_cell(self.shell, run, artifacts, event, source=self.cell.body)
        self.names = [*(n for a in artifacts for n in a.names), *cell_of(event)["aliases"]]
        for artifact in artifacts:
            if artifact.name == DISPLAY and not artifact.names:
                show_again(self.shell, run.store.read(artifact))

    def recorded_failure(self, event: Event) -> BaseException:
        """The exception that ended the last attempt."""
        return recorded_failure(event, trusted=True)


def _partial_row(name: str, value: Any, error: KitaruSerializationError) -> dict[str, str]:
    return {
        "name": name,
        "type": f"{type(value).__module__}.{type(value).__qualname__}",
        "why": error.message,
        "do": error.fix or "make it in a plain cell",
    }
