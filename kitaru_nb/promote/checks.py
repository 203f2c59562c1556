"""What keeps a notebook from being promoted: all of it at once, with the cell's number and the fix."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.magics import to_python
from kitaru_nb.cells.source import read_cell
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.promote.modules import Closure
from kitaru_nb.promote.program import Program, Step
from kitaru_nb.promote.secrets import ALLOWED, Secret, find_secrets

_SHELL_MAGICS = frozenset({"sx", "system", "bash", "sh", "script", "cmd", "ruby", "perl", "!"})
_FOLDER_MAGICS = frozenset({"cd", "pushd", "popd", "dhist"})
_HOMES = ("/home/", "/Users/", "/root/", "/mnt/", "/media/", "/Volumes/", "/content/", "~/", "/tmp/")
#: Functions whose first argument is a path: then any absolute one is meant for this machine.
_PATH_CALLS = re.compile(
    r"open|Path|PurePath|chdir|listdir|scandir|glob|loadtxt|savetxt|(read|to|write|save|load|dump)(_\w+)?"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing to mend. ``cell`` is its number among the code cells, or None where no cell is at fault."""

    cell: int | None
    message: str
    fix: str

    def __str__(self) -> str:
        where = "" if self.cell is None else f"cell {self.cell}: "
        return f"{where}{self.message}\n    fix: {self.fix}"


class Refused(KitaruUsageError):
    """A promotion that can't be. ``refusals`` are all that there is to mend."""

    def __init__(self, what: str, refusals: Sequence[Refusal] = ()) -> None:
        self.refusals = tuple(refusals)
        lines = "\n".join(f"  {refusal}" for refusal in self.refusals)
        counted = f"{len(self.refusals)} thing{'s' if len(self.refusals) != 1 else ''} to mend"
        super().__init__(f"{what} can't be promoted: {counted}.\n{lines}" if self.refusals else what)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of how a notebook ran.

    Attributes:
        sources: execution count → source that ran under it, as this kernel knows; empty outside of the notebook.
        names: variables that the kernel has.
        completed: recorded checkpoints of the notebook's current execution, the newest last.
    """

    sources: Mapping[int, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    completed: Sequence[Event] = ()


def refusals_of(program: Program, closure: Closure, evidence: Evidence) -> list[Refusal]:
    """All that is wrong, in the order of the cells."""
    found = [
        *_unreadable(program),
        *_undefined(program, evidence),
        *_out_of_order(program),
        *_edited(program, evidence),
        *_at_the_desk(program),
        *_paths(program),
        *_secrets_in_cells(program),
        *_missing_modules(program, closure),
        *_partial(program, evidence),
    ]
    return sorted(found, key=lambda r: r.cell or 0)


def _unreadable(program: Program) -> Iterator[Refusal]:
    for step in program.promoted:
        if step.problem is not None:
            message = str(step.problem).splitlines()[0]
            fix = getattr(step.problem, "fix", None) or "mend the cell, or tag it skip"
            yield Refusal(step.number, f"it can't be read: {message}", fix)
    if not program.promoted:
        yield Refusal(None, "the notebook has no code to promote.", "write a cell, and save the notebook")


def _undefined(program: Program, evidence: Evidence) -> Iterator[Refusal]:
    numbers = {s.id: s.number for s in program.promoted}
    for gap in program.graph().undefined():
        number, name = numbers[gap.cell_id], gap.variable
        elsewhere = _elsewhere(program, name, number)
        if gap.removed_by is not None:
            above = program.promoted[gap.removed_by - 1].number
            yield Refusal(number, f"{name} is deleted by cell {above} above.", f"define {name} again before this cell")
        elif elsewhere is not None:
            yield Refusal(number, *elsewhere)
        elif name in evidence.names or name in _recorded_names(evidence):
            message = f"{name} comes from a cell that was deleted or changed; only this kernel still has its value."
            yield Refusal(number, message, f"put the cell that defines {name} back, and run it again")
        else:
            yield Refusal(number, f"no cell above defines {name}.", f"define {name} in a cell above, or import it")


def _elsewhere(program: Program, name: str, number: int) -> tuple[str, str] | None:
    """(message, fix) where a cell that isn't above, or that isn't promoted, defines the name."""
    for step in program.steps:
        if step.analysis is None or name not in step.analysis.writes:
            continue
        if not step.runs:
            return f"{name} is defined only in cell {step.number}, which is skipped.", f"promote cell {step.number} too"
        if step.number > number:
            return f"{name} is defined below, in cell {step.number}.", f"move cell {step.number} above this one"
    return None


def _recorded_names(evidence: Evidence) -> set[str]:
    return {n for e in evidence.completed for a in e.body.get("outputs", ()) for n in a.get("names", ())}


def _out_of_order(program: Program) -> Iterator[Refusal]:
    """Counts of the last runs must rise; cells that have none may only stand at the end."""
    fix = "Kernel > Restart and Run All: finished checkpoints are reused"
    last, last_number = 0, 0
    never: list[Step] = []
    for step in program.promoted:
        if step.count is None:
            never.append(step)
            continue
        for gap in never:
            yield Refusal(gap.number, f"it has not run, though cell {step.number} below has.", fix)
        never.clear()
        if step.count <= last:
            yield Refusal(step.number, f"it ran before cell {last_number} above, not after it.", fix)
        else:
            last, last_number = step.count, step.number


def _edited(program: Program, evidence: Evidence) -> Iterator[Refusal]:
    """Cells whose source isn't what ran last: as the kernel remembers it, else as the journal does."""
    recorded: dict[str, set[str]] = {}
    for event in evidence.completed:
        code = event.body.get("cell", {}).get("key", {}).get("code")
        if code is not None:
            recorded.setdefault(event.body["name"], set()).add(code)
    there = {step.written: step.number for step in program.steps}
    for step in program.promoted:
        if step.count is None or step.head is None or step.analysis is None:
            continue
        name = step.head.options.name
        ran = evidence.sources.get(step.count)
        # Under the number of a cell that an earlier kernel ran, this one may have run another cell.
        if ran is not None and there.get(ran, step.number) == step.number:
            changed = _digest(ran) != _digest(step.written) and not _ran_later(evidence, step.count, step.written)
        else:
            known = recorded.get(name or "", set()) if step.is_checkpoint else set()
            changed = bool(known) and step.analysis.digest not in known
        if changed:
            yield Refusal(
                step.number, "it was edited since it ran, or is not saved.", "run it again, save the notebook"
            )


