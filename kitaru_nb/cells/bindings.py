"""What a cell is known to have bound at one point, and the record of what it reads, binds and deletes on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kitaru_nb.cells.scopes import mangled

# In `State.pending`: what functions read that a decorator (`@agent.tool`) may have handed to anybody.
_REGISTERED = ""


@dataclass(slots=True)
class State:
    """What is known at one point.

    Attributes:
        bound: names surely bound by this cell.
        gone: names surely deleted.
        pending: functions that a name may hold → names which calling them reads.
        local: names surely bound in the class body that is being walked; None outside of one.
        dead: this point is never reached.
    """

    bound: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    pending: dict[str, frozenset[str]] = field(default_factory=dict)
    local: set[str] | None = None
    dead: bool = False

    def copy(self) -> State:
        local = None if self.local is None else set(self.local)
        return State(set(self.bound), set(self.gone), dict(self.pending), local, self.dead)

    def join(self, other: State) -> State:
        """What holds where two paths meet."""
        if self.dead or other.dead:
            return (other if self.dead else self).copy()
        pending = {n: self.pending.get(n, frozenset()) | free for n, free in other.pending.items()}
        local = None if self.local is None or other.local is None else self.local & other.local
        return State(self.bound & other.bound, self.gone & other.gone, self.pending | pending, local)


class Bindings:
    """The record of one walk through a cell.

    Attributes:
        reads: names taken from outside on some path; builtins and history among them.
        writes: names bound on some path, in order of first binding → whether a statement binds them itself; else only a
            function does that declares them ``global``, when it is called.
        deletes: names deleted on some path.
        passed: names used other than by calling them.
        state: what holds now; its ``pending`` are the functions and classes that the cell has made.
    """

    def __init__(self) -> None:
        self.state = State()
        self.reads: set[str] = set()
        self.writes: dict[str, bool] = {}
        self.deletes: set[str] = set()
        self.passed: set[str] = set()
        self.decorating = False
        self.of_class = ""
        self.class_reads: set[str] = set()  # names that the methods of the class being walked read
        self.raising: list[State] = []  # for each enclosing `try`: what holds wherever its body may fail

    def finish(self) -> dict[str, frozenset[str]]:
        """End the walk: registered functions may be called from now on. Returns name → what calling it reads."""
        self.call_registered()
        return {name: reads for name, reads in self.state.pending.items() if name != _REGISTERED}

    def load(self, name: str, *, called: bool = False) -> None:
        name = mangled(name, self.of_class)
        if self.state.local is not None and name in self.state.local:
            self.load_module(self.class_reads)
        else:
            self.load_module([name])
            if not called:
                self.passed.add(name)

    def load_module(self, names: Iterable[str]) -> None:
        """Read names from the module, and all that is read by calling the functions which they may hold."""
        seen: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in seen or self.state.dead:
                continue
            seen.add(name)
            if name not in self.state.bound:
                self.reads.add(name)
            waiting += self.state.pending.get(name, ())

    def bind(self, name: str, reads: frozenset[str] | None = None) -> None:
        """Bind a name; ``reads`` are the names that calling the bound function reads."""
        name = mangled(name, self.of_class)
        if self.state.dead:
            return
        if self.state.local is not None:
            self.state.local.add(name)
            self.class_reads |= reads or set()
            return
        self.writes[name] = True
        self.state.bound.add(name)
        self.state.gone.discard(name)
        self.state.pending.pop(name, None)
        if reads is not None:
            self.state.pending[name] = reads
        for state in self.raising:
            state.gone.discard(name)
            if reads is not None:
                state.pending[name] = state.pending.get(name, frozenset()) | reads

    def register(self, reads: frozenset[str]) -> None:
        for state in (self.state, *self.raising):
            state.pending[_REGISTERED] = state.pending.get(_REGISTERED, frozenset()) | reads

    def call_registered(self) -> None:
        if not self.decorating:
            self.load_module(self.state.pending.get(_REGISTERED, ()))

    def may_bind(self, names: Iterable[str]) -> None:
        """Names that something else may bind, now or later."""
        for name in names:
            self.writes.setdefault(name, False)

    def unbind(self, name: str) -> None:
        name = mangled(name, self.of_class)
        if self.state.dead:
            return
        if self.state.local is not None:
            self.state.local.discard(name)
            return
        self.deletes.add(name)
        self.state.bound.discard(name)
        self.state.gone.add(name)
        for state in self.raising:
            state.bound.discard(name)
