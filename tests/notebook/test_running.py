"""A checkpoint cell runs as a plain cell does: await, display, tracebacks, magics, syntax errors, interrupts."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest
from notebookkit import Notebook

HELPERS = """
from kitaru_nb import checkpoint

@checkpoint
def step(n):
    count(f'step{n}')
    return n * 10

@checkpoint
async def astep(n):
    count(f'astep{n}')
    return n * 10
"""


def test_top_level_await_and_the_last_expression_work(notebook: Notebook) -> None:
    ran = notebook.ok("%%checkpoint a\nimport asyncio\nx = await asyncio.sleep(0, 7)\nx + 1")
    assert ran.results == ["8"]
    assert notebook.ns["x"] == 7
    assert notebook.ok("%%checkpoint b\n1 + 1").results == ["2"]


def test_a_semicolon_suppresses_the_last_value(notebook: Notebook) -> None:
    assert notebook.ok("%%checkpoint a\n5;").results == []
    assert notebook.ok("%%checkpoint b\n5; # quiet").results == []
    assert notebook.ok("%%checkpoint c\n'loud;'").results == ["'loud;'"]


@pytest.mark.parametrize("await_", ["", "import asyncio; await asyncio.sleep(0)\n"])
def test_a_traceback_shows_the_lines_of_the_cell_and_nothing_of_the_runtime(notebook: Notebook, await_: str) -> None:
    ran = notebook.run(f"%%checkpoint boom\n{await_}def half(n):\n    return n / 0\n\nhalf(4)")
    lines = 4 + bool(await_) + 1
    assert "ZeroDivisionError" in ran.traceback
    assert f"line {lines - 1}, in half(n)" in ran.traceback or "in half(n)\n" in ran.traceback
    assert f"----> {lines} half(4)" in ran.traceback
    for word in ("kitaru", "drive", "asyncio/", "run.call", "eval("):
        assert word not in ran.traceback


def test_a_traceback_names_a_checkpoint_cell_by_the_number_in_its_prompt(notebook: Notebook) -> None:
    def named(source: str) -> list[str]:
        return re.findall(r"Cell In ?\[(\d+)\]", notebook.run(source).traceback)

    (plain,) = named("1 / 0")
    first = int(plain)
    assert named("%%checkpoint boom\n1 / 0") == [str(first + 1)]
    assert named("%%checkpoint wrong\nx = = 1")[-1] == str(first + 2)
    notebook.ok("%%checkpoint defines\ndef half(n):\n    return n / 0\nx = 1")
    notebook.ok("%%checkpoint defines\ndef half(n):\n    return n / 0\nx = 1")  # reused, its definitions run again
    assert named("half(4)") == [str(first + 5), str(first + 4)]


def test_the_frames_between_a_cell_and_its_nested_checkpoint_are_left_out(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\n@checkpoint\ndef inner(n):\n    return 1 / n")
    ran = notebook.run("%%checkpoint outer\ninner(0)")
    assert "return 1 / n" in ran.traceback
    assert "inner(0)" in ran.traceback
    assert "kitaru_nb/" not in ran.traceback


def test_the_causes_of_an_error_are_trimmed_too(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\n@checkpoint\ndef inner():\n    return {}['a']")
    ran = notebook.run(
        "%%checkpoint outer\ntry:\n    inner()\nexcept KeyError as e:\n    raise ValueError('no') from e"
    )
    assert "direct cause" in ran.traceback
    assert "kitaru_nb/" not in ran.traceback


def test_source_of_functions_can_be_read_also_after_a_restart(notebook: Notebook) -> None:
    cell = (
        "%%checkpoint tools\n\n# what we use\ndef double(x):\n    return x * 2\n\n"
        "class Box:\n    def get(self):\n        return 1"
    )
    notebook.ok(cell)
    notebook.ok("import inspect")
    for _ in range(2):
        assert notebook.ok("inspect.getsource(double)").results == [repr("def double(x):\n    return x * 2\n")]
        assert "def get" in notebook.ok("inspect.getsource(Box.get)").results[0]
        notebook.restart()
        assert notebook.ok(cell).status == "cached"
        notebook.ok("import inspect")


def test_magics_and_shell_lines_work_inside_a_body(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint a\n%time x = 3")
    notebook.ok("%%checkpoint b\nfolder = %pwd\nfiles = !echo {x} $x")
    notebook.ok("%%checkpoint c\n%%capture out\nprint('quiet')\nz = x + 1")
    assert notebook.ns["files"] == ["3 3"]
    assert notebook.ns["z"] == 4
    notebook.restart()
    for cell in ("%%checkpoint a\n%time x = 3", "%%checkpoint c\n%%capture out\nprint('quiet')\nz = x + 1"):
        assert notebook.ok(cell).status == "cached"
    assert notebook.ns["out"].stdout == "quiet\n"


@pytest.mark.parametrize(
    "line",
    ["x = = 1", "return 1", "break", "def f(a, a): pass", "def f(): nonlocal q", "def f(): await x", "f'{1 +}'"],
)
def test_a_syntax_error_looks_as_in_a_plain_cell_and_records_nothing(notebook: Notebook, line: str) -> None:
    plain = notebook.run(f"\n{line}")
    ran = notebook.run(f"%%checkpoint bad\nran = True\n{line}")
    assert isinstance(ran.error, SyntaxError)
    assert ran.traceback.splitlines()[-3:] == plain.traceback.splitlines()[-3:]
    assert len(ran.traceback.splitlines()) <= 5
    assert "line 3" in ran.traceback
    assert "kitaru" not in ran.traceback
    assert "ran" not in notebook.ns
    assert notebook.session.current() is None


def test_an_error_of_the_runtime_is_told_without_a_traceback(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint a\nfrom kitaru_nb import wait\nwait('ok')")
    assert ran.traceback.startswith("KitaruContextError: wait('ok') was called inside checkpoint 'a'")
    assert "plain cell" in ran.traceback


@pytest.mark.parametrize(
    "body",
    [
        "a = step(1)\nimport signal\nif a and stop:\n    signal.raise_signal(signal.SIGINT)\nb = step(2)",
        "a = await astep(1)\nimport asyncio\nif a and stop:\n    asyncio.current_task().cancel()\n"
        "    await asyncio.sleep(1)\nb = await astep(2)",
    ],
)
def test_an_interrupt_keeps_what_was_finished_inside(notebook: Notebook, body: str) -> None:
    notebook.counting()
    notebook.ok(HELPERS)
    notebook.ok("stop = True")
    cell = f"%%checkpoint agent --in step,astep\n{body}"
    before = signal.getsignal(signal.SIGINT)
    ran = notebook.run(cell)
    assert isinstance(ran.error, KeyboardInterrupt | asyncio.CancelledError)
    assert "agent was interrupted" in ran.text
    assert signal.getsignal(signal.SIGINT) is before
    assert notebook.ok("print('streams work')").stdout == "streams work\n"
    notebook.ok("stop = False")
    assert notebook.ok(cell).status == "fresh"
    assert notebook.ns["b"] == 20
    assert [word.lstrip("a") for word in notebook.counted] == ["step1", "step2"]


def test_a_reset_of_the_namespace_breaks_nothing(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint a\nx = 1")
    notebook.ok("%reset -f")
    assert "x" not in notebook.ns
    assert notebook.ok("%%checkpoint a\nx = 1").status == "cached"
    assert notebook.ns["x"] == 1


def test_a_failed_cell_that_was_repaired_keeps_its_finished_children(notebook: Notebook) -> None:
    notebook.counting()
    notebook.ok(HELPERS)
    assert notebook.run("%%checkpoint agent --in step\na = step(1)\nb = a + nonsense").error is not None
    notebook.restart()
    notebook.counting()
    notebook.ok(HELPERS)
    notebook.ok("%%checkpoint agent --in step\na = step(1)\nb = a + 1")
    assert notebook.ns["b"] == 11
    assert notebook.counted == ["step1"]
    # Once it is complete, another run of the cell is new work.
    notebook.ok("%%checkpoint agent --in step --force\na = step(1)\nb = a + 1")
    assert notebook.counted == ["step1", "step1"]


def test_cells_without_a_name_do_not_share_children(notebook: Notebook) -> None:
    notebook.counting()
    notebook.ok(HELPERS)
    notebook.run("%%checkpoint\na = step(1)\nnonsense")
    notebook.ok("%%checkpoint\nb = step(1)")
    assert notebook.counted == ["step1", "step1"]


@pytest.mark.parametrize(
    ("error", "kind"), [("KitaruStorageError", "execution.paused"), ("KitaruArtifactError", "execution.failed")]
)
def test_a_cell_that_an_outage_of_the_store_ended_did_not_fail(notebook: Notebook, error: str, kind: str) -> None:
    notebook.ok(f"%%checkpoint one\nfrom kitaru_nb import {error}")
    exec_id = notebook.execution.exec_id
    notebook.run(f"raise {error}('The artifact store is away.')")
    notebook.session.finish()
    last = notebook.client.runtime.journal.history(exec_id)[-1]
    assert (last.kind, last.body.get("outage", False)) == (kind, kind == "execution.paused")
