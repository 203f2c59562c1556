"""``%wait`` and ``%kitaru``: what a person types in a notebook."""

from __future__ import annotations

import builtins
import json
import shlex
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand

from kitaru_nb.cells.keys import first_difference
from kitaru_nb.core.control import find_wait
from kitaru_nb.core.create import create_replay, created_event
from kitaru_nb.core.records import load as load_value
from kitaru_nb.core.replay import tokens_of
from kitaru_nb.core.wait import wait as wait_for
from kitaru_nb.errors import KitaruConflictError, KitaruNotFoundError, KitaruUsageError
from kitaru_nb.model import CheckpointCall, Event, Execution, Wait
from kitaru_nb.surfaces.notebook import display
from kitaru_nb.surfaces.notebook.lineage_view import graph_html, graph_text
from kitaru_nb.surfaces.notebook.restoring import is_cell
from kitaru_nb.surfaces.notebook.session import Session
from kitaru_nb.surfaces.notebook.transformer import cell_id
from kitaru_nb.surfaces.render import counted

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.notebook.panel import Panel

_COMMANDS = {
    "status": "executions of this notebook, and the checkpoints of the current one",
    "resume": "say where the notebook stands and what to do next",
    "restore": "[NAME]  put the variables of finished checkpoints back without running anything",
    "input": "WAIT VALUE  answer a wait",
    "replay": "NAME [NAME ...] [--dry-run] [--again] [--set checkpoint.X=JSON]  run NAME and what depends on it again",
    "diff": "[A] B  two executions side by side (A: the current one)",
    "lineage": "[EXECUTION]  the graph of checkpoints",
    "why": "NAME  why a checkpoint ran, or was reused",
    "load": "EXECUTION NAME  a value that another execution recorded",
    "logs": "[NAME]  what checkpoints printed",
    "new": "begin a fresh execution of this notebook",
    "panel": "the lineage and the open questions, live below the cell",
}

#: How many words a command takes at most, where it doesn't say so itself.
_MOST = {"status": 1, "resume": 1, "restore": 1, "diff": 2, "lineage": 1, "logs": 1, "new": 0, "panel": 0}


