"""A notebook as the program that is promoted: its code cells in order, without what belongs to the desk."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitaru_nb.cells.analysis import CellAnalysis, analyse
from kitaru_nb.cells.graph import CellGraph
from kitaru_nb.cells.magics import to_python
from kitaru_nb.cells.notebook import parameters_of, will_run
from kitaru_nb.cells.source import Cell, read_cell
from kitaru_nb.errors import KitaruUsageError

#: Lines that a person types at the desk; a deployment doesn't.
_DESK = re.compile(r"^%(promote|kitaru)\b.*$")
_INSTALL = re.compile(r"^\s*[%!]\s*(?:uv\s+)?pip3?\s+install\b(?P<rest>.*)$")
#: What may be said of a cell beside its source.
_KEPT_METADATA = ("tags", "name", "jupyter")


@dataclass(frozen=True, slots=True)
class Step:
    """One code cell.

    Attributes:
        number: its position among the notebook's code cells, from 1.
        source: what is promoted of it: without lines such as ``%promote`` and ``%pip install``.
        written: its source as it stands in the file.
        head: its head, read off; None when that is wrong (``problem`` says how).
        tree, analysis: of its body; None when that is no Python.
        count: how the front end numbered its last run.
        runs: whether it is promoted, and not skipped.
    """

    number: int
    cell: Any
    source: str
    written: str
    head: Cell | None
    tree: ast.Module | None
    analysis: CellAnalysis | None
    count: int | None
    runs: bool
    problem: KitaruUsageError | SyntaxError | None = None

    @property
    def id(self) -> str:
        """The cell's id in the file."""
        return str(self.cell.get("id") or f"#{self.number}")

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is durable."""
        return self.head is not None and self.head.kind == "checkpoint"

    @property
    def is_parameters(self) -> bool:
        """Whether it says what the flow takes."""
        return "parameters" in self.cell.metadata.get("tags", ())


@dataclass(frozen=True, slots=True)
class Program:
    """A notebook, read.

    Attributes:
        installs: what ``%pip install`` lines name.
    """

    path: Path
    notebook: Any
    steps: tuple[Step, ...]
    installs: tuple[str, ...]

    @property
    def promoted(self) -> list[Step]:
        """The steps that run in a deployment."""
        return [s for s in self.steps if s.runs]

    def graph(self) -> CellGraph:
        """Which promoted cell feeds which."""
        return CellGraph([(s.id, s.head, s.analysis) for s in self.promoted if s.head and s.analysis])


def read_program(notebook: Any, path: Path) -> Program:
    """Read every code cell of a notebook. What is wrong with one is kept in its step, not raised."""
    steps: list[Step] = []
    installs: list[str] = []
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        source, named = _cleaned(cell.source)
        installs += named
        runs = will_run(cell) and bool(_code(source))
        steps.append(_step(number, cell, source, runs))
    return Program(path, notebook, tuple(steps), tuple(installs))


def _step(number: int, cell: Any, source: str, runs: bool) -> Step:
    head, tree, analysis, problem = None, None, None, None
    try:
        head = read_cell(source, cell.metadata.get("tags", ()))
        tree = to_python(head.body).tree
        analysis = analyse(head.body)
    except (KitaruUsageError, SyntaxError) as error:
        problem = error
    return Step(number, cell, source, cell.source, head, tree, analysis, cell.get("execution_count"), runs, problem)


def _cleaned(source: str) -> tuple[str, list[str]]:
    """A cell's source without lines of the desk, and the packages that it would install."""
    kept: list[str] = []
    installs: list[str] = []
    for line in source.split("\n"):
        if (found := _INSTALL.match(line)) is not None:
            installs += _packages(found["rest"])
        elif _DESK.match(line) is None:
            kept.append(line)
    return "\n".join(kept), installs


