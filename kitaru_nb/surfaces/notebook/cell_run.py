"""Run checkpoint cells: read the head, find the inputs, identify the call, and hand it to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kitaru_nb.cells.analysis import CellAnalysis, analyse, defined_names, definitions
from kitaru_nb.cells.keys import CellKey, Token, cell_key, input_tokens
from kitaru_nb.cells.source import Cell, CellOptions, read_cell
from kitaru_nb.core.engine import Call, Input, digest
from kitaru_nb.core.logs import captured
from kitaru_nb.core.retry import Retry
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruUsageError, Paused
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Event
from kitaru_nb.surfaces.adapters.automatic import install_imported
from kitaru_nb.surfaces.notebook import display, tracebacks
from kitaru_nb.surfaces.notebook.cell_work import CellWork, Step, compile_body
from kitaru_nb.surfaces.notebook.live_calls import LiveCalls
from kitaru_nb.surfaces.notebook.namespace import fingerprint, visible
from kitaru_nb.surfaces.notebook.restoring import cell_of
from kitaru_nb.surfaces.notebook.transformer import tags_from, transform_body

if TYPE_CHECKING:
    from kitaru_nb.surfaces.notebook.session import Session

#: Name of a checkpoint cell that has none.
UNNAMED = "cell"


class CellRunner:
    """Runs the checkpoint cells of a session.

    Attributes:
        last_used: checkpoint → whether it was reused the last time that it ran in this kernel.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shell = session.shell
        self.last_used: dict[str, bool] = {}
        self._live: dict[str, LiveCalls] = {}

    def run(self, source: str) -> None:
        """Run a checkpoint cell without top-level await."""
        with self._errors_shown(source):
            if (prepared := self._prepare(source)) is not None:
                run, call, work = prepared
                with captured(), self._shown_live(run, call, work):
                    run.call(call)
                self._after(run, call, work)

    async def run_async(self, source: str) -> None:
        """Run a checkpoint cell that awaits."""
        with self._errors_shown(source):
            if (prepared := self._prepare(source)) is not None:
                run, call, work = prepared
                with captured(), self._shown_live(run, call, work):
                    await run.call_async(call)
                self._after(run, call, work)

    def told(self, kind: str, call: Call, event: Event | None) -> None:
        """What the run tells of each call as it happens: shown where it belongs to a cell that runs now."""
        for live in tuple(self._live.values()):
            if live.tree.has(call.frame.call_id):
                live.told(kind, call, event)

    @contextmanager
    def _shown_live(self, run: Run, call: Call, work: CellWork) -> Iterator[None]:
        live = work.live = self._live[call.call_id] = LiveCalls(self.shell, run, call)
        failed = True
        try:
            yield
            if work.reused is not None:
                live.reused(work.reused)
            failed = False
        finally:
            del self._live[call.call_id]
            live.close(failed=failed)

    @contextmanager
    def _errors_shown(self, source: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            run = self.session.run
            if isinstance(error, Paused) and run is not None and run.ending is not None:
                error.reason = run.ending.reason  # raised from another thread, it came without
                error.args = (error.reason,)
            tracebacks.trim(self.shell, error)
            if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
                self._say_interrupted(source)
            raise

    def _say_interrupted(self, source: str) -> None:
        name = read_cell(source, tags_from(self.shell)()).options.name or UNNAMED
        display.show_note(
            self.shell,
            f"{name} was interrupted. The checkpoints that it had finished inside are kept: run it again to go on.",
            colour=display.AMBER,
        )

    # before

    def _prepare(self, source: str) -> tuple[Run, Call, CellWork] | None:
        cell = read_cell(source, tags_from(self.shell)())
        options = cell.options
        name = options.name or UNNAMED
        if options.condition is not None and not self._holds(options.condition):
            display.show_skipped(self.shell, name, options.condition)
            return None
        steps = compile_body(self.shell, cell.body)
        analysis = analyse(cell.body)
        namespace = visible(self.shell.user_ns, self.shell.user_ns_hidden)
        _check_inputs(options, namespace)
        run = self.session.ensure_run()
        install_imported()
        token = _remembering(run.store.token)
        tokens = self._tokens(run, analysis, namespace, token, options)
        key = cell_key(analysis, tokens)
        call_id = self._identify(run, name, key, options, lambda n: token(namespace.get(n)))
        run.engine.forgive()  # a person runs it again: what failed is tried again
        return run, *self._call(run, cell, name, call_id, key, steps, namespace, tokens, token)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(eval(condition, self.shell.user_global_ns, self.shell.user_ns))
        except Exception as error:
            raise KitaruUsageError(
                f"--if {condition} can't be told: {type(error).__name__}: {error}",
                fix="run the cells above that define it, or change the condition",
            ) from error

    def _tokens(
        self,
        run: Run,
        analysis: CellAnalysis,
        namespace: Mapping[str, Any],
        token: Callable[[Any], str | None],
        options: CellOptions,
    ) -> dict[str, Token]:
        provenance = self.session.provenance
        tokens = input_tokens(
            analysis,
            namespace,
            digest=token,
            names=options.inputs,
            producers=provenance.producers,
            preview=lambda v: run.runtime.preview(v)["text"][:60],
            source_of=provenance.source_of,
        )
        return tokens | provenance.deeper(tokens, namespace, token)

    def _call(
        self,
        run: Run,
        cell: Cell,
        name: str,
        call_id: str,
        key: CellKey,
        steps: list[Step],
        namespace: Mapping[str, Any],
        tokens: Mapping[str, Token],
        token: Callable[[Any], str | None],
    ) -> tuple[Call, CellWork]:
        inputs = [
            Input(n, namespace[n], t.text if t.kind == "val" else f"{t.kind}:{t.text}")
            for n, t in tokens.items()
            if n in namespace
        ]
        # Also what its helpers reach: they may change it.
        reached = [_variable(label) for t in tokens.values() for label in t.parts]
        watched = {i.name: i.value for i in inputs} | {n: namespace[n] for n in reached if n in namespace}
        marks = {n: token(v) or fingerprint(v) for n, v in watched.items()}
        work = CellWork(self.shell, cell, steps, key, marks, lambda v: run.store.token(v) or fingerprint(v))
        options = cell.options
        call = Call(
            call_id,
            name,
            work,
            run.frame,
            inputs,
            Retry(attempts=options.retries),
            options.type or "cell",
            self._scope(run, name, call_id, key),
            None,
            key.parts["code"],
            digest("cell", key.digest) if options.reuse == "content" else None,
        )
        makers = self.session.provenance.makers
        traced = run.engine.trace([Input(i.name, i.value, marks[i.name]) for i in inputs])
        call.sources = [[makers[i.name]] if i.name in makers else s for i, s in zip(inputs, traced, strict=True)]
        return call, work

    def _scope(self, run: Run, name: str, call_id: str, key: CellKey) -> str:
        """Identity of the calls inside: the same until the cell completes, so that an edited cell finds them again."""
        plan = run.engine.plan
        if plan is not None and (original := plan.donors.get(call_id)) is not None and "scope" in original.body:
            return str(original.body["scope"])
        own = key.parts["code"] if name == UNNAMED else ""  # all cells without a name share it
        generation = run.engine.generations.get(name, 0)
        return digest("cell", name, own, str(generation), run.exec_id if generation else "")

    # identity

    def _identify(
        self, run: Run, name: str, key: CellKey, options: CellOptions, now: Callable[[str], str | None]
    ) -> str:
        """This very cell with these very inputs; a forced run is one more of the same."""
        donors = run.engine.plan.donors if run.engine.plan is not None else {}
        forced = options.force or options.reuse == "never"
        number = 0
        while (call_id := digest("", "cell", name, key.digest, str(number))) in run.engine.completed or (
            not forced and call_id in donors
        ):
            number += 1
        if forced:
            return call_id
        if number:
            return digest("", "cell", name, key.digest, str(number - 1))
        return self._already_applied(run, name, key, now) or call_id

    def _already_applied(self, run: Run, name: str, key: CellKey, now: Callable[[str], str | None]) -> str | None:
        """A cell that changed its own input in place, run again on its own result, isn't applied twice."""
        inputs = key.parts["inputs"]
        for event in reversed(list(run.engine.completed.values())):
            recorded = event.body.get("cell", {}).get("key")
            if event.body["name"] != name or recorded is None or recorded["code"] != key.parts["code"]:
                continue
            own = _tokens_after(event, run.exec_id)
            differing = [n for name in inputs for n in _differing(name, recorded["inputs"].get(name, {}), inputs[name])]
            if differing and all(own.get(n) is not None and own[n] == now(n) for n in differing):
                display.show_already_applied(self.shell, name, differing)
                return str(event.key)
            return None
        return None

    # after

    def _after(self, run: Run, call: Call, work: CellWork) -> None:
        event = run.engine.completed[call.call_id]
        provenance, cell = self.session.provenance, cell_of(event)
        defined = [n for n in defined_names(definitions(work.cell.body)) if n in self.shell.user_ns]
        partial = [row["name"] for row in work.partial]
        provenance.by_checkpoint([*defined, *partial, *work.names], call.call_id)
        provenance.forget(cell["deleted"])
        for name, original in cell["aliases"].items():
            provenance.producers[name] = provenance.producers.get(original, provenance.producers[name])
        provenance.defined(self.shell.user_ns, defined, transform_body(self.shell, work.cell.body))
        self.last_used[call.name] = work.reused is not None
        tokens_inside = 0 if work.live is None else work.live.tree.tokens
        display.show_done(self.shell, run.exec_id, event, work, tokens_inside)


def _check_inputs(options: CellOptions, namespace: Mapping[str, Any]) -> None:
    missing = [n for n in options.inputs or () if n not in namespace]
    if missing:
        rest = ",".join(n for n in options.inputs or () if n in namespace)
        raise KitaruUsageError(
            f"--in names {missing[0]!r}, which isn't defined.",
            fix=f"%%checkpoint {options.name or ''} --in {rest}" if rest else "run the cell that defines it first",
        )


def _remembering(token: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """``token`` that hashes each object once. The objects are kept alive meanwhile, so that an id stays its own."""
    known: dict[int, tuple[Any, str | None]] = {}

    def remembered(value: Any) -> str | None:
        found = known.get(id(value))
        if found is None or found[0] is not value:
            found = known[id(value)] = (value, token(value))
        return found[1]

    return remembered


def _differing(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in an input: itself, or what its code reaches."""
    if old.get("text") == new["text"]:
        return []
    before, after = old.get("parts") or {name: old}, new.get("parts") or {name: new}
    labels = dict.fromkeys([*before, *after])
    return [_variable(n) for n in labels if before.get(n, {}).get("text") != after.get(n, {}).get("text")]


def _variable(label: str) -> str:
    """The variable that a part of a token is of, where it is one of the notebook's."""
    return label.removeprefix("__main__.")


def _tokens_after(event: Event, exec_id: str) -> dict[str, str | None]:
    """Tokens of the variables as the cell left them."""
    found = {name: artifact.token for artifact in Outputs(event, exec_id) for name in artifact.names}
    found.update(event.body["cell"]["after"])
    return found
