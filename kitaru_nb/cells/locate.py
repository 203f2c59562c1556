"""Where a function or class was written: its node in the syntax tree of its file or cell, and what it reads."""

from __future__ import annotations

import ast
import copy
import linecache
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from kitaru_nb.cells.scopes import annotations_of, names_of, outer_expressions, type_parameters
from kitaru_nb.cells.syntax import source_digest

DefinitionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one function or class, without what it refers to.

    Attributes:
        digest: of the pruned source; ``documented`` has its docstring in it.
        reads: names that its body, decorators, annotations and bases take from outside.
        passed: those of them that are used other than by calling them.
    """

    digest: str
    documented: str
    reads: frozenset[str]
    passed: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Found:
    node: DefinitionNode
    qualname: str
    of_class: str

    @property
    def first_line(self) -> int:
        decorators: list[ast.expr] = getattr(self.node, "decorator_list", [])
        return min([self.node.lineno, *(d.lineno for d in decorators)])


# A function's code can be replaced in place (autoreload does), so the code object is part of the entry.
_functions: weakref.WeakKeyDictionary[FunctionType, tuple[CodeType, Source | None]] = weakref.WeakKeyDictionary()
_classes: weakref.WeakKeyDictionary[type, Source | None] = weakref.WeakKeyDictionary()


def function_source(function: FunctionType) -> Source | None:
    """Source of a Python function; None when its text can't be found any more. Cached for each function object."""
    known = _functions.get(function)
    if known is None or known[0] is not function.__code__:
        found = _find_function(function)
        known = function.__code__, None if found is None else _source(found, function.__globals__)
        _functions[function] = known
    return known[1]


def class_source(cls: type, namespace: Mapping[str, object], text: str | None = None) -> Source | None:
    """Source of a class; None when its text can't be found. Cached for each class.

    Args:
        text: source of the cell that defined it, where the caller knows; a class without methods doesn't.
    """
    if cls not in _classes:
        found = _find_class(cls, None)
        _classes[cls] = None if found is None else _source(found, namespace)
    if _classes[cls] is None and text is not None:
        # Not cached: another caller, who doesn't know the text, must get the same answer each time.
        found = _find_class(cls, text)
        return None if found is None else _source(found, namespace)
    return _classes[cls]


def _source(found: _Found, namespace: Mapping[str, object]) -> Source:
    node = copy.copy(found.node)
    if not isinstance(node, ast.Lambda):
        # Our decorators say how it runs, not what it computes.
        node.decorator_list = [d for d in node.decorator_list if not _is_ours(d, namespace)]
    names = names_of(node, of_class=found.of_class)
    outer = list(outer_expressions(node))
    if not isinstance(node, ast.ClassDef):
        defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        # The values of defaults were fixed when it was defined; they are looked at as values.
        outer = [e for e in (*outer, *annotations_of(node)) if e not in defaults]
    around = {n.id for e in outer for n in ast.walk(e) if isinstance(n, ast.Name)} - type_parameters(node)
    documented = source_digest(node, {getattr(node, "name", "")})
    return Source(source_digest(node), documented, names.reads | around, frozenset(names.passed | around))


def _is_ours(decorator: ast.expr, namespace: Mapping[str, object]) -> bool:
    root = decorator.func if isinstance(decorator, ast.Call) else decorator
    while isinstance(root, ast.Attribute):
        root = root.value
    if not isinstance(root, ast.Name) or root.id not in namespace:
        return False
    value: Any = namespace[root.id]
    module = getattr(value, "__module__", None) or getattr(value, "__name__", None)
    return isinstance(module, str) and module.partition(".")[0] == __name__.partition(".")[0]


def _find_function(function: FunctionType) -> _Found | None:
    code = function.__code__
    index = _index_of_file(code.co_filename, function.__globals__)
    candidates = [f for f in index.get(code.co_name, ()) if f.first_line == code.co_firstlineno]
    if code.co_name == "<lambda>":
        candidates = _lambdas_of(code, candidates)
    return candidates[0] if candidates else None


def _lambdas_of(code: CodeType, candidates: list[_Found]) -> list[_Found]:
    """Of several lambdas on one line, the smallest whose body holds all instructions of ``code``."""
    spans = [
        (line, column, end_line, end_column)
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and end_line is not None and column is not None and end_column
    ]
    holding = []
    for found in candidates:
        body = found.node.body
        assert isinstance(body, ast.expr)
        start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
        if all(start <= (a, b) and (c, d) <= end for a, b, c, d in spans):
            holding.append(found)
    return sorted(holding, key=lambda f: len(ast.dump(f.node)))


def _find_class(cls: type, text: str | None) -> _Found | None:
    index: Mapping[str, list[_Found]] = {}
    lines = []
    for member in vars(cls).values():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        if isinstance(function, FunctionType) and function.__qualname__.startswith(cls.__qualname__ + "."):
            made = _index_of_file(function.__code__.co_filename, function.__globals__)
            if cls.__name__ in made:  # not so for methods that a decorator generated
                index = made
                lines.append(function.__code__.co_firstlineno)
    if text is not None and not index:
        index = _index(text)
    if not index:
        module = sys.modules.get(cls.__module__)
        filename = getattr(module, "__file__", None)
        index = _index_of_file(filename, vars(module)) if filename and module else {}
    found = [f for f in index.get(cls.__name__, ()) if isinstance(f.node, ast.ClassDef)]
    found = [f for f in found if f.qualname == cls.__qualname__] or found
    around = [f for f in found if any(f.node.lineno <= line <= (f.node.end_lineno or 0) for line in lines)]
    best = around or found
    return best[-1] if best else None


def _index_of_file(filename: str, module: dict[str, Any]) -> Mapping[str, list[_Found]]:
    linecache.checkcache(filename)
    text = "".join(linecache.getlines(filename, module))
    return _index(text) if text else {}


@lru_cache(maxsize=64)
def _index(text: str) -> Mapping[str, list[_Found]]:
    """All functions, lambdas and classes of a file, by name."""
    index: dict[str, list[_Found]] = {}
    try:
        for found in _walk(ast.parse(text), "", ""):
            index.setdefault(getattr(found.node, "name", "<lambda>"), []).append(found)
    except (SyntaxError, ValueError, RecursionError):
        return {}  # not Python, or too deep for Python's own parser
    return index


def _walk(node: ast.AST, prefix: str, of_class: str) -> Iterator[_Found]:
    for child in ast.iter_child_nodes(node):
        inner_prefix, inner_class = prefix, of_class
        if isinstance(child, DefinitionNode):
            name = getattr(child, "name", "<lambda>")
            yield _Found(child, prefix + name, of_class)
            is_class = isinstance(child, ast.ClassDef)
            inner_prefix = f"{prefix}{name}." if is_class else f"{prefix}{name}.<locals>."
            inner_class = name if is_class else of_class
        yield from _walk(child, inner_prefix, inner_class)