@magics_class
class KitaruMagics(Magics):
    """The line magics; each command of ``%kitaru`` is a method ``do_NAME``."""

    def __init__(self, shell: Any, session: Session) -> None:
        super().__init__(shell)
        self.shell: Any = shell
        self.session = session
        self._panel: Panel | None = None

    def close(self) -> None:
        """End what lives longer than a command."""
        if self._panel is not None:
            self._panel.close()

    @property
    def client(self) -> KitaruClient:
        """A client on the session's journal."""
        from kitaru_nb.client import KitaruClient  # none is needed before the first command

        return KitaruClient(self.session.runtime)

    @no_var_expand
    @line_magic
    def wait(self, line: str) -> Any:
        """``answer = %wait NAME [--question TEXT] [--schema TYPE] [--timeout SECONDS]``"""
        words = split(line)
        options = take_options(words, "question", "schema", "timeout")
        if len(words) != 1:
            raise KitaruUsageError(
                f"%wait takes one name, found {' '.join(words) or 'none'}.",
                fix='answer = %wait approve --question "Publish?"',
            )
        question = options.get("question")
        if question is not None:
            question = self.shell.var_expand(question.replace("\\n", "\n"))
        timeout = seconds(options["timeout"]) if "timeout" in options else None
        return wait_for(words[0], question=question, schema=self._type(options.get("schema", "bool")), timeout=timeout)

    def _type(self, text: str) -> Any:
        names = {**vars(typing), **vars(builtins), **self.shell.user_ns}
        try:
            return eval(text, names)
        except Exception as error:
            raise KitaruUsageError(
                f"--schema {text!r} can't be read: {error}. Expected a type, such as bool, str or a pydantic model.",
                fix="%wait approve --schema bool",
            ) from error

    @no_var_expand
    @line_magic
    def kitaru(self, line: str) -> Any:
        """``%kitaru COMMAND``; without one, the list of commands."""
        words = split(line)
        if not words:
            display.show_table(self.shell, "%kitaru", ("command", "what it does"), list(_COMMANDS.items()))
            return None
        command, *rest = words
        if command not in _COMMANDS:
            raise KitaruUsageError(
                f"%kitaru has no command {command!r}. Commands are: {', '.join(_COMMANDS)}.", fix="%kitaru status"
            )
        if len(rest) > _MOST.get(command, len(rest)):
            most = counted(_MOST[command], "word") if _MOST[command] else "nothing"
            raise KitaruUsageError(
                f"%kitaru {command} takes {most}, found {' '.join(rest)}.",
                fix=shlex.join(["%kitaru", command, *rest[: _MOST[command]]]),
            )
        do: Callable[[list[str]], Any] = getattr(self, f"do_{command}")
        return do(self._expanded(command, rest))

    def _expanded(self, command: str, words: list[str]) -> list[str]:
        """Words with the variables in them, as in any magic; but an answer and a value are taken as they are typed."""
        if command == "input":
            return [*map(self.shell.var_expand, words[:1]), *words[1:]]
        before = ["", *words]
        return [w if b == "--set" else self.shell.var_expand(w) for b, w in zip(before, words, strict=False)]

    # commands

    def do_status(self, words: list[str]) -> None:
        """Checkpoints and waits of the current execution."""
        execution = self._execution(words)
        rows = [
            (
                c.selector,
                c.status,
                display.seconds_text(c.duration),
                f"{tokens_of(c):,}" if tokens_of(c) else "",
                _made(c),
            )
            for c in execution.checkpoints
        ]
        rows += [(w.name, f"wait, {w.status}", "", "", _answer(w)) for w in execution.waits]
        title = f"{execution.flow_name}: {execution.status}"
        columns = ("checkpoint", "status", "time", "tokens", "output")
        metadata = {"execution": execution.exec_id}
        display.show_table(self.shell, title, columns, rows, varying=("time", "tokens"), metadata=metadata)

    def do_panel(self, words: list[str]) -> None:
        """The live panel; what it shows stays readable where there are no widgets."""
        from kitaru_nb.surfaces.notebook.panel import Panel, still  # loads anywidget, which only a panel needs

        exec_id = self.session.current()
        if not self.session.has_widgets:
            plain, html = still(None if exec_id is None else self.client.executions.get(exec_id))
            display.publish(self.shell, plain, html, {"execution": exec_id} if exec_id else None)
            return
        if self._panel is None:
            self._panel = Panel(self.session.runtime, self.session.current)
        self._panel.follow(exec_id)
        self.shell.display_pub.publish(*self._panel._repr_mimebundle_())

    def do_resume(self, words: list[str]) -> None:
        """What the notebook waits for, or that it may go on."""
        execution = self._execution(words)
        pending = execution.pending_wait
        if pending is not None:
            display.show_note(
                self.shell,
                f"{execution.flow_name} waits for {pending.name!r}: {pending.question or ''}",
                colour=display.AMBER,
                command=f"%kitaru input {pending.name} VALUE",
            )
            return
        restored = self.session.restore()
        names = ", ".join(restored) or "nothing yet"
        text = f"Ready to go on. Restored: {names}. Run the next cell, or Run All: finished checkpoints are reused."
        display.show_note(self.shell, text, colour=display.GREEN)

    def do_restore(self, words: list[str]) -> None:
        """Variables of finished checkpoints."""
        restored = self.session.restore(words[0] if words else None)
        display.show_note(self.shell, f"Restored: {', '.join(restored) or 'nothing'}", colour=display.BLUE)

    def do_input(self, words: list[str]) -> None:
        """Answer a wait from this notebook."""
        if len(words) < 2:
            raise KitaruUsageError("%kitaru input takes a wait and a value.", fix="%kitaru input approve true")
        name, text = words[0], " ".join(words[1:])
        exec_id = self._execution([]).exec_id
        try:
            wait = find_wait(self.session.runtime, exec_id, name)
        except KitaruConflictError as closed:
            # The cell runs again with all others, at Run All or when JupyterLab goes on: this was its own answer.
            answer = json.dumps(closed.existing.get("value"))
            if closed.existing.get("aborted") or answer not in (json.dumps(text), json.dumps(parse_value(text))):
                raise
            note = f"{name} was answered: {answer}."
        else:
            value = text if wait.schema.get("type") == "string" else parse_value(text)
            self.client.executions.input(exec_id, wait=wait.wait_id, value=value, via="notebook")
            note = f"{name} is answered: {json.dumps(value)}. Run the waiting cell again, or Run All."
        display.show_note(self.shell, note, colour=display.GREEN)

    def do_replay(self, words: list[str]) -> None:
        """A new execution of this notebook from its current one."""
        dry, again = "--dry-run" in words, "--again" in words
        words = [w for w in words if w not in ("--dry-run", "--again")]
        line = {"cell": cell_id(self.shell), "words": list(words)}
        if not dry and not again and self._is_on(line):
            display.show_note(
                self.shell,
                "The notebook is on the replay that this line has begun. The line that begins another:",
                colour=display.BLUE,
                command=shlex.join(["%kitaru", "replay", *words, "--again"]),
            )
            return
        overrides = {}
        while "--set" in words:
            at = words.index("--set")
            key, _, text = words[at + 1].partition("=") if at + 1 < len(words) else ("", "", "")
            if not key or not text:
                raise KitaruUsageError("--set takes NAME=JSON.", fix="%kitaru replay draft --set wait.approve=true")
            overrides[key] = parse_value(text)
            del words[at : at + 2]
        execution = self._execution([])
        exec_id, words = execution.exec_id, [self._latest(execution, word) for word in words]
        plan = self.client.executions.replay_plan(exec_id, from_=words, overrides=overrides)
        rows = [(n, "runs again") for n in plan.runs if n not in plan.arguments]
        rows += [(n, "body runs again") for n in plan.enters]
        rows += [(n, "runs again with other arguments") for n in plan.arguments]
        rows += [(n, "asked again") for n in plan.asks] + [(n, "overridden") for n in plan.overridden]
        rows += [(n, "reused") for n in plan.reused]
        saved = f"{display.seconds_text(plan.seconds_saved)} saved"
        saved += f", {plan.tokens_saved:,} tokens not paid again" if plan.tokens_saved else ""
        display.show_table(self.shell, "Replay", ("checkpoint", "what happens"), rows, note=saved)
        if dry:
            return
        self.session.end("%kitaru replay")
        replayed = create_replay(self.session.runtime, exec_id, from_=words, overrides=overrides, line=line)
        self.session.adopt(replayed.exec_id)
        text = "The notebook is on the replay now: Run All carries it out."
        display.show_note(self.shell, text, colour=display.GREEN, metadata={"execution": replayed.exec_id})

    def _is_on(self, line: Mapping[str, Any]) -> bool:
        """Whether this line, in this cell, began the execution that the notebook is on: Run All runs it once more."""
        exec_id = self.session.current()
        if exec_id is None or line["cell"] is None:
            return False
        runtime = self.session.runtime
        begun = created_event(runtime, exec_id).body.get("line")
        return begun == line and not runtime.journal.execution(exec_id).status.ended

    def _latest(self, execution: Execution, name: str) -> str:
        """The selector of the cell's last run where a cell of this name ran several times; else the name itself.

        Raises:
            KitaruUsageError: several calls inside cells have this name.
        """
        calls = [call for call in execution.checkpoints if call.name == name]
        if len(calls) < 2:
            return name
        selectors = [call.selector if "#" in call.selector else f"{call.selector}#1" for call in calls]
        if any(call.parent for call in calls):
            shown = ", ".join(selectors[:20]) + (" …" if len(selectors) > 20 else "")
            raise KitaruUsageError(
                f"{name!r} was called {len(calls)} times: {shown}. Expected one of them, or the cell around it.",
                fix=f"%kitaru replay '{selectors[-1]}'",
            )
        others = ", ".join(selectors[:-1])
        display.show_note(
            self.shell, f"{name} ran {len(calls)} times; the replay begins with its last run, not with {others}."
        )
        return selectors[-1]

    def do_diff(self, words: list[str]) -> None:
        """Two executions."""
        if not words:
            raise KitaruUsageError("%kitaru diff takes an execution to compare with.", fix="%kitaru diff latest")
        current = self._execution([]).exec_id if len(words) == 1 else self.client.executions.resolve(words[0])
        found = self.client.executions.diff(current, self.client.executions.resolve(words[-1]))
        rows = [(c.selector, c.change.replace("_", " "), c.why, c.left or "", c.right or "") for c in found.calls]
        rows += [(name, "same" if a == b else "answer", "", a, b) for name, a, b in found.waits]
        columns = ("checkpoint", "change", "why", "left", "right")
        display.show_table(
            self.shell, f"{len(found.differing)} of {len(found.calls)} checkpoints differ", columns, rows
        )

    def do_lineage(self, words: list[str]) -> None:
        """The graph."""
        execution = self._execution(words)
        display.publish(
            self.shell,
            f"{execution.flow_name}\n{graph_text(execution)}",
            graph_html(execution),
            {"execution": execution.exec_id},
        )

    def do_why(self, words: list[str]) -> None:
        """The first part of the key that differed."""
        if len(words) != 1:
            raise KitaruUsageError("%kitaru why takes the name of a checkpoint.", fix="%kitaru why draft")
        name = words[0]
        exec_id = self._execution([]).exec_id
        completed = self._completed(exec_id)
        events = [e for e in completed if e.body["name"] == name]
        if not events:
            there = ", ".join(dict.fromkeys(e.body["name"] for e in completed)) or "none"
            raise KitaruNotFoundError(
                f"This notebook has no finished checkpoint {name!r}. Finished: {there}.", fix="%kitaru status"
            )
        display.show_note(self.shell, self._reason(name, events), colour=display.BLUE)

    def _completed(self, exec_id: str) -> list[Event]:
        history = self.session.runtime.journal.history(exec_id)
        return [e for e in history if e.kind == "checkpoint.completed" and is_cell(e)]

    def _reason(self, name: str, events: list[Event]) -> str:
        latest = events[-1]
        if self.session.cells.last_used.get(name):
            return f"{name} was reused: its code and inputs are those of the recorded run."
        if "cell" not in latest.body:
            return f"{name} didn't run: the replay gives it other values."
        if latest.body.get("reused"):
            return f"{name} was taken from another execution: its code and inputs are equal."
        earlier = [e for e in events[:-1] or self._originals(latest.exec_id, name) if "cell" in e.body]
        if not earlier:
            return f"{name} ran because nothing was recorded for it in this execution."
        difference = first_difference(earlier[-1].body["cell"]["key"], latest.body["cell"]["key"])
        asked = "it was forced to" if events[:-1] else "the replay asked for it, or for something that it reads"
        return f"{name} ran because {difference or asked}."

    def _originals(self, exec_id: str, name: str) -> list[Event]:
        """What the execution that this one replays recorded under the name."""
        original = self.session.runtime.journal.execution(exec_id).original_exec_id
        return [] if original is None else [e for e in self._completed(original) if e.body["name"] == name]

    def do_load(self, words: list[str]) -> Any:
        """A value of another execution; the magic returns it."""
        if len(words) != 2:
            raise KitaruUsageError(
                "%kitaru load takes an execution and a name.", fix="notes = %kitaru load latest notes"
            )
        return load_value(self.client.executions.resolve(words[0]), words[1], runtime=self.session.runtime)

    def do_logs(self, words: list[str]) -> None:
        """What checkpoints printed."""
        execution = self._execution([])
        entries = self.client.executions.logs(execution.exec_id, checkpoint=words[0] if words else None, limit=200)
        rows = [(e.checkpoint_name or "", e.source, e.message) for e in entries]
        display.show_table(self.shell, counted(len(rows), "line"), ("checkpoint", "source", "line"), rows)

    def do_new(self, words: list[str]) -> None:
        """A fresh execution."""
        exec_id = self.session.new()
        self.session.provenance.makers.clear()
        text = "A fresh execution has begun: checkpoints run again."
        display.show_note(self.shell, text, colour=display.GREEN, metadata={"execution": exec_id})

    def _execution(self, words: list[str]) -> Execution:
        if words:
            return self.client.executions.get(self.client.executions.resolve(words[0]))
        exec_id = self.session.current()
        if exec_id is None:
            raise KitaruNotFoundError(
                "This notebook has no execution yet; the first checkpoint cell begins one.",
                fix="%%checkpoint research",
            )
        return self.client.executions.get(exec_id)


