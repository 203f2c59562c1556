"""A checkpoint cell as a unit of work: run its body, persist what it changed, bring that back."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kitaru_nb.cells.analysis import defined_names, definitions
from kitaru_nb.cells.keys import CellKey
from kitaru_nb.cells.source import Cell
from kitaru_nb.core.context import Frame, current
from kitaru_nb.core.engine import Call
from kitaru_nb.core.run import Run, recorded_failure
from kitaru_nb.errors import KitaruSerializationError
from kitaru_nb.model import Artifact, Event
from kitaru_nb.surfaces.notebook.namespace import Before, Tripwire, compare, is_code, visible
from kitaru_nb.surfaces.notebook.transformer import transform_body

DISPLAY = "display"


class CellWork:
    """One run of a checkpoint cell in the user's namespace.

    Attributes:
        shell: the IPython shell.
        reused: set when the outcome came from the journal, with the event that had it.
        partial: variables that could not be persisted.
    """

    def __init__(self, shell: Any, cell: Cell, key: CellKey, tokens: Mapping[str, str | None]) -> None:
        self.shell = shell
        self.cell = cell
        self.key = key
        self.tokens = tokens
        self.reused: Event | None = None
        self.names: list[str] = []
        self.partial: list[dict[str, str]] = []
        self.displayed: list[dict[str, Any]] = []
        self.error_traceback: types.TracebackType | None = None
        self._before = Before({}, {})

    # running

    def invoke(self, call: Call, attempt: int) -> Any:
        """Run the body in this thread."""
        with self._around(call, attempt):
            for code, shows in self._compiled():
                value = eval(code, self.shell.user_global_ns, self.shell.user_ns)
                self._show(value, shows)

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """Run the body in this task."""
        with self._around(call, attempt):
            for code, shows in self._compiled():
                value = eval(code, self.shell.user_global_ns, self.shell.user_ns)
                if code.co_flags & inspect.CO_COROUTINE:
                    value = await value
                self._show(value, shows)

    @contextmanager
    def _around(self, call: Call, attempt: int) -> Iterator[None]:
        frame = Frame(call.frame.run, call.call_id, call.scope, call.name, strict=False, attempt=attempt)
        call.inside = frame
        self._before = Before(self._visible(), self.tokens)
        self.displayed = []
        token = current.set(frame)
        try:
            with self._recording():
                yield
        finally:
            current.reset(token)

    def _visible(self) -> dict[str, Any]:
        return visible(self.shell.user_ns, self.shell.user_ns_hidden)

    def _compiled(self) -> Iterator[tuple[types.CodeType, bool]]:
        """(code, whether its value is displayed) of each statement, compiled under the cell's own file name."""
        body = transform_body(self.shell, self.cell.body)
        name = self.shell.compile.cache(body, self.shell.execution_count, raw_code=self.cell.body)
        # The body's line 1 is the cell's line 1, so that tracebacks point into the cell as it is seen.
        tree = self.shell.transform_ast(self.shell.compile.ast_parse(body, filename=name))
        flags = self.shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        quiet = body.rstrip().endswith(";")
        for number, node in enumerate(tree.body):
            last = number == len(tree.body) - 1
            if last and isinstance(node, ast.Expr) and not quiet:
                yield compile(ast.Expression(node.value), name, "eval", flags=flags), True
            else:
                yield compile(ast.Module([node], []), name, "exec", flags=flags), False

    def _show(self, value: Any, shows: bool) -> None:
        if not shows or value is None:
            return
        data, metadata = self.shell.display_formatter.format(value)
        if data:
            self.displayed.append({"output_type": "execute_result", "data": data, "metadata": metadata})
        sys.displayhook(value)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record what the body displays, and what it writes to its streams, while it is shown as ever."""
        publisher = self.shell.display_pub
        publish = publisher.publish

        def recording(data: Any, metadata: Any = None, **options: Any) -> Any:
            if not options.get("update"):
                self.displayed.append({"output_type": "display_data", "data": dict(data), "metadata": metadata or {}})
            return publish(data, metadata, **options)

        streams = {name: StreamRecorder(getattr(sys, name), name, self.displayed) for name in ("stdout", "stderr")}
        originals = {name: getattr(sys, name) for name in streams}
        publisher.publish = recording
        for name, stream in streams.items():
            setattr(sys, name, stream)
        try:
            yield
            if (inline := sys.modules.get("matplotlib_inline.backend_inline")) is not None:
                inline.flush_figures()  # at the end of the body rather than of the cell, so that they are recorded
        finally:
            for name, stream in originals.items():
                setattr(sys, name, stream)
            publisher.publish = publish

    # persisting

    def outputs(self, run: Run, call: Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """Variables that the cell set or changed, and what it displayed."""
        after = self._visible()
        changes = compare(self._before, after, run.store.token, self.cell.options.outputs)
        artifacts = []
        self.partial = []
        for names in changes.groups:
            if not all(is_code(after[n]) for n in names) or self._needs_storing(names, after):
                artifacts += self._write(run, call, names, after)
        self.names = [n for a in artifacts for n in a.names]
        if self.displayed:
            artifacts.append(self._artifact(run, call, DISPLAY, (), storable(self.displayed), kind="blob"))
        cell = {"key": self.key.parts, "deleted": list(changes.deleted), "source": self.cell.body}
        body: dict[str, Any] = {"cell": cell, "scope": call.scope}
        if call.inside is not None and call.inside.metadata:
            body["metadata"] = call.inside.metadata
        if self.partial:
            body["partial"] = self.partial
        return artifacts, body

    def _needs_storing(self, names: Sequence[str], after: Mapping[str, Any]) -> bool:
        """Code that running the cell's definitions again would not bring back, such as a closure from a call."""
        defined = set(defined_names(definitions(self.cell.body)))
        return any(is_code(after[n]) and n not in defined and not isinstance(after[n], types.ModuleType) for n in names)

    def _write(self, run: Run, call: Call, names: Sequence[str], after: Mapping[str, Any]) -> list[Artifact]:
        roots = {id(after[n]) for n in names}
        try:
            if len(roots) == 1:
                return [self._artifact(run, call, names[0], tuple(names), after[names[0]])]
            together = {n: after[n] for n in names}
            return [self._artifact(run, call, "+".join(names), tuple(names), together, serializer="pickle")]
        except KitaruSerializationError as error:
            if len(roots) > 1:
                return [a for n in names for a in self._write(run, call, (n,), after)]
            for name in names:
                self.partial.append(
                    {
                        "name": name,
                        "type": f"{type(after[name]).__module__}.{type(after[name]).__qualname__}",
                        "why": error.message,
                        "do": error.fix or "make it in a plain cell, or delete it at the end of the cell",
                    }
                )
            return []

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
        restore_cell(self.shell, run, artifacts, event)
        self.names = [n for a in artifacts for n in a.names]
        for artifact in artifacts:
            if artifact.name == DISPLAY and not artifact.names:
                replay_display(self.shell, run.store.read(artifact))

    def recorded_failure(self, event: Event) -> Exception:
        """The exception that ended the last attempt."""
        return recorded_failure(event, trusted=True)


