"""Names that a cell reads, binds and deletes, found without running it, by definite assignment.

A name is *read* when some path through the cell may take it from the namespace before the cell surely bound it. The
answer errs on the side of reading and binding more. It can't see what happens behind a call: attributes, values changed
in place, a context manager that swallows errors (other than ``suppress`` and ``raises``), ``exec``.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from kitaru_nb.cells.flow import Flow
from kitaru_nb.cells.magics import PythonCell, to_python
from kitaru_nb.cells.syntax import source_digest

#: Names that are there without anybody defining them.
BUILTINS = frozenset(dir(builtins)) - {"_"} | {
    "__name__",
    "__doc__",
    "__file__",
    "__builtins__",
    "__annotations__",
    "display",
    "get_ipython",
}
_DYNAMIC = frozenset({"exec", "eval", "globals", "locals", "vars", "__import__", "get_ipython"})
_HISTORY = re.compile(r"_{1,3}|_\d+|_i{1,3}|_i\d+|_oh|_ih|_dh|In|Out")


@dataclass(frozen=True)
class CellAnalysis:
    """What a cell does to the namespace.

    Attributes:
        digest: of the pruned source (`syntax.source_digest`).
        reads: names that it may read while it runs. Builtins aren't among them, see `inputs`.
        optional: names that it uses if the namespace has them: builtins, and names in shell lines.
        writes: names that it may bind at the top level, ``global`` statements of its functions included.
        binds: those that are surely bound when it has run to its end.
        deletes: names that it may delete.
        removes: those that are surely gone at its end.
        passed: names that it uses other than by calling them: a function's docstring may matter then.
        deferred: functions and classes it defines → names that their bodies read when they are called later.
        awaits: it awaits at the top level.
        shell: it runs shell lines.
        dynamic: builtins through which names may come and go unseen (``exec``, ``globals`` …).
        history: it reads IPython's history (``_``, ``Out``, ``_i3`` …), which isn't an input.
        star_imports: modules of ``import *``; which names they bind can't be seen.
        imports: modules that it imports, ``.x`` for relative ones.
        magics: names of the magics that it uses.
    """

    digest: str
    reads: frozenset[str]
    optional: frozenset[str]
    writes: frozenset[str]
    binds: frozenset[str]
    deletes: frozenset[str]
    removes: frozenset[str]
    passed: frozenset[str]
    deferred: Mapping[str, frozenset[str]] = field(hash=False)
    awaits: bool
    shell: bool
    dynamic: frozenset[str]
    history: frozenset[str]
    star_imports: tuple[str, ...]
    imports: tuple[str, ...]
    magics: tuple[str, ...]

    def inputs(self, namespace: Collection[str]) -> tuple[str, ...]:
        """Names to read from ``namespace`` for the cell's key, sorted.

        All of ``reads`` (also those that the namespace lacks: their absence is part of the key), and those of
        ``optional`` that the namespace has, because a variable named ``list`` shadows the builtin.
        """
        return tuple(sorted(self.reads | {name for name in self.optional if name in namespace}))


def analyse(body: str) -> CellAnalysis:
    """Analyse a cell's body, IPython syntax included.

    Raises:
        SyntaxError: it is neither Python nor IPython syntax.
    """
    return _analysed(body)


@lru_cache(maxsize=512)
def _analysed(body: str) -> CellAnalysis:
    cell = to_python(body)
    flow = Flow(future_annotations=_has_future_annotations(cell.tree))
    flow.run(cell.tree.body)
    deferred = flow.finish()
    history = frozenset(name for name in flow.reads if _HISTORY.fullmatch(name))
    # A function that nobody calls here is a definition; yet what it does unseen is told at once.
    mentioned = flow.reads.union(*deferred.values())
    return CellAnalysis(
        digest=source_digest(cell.tree, flow.passed),
        reads=frozenset(flow.reads) - BUILTINS - history,
        optional=(BUILTINS & flow.reads) | cell.expanded,
        writes=frozenset(flow.writes),
        binds=frozenset(flow.state.bound),
        deletes=frozenset(flow.deletes),
        removes=frozenset(flow.state.gone),
        passed=frozenset(flow.passed),
        deferred={name: free - BUILTINS for name, free in deferred.items()},
        awaits=flow.awaits,
        shell=cell.shell,
        dynamic=frozenset(mentioned & _DYNAMIC),
        history=history,
        star_imports=tuple(flow.star_imports),
        imports=tuple(dict.fromkeys(flow.imports)),
        magics=cell.magics,
    )


def _has_future_annotations(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.names[0].name == "annotations"
        for node in tree.body
    )


# Calls that make a class or a type: what they give is a definition like a `class` statement.
_DEFINING_CALLS = frozenset(
    {"namedtuple", "NamedTuple", "TypedDict", "NewType", "TypeVar", "TypeVarTuple", "ParamSpec"}
    | {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "make_dataclass", "create_model"}
)


def definitions(body: str | PythonCell) -> ast.Module:
    """The statements of a cell to execute again when its results are restored, in order.

    Imports, functions, classes, ``name = lambda …``, type aliases, named tuples and the like; also inside ``try`` and
    inside an ``if`` that tests only what was imported (``TYPE_CHECKING``, ``sys.version_info``). A definition that
    needs a value which the cell computed (``@agent.tool`` where the cell made ``agent``) is left out: it can't be made
    again without it. `defined_names` tells what is left.

    Raises:
        SyntaxError: as `to_python`.
    """
    cell = to_python(body) if isinstance(body, str) else body
    picker = _Picker()
    kept = picker.pick(cell.tree.body)
    return ast.Module(kept, [])


def defined_names(module: ast.Module) -> tuple[str, ...]:
    """Names that executing ``module`` may bind, in order of their first binding. What its functions bind when they are
    called isn't among them."""
    flow = Flow(future_annotations=_has_future_annotations(module))
    flow.run(module.body)
    return _bound_itself(flow)


