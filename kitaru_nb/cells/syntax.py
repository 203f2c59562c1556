"""The shape of Python code without its layout: a pruned syntax tree, and a digest that is equal on Python 3.11 to 3.14.

Comments, blank lines, quotes, parentheses and line breaks don't count. Docstrings of plain helpers don't count either;
those of decorated functions and classes, of classes with bases, and of what is handed to others do, because an
agent's tool takes its prompt from them.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Collection
from functools import cache
from typing import Any, TypeAlias

#: ``(node type, (field, value), …)``; leaves are strings, integers and None.
Pruned: TypeAlias = "tuple[Pruned | str | int | None, ...]"

# A change of the encoding is a change of every key: it gets a new number.
_ENCODING = b"kitaru-ast-1"
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def source_digest(code: str | ast.AST, documented: Collection[str] = ()) -> str:
    """SHA-256 (hexadecimal) of the pruned tree of ``code``: equal for equal programs, on every supported Python.

    Args:
        documented: functions and classes whose docstrings count although they aren't decorated.

    Raises:
        SyntaxError: ``code`` is a string that isn't Python.
    """
    tree = ast.parse(code) if isinstance(code, str) else code
    return hashlib.sha256(_ENCODING + _encode(prune(tree, documented))).hexdigest()


def prune(tree: ast.AST, documented: Collection[str] = ()) -> Pruned:
    """``tree`` as nested tuples: no positions, contexts, type comments, absent or empty fields, nor plain docstrings.

    Constants carry their type, so that ``1``, ``True`` and ``1.0`` differ.
    """
    if isinstance(tree, ast.Constant):
        return ("Constant", *_constant(tree.value))
    pruned: list[Pruned | str] = [type(tree).__name__]
    for field in _fields(type(tree).__name__):
        value: Any = getattr(tree, field, None)
        if field == "body" and (doc := _docstring(tree)) is not None:
            value = value[1:]
            if _is_documented(tree, documented):
                pruned.append(("doc", doc))
        elif field == "values" and type(tree).__name__ in ("JoinedStr", "TemplateStr"):
            value = _pieces(value)
        elif field == "format_spec" and value is not None and not _pieces([value]):
            continue  # `f"{x:}"` has an empty one in some versions
        if value is None or value == []:
            continue
        pruned.append((field, _field(value, documented)))
    return tuple(pruned)


@cache
def _fields(node_type: str) -> tuple[str, ...]:
    # Sorted: the order in which a Python version declares them must not matter.
    return tuple(sorted(f for f in getattr(ast, node_type)._fields if f not in _IGNORED_FIELDS))


def _field(value: object, documented: Collection[str]) -> Pruned | str | int | None:
    if isinstance(value, ast.AST):
        return prune(value, documented)
    if isinstance(value, list):
        # An absent element has a meaning: `{**a}` has a key None.
        return tuple([_field(item, documented) for item in value])
    if isinstance(value, str | int):
        return value
    return None


def _constant(value: object) -> tuple[str, str]:
    kind = type(value).__name__
    if isinstance(value, bool) or value is None or value is Ellipsis:
        return kind, repr(value)
    if isinstance(value, int):
        return kind, hex(value)  # decimal digits are limited to 4300
    if isinstance(value, float):
        return kind, value.hex()
    if isinstance(value, complex):
        return kind, f"{value.real.hex()},{value.imag.hex()}"
    if isinstance(value, bytes):
        return kind, value.hex()
    return kind, str(value)


def _docstring(tree: ast.AST) -> str | None:
    if not isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return None  # a string at the top of a cell is its output, not a docstring
    first = tree.body[0] if tree.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return inspect.cleandoc(first.value.value)
    return None


def _is_documented(tree: ast.AST, documented: Collection[str]) -> bool:
    if isinstance(tree, ast.ClassDef) and (tree.bases or tree.keywords):
        return True  # a model's docstring goes into its schema
    return bool(getattr(tree, "decorator_list", ())) or getattr(tree, "name", None) in documented


def _pieces(values: list[ast.expr]) -> list[ast.expr]:
    """Parts of an f-string as every version would have them: flat, adjacent text merged, no empty text."""
    flat: list[ast.expr] = []
    for value in values:
        parts = _pieces(value.values) if isinstance(value, ast.JoinedStr) else [value]
        for part in parts:
            last = flat[-1] if flat else None
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                if not part.value:
                    continue
                if isinstance(last, ast.Constant) and isinstance(last.value, str):
                    flat[-1] = ast.Constant(last.value + part.value)
                    continue
            flat.append(part)
    return flat


def _encode(pruned: Pruned) -> bytes:
    """Bytes that differ for different tuples: every string carries its length. Iterative, for deep trees."""
    out: list[bytes] = []
    stack: list[Any] = [pruned]
    close = object()
    while stack:
        item = stack.pop()
        if item is close:
            out.append(b")")
        elif isinstance(item, tuple):
            out.append(b"(")
            stack.append(close)
            stack.extend(reversed(item))
        elif isinstance(item, str):
            data = item.encode("utf-8", "surrogatepass")
            out.append(b"s%d:%b" % (len(data), data))
        else:
            out.append(b"n" if item is None else b"i%d;" % item)
    return b"".join(out)