def restore_cell(shell: Any, run: Run, artifacts: Sequence[Artifact], event: Event) -> None:
    """Put back into the namespace what a cell had set: code by running its definitions, data from artifacts."""
    cell = event.body["cell"]
    tree = definitions(cell["source"])
    if tree.body:
        body = transform_body(shell, cell["source"])
        name = shell.compile.cache(body, shell.execution_count, raw_code=cell["source"])
        exec(compile(tree, name, "exec", flags=shell.compile.flags), shell.user_global_ns, shell.user_ns)
    for artifact in artifacts:
        if not artifact.names:
            continue
        value = run.store.read(artifact)
        if "+" in artifact.name and len(artifact.names) > 1:
            shell.user_ns.update(value)
        else:
            shell.user_ns.update(dict.fromkeys(artifact.names, value))
    for row in event.body.get("partial", ()):
        shell.user_ns[row["name"]] = Tripwire(
            f"{row['name']} ({row['type']}) was made by checkpoint {event.body['name']!r} and could not be persisted: "
            f"{row['why']}. To have it: run that cell with --force, or {row['do']}."
        )
    for name in cell["deleted"]:
        shell.user_ns.pop(name, None)


def replay_display(shell: Any, displayed: Sequence[Mapping[str, Any]]) -> None:
    """Show recorded outputs again."""
    for output in displayed:
        if output["output_type"] == "stream":
            getattr(sys, output["name"]).write(output["text"])
        else:
            shell.display_pub.publish(output["data"], output["metadata"])


def storable(displayed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Outputs as they are kept: widgets are left out, since they don't outlive their kernel."""
    kept = []
    for output in displayed:
        if "data" in output and "application/vnd.jupyter.widget-view+json" in output["data"]:
            continue
        kept.append(output)
    return kept


class StreamRecorder:
    """A text stream that also keeps what is written, joined to one output as front ends show it."""

    def __init__(self, stream: Any, name: str, outputs: list[dict[str, Any]]) -> None:
        self._stream = stream
        self._name = name
        self._outputs = outputs

    def write(self, text: str) -> Any:
        """Write to the stream behind, and keep the text."""
        last = self._outputs[-1] if self._outputs else None
        if last is not None and last["output_type"] == "stream" and last["name"] == self._name:
            last["text"] += text
        else:
            self._outputs.append({"output_type": "stream", "name": self._name, "text": text})
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


