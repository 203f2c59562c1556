from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator

import pytest

from kitaru_nb.cells.analysis import BUILTINS, analyse, defined_names, definitions, recreated_names
from kitaru_nb.cells.scopes import names_of

from .cases import CASES, IPYTHON, Case

IDS = [c.body.replace("\n", " | ") for c in CASES]
EXECUTABLE = [c for c in CASES if c.run and c not in IPYTHON]


def test_the_table_is_worth_its_name() -> None:
    assert len(CASES) >= 120
    assert len(EXECUTABLE) >= 120


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_cell_reads_writes_and_deletes_what_the_table_says(case: Case) -> None:
    found = analyse(case.body)
    assert " ".join(sorted(found.reads)) == case.reads
    assert " ".join(sorted(found.writes)) == case.writes
    assert " ".join(sorted(found.deletes)) == case.deletes


@pytest.mark.parametrize("case", [c for c in CASES if c.flags], ids=lambda c: c.body.replace("\n", " | "))
def test_a_cell_has_the_flags_that_the_table_says(case: Case) -> None:
    found = analyse(case.body)
    for name, expected in case.flags.items():
        value = getattr(found, name)
        assert (" ".join(sorted(value)) if isinstance(expected, str) else value) == expected, name


class Anything:
    """Stands for any value: can be called, indexed, iterated (two elements), entered, compared and computed with."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        if len(args) == 1 and callable(args[0]) and not isinstance(args[0], Anything):
            return args[0]  # as a decorator
        return self

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __iter__(self) -> Iterator[Anything]:
        return iter([self, self])

    def keys(self) -> list[str]:
        return ["key"]

    def __enter__(self) -> Anything:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getitem__(self, _: object) -> Anything:
        return self

    def __setitem__(self, _: object, value: object) -> None: ...

    def __delitem__(self, _: object) -> None: ...

    def __delattr__(self, _: str) -> None: ...

    def __add__(self, _: object) -> Anything:
        return self

    __radd__ = __sub__ = __mul__ = __neg__ = __add__

    def __lt__(self, _: object) -> bool:
        return True

    __gt__ = __contains__ = __lt__

    def __format__(self, _: str) -> str:
        return ""

    def __len__(self) -> int:
        return 2


class AnError(Exception):
    """Stands for names of exceptions."""


class Recorder(dict[str, object]):
    """The names of a running cell: notes what is fetched from outside before the cell bound it."""

    def __init__(self, outside: dict[str, object]) -> None:
        super().__init__()
        self.outside = outside
        self.fetched: set[str] = set()
        self.bound: set[str] = set()
        self.deleted: set[str] = set()

    def __missing__(self, name: str) -> object:
        if name in self.outside and name not in self.deleted:
            self.fetched.add(name)
            return self.outside[name]
        raise KeyError(name)

    def __setitem__(self, name: str, value: object) -> None:
        self.bound.add(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self.deleted.add(name)
        self.pop(name, None)


def stand_in(name: str) -> object:
    if name in ("E", "A", "B"):
        return type(name, (AnError,), {})
    return type(name, (), {}) if name in ("Base", "T", "Model") else Anything()


@pytest.mark.parametrize("case", EXECUTABLE, ids=lambda c: c.body.replace("\n", " | "))
def test_a_cell_that_runs_fetches_only_reads_and_leaves_only_writes(case: Case) -> None:
    """The table against Python itself: the cell gets values for its reads and for nothing else."""
    found = analyse(case.body)
    names = Recorder({name: stand_in(name) for name in found.reads})
    # Functions look into the globals, top-level code into the recorder first.
    scope: dict[str, object] = {**names.outside, "__builtins__": builtins, "__name__": "cell", "__file__": "cell.py"}
    missed = None
    try:
        exec(compile(case.body, "<cell>", "exec"), scope, names)
    except NameError as error:
        missed = error.name
    # A function can't see the recorder; it may miss only what the cell bound there.
    assert missed is None or missed in names.bound
    assert names.fetched - {"__name__", "__file__"} <= found.reads
    assert names.bound - {"__annotations__"} <= found.writes
    assert names.deleted <= found.deletes


def test_builtins_are_inputs_only_when_the_namespace_shadows_them() -> None:
    found = analyse("xs = list(ys)\n!cat {path} {missing}")
    assert found.inputs({"print": 1}) == ("ys",)
    assert found.inputs({"list": 1, "path": "p"}) == ("list", "path", "ys")


def test_one_digest_for_all_layouts_and_another_for_another_program() -> None:
    assert analyse("x = 1  # one").digest == analyse("\n\nx = (1)").digest
    assert analyse("%time x = 1").digest != analyse("x = 1").digest
    assert analyse("%%time\nx = 1 # a").digest == analyse("%%time\n\nx=1").digest


def test_a_cell_that_is_no_python_raises_at_its_own_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        analyse("\n%time x = 1\ny = = 2\n")
    assert caught.value.lineno == 3


FUNCTION_SOURCES = [c.body for c in CASES if "def " in c.body and "deferred" in c.flags and c not in IPYTHON]


@pytest.mark.parametrize("source", FUNCTION_SOURCES, ids=lambda s: s.replace("\n", " | "))
def test_free_names_of_functions_are_those_that_python_resolves_globally(source: str) -> None:
    definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    node = next(n for n in ast.parse(source).body if isinstance(n, definition))
    table = next(t for t in symtable.symtable(source, "cell", "exec").get_children() if t.get_name() == node.name)

    def used(t: symtable.SymbolTable) -> set[str]:
        own = {s.get_name() for s in t.get_symbols() if s.is_global() and s.is_referenced()}
        return own.union(*(used(child) for child in t.get_children()))

    hints = [n.annotation for n in ast.walk(node) if isinstance(n, ast.AnnAssign)]
    never_evaluated = {h.id for h in hints if isinstance(h, ast.Name)}
    assert names_of(node).reads - BUILTINS == used(table) - BUILTINS - never_evaluated


def restored(body: str) -> tuple[str, tuple[str, ...]]:
    module = definitions(body)
    compile(ast.fix_missing_locations(module), "<definitions>", "exec")
    return ast.unparse(module), defined_names(module)


def test_definitions_are_imports_functions_classes_and_lambdas_in_order() -> None:
    text, names = restored("""