def _ran_later(evidence: Evidence, count: int, source: str) -> bool:
    """Whether the kernel ran this after ``count``: a Run All that began after saving has newer counts than the file."""
    wanted = _digest(source)
    return any(later > count and _digest(ran) == wanted for later, ran in evidence.sources.items())


def _digest(source: str) -> str:
    """Identity of a cell's code; of its text where that is no Python."""
    try:
        return analyse(source.replace("%%checkpoint", "#| checkpoint:", 1)).digest
    except SyntaxError:
        return source


def _at_the_desk(program: Program) -> Iterator[Refusal]:
    """What a deployment has not: a shell, the folder that a person is in, other notebooks."""
    for step in program.promoted:
        analysis = step.analysis
        if analysis is None:
            continue
        magics = set(analysis.magics)
        if analysis.shell or magics & _SHELL_MAGICS:
            yield Refusal(
                step.number, "it runs a shell line.", "call the program with subprocess.run([...]), or tag skip"
            )
        if folders := sorted(magics & _FOLDER_MAGICS):
            yield Refusal(
                step.number, f"%{folders[0]} changes the folder.", "take it out; paths are relative to the notebook"
            )
        if "run" in magics:
            yield Refusal(step.number, "%run brings in names from another file.", "import it as a module")
        if analysis.history:
            name = min(analysis.history)
            yield Refusal(step.number, f"{name} is the history of this kernel.", "give the value a name of its own")


def _paths(program: Program) -> Iterator[Refusal]:
    for step in program.promoted:
        if step.tree is None or step.is_parameters:
            continue
        lines = step.source.split("\n")
        for text, line in absolute_paths(step.tree):
            if line <= len(lines) and ALLOWED in lines[line - 1]:
                continue
            name = PurePosixPath(text.replace("\\", "/")).name
            fix = f"use a path beside the notebook ({name!r}), a URL, or a parameter; or end the line with {ALLOWED}"
            yield Refusal(step.number, f"{text!r} is a path of this machine.", fix)


