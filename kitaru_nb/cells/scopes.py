"""Names of one nested scope: what a function, lambda, comprehension or class takes from the scopes around it.

The rules are Python's own (a test compares them with `symtable`), except that annotations of local variables, which
are never evaluated, don't count.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TypeAlias

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(slots=True)
class Names:
    """What one scope needs from outside, and does to it.

    Attributes:
        free: names that the enclosing scope resolves.
        module: names declared ``global``, which only the module resolves.
        stores: names declared ``global`` that it may bind or delete.
        passed: those of ``free`` and ``module`` that are used other than by calling them.
        leaks: names that a walrus inside a comprehension binds in the scope around it.
    """

    free: set[str] = field(default_factory=set)
    module: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    leaks: set[str] = field(default_factory=set)

    @property
    def reads(self) -> frozenset[str]:
        """All names that it may take from the module or from scopes around it."""
        return frozenset(self.free | self.module)


def names_of(node: FunctionNode | Comprehension | ast.ClassDef, *, of_class: str = "") -> Names:
    """Names of the scope that ``node`` opens.

    What is evaluated outside of it (defaults, decorators, annotations, bases, a comprehension's first iterable) is not
    included. ``of_class`` is the class around it, for the mangling of ``__private`` names.
    """
    if isinstance(node, ast.ClassDef):
        scope = _Scope(node.name, is_class=True)
        scope.visit_all(node.body)
    elif isinstance(node, Comprehension):
        scope = _Scope(of_class, is_comprehension=True)
        scope.comprehension(node)
    else:
        scope = _Scope(of_class)
        scope.parameters(node.args)
        scope.visit_all([node.body] if isinstance(node, ast.Lambda) else node.body)
    names = scope.resolved()
    names.free -= type_parameters(node)
    return names


def mangled(name: str, of_class: str) -> str:
    """``name`` as Python spells it inside the class ``of_class``: ``__x`` is ``_Class__x``."""
    if not of_class.strip("_") or not name.startswith("__") or name.endswith("__"):
        return name
    return f"_{of_class.lstrip('_')}{name}"


def type_parameters(node: ast.AST) -> set[str]:
    """Names of the type parameters of a generic function, class or alias (Python 3.12)."""
    return {parameter.name for parameter in getattr(node, "type_params", ())}


def arguments_of(args: ast.arguments) -> list[ast.arg]:
    """All parameters, in the order of the signature."""
    stars = [a for a in (args.vararg, args.kwarg) if a is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *stars]


def outer_expressions(node: FunctionNode | ast.ClassDef) -> list[ast.expr]:
    """What the definition evaluates in the scope around it, annotations left out."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *(k.value for k in node.keywords)]
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return [*decorators, *node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]


def annotations_of(node: FunctionNode) -> list[ast.expr]:
    """Annotations of the parameters and of the result."""
    found = [a.annotation for a in arguments_of(node.args)]
    returns = None if isinstance(node, ast.Lambda) else node.returns
    return [a for a in (*found, returns) if a is not None]


class _Scope(ast.NodeVisitor):
    """One scope while its names are collected."""

    def __init__(self, of_class: str, *, is_class: bool = False, is_comprehension: bool = False) -> None:
        self.of_class = of_class
        self.is_class = is_class
        self.is_comprehension = is_comprehension
        self.loads: set[str] = set()
        self.locals: set[str] = set()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.deleted: set[str] = set()
        self.found = Names()

    def resolved(self) -> Names:
        own = self.locals - self.globals - self.nonlocals
        # Functions inside a class don't see its names: `loads` of a class were checked one by one.
        needed = self.loads if self.is_class else (self.loads | self.found.free) - own
        free = needed | self.found.free if self.is_class else needed
        names = self.found
        names.free = {n for n in free if n not in self.globals}
        names.module |= free & self.globals
        names.stores |= self.locals & self.globals
        names.passed &= names.free | names.module
        return names

    def visit_all(self, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def load(self, name: str, *, called: bool = False) -> None:
        name = mangled(name, self.of_class)
        if name == "__class__" and self.of_class:
            return
        # In evaluation order: a class reads outwards, and a comprehension around itself, what it hasn't bound yet.
        bound = self.locals if self.is_class else self.found.leaks
        if name not in bound or name in self.globals:
            self.loads.add(name)
            if not called:
                self.found.passed.add(name)

    def store(self, name: str) -> None:
        self.locals.add(mangled(name, self.of_class))

    def inner(self, names: Names) -> None:
        """Add what a scope inside this one needs."""
        self.found.free |= names.free
        self.found.module |= names.module
        self.found.stores |= names.stores
        self.found.passed |= names.passed
        for leak in names.leaks:
            self.leak(leak)

    def leak(self, name: str) -> None:
        if self.is_comprehension:
            self.found.leaks.add(name)
        else:
            self.locals.add(name)

    def parameters(self, args: ast.arguments) -> None:
        for argument in arguments_of(args):
            self.store(argument.arg)

    def comprehension(self, node: Comprehension) -> None:
        for number, generator in enumerate(node.generators):
            if number:
                self.visit(generator.iter)
            self.visit(generator.target)
            self.visit_all(generator.ifs)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.load(node.id)
        else:
            self.store(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            self.load(node.func.id, called=True)
        else:
            self.visit(node.func)
        self.visit_all(node.args)
        for keyword in node.keywords:
            self.visit(keyword.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.load(node.target.id)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        self.visit_all(node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if self.is_class:
            self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        if self.is_comprehension:
            self.leak(mangled(node.target.id, self.of_class))
        else:
            self.visit(node.target)

    def visit_Global(self, node: ast.Global) -> None:
        self.globals |= {mangled(n, self.of_class) for n in node.names}

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        found = {mangled(n, self.of_class) for n in node.names}
        self.nonlocals |= found
        self.loads |= found

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self.store(alias.asname or alias.name.partition(".")[0])

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.store(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.store(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.store(node.rest)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._function(node)
        self.store(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def _function(self, node: FunctionNode) -> None:
        self.visit_all(outer_expressions(node))
        self._without(type_parameters(node), annotations_of(node))
        self.inner(names_of(node, of_class=self.of_class))

    def _without(self, hidden: set[str], expressions: list[ast.expr]) -> None:
        before = set(self.loads)
        self.visit_all(expressions)
        self.loads -= hidden - before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._without(type_parameters(node), outer_expressions(node))
        self.inner(names_of(node))
        self.store(node.name)

    def visit_ListComp(self, node: Comprehension) -> None:
        self.visit(node.generators[0].iter)
        self.inner(names_of(node, of_class=self.of_class))

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_TypeAlias(self, node: ast.AST) -> None:
        self.visit(node.name)  # type: ignore[attr-defined]
        self._without(type_parameters(node), [node.value])  # type: ignore[attr-defined]