def _packages(rest: str) -> Iterator[str]:
    for word in rest.split("#")[0].split():
        word = word.strip("\"'")
        if (found := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", word)) is not None and "/" not in word:
            yield found[0]


def _code(source: str) -> str:
    """What is left of a source without comments and blank lines; directives of ours count."""
    lines = (line.strip() for line in source.split("\n"))
    return "\n".join(line for line in lines if line and (not line.startswith("#") or line.startswith("#|")))


# what travels


def notebook_text(program: Program) -> str:
    """The notebook as it travels: promoted cells and text, without outputs, counts and traces of tools."""
    import nbformat  # takes longer to load than the rest

    cells: list[Any] = []
    steps = {id(s.cell): s for s in program.steps}
    for cell in program.notebook.cells:
        step = steps.get(id(cell))
        if step is not None and not step.runs:
            continue
        made: Any = nbformat.from_dict({"cell_type": cell.cell_type, "metadata": _metadata(cell)})  # type: ignore[no-untyped-call]
        made["source"] = cell.source if step is None else step.source
        made["id"] = str(cell.get("id") or f"cell-{len(cells) + 1}")
        if cell.cell_type == "code":
            made["outputs"], made["execution_count"] = [], None
        cells.append(made)
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return str(nbformat.writes(nbformat.from_dict(notebook)))  # type: ignore[no-untyped-call]


def _metadata(cell: Any) -> dict[str, Any]:
    return {name: cell.metadata[name] for name in _KEPT_METADATA if name in cell.metadata}


def percent_text(program: Program) -> str:
    """The program in the percent format, to read and to compare. Magics are commented, as jupytext does."""
    parts = [f"# {program.path.stem}, promoted from a notebook\n"]
    steps = {id(s.cell): s for s in program.steps}
    for cell in program.notebook.cells:
        step = steps.get(id(cell))
        tags = cell.metadata.get("tags") or []
        shown = f" tags=[{', '.join(_quoted(t) for t in tags)}]" if tags else ""
        if step is None:
            text = "\n".join(f"# {line}".rstrip() for line in cell.source.split("\n"))
            parts.append(f"# %% [{cell.cell_type}]{shown}\n{text}\n")
        elif step.runs:
            text = "\n".join(f"# {line}" if line.startswith(("%", "!")) else line for line in step.source.split("\n"))
            parts.append(f"# %%{shown}\n{text.strip()}\n")
    return "\n".join(parts)


def _quoted(tag: Any) -> str:
    return '"' + str(tag).replace('"', "'") + '"'


# what the manifest says


def checkpoints_of(program: Program) -> list[dict[str, Any]]:
    """Name, cell, inputs and outputs of every checkpoint cell. Inputs are variables that cells above made."""
    edges = program.graph().edges()
    used = {edge.variable for edge in edges}
    definitions = {n for s in program.promoted if s.analysis for n in s.analysis.deferred}
    found = []
    for step in program.promoted:
        if not step.is_checkpoint or step.head is None or step.analysis is None:
            continue
        options = step.head.options
        inputs = {e.variable for e in edges if e.consumer == step.id and e.producer != step.id} - definitions
        made = {n for n in step.analysis.writes if not n.startswith("_")}
        outputs = set(options.outputs) if options.outputs is not None else made
        found.append(
            {
                "name": options.name or f"cell {step.number}",
                "cell": step.number,
                "inputs": sorted(inputs if options.inputs is None else options.inputs),
                "outputs": sorted(outputs),
                "read_below": sorted(outputs & used),
                "type": options.type or "cell",
                "retries": options.retries,
            }
        )
    return found


def waits_of(trees: Sequence[ast.AST]) -> list[dict[str, Any]]:
    """Name, question and schema of every wait that can be read without running anything."""
    found = [w for tree in trees for node in ast.walk(tree) if (w := _wait(node)) is not None]
    return list({w["name"]: w for w in found}.values())


def _wait(node: ast.AST) -> dict[str, Any] | None:
    if not isinstance(node, ast.Call):
        return None
    if (magic := _wait_magic(node)) is not None:
        return magic
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in ("wait", "wait_async"):
        return None
    given = {k.arg: k.value for k in node.keywords}
    first = next(iter(node.args), None)
    named = given.get("name") or first
    if not isinstance(named, ast.Constant) or not isinstance(named.value, str):
        return None
    question, schema = given.get("question"), given.get("schema") or (first if first is not named else None)
    shown = (
        None if question is None else question.value if isinstance(question, ast.Constant) else ast.unparse(question)
    )
    return {"name": named.value, "question": shown, "schema": "bool" if schema is None else ast.unparse(schema)}


def _wait_magic(node: ast.Call) -> dict[str, Any] | None:
    """``answer = %wait approve --question "…"`` as IPython writes it."""
    if not (isinstance(node.func, ast.Attribute) and node.func.attr == "run_line_magic"):
        return None
    words = [a.value for a in node.args if isinstance(a, ast.Constant)]
    if len(words) != 2 or words[0] != "wait":
        return None
    line = str(words[1])
    question = re.search(r"--question[= ]+(\"[^\"]*\"|'[^']*'|\S+)", line)
    schema = re.search(r"--schema[= ]+(\"[^\"]*\"|'[^']*'|\S+)", line)
    plain = re.sub(r"--\w+[= ]+(\"[^\"]*\"|'[^']*'|\S+)", "", line).split()
    if not plain:
        return None
    return {
        "name": plain[0],
        "question": question[1].strip("\"'") if question else None,
        "schema": schema[1].strip("\"'") if schema else "bool",
    }


def parameter_schema(notebook: Any) -> dict[str, Any]:
    """JSON Schema of what the cells tagged ``parameters`` take, with defaults."""
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in parameters_of(notebook).items():
        schema = schema_of_annotation(parameter.kind) if parameter.kind != "NoneType" else {}
        if parameter.default is not None:
            schema["default"] = parameter.default
        if parameter.help:
            schema["description"] = parameter.help
        properties[name] = schema
        if parameter.required:
            required.append(name)
    return object_schema(properties, required)


def object_schema(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of an object that has these properties and no others."""
    found: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def schema_of_annotation(kind: str) -> dict[str, Any]:
    """JSON Schema of a type as written; anything where only the notebook knows the type."""
    import builtins
    import typing

    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        schema = TypeAdapter(eval(kind, {**vars(typing), **vars(builtins)})).json_schema()
    except (NameError, AttributeError, TypeError, SyntaxError, PydanticSchemaGenerationError, PydanticUserError):
        return {}
    return {n: v for n, v in schema.items() if n != "title"}
