"""A notebook as a file: which of its cells run, how they are called, and its parameters.

nbformat is imported on use: it takes longer to load than all of this to run.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitaru_nb.cells.magics import to_python
from kitaru_nb.cells.source import read_cell
from kitaru_nb.errors import KitaruUsageError

_SKIP_TAGS = ("skip", "skip-execution", "injected-parameters")
_NOT_EVALUATED = re.compile(r"#\|\s*eval\s*:\s*false\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Progress:
    """A cell begins (``status`` running) or has ended. ``index`` counts code cells from 1."""

    index: int
    total: int
    name: str
    status: str


OnProgress = Callable[[Progress], None]


def read_notebook(path: Path) -> Any:
    """A notebook, in format 4. Raises `KitaruUsageError` for anything else."""
    import nbformat

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.ipynb"))[:5]) or "none"
        raise KitaruUsageError(f"There is no file {path}. Notebooks in {path.parent}: {there}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise KitaruUsageError(f"{path} can't be read: {error}.") from error
    try:
        notebook = parsed(text)
        nbformat.validate(notebook)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError, AttributeError, KeyError) as error:
        raise KitaruUsageError(
            f"{path} is no notebook: {str(error).splitlines()[0][:200]}. Expected a Jupyter notebook (.ipynb, JSON).",
            fix="kitaru run notebook.ipynb",
        ) from error
    return notebook


def parsed(text: str) -> Any:
    """The notebook that a text holds, in format 4."""
    import nbformat

    return nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]


def written(notebook: Any) -> str:
    """A notebook as the text of its file."""
    import nbformat

    return str(nbformat.writes(notebook))  # type: ignore[no-untyped-call]


def will_run(cell: Any) -> bool:
    """Whether a cell is code that is to be run: not empty, nor skipped by its tags or by ``#| eval: false``."""
    if cell.cell_type != "code" or not cell.source.strip():
        return False
    tags = cell.metadata.get("tags", ())
    if "injected-parameters" in tags and cell.metadata.get("kitaru", {}).get("injected"):
        return True
    return not any(tag in tags for tag in _SKIP_TAGS) and not _switched_off(cell.source)


def _switched_off(source: str) -> bool:
    """Whether a directive at the top of a cell says ``#| eval: false``."""
    for line in source.strip().split("\n"):
        if not line.lstrip().startswith("#|"):
            return False
        if _NOT_EVALUATED.match(line.strip()):
            return True
    return False


def title_of(cell: Any) -> str:
    """How a cell is called in progress lines: its checkpoint's name, else its first line."""
    with suppress(KitaruUsageError):  # a wrong head: the cell itself reports it
        if name := read_cell(cell.source, cell.metadata.get("tags", ())).options.name:
            return name
    return str(cell.source).strip().splitlines()[0][:60]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One assignment of a cell tagged ``parameters``.

    Attributes:
        annotation: its type as written, or None.
        default: its value where that is a literal, else None.
        required: it has a type and no value.
        help: the comment at the end of its line.
    """

    name: str
    annotation: str | None
    default: Any = None
    required: bool = False
    help: str = ""

    @property
    def kind(self) -> str:
        """Its type as text: as annotated, else that of the default."""
        return self.annotation or (type(self.default).__name__ if self.default is not None else "Any")


def parameters_of(notebook: Any) -> dict[str, Parameter]:
    """What the cells tagged ``parameters`` assign, by name.

    Raises:
        KitaruUsageError: such a cell isn't Python.
    """
    found: dict[str, Parameter] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "parameters" not in cell.metadata.get("tags", ()):
            continue
        try:
            statements = to_python(cell.source).tree.body
        except SyntaxError as error:
            raise KitaruUsageError(f"The cell tagged 'parameters' can't be read: {error}.") from error
        lines = str(cell.source).split("\n")
        for node in statements:
            shown = _comment(lines, node)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, kind = node.target.id, _annotation(node.annotation)
                found[name] = Parameter(name, kind, literal(node.value), node.value is None, shown)
            elif isinstance(node, ast.Assign):
                found.update((name, Parameter(name, None, literal(v), False, shown)) for name, v in _assigned(node))
    return found


def _comment(lines: list[str], node: ast.stmt) -> str:
    """The comment after a statement, on its last line."""
    at = (node.end_lineno or node.lineno) - 1
    rest = lines[at].encode()[node.end_col_offset or 0 :].decode() if at < len(lines) else ""
    return rest.strip().removeprefix("#").strip() if rest.strip().startswith("#") else ""


def _annotation(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def _assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(target.elts, node.value.elts, strict=False)
            yield from ((t.id, v) for t, v in pairs if isinstance(t, ast.Name))


def literal(node: ast.expr | None) -> Any:
    """The value of a literal; None for other expressions."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def parse_parameters(notebook: Any, given: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Values of the types that the notebook's parameters have. Raises `KitaruUsageError`."""
    known = parameters_of(notebook)
    values = {}
    for name, text in given.items():
        if name not in known:
            there = ", ".join(known) or "none (no cell is tagged 'parameters')"
            raise KitaruUsageError(
                f"{path.name} has no parameter {name!r}. Parameters are: {there}.",
                fix=f"kitaru run {path.name}" + (f" -p {next(iter(known))}=..." if known else ""),
            )
        values[name] = parse_parameter(name, text, known[name].kind)
    return values


def parse_parameter(name: str, text: str, kind: str) -> Any:
    """``text`` as a value of the annotated type: JSON, or the text itself where that is a string's or a date's.

    A type that only the notebook knows is not checked. Raises `KitaruUsageError`.
    """
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter: Any = TypeAdapter(eval(kind, {**vars(typing), **vars(builtins)}))
    except (NameError, AttributeError, PydanticSchemaGenerationError, PydanticUserError):
        adapter = TypeAdapter(Any)
    forms = [json.dumps(text)] if kind == "str" else [text, json.dumps(text)]
    for form in forms:
        try:
            value = adapter.validate_json(form, strict=True)
        except ValidationError:
            continue
        return value if _is_literal(value) else json.loads(form)
    raise KitaruUsageError(f"Parameter {name} is {text!r}; expected {kind}.", fix=f"-p {name}=...")


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Put the given values into a cell after the one tagged ``parameters``."""
    if not values:
        return
    import nbformat

    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    metadata = {"tags": ["injected-parameters"], "kitaru": {"injected": True}}
    cell = nbformat.v4.new_code_cell(  # type: ignore[no-untyped-call]
        source, metadata=metadata, id="kitaru-parameters"
    )
    at = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ()))
    notebook.cells.insert(at + 1, cell)