def absolute_paths(tree: ast.AST) -> list[tuple[str, int]]:
    """(text, line) of absolute paths that stand literally in code, each once."""
    called = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args and _PATH_CALLS.fullmatch(_called(node.func))
    }
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _is_absolute(node.value, id(node) in called)
        ):
            found.setdefault(node.value, node.lineno)
    return sorted(found.items(), key=lambda item: item[1])


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_absolute(text: str, opened: bool) -> bool:
    if "\n" in text or len(text) > 500 or text.startswith("/dev/"):
        return False
    if re.match(r"[A-Za-z]:[\\/]\w", text) and PureWindowsPath(text).is_absolute():
        return True
    if not text.startswith(("/", "~/")) or text.startswith("//") or len(text) < 3:
        return False
    if opened or text.startswith(_HOMES):
        return True
    # "/api/items" is a route, "/etc/app/config" a path: those that exist here are.
    return text.count("/") > 1 and " " not in text and Path(text).exists()


def _secrets_in_cells(program: Program) -> Iterator[Refusal]:
    steps = {id(s.cell): s for s in program.steps}
    text_number = 0
    for cell in program.notebook.cells:
        step = steps.get(id(cell))
        if step is not None and not step.runs:
            continue  # it doesn't travel
        text_number += step is None
        for secret in _secrets_in(cell, step):
            where = "" if step is not None else f"text cell {text_number}, "
            message = f"{where}line {secret.line} holds {secret.kind} ({secret.shown})."
            number = None if step is None else step.number
            yield Refusal(number, message, 'read it with os.environ["NAME"], and take the value out of the notebook')


def _secrets_in(cell: Any, step: Step | None) -> list[Secret]:
    """Secrets in a cell as it stands in the file; its lines count as there."""
    if step is None:
        return find_secrets(cell.source, python=False)
    tree: ast.AST | None = step.tree
    if step.written != step.source:  # lines of the desk don't travel, and count
        with suppress(KitaruUsageError, SyntaxError):
            tree = to_python(read_cell(step.written, cell.metadata.get("tags", ())).body).tree
    return find_secrets(step.written, tree)


def refusals_of_files(files: Mapping[str, bytes]) -> list[Refusal]:
    """Literal secrets and absolute paths in the files that travel along."""
    found = []
    for path, content in sorted(files.items()):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        for secret in find_secrets(text, python=path.endswith(".py")):
            message = f"{path}, line {secret.line} holds {secret.kind} ({secret.shown})."
            found.append(Refusal(None, message, 'read it with os.environ["NAME"], and take the value out of the file'))
        if path.endswith(".py"):
            lines = text.split("\n")
            for shown, line in absolute_paths(ast.parse(text)):
                if ALLOWED not in lines[line - 1]:
                    fix = f"make it a parameter, or end the line with {ALLOWED}"
                    found.append(Refusal(None, f"{path}, line {line}: {shown!r} is a path of this machine.", fix))
    return found


def _missing_modules(program: Program, closure: Closure) -> Iterator[Refusal]:
    importers = {i: s.number for s in program.promoted if s.analysis for i in s.analysis.imports}
    yield from refusals_of_imports(closure, importers)


def refusals_of_imports(closure: Closure, importers: Mapping[str, int] | None = None) -> list[Refusal]:
    """Imports of something that isn't here."""
    found = []
    for wanted, file in closure.missing:
        where = f"{file} imports" if file else "it imports"
        message = f"{where} {wanted.module}, which is neither installed here nor beside the notebook."
        number = None if file else (importers or {}).get(wanted.module)
        found.append(Refusal(number, message, f"pip install {wanted.top}, or put {wanted.top}.py beside the notebook"))
    return found


def _partial(program: Program, evidence: Evidence) -> Iterator[Refusal]:
    """Variables that a checkpoint could not persist, and that a cell below reads."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for event in evidence.completed:
        rows[event.body["name"]] = list(event.body.get("partial", ()))
    edges = program.graph().edges()
    numbers = {s.id: s.number for s in program.promoted}
    for step in program.promoted:
        if step.head is None or not step.is_checkpoint:
            continue
        for row in rows.get(step.head.options.name or "cell", ()):
            readers = [numbers[e.consumer] for e in edges if e.producer == step.id and e.variable == row["name"]]
            if readers:
                message = f"{row['name']} can't be persisted, and cell {readers[0]} reads it: {row['why']}"
                yield Refusal(step.number, message, str(row["do"]))


def refuse_if(refusals: Iterable[Refusal], what: str) -> None:
    """Raise `Refused` when there is anything to mend."""
    found = list(dict.fromkeys(refusals))
    if found:
        raise Refused(what, found)