import numpy as np
x = np.ones(3)
def f(a=1): return a
class C: pass
async def g(): ...
h = lambda a: x
print(f(x))
P = namedtuple('P', 'a b')
from json import loads
""")
    assert names == ("np", "f", "C", "g", "h", "P", "loads")
    assert "ones" not in text
    assert "print" not in text


def test_definitions_inside_try_and_type_checking_are_kept() -> None:
    text, names = restored("""
import sys
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
if sys.version_info >= (3, 12):
    from a import b
else:
    from c import b
try:
    import fast as impl
except ImportError:
    impl = None
    print("slow")
""")
    assert names == ("sys", "TYPE_CHECKING", "pandas", "b", "impl")
    assert "impl = None" in text
    assert "slow" not in text


def test_definitions_that_need_computed_values_are_left_out() -> None:
    _, names = restored("""
agent = Agent()
size = 3
@agent.tool
def search(): ...
def scale(n=size): ...
def plain(): return size
if size:
    def maybe(): ...
class Kept: pass
class Child(Kept): pass
""")
    assert names == ("plain", "Kept", "Child")


def test_definitions_inside_a_timed_cell_are_found() -> None:
    assert restored("%%time\nimport json\ndef f(): ...\nx = f()")[1] == ("json", "f")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("def f(): ...\nx = f()", "f"),
        ("def f(): ...\nf = 1", ""),
        ("def f(): ...\nfor f in xs: ...", ""),
        ("def add():\n    global total\n    total = 1\nadd()", "add"),
        ("def f(): ...\ndef g():\n    global f\n    f = 1\ng()", "g"),
        ("class C:\n    def m(self):\n        global n\n        n = 1\nC().m()", "C"),
        ("n = 0\ndef add():\n    global n\n    n += 1\n@wraps(n)\ndef last(): ...", "add"),
    ],
)
def test_only_what_definitions_themselves_bind_is_made_again_by_running_them(body: str, names: str) -> None:
    assert recreated_names(body) == frozenset(names.split())
