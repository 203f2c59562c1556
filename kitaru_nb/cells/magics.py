"""IPython syntax as Python: magics and shell lines become calls, and the code inside code magics becomes code.

IPython itself does the translation, so what it accepts is accepted here; it is imported only for cells that aren't
plain Python.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

#: Name of the function that stands for code which a magic runs in a scope of its own (``%timeit``).
OWN_SCOPE = "<timeit>"

# Magics whose argument is Python, with the options that take a value and those that don't.
_CODE_MAGICS = {
    "time": ("", ""),
    "timeit": ("nrpv", "tcqo"),
    "prun": ("lsTD", "rq"),
    "memit": ("rti", "co"),
}
_CELL_ONLY = frozenset({"capture"})
_SHELL_MAGICS = frozenset({"sx", "system", "bash", "sh", "script", "cmd", "ruby", "perl", "!"})


@dataclass(frozen=True, slots=True)
class PythonCell:
    """A cell as Python.

    Attributes:
        tree: the syntax tree; lines count as in the cell where IPython's translation keeps them. A magic with code
            stands as its call without that code, and then the code.
        shell: whether it runs a shell line.
        expanded: names in ``{x}`` or ``$x`` of shell lines and magics, which take them from the namespace if it has
            them and otherwise leave the text as it is.
        magics: line and cell magics used, in order, without percent signs.
    """

    tree: ast.Module
    shell: bool = False
    expanded: frozenset[str] = frozenset()
    magics: tuple[str, ...] = ()


def to_python(body: str) -> PythonCell:
    """Translate a cell's body.

    Raises:
        SyntaxError: the body is neither Python nor IPython syntax.
    """
    try:
        tree = ast.parse(body)
    except SyntaxError:
        tree = ast.parse(_translated(body))
    calls = _MagicCalls()
    calls.visit(tree)
    return PythonCell(tree, calls.shell, frozenset(calls.expanded), tuple(calls.magics))


def _translated(body: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    code: str = TransformerManager().transform_cell(body)  # type: ignore[no-untyped-call]
    # IPython drops blank lines at the top; the head of a checkpoint is one.
    blank = len(body) - len(body.lstrip())
    return "\n" * body.count("\n", 0, blank) + code


class _MagicCalls(ast.NodeTransformer):
    """Replaces each magic's call by the call without its code, followed by the code."""

    def __init__(self) -> None:
        self.shell = False
        self.expanded: set[str] = set()
        self.magics: list[str] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.AST]:
        return self._statement(node, node.value)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.AST]:
        return self._statement(node, node.value)

    def _statement(self, node: ast.Expr | ast.Assign, value: ast.expr) -> ast.AST | list[ast.AST]:
        if (found := _magic_call(value)) is None:
            return self.generic_visit(node)
        call, method, arguments = found
        if method in ("system", "getoutput"):
            self.shell = True
            self.expanded |= _expanded_names(arguments[0])
            return node
        name = arguments[0]
        self.magics.append(name)
        self.shell |= name in _SHELL_MAGICS
        return [*self._code(call, name, method, arguments), node]

    def _code(self, call: ast.Call, name: str, method: str, arguments: list[str]) -> list[ast.AST]:
        line = arguments[1] if len(arguments) > 1 else ""
        body = arguments[2] if method == "run_cell_magic" and len(arguments) > 2 else None
        if name in _CELL_ONLY and body is not None:
            options, target = _capture(line)
            call.args[1:] = [ast.copy_location(ast.Constant(options), call)]
            stored = [_store(target, call)] if target else []
            return [*self._parsed(body, call), *stored]
        if name not in _CODE_MAGICS:
            self.expanded |= _expanded_names(line)
            return []
        options, code = _split_options(line, *_CODE_MAGICS[name])
        call.args[1:] = [ast.copy_location(ast.Constant(options), call)]
        statements = self._parsed(code, call) + (self._parsed(body, call) if body else [])
        if name not in ("timeit", "memit"):
            return statements
        saved = re.search(r"-v\s*([A-Za-z_]\w*)", options)
        return [_own_scope(statements or [ast.Pass()], call), *([_store(saved[1], call)] if saved else [])]

    def _parsed(self, code: str, at: ast.AST) -> list[ast.AST]:
        inner = to_python(code)
        self.shell |= inner.shell
        self.expanded |= inner.expanded
        self.magics += inner.magics
        ast.increment_lineno(inner.tree, getattr(at, "lineno", 1) - 1)
        return list(inner.tree.body)


def _magic_call(value: ast.expr) -> tuple[ast.Call, str, list[str]] | None:
    """``get_ipython().METHOD("…", …)`` as IPython writes it, or None."""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
        return None
    owner, method = value.func.value, value.func.attr
    if not (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_ipython"):
        return None
    if method not in ("system", "getoutput", "run_line_magic", "run_cell_magic") or not value.args:
        return None
    arguments = [a.value for a in value.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return (value, method, arguments) if len(arguments) == len(value.args) else None


def is_magic_call(node: ast.expr) -> bool:
    """Whether ``node`` is the call of a magic or shell line, as IPython writes it."""
    return _magic_call(node) is not None


def _split_options(line: str, with_value: str, without: str) -> tuple[str, str]:
    """The options of a code magic, and its code."""
    rest = line.lstrip()
    while (match := re.match(r"--?([A-Za-z-]+)\s*", rest)) is not None:
        letters, end = match[1], match.end()
        if rest.startswith("--"):
            rest = rest[end:]
            continue
        if letters[0] in with_value:
            value = re.match(r"-[A-Za-z]\s*\S+\s*", rest)
            rest = rest[value.end() :] if value else ""
        elif set(letters) <= set(without):
            rest = rest[end:]
        else:
            break
    return line[: len(line) - len(rest)].strip(), rest


def _capture(line: str) -> tuple[str, str | None]:
    """Options of ``%%capture``, and the variable that it sets."""
    words = line.split()
    return " ".join(w for w in words if w.startswith("-")), next((w for w in words if w.isidentifier()), None)


def _store(name: str, at: ast.AST) -> ast.AST:
    target = ast.Name(name, ast.Store())
    statement = ast.Assign([target], ast.Constant(None))
    return ast.fix_missing_locations(ast.copy_location(statement, at))


def _own_scope(statements: list[ast.AST], at: ast.AST) -> ast.AST:
    function: ast.FunctionDef = ast.parse("def scope(): ...").body[0]  # type: ignore[assignment]
    function.name = OWN_SCOPE
    function.body = statements  # type: ignore[assignment]
    return ast.fix_missing_locations(ast.copy_location(function, at))


def _expanded_names(text: str) -> set[str]:
    names = {match[1] for match in re.finditer(r"(?<!\$)\$([A-Za-z_]\w*)", text)}
    for expression in _braced(text):
        try:
            tree = ast.parse(expression.strip(), mode="eval")
        except SyntaxError:
            continue  # IPython leaves such braces alone too: `awk '{print $1}'`
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names


def _braced(text: str) -> Iterator[str]:
    try:
        for _, name, _, _ in string.Formatter().parse(text):
            if name:
                yield name
    except ValueError:
        return  # unbalanced braces: nothing is expanded
