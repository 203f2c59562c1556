"""What keeps a notebook from being promoted, and what doesn't."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.core.runtime import default_runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.headless import run_notebook
from kitaru_nb.promote.checks import Evidence, Refused, absolute_paths
from tests.promote.conftest import Desk, code, text

LOAD = "%load_ext kitaru_nb"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["b = a + 1"], [(1, "no cell above defines a.")]),
        (["b = a + 1", "a = 1"], [(1, "a is defined below, in cell 2.")]),
        (["a = 1", "del a", "b = a"], [(3, "a is deleted by cell 2 above.")]),
        ([code("a = 1", "skip"), "b = a"], [(2, "a is defined only in cell 1, which is skipped.")]),
        (["#| eval: false\na = 1", "b = a"], [(2, "a is defined only in cell 1, which is skipped.")]),
        (["a = 1", "!ls"], [(2, "it runs a shell line.")]),
        (["files = !ls"], [(1, "it runs a shell line.")]),
        (["%%bash\nls"], [(1, "it runs a shell line.")]),
        (["%cd /"], [(1, "%cd changes the folder.")]),
        (["%run other.py"], [(1, "%run brings in names from another file.")]),
        (["a = 1\na", "b = _"], [(2, "_ is the history of this kernel.")]),
        (["x = open('/srv/ana/data.csv')"], [(1, "'/srv/ana/data.csv' is a path of this machine.")]),
        (
            ["x = 'C:\\\\Users\\\\ana\\\\data.csv'"],
            [(1, "'C:\\\\Users\\\\ana\\\\data.csv' is a path of this machine.")],
        ),
        (
            ["import no_such_module_here"],
            [(1, "it imports no_such_module_here, which is neither installed here nor beside the notebook.")],
        ),
        (
            ["%%checkpoint a --retries x\n1"],
            [
                (
                    1,
                    "it can't be read: The head of this checkpoint cell has --retries x; "
                    "expected a whole number, 0 or more.",
                )
            ],
        ),
        (["a = ("], [(1, "it can't be read: '(' was never closed (<unknown>, line 1)")]),
        ([], [(None, "the notebook has no code to promote.")]),
    ],
    ids=lambda value: None,
)
def test_what_is_refused(desk: Desk, tiny_lock: Any, cells: list[Any], expected: list[Any]) -> None:
    tiny_lock()
    assert desk.refusals(*cells) == expected


@pytest.mark.parametrize(
    "cells",
    [
        [code("a = 1", "parameters"), code("a = 2", "injected-parameters"), "b = a"],
        [code("a = 1", "hide-input", "step:first", "limit:gpu:1"), "b = a"],
        ["#| export\ndef f(): return 1", "f()"],
        [LOAD, "%matplotlib inline", "answer = %wait approve"],
        ["route = '/api/items'", "text = '/'", "url = 'https://example.org/a/b'", "null = open('/dev/null')"],
        ["x = open('/srv/ana/data.csv')  # kitaru: allow"],
        [code("path = '/data/in.csv'", "parameters"), "open(path)"],
        ["try:\n    import no_such_module_here\nexcept ImportError:\n    no_such_module_here = None"],
        ["from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import no_such_module_here"],
        [code("exploring = undefined_name", "skip"), "a = 1"],
        [code("!ls", "skip"), "a = 1"],
        ["def late():\n    return defined_below", "defined_below = 1", "late()"],
    ],
    ids=lambda value: None,
)
def test_what_is_not_refused(desk: Desk, tiny_lock: Any, cells: list[Any]) -> None:
    tiny_lock()
    assert desk.refusals(*cells) == []


def test_all_refusals_are_told_at_once_with_their_fixes(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    with pytest.raises(Refused) as refused:
        desk.snapshot("b = a", "!ls", "open('/srv/ana/x.csv')")
    shown = str(refused.value)
    assert shown.startswith(
        "brief.ipynb can't be promoted: 3 things to mend.\n  cell 1: no cell above defines a.\n    fix: "
    )
    assert "cell 2: it runs a shell line." in shown
    assert "cell 3: '/srv/ana/x.csv' is a path of this machine." in shown
    assert str(pickle.loads(pickle.dumps(refused.value))) == shown


# what ran


def test_cells_that_ran_out_of_order_are_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    cells = [code("a = 1", count=3), code("b = a", count=2)]
    assert desk.refusals(*cells) == [(2, "it ran before cell 1 above, not after it.")]


def test_a_cell_that_has_not_run_is_refused_only_above_one_that_has(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    assert desk.refusals(code("a = 1", count=1), code("b = a"), code("c = b", count=2)) == [
        (2, "it has not run, though cell 3 below has.")
    ]
    assert desk.refusals(code("a = 1", count=1), code("b = a", count=2), code("c = b")) == []
    assert desk.refusals("a = 1", "b = a") == []


def test_a_cell_that_was_edited_since_it_ran_is_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    evidence = Evidence({1: "a = 1", 2: "b = a  # the sum"})
    message = "it was edited since it ran, or is not saved."
    assert desk.refusals(code("a = 2", count=1), code("b = a", count=2), evidence=evidence) == [(1, message)]


def test_a_cell_that_was_saved_before_it_ran_again_is_not_edited(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    cells = [code("a = 2", count=1), code("b = a", count=2), code("%promote", count=3)]
    again = {1: "a = 1", 2: "b = a", 3: "%promote", 4: "a = 2", 5: "b = a", 6: "%promote"}
    assert desk.refusals(*cells, evidence=Evidence(again)) == []
    back = Evidence({1: "a = 2", 2: "b = a", 3: "a = 1"})  # ran as it is, then otherwise, and was changed back
    assert desk.refusals(code("a = 2", count=3), code("b = a", count=2), evidence=back) != []


def test_numbers_of_an_earlier_kernel_are_no_edits(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    cells = [code(LOAD, count=1), code("a = 1", count=2), code("%promote", count=9)]
    assert desk.refusals(*cells, evidence=Evidence({1: LOAD, 2: "%promote"})) == []


def test_comments_and_layout_are_no_edits(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    evidence = Evidence({1: "%%checkpoint one\na = 1", 2: "b=a"})
    cells = [code("%%checkpoint one\na = 1  # said better", count=1), code("b = a", count=2)]
    assert desk.refusals(*cells, evidence=evidence) == []


def test_the_value_of_a_deleted_cell_is_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    found = desk.refusals(code("b = a", count=2), evidence=Evidence({}, frozenset({"a"})))
    assert found == [(1, "a comes from a cell that was deleted or changed; only this kernel still has its value.")]


def run_here(desk: Desk, path: Path) -> str:
    """Run a notebook, as if a person had done so in its kernel."""
    runtime = default_runtime()
    outcome = run_notebook(runtime, path, {})
    runtime.journal.set_reference(f"notebook:{path}", outcome.exec_id, expected=None, by="ana")
    return outcome.exec_id


def test_the_journal_knows_checkpoints_that_were_edited_and_what_could_not_be_persisted(
    desk: Desk, tiny_lock: Any
) -> None:
    tiny_lock()
    first = [
        LOAD,
        "%%checkpoint one\na = 1\nfile = open('brief.ipynb')",
        "%%checkpoint two\nb = a + len(file.read()) * 0",
    ]
    run_here(desk, desk.write(*first))
    counted = [code(source, count=number) for number, source in enumerate(first, 1)]
    assert [(cell, message.partition(":")[0]) for cell, message in desk.refusals(*counted)] == [
        (2, "file can't be persisted, and cell 3 reads it")
    ]
    counted[1] = code("%%checkpoint one\na = 2\nfile = 1", count=2)
    assert (2, "it was edited since it ran, or is not saved.") in desk.refusals(*counted)
    gone = [code("c = a", count=1)]
    assert desk.refusals(*gone)[0][1].startswith("a comes from a cell that was deleted")


# files beside the notebook


def test_modules_and_files_that_travel_are_checked_too(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    desk.file(
        "helper.py",
        "KEY = 'sk-proj-abcdefghijklmnopqrstuvwx'\nPLACE = open('/srv/ana/x')\nimport no_such_module_here\n",
    )
    found = desk.refusals("import helper")
    assert [message.partition(" (")[0] for _, message in found] == [
        "helper.py imports no_such_module_here, which is neither installed here nor beside the notebook.",
        "helper.py, line 1 holds an OpenAI key",
        "helper.py, line 2: '/srv/ana/x' is a path of this machine.",
    ]


def test_a_file_outside_of_the_folder_is_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    (desk.folder.parent / "data.csv").write_text("a")
    assert desk.refusals("open('../data.csv')") == [(1, "'../data.csv' lies outside of the notebook's folder.")]


def test_a_name_that_can_not_be_is_refused(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    path = desk.write("a = 1", name="my brief.ipynb")
    with pytest.raises(KitaruUsageError, match="'my brief' can't be the name of a flow") as error:
        desk.client.deployments.create(path)
    assert error.value.fix.startswith("%promote my_brief")
    assert desk.client.deployments.create(path, name="brief").flow == "brief"


def test_secrets_in_text_cells_are_found_and_those_in_skipped_cells_do_not_travel(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    key = "ghp_" + "a1B2" * 9
    assert desk.refusals(text(f"use {key}"), "a = 1") == [(None, "text cell 1, line 1 holds a GitHub token (ghp_…).")]
    assert desk.refusals(code(f"key = '{key}'", "skip"), "a = 1") == []
    with pytest.raises(Refused) as refused:
        desk.snapshot(f"key = '{key}'")
    assert key not in str(refused.value)


def test_secrets_are_found_in_cells_that_are_not_plain_python(desk: Desk, tiny_lock: Any) -> None:
    literal = "password = 'a8f3b2c9d1e7'"
    desk.file("settings.yaml", "user: ana\npassword: a8f3b2c9d1e7\n")
    cells = [
        f"%%checkpoint connect\n{literal}",
        f"%kitaru status\nanswer = %wait approve\n{literal}",
        "%env DB_PASSWORD=a8f3b2c9d1e7",
        "settings = open('settings.yaml').read()",
    ]
    assert desk.refusals(*cells) == [
        (None, "settings.yaml, line 2 holds a literal password (a8f3…)."),
        (1, "line 2 holds a literal password (a8f3…)."),
        (2, "line 3 holds a literal password (a8f3…)."),
        (3, "line 1 holds a literal DB_PASSWORD (a8f3…)."),
    ]


def test_a_failed_promotion_leaves_nothing(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    with pytest.raises(Refused):
        desk.promote("b = a")
    assert KitaruClient().deployments.list() == []


def test_absolute_paths_are_found_where_they_stand() -> None:
    import ast

    found = absolute_paths(ast.parse("x = 1\nread_csv('/data/a.csv')\nPath('~/x')\nf'/home/{x}'\nsave('s3://a/b')\n"))
    assert found == [("/data/a.csv", 2), ("~/x", 3), ("/home/", 4)]