def recreated_names(body: str) -> frozenset[str]:
    """Names that running the `definitions` of a cell again brings back, so that they needn't be stored.

    A name that something else in the cell may bind too isn't among them: another statement, or a function that declares
    it ``global``.

    Raises:
        SyntaxError: as `to_python`.
    """
    kept = definitions(body)
    same = {ast.dump(statement) for statement in kept.body}
    cell = to_python(body).tree.body
    rest = [statement for statement in cell if ast.dump(statement) not in same]
    inside = [name for statement in kept.body for name, itself in _effects(statement).writes.items() if not itself]
    return frozenset(defined_names(kept)) - _effects(*rest).writes.keys() - frozenset(inside)


class _Picker:
    """Selects definitions, and knows which names are data of this cell."""

    def __init__(self) -> None:
        self.data: set[str] = set()
        self.imported: set[str] = {"TYPE_CHECKING", "__debug__"}

    def pick(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for statement in statements:
            chosen = self._chosen(statement)
            if chosen is None:
                self.data |= _effects(statement).writes.keys()
            else:
                self.data.difference_update(_bound_itself(_effects(chosen)))
                kept.append(chosen)
        return kept

    def _chosen(self, statement: ast.stmt) -> ast.stmt | None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self.imported |= _effects(statement).writes.keys()
            return statement
        if isinstance(statement, ast.If):
            return self._if(statement)
        if isinstance(statement, ast.Try):
            return self._try(statement)
        if _defines(statement) and not _effects(statement).reads & self.data:
            return statement
        return None

    def _if(self, statement: ast.If) -> ast.stmt | None:
        tested = {n.id for n in ast.walk(statement.test) if isinstance(n, ast.Name)}
        if not tested <= self.imported or any(isinstance(n, ast.Call) for n in ast.walk(statement.test)):
            return None
        body, orelse = self.pick(statement.body), self.pick(statement.orelse)
        if not body and not orelse:
            return None
        return ast.copy_location(ast.If(statement.test, body or [_nothing(statement)], orelse), statement)

    def _try(self, statement: ast.Try) -> ast.stmt | None:
        body = self.pick(statement.body)
        if not body:
            return None
        handlers = []
        for handler in statement.handlers:
            # `except ImportError: np = None` is part of the definition.
            inner = [s for s in handler.body if isinstance(s, ast.Assign | ast.Pass) or self._chosen(s) is s]
            made = ast.ExceptHandler(handler.type, handler.name, list(inner) or [_nothing(handler)])
            handlers.append(ast.copy_location(made, handler))
        final = self.pick(statement.finalbody)
        if not handlers and not final:
            final = [_nothing(statement)]
        return ast.copy_location(ast.Try(body, handlers, self.pick(statement.orelse), final), statement)


def _effects(*statements: ast.stmt) -> Flow:
    flow = Flow(future_annotations=False)
    flow.run(statements)
    return flow


def _bound_itself(flow: Flow) -> tuple[str, ...]:
    return tuple(name for name, itself in flow.writes.items() if itself)


def _nothing(at: ast.AST) -> ast.stmt:
    return ast.copy_location(ast.Pass(), at)


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return statement.name.isidentifier()
    if type(statement).__name__ == "TypeAlias":
        return True
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if not all(isinstance(t, ast.Name) for t in targets):
        return False
    if isinstance(statement.value, ast.Lambda):
        return True
    function = statement.value.func if isinstance(statement.value, ast.Call) else None
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return called in _DEFINING_CALLS
