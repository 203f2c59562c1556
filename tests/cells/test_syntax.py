from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaru_nb.cells.syntax import prune, source_digest

FROZEN = json.loads((Path(__file__).parent / "data" / "digests.json").read_text())


def test_there_are_enough_frozen_cells() -> None:
    assert len(FROZEN) >= 60


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda f: f["code"][:50])
def test_a_digest_is_the_one_that_every_python_version_gives(frozen: dict[str, str]) -> None:
    """Frozen on 3.11; a version of Python that disagrees would lose every recorded result."""
    assert source_digest(frozen["code"]) == frozen["digest"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x=1", "x = (1)  # one"),
        ("f(a,\n  b)", "f(a, b)"),
        ("x = 'a'", 'x = "a"'),
        ("x = u'a'", "x = 'a'"),
        ("x = 'a' 'b'", "x = 'ab'"),
        ("x = 16", "x = 0x10"),
        ("x = f'{a}'  'b'", "x = f'{a}b'"),
        ("with (open(a) as b, c):\n    pass", "with open(a) as b, c:\n    pass"),
        ("if a: b", "if a:\n\n    b"),
        ("def f():\n    'one'\n    return 1", "def f():\n    'two'\n    return 1"),
        ("class C:\n    'one'\n    x = 1", "class C:\n    x = 1"),
        ("@d\ndef f():\n    '''one\n    two'''", "@d\ndef f():\n    '''one\n        two\n    '''"),
        ("x = [] # type: list", "x = []"),
    ],
)
def test_layout_and_plain_docstrings_do_not_count(one: str, other: str) -> None:
    assert source_digest(one) == source_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = '61'", "x = b'a'"),
        ("x = None", "x = 'None'"),
        ("x = ...", "x = 'Ellipsis'"),
        ("x = {**a}", "x = {None: a}"),
        ("x: int", "(x): int"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("x = f'a'", "x = f'{a}'"),
        ("'shown'", "'other'"),
        ("def f(a, /): ...", "def f(a): ..."),
        ("def f(*, a, b=1): ...", "def f(*, a=1, b): ..."),
        ("from . import a", "from .. import a"),
        ("@d\ndef f():\n    'one'", "@d\ndef f():\n    'two'"),
        ("class C(Base):\n    'one'", "class C(Base):\n    'two'"),
        ("@d\ndef f():\n    'one'", "@d\ndef f(): ..."),
        ("f('a', 'b')", "f('a' 'b')"),
        ("x = ['ab', 'c']", "x = ['a', 'bc']"),
    ],
)
def test_what_a_program_means_counts(one: str, other: str) -> None:
    assert source_digest(one) != source_digest(other)


def test_the_docstring_of_a_named_function_counts_on_request() -> None:
    one, other = "def f():\n    'one'\n    return 1", "def f():\n    'two'\n    return 1"
    assert source_digest(one, {"f"}) != source_digest(other, {"f"})
    assert source_digest(one, {"g"}) == source_digest(other, {"g"})


def test_a_pruned_tree_is_plain_nested_tuples() -> None:
    assert prune(ast.parse("x = 1\n'doc'")) == (
        "Module",
        (
            "body",
            (
                ("Assign", ("targets", (("Name", ("id", "x")),)), ("value", ("Constant", "int", "0x1"))),
                ("Expr", ("value", ("Constant", "str", "doc"))),
            ),
        ),
    )


def test_a_long_sum_is_not_too_deep() -> None:
    assert len(source_digest(" + ".join(["x"] * 300))) == 64


@given(st.text(), st.text())
def test_two_strings_have_one_digest_only_if_they_are_equal(one: str, other: str) -> None:
    assert (source_digest(f"x = {one!r}") == source_digest(f"x = {other!r}")) == (one == other)


@given(st.one_of(st.integers(), st.floats(), st.binary(), st.booleans(), st.none()))
def test_a_constant_has_the_digest_of_its_own_text(value: object) -> None:
    code = f"x = {value!r}"
    assert source_digest(code) == source_digest(ast.unparse(ast.parse(code)))
