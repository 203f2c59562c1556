from __future__ import annotations

from kitaru_nb.cells.analysis import analyse
from kitaru_nb.cells.graph import CellGraph, Edge, Undefined
from kitaru_nb.cells.source import read_cell


def graph(*sources: str) -> CellGraph:
    """A notebook whose cells have the ids a, b, c …"""
    cells = [(chr(97 + number), read_cell(source)) for number, source in enumerate(sources)]
    return CellGraph([(cell_id, cell, analyse(cell.body)) for cell_id, cell in cells])


def arrows(found: CellGraph) -> list[str]:
    return [f"{e.producer}-{e.variable}->{e.consumer}" for e in found.edges()]


def test_an_edge_comes_from_the_last_writer_above() -> None:
    found = graph("x = 1", "x = 2", "y = x", "x = 3")
    assert found.edges() == (Edge("b", "c", "x"),)


def test_a_writer_on_some_path_does_not_hide_the_one_above() -> None:
    assert arrows(graph("x = 1", "if c:\n    x = 2", "print(x)")) == ["a-x->c", "b-x->c"]


def test_a_cell_that_changes_a_name_is_in_the_middle() -> None:
    assert arrows(graph("n = 1", "n += 1", "n")) == ["a-n->b", "b-n->c"]


def test_upstream_and_downstream_are_transitive_and_in_order() -> None:
    found = graph("a = 1", "b = a", "z = 0", "c = b", "d = c + z")
    assert found.upstream("d") == ("a", "b")
    assert found.upstream("e") == ("a", "b", "c", "d")
    assert found.downstream("a") == ("b", "d", "e")
    assert found.downstream("e") == ()
    assert found.upstream("unknown") == ()


def test_a_call_needs_what_the_function_above_reads_at_the_place_of_the_call() -> None:
    found = graph("def f():\n    return g() + K", "def g():\n    return L", "K = 1\nL = 2", "f()")
    assert arrows(found) == ["c-K->d", "c-L->d", "a-f->d", "b-g->d"]
    assert found.undefined() == ()


def test_an_undefined_name_is_told_with_its_cell() -> None:
    found = graph("x = 1", "y = x + z", "z = 2")
    assert found.undefined() == (Undefined("z", "b", 2),)


def test_a_function_that_misses_a_name_is_told_where_it_is_called() -> None:
    assert graph("def f():\n    return K", "f()").undefined() == (Undefined("K", "b", 2),)


def test_a_deleted_name_is_undefined_below_and_told_by_whom() -> None:
    assert graph("x = 1", "del x", "x").undefined() == (Undefined("x", "c", 3, removed_by=2),)
    assert graph("x = 1", "if c:\n    del x", "x").undefined() == (Undefined("c", "b", 2),)


def test_an_exception_name_is_gone_after_its_handler() -> None:
    found = graph("try:\n    f = 1\nexcept OSError as e:\n    pass", "print(e)")
    assert arrows(found) == ["a-e->b"]  # it may be there when nothing was raised and it was there before


def test_builtins_are_defined_until_a_cell_shadows_them() -> None:
    assert graph("print(len([]))").undefined() == ()
    assert arrows(graph("list = 1", "list")) == ["a-list->b"]


def test_below_a_cell_that_defines_names_unseen_nothing_is_undefined() -> None:
    for source in ("from math import *", "exec(code)", "%run setup.py"):
        found = graph("code = 1", source, "sqrt(2)")
        assert found.undefined() == ()


def test_declared_inputs_and_conditions_make_the_edges_of_a_checkpoint() -> None:
    found = graph("a = 1\nb = 2\nflag = 1", "%%checkpoint s --in a --if flag > 0\nprint(a, b)")
    assert arrows(found) == ["a-a->b", "a-flag->b"]


def test_shell_names_are_edges_only_when_a_cell_defines_them() -> None:
    found = graph("path = 1", "!ls {path} $HOME")
    assert arrows(found) == ["a-path->b"]
    assert found.undefined() == ()
