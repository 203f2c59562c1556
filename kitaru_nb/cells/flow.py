"""Definite assignment over the statements of a cell: which names are surely bound at each point.

`Flow` walks the syntax tree in the order in which Python evaluates it, and joins the states of branches.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from kitaru_nb.cells.bindings import Bindings, State
from kitaru_nb.cells.magics import OWN_SCOPE, is_magic_call
from kitaru_nb.cells.scopes import (
    Comprehension,
    FunctionNode,
    annotations_of,
    names_of,
    outer_expressions,
    type_parameters,
)

# Context managers known to swallow errors: what is bound inside may be missing after them.
_SUPPRESSING = frozenset({"suppress", "raises", "assertRaises", "warns"})


# Decorators that hand the function to nobody: it is called by its name, or not at all.
_KEEPING = frozenset(
    {"dataclass", "staticmethod", "classmethod", "property", "wraps", "cache", "lru_cache", "cached_property"}
    | {"contextmanager", "asynccontextmanager", "overload", "override", "final", "abstractmethod", "total_ordering"}
    | {"checkpoint", "flow", "function_tool"}
)


@dataclass(slots=True)
class _Loop:
    breaks: list[State] = field(default_factory=list)
    continues: list[State] = field(default_factory=list)


class Flow(Bindings, ast.NodeVisitor):
    """One walk through a cell, in the order of evaluation.

    Attributes:
        imports: modules imported, ``.x`` for relative ones; ``star_imports`` those of ``import *``.
        awaits: whether it awaits outside of functions.
    """

    def __init__(self, *, future_annotations: bool) -> None:
        super().__init__()
        self.future_annotations = future_annotations
        self.star_imports: list[str] = []
        self.imports: list[str] = []
        self.awaits = False
        self._loops: list[_Loop] = []

    def run(self, statements: Sequence[ast.AST]) -> None:
        """Walk ``statements``; what follows a `raise` or `break` isn't reached and reads nothing."""
        for statement in statements:
            self.visit(statement)

    def _branch(self, start: State, statements: Sequence[ast.AST]) -> State:
        self.state = start.copy()
        self.run(statements)
        return self.state

    # expressions

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.load(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        else:
            self.load(node.id, called=True)
            self.unbind(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        if is_magic_call(node):
            return
        if isinstance(node.func, ast.Name):
            self.load(node.func.id, called=True)
        else:
            self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            self.visit(keyword.value)
        self.call_registered()

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.bind(node.target.id)

    def _maybe(self, *nodes: ast.AST) -> None:
        """Expressions that may not be evaluated."""
        before = self.state.copy()
        for node in nodes:
            self.visit(node)
        self.state = before.join(self.state)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._maybe(*node.values[1:])

    def visit_Compare(self, node: ast.Compare) -> None:
        self.visit(node.left)
        self.visit(node.comparators[0])
        self._maybe(*node.comparators[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        before = self.state
        then = self._branch(before, [node.body])
        self.state = then.join(self._branch(before, [node.orelse]))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        # It may be called at once, as in `sorted(xs, key=lambda x: weight[x])`.
        self.load_module(self._function_reads(node))

    def _comprehension(self, node: Comprehension) -> None:
        self.visit(node.generators[0].iter)
        names = names_of(node, of_class=self.of_class)
        self.passed |= names.passed
        self.load_module(names.reads)
        self.may_bind(names.leaks)
        self.may_bind(names.stores)
        awaits = any(isinstance(inner, ast.Await) for inner in ast.walk(node))
        runs_here = not isinstance(node, ast.GeneratorExp)
        self.awaits |= runs_here and (awaits or any(g.is_async for g in node.generators))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_Await(self, node: ast.Await) -> None:
        self.awaits = True
        self.visit(node.value)

    # definitions

    def _function_reads(self, node: FunctionNode) -> frozenset[str]:
        self._outer(node, set())
        names = names_of(node, of_class=self.of_class)
        self.passed |= names.passed
        self.may_bind(names.stores)
        return names.reads

    def _outer(self, node: FunctionNode | ast.ClassDef, hidden: set[str]) -> None:
        # Applying a decorator calls no other function that was registered before.
        self.decorating = True
        for expression in outer_expressions(node):
            if hidden:
                self.load_module({n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - hidden)
            else:
                self.visit(expression)
        self.decorating = False

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, reads: frozenset[str]) -> None:
        if any(_last_name(decorator) not in _KEEPING for decorator in node.decorator_list):
            self.register(reads)
        self.bind(node.name, reads)

    def _annotations(self, expressions: Sequence[ast.expr], hidden: set[str]) -> frozenset[str]:
        """Evaluate annotations; under ``from __future__ import annotations`` they are only remembered."""
        later: set[str] = set()
        for expression in expressions:
            if self.future_annotations or hidden:
                later |= {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - hidden
            else:
                self.visit(expression)
        if not self.future_annotations:
            self.load_module(later)
            later.clear()
        return frozenset(later)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        later = self._annotations(annotations_of(node), type_parameters(node))
        reads = self._function_reads(node)
        if node.name == OWN_SCOPE:
            self.load_module(reads)
        else:
            self._define(node, reads | later)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        hidden = type_parameters(node)
        self._outer(node, hidden)
        outer = self.of_class, self.class_reads, self.state.local
        # Python hides names of an enclosing class from the inner one too. Type parameters are visible in the body.
        self.of_class, self.class_reads, self.state.local = node.name, set(), set(hidden)
        self.run(node.body)
        reads = frozenset(self.class_reads) - hidden
        self.of_class, self.class_reads, self.state.local = outer
        self._define(node, reads)

    def visit_TypeAlias(self, node: ast.AST) -> None:
        inner = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}  # type: ignore[attr-defined]
        self.bind(node.name.id, frozenset(inner - type_parameters(node)))  # type: ignore[attr-defined]

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imports.append(alias.name)
            self.bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self.imports.append(module)
        for alias in node.names:
            if alias.name == "*":
                self.star_imports.append(module)
            else:
                self.bind(alias.asname or alias.name)

    # statements

    def visit_Global(self, node: ast.Global) -> None:
        self.may_bind(node.names)  # only inside a class does it change anything

    def visit_Assign(self, node: ast.Assign) -> None:
        only = node.targets[0] if len(node.targets) == 1 else None
        if isinstance(node.value, ast.Lambda) and isinstance(only, ast.Name):
            self.bind(only.id, self._function_reads(node.value))
            return
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.load(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        later = self._annotations([node.annotation], set())
        if self.state.local is not None:
            self.class_reads |= later
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before = self.state
        then = self._branch(before, node.body)
        self.state = then.join(self._branch(before, node.orelse))

    def visit_While(self, node: ast.While) -> None:
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._loop(node, [node.test], [], endless=endless)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.awaits |= isinstance(node, ast.AsyncFor)
        self.visit(node.iter)
        self._loop(node, [], [node.target], endless=False)

    visit_AsyncFor = visit_For

    def _loop(
        self, node: ast.While | ast.For | ast.AsyncFor, test: list[ast.expr], target: list[ast.expr], *, endless: bool
    ) -> None:
        start = self.state
        while True:
            loop = _Loop()
            self._loops.append(loop)
            self.state = start.copy()
            for expression in test:
                self.visit(expression)
            tested = self.state.copy()
            for expression in target:
                self.visit(expression)
            self.run(node.body)
            self._loops.pop()
            again = start
            for back in (self.state, *loop.continues):
                again = again.join(back)
            if again == start:
                break
            start = again  # fewer names bound, or more functions known: once more
        tested.dead = tested.dead or endless
        self.state = self._branch(tested, node.orelse)
        for broken in loop.breaks:
            self.state = self.state.join(broken)

    def visit_Break(self, node: ast.Break) -> None:
        if self._loops:
            self._loops[-1].breaks.append(self.state.copy())
        self.state.dead = True

    def visit_Continue(self, node: ast.Continue) -> None:
        if self._loops:
            self._loops[-1].continues.append(self.state.copy())
        self.state.dead = True

    def visit_Raise(self, node: ast.Raise) -> None:
        self.generic_visit(node)
        self.state.dead = True

    def visit_Return(self, node: ast.Return) -> None:
        self.generic_visit(node)
        self.state.dead = True

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)
        if node.msg is not None:
            after = self.state.copy()
            self.visit(node.msg)
            self.state = after

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        self.awaits |= isinstance(node, ast.AsyncWith)
        swallows = False
        for item in node.items:
            self.visit(item.context_expr)
            swallows |= _last_name(item.context_expr) in _SUPPRESSING
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
        failed = self._guarded(node.body)
        if swallows:
            self.state = self.state.join(failed)

    visit_AsyncWith = visit_With

    def _guarded(self, statements: Sequence[ast.AST]) -> State:
        """Run statements; return what holds when any of them fails."""
        failed = self.state.copy()
        self.raising.append(failed)
        self.run(statements)
        self.raising.pop()
        return failed

    def visit_Try(self, node: ast.Try) -> None:
        before = self.state.copy()
        failed = self._guarded(node.body)
        unfinished = [failed, self._guarded(node.orelse)]
        ends = [self.state]
        for handler in node.handlers:
            self.state = failed.copy()
            unfinished.append(self._guarded([handler]))
            ends.append(self.state)
        if node.finalbody:
            # Reached from anywhere: first for what it reads then, once more for what holds after it.
            self.state = before
            for state in unfinished:
                self.state = self.state.join(state)
            self.run(node.finalbody)
        self.state = ends[0]
        for end in ends[1:]:
            self.state = self.state.join(end)
        self.run(node.finalbody)

    visit_TryStar = visit_Try  # type: ignore[assignment]

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bind(node.name)
        self.run(node.body)
        if node.name:
            self.unbind(node.name)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        ends: list[State] = []
        for case in node.cases:
            before = self.state.copy()
            self.visit(case.pattern)
            if case.guard is not None:
                self.visit(case.guard)
            always = _always_matches(case.pattern)  # then only the guard can have failed
            missed = self.state.copy() if always else before.join(self.state)
            self.run(case.body)
            ends.append(self.state)
            self.state = missed
            self.state.dead |= case.guard is None and always
        for end in ends:
            self.state = self.state.join(end)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.generic_visit(node)
        if node.name:
            self.bind(node.name)

    visit_MatchStar = visit_MatchAs

    def visit_MatchOr(self, node: ast.MatchOr) -> None:
        before = self.state
        ends = []
        for pattern in node.patterns:
            self.state = before.copy()
            self.visit(pattern)
            ends.append(self.state)
        for end in ends:
            self.state = self.state.join(end)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            self.bind(node.rest)


def _always_matches(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchOr):
        return any(_always_matches(p) for p in pattern.patterns)
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _always_matches(pattern.pattern))


def _last_name(expression: ast.expr) -> str | None:
    """``c`` of ``a.b.c`` and of ``a.b.c(…)``."""
    named = expression.func if isinstance(expression, ast.Call) else expression
    return named.attr if isinstance(named, ast.Attribute) else getattr(named, "id", None)