def split(line: str) -> list[str]:
    """Words of a line as a shell splits them. Raises `KitaruUsageError` for an open quote."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise KitaruUsageError(f"{line!r} can't be read: {error}.") from error


def take_options(words: list[str], *names: str) -> dict[str, str]:
    """Remove ``--name value`` and ``--name=value`` from ``words``; the values. Raises for unknown options."""
    found: dict[str, str] = {}
    for word in [w for w in words if w.startswith("--")]:
        name, equals, value = word[2:].partition("=")
        if name not in names:
            raise KitaruUsageError(
                f"{word!r} is no option here. Options are: {', '.join('--' + n for n in names)}.",
            )
        at = words.index(word)
        if not equals:
            if at + 1 >= len(words):
                raise KitaruUsageError(f"{word} needs a value.", fix=f"{word} VALUE")
            value = words.pop(at + 1)
        words.pop(at)
        found[name] = value
    return found


def seconds(text: str) -> float:
    """A number of seconds. Raises `KitaruUsageError`."""
    try:
        return float(text)
    except ValueError as error:
        raise KitaruUsageError(
            f"--timeout {text!r} can't be: expected seconds.", fix="%wait approve --timeout 60"
        ) from error


def parse_value(text: str) -> Any:
    """JSON if it is, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _answer(wait: Wait) -> str:
    return json.dumps(wait.value) if wait.status == "resolved" else ""


def _made(call: CheckpointCall) -> str:
    """What a call made: its variables, else a look at its value."""
    names = ", ".join(n for a in call.artifacts for n in a.names)
    return names or (str(call.artifacts[0].preview.get("text", ""))[:80] if call.artifacts else "")
