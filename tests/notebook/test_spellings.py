"""Heads of checkpoint cells: three spellings, and what each option does."""

from __future__ import annotations

import pytest
from notebookkit import Notebook

from kitaru_nb.errors import KitaruTimeoutError, KitaruUsageError


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("%%checkpoint draft\nx = 1", ()),
        ("#| checkpoint: draft\nx = 1", ()),
        ("x = 1", ("step:draft", "hide-input")),
    ],
)
def test_each_spelling_makes_the_same_checkpoint(notebook: Notebook, source: str, tags: tuple[str, ...]) -> None:
    assert notebook.ok(source, *tags).text == "✓ draft → x"
    [call] = notebook.execution.checkpoints
    assert (call.name, call.status, call.checkpoint_type) == ("draft", "completed", "cell")
    # One spelling is as good as another: what one recorded, the others reuse.
    for other, its_tags in (
        ("%%checkpoint draft\nx = 1", ()),
        ("#| checkpoint: draft\nx = 1", ()),
        ("x = 1", ("step:draft",)),
    ):
        assert notebook.ok(other, *its_tags).status == "cached"


def test_a_tag_marks_only_the_cell_that_has_it(notebook: Notebook) -> None:
    notebook.ok("x = 1", "step:draft")
    assert notebook.ok("x = 2").bundles == []


def test_in_and_out_limit_what_counts_and_what_is_kept(notebook: Notebook) -> None:
    notebook.ok("a, b = 1, 2")
    notebook.ok("%%checkpoint sums --in a --out x\nx, y = a + b, a - b")
    assert notebook.ok("b = 5").error is None
    assert notebook.ok("%%checkpoint sums --in a --out x\nx, y = a + b, a - b").status == "cached"
    notebook.restart()
    notebook.ok("a, b = 1, 2")
    notebook.ok("%%checkpoint sums --in a --out x\nx, y = a + b, a - b")
    assert notebook.ns["x"] == 3
    assert "y" not in notebook.ns


def test_an_undefined_name_after_in_is_refused_before_anything_runs(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint sums --in aa\nx = 1")
    assert isinstance(ran.error, KitaruUsageError)
    assert "--in names 'aa', which isn't defined" in ran.traceback
    assert "x" not in notebook.ns


def test_a_name_after_out_that_the_cell_never_set_is_said(notebook: Notebook) -> None:
    ran = notebook.ok("%%checkpoint sums --out z\nx = 1")
    assert ran.status == "partial"
    assert "z" in ran.text
    assert "ended without this variable" in ran.text


def test_a_false_condition_skips_the_cell(notebook: Notebook) -> None:
    notebook.ok("n = 0")
    ran = notebook.ok('%%checkpoint big --if "n > 1"\nx = 1')
    assert ran.text == "– big skipped: n > 1 is false"
    assert "x" not in notebook.ns
    notebook.ok("n = 2")
    assert notebook.ok('%%checkpoint big --if "n > 1"\nx = 1').status == "fresh"


def test_a_condition_that_fails_is_told_in_one_line(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint big --if nn\nx = 1")
    assert isinstance(ran.error, KitaruUsageError)
    assert ran.traceback.startswith("KitaruUsageError: --if nn can't be told: NameError")


def test_retries_try_again_and_keep_what_every_attempt_left(notebook: Notebook) -> None:
    notebook.ok("tries = []")
    ran = notebook.ok(
        "%%checkpoint flaky --retries 2\n"
        "from kitaru_nb import Retry\n"
        "tries.append(1)\n"
        "if len(tries) == 1:\n    first = 'kept'\n"
        "if len(tries) < 3:\n    raise ValueError('not yet')\n"
        "done = True"
    )
    assert ran.status == "fresh"
    [call] = notebook.execution.checkpoints
    assert [a.status for a in call.attempts] == ["failed", "failed", "completed"]
    notebook.restart()
    notebook.ok("tries = []")
    notebook.session.restore()
    assert (notebook.ns["first"], notebook.ns["done"], notebook.ns["tries"]) == ("kept", True, [1, 1, 1])


def test_a_failed_cell_is_tried_again_when_it_is_run_again(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\nstate = {'up': False}")
    notebook.ok(
        "@checkpoint\ndef fetch(n):\n    import __main__\n    if not __main__.state['up']:\n"
        "        raise OSError('down')\n    return n"
    )
    assert isinstance(notebook.run("%%checkpoint get --in fetch\nx = fetch(1)").error, OSError)
    notebook.ok("state['up'] = True")
    assert notebook.ok("%%checkpoint get --in fetch\nx = fetch(1)").status == "fresh"


@pytest.mark.parametrize("body", ["while True:\n    pass", "import asyncio\nawait asyncio.sleep(60)"])
def test_a_timeout_ends_a_cell(notebook: Notebook, body: str) -> None:
    ran = notebook.run(f"%%checkpoint slow --timeout 0.1\n{body}")
    assert isinstance(ran.error, KitaruTimeoutError)
    assert "longer than its timeout of 0.1 s" in ran.traceback
    assert "--timeout 0.4" in ran.traceback


def test_a_timeout_passes_through_the_cells_own_handlers(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%checkpoint slow --timeout 0.1\nwhile True:\n    try:\n        pass\n    except Exception:\n        pass"
    )
    assert isinstance(ran.error, KitaruTimeoutError)


def test_a_cells_own_timeout_error_stays_its_own(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint slow --timeout 60\nimport asyncio\nawait asyncio.wait_for(asyncio.sleep(9), 0.01)")
    assert type(ran.error) is TimeoutError


def test_type_and_name_are_recorded(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint ask --type llm_call\nx = 1")
    [call] = notebook.execution.checkpoints
    assert call.checkpoint_type == "llm_call"


def test_reuse_content_takes_the_result_of_another_execution(notebook: Notebook) -> None:
    notebook.counting()
    for reuse in ("content", "run"):
        cell = f"%%checkpoint sum{reuse} --reuse {reuse}\ncount('{reuse}')\nx = 3"
        notebook.ok(cell)
        notebook.ok("%kitaru new")
        notebook.ok("x = None")
        notebook.counting()
        notebook.ok(cell)
        assert notebook.ns["x"] == 3
    assert notebook.counted == ["content", "run", "run"]


def test_reuse_never_and_force_run_each_time(notebook: Notebook) -> None:
    notebook.counting()
    for cell in ("%%checkpoint a --reuse never\ncount('never')", "%%checkpoint b --force\ncount('force')"):
        for _ in range(2):
            assert notebook.ok(cell).status == "fresh"
    assert notebook.counted == ["never", "never", "force", "force"]
    # What was forced is the result from then on.
    assert notebook.ok("%%checkpoint b\ncount('force')").status == "cached"


def test_a_wrong_head_is_one_line_with_the_line_corrected(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint bad --retry 2\nx = 1")
    assert isinstance(ran.error, KitaruUsageError)
    assert ran.traceback.splitlines()[-1] == "  fix: %%checkpoint bad --retries 2"
    assert "Traceback" not in ran.traceback
    assert "x" not in notebook.ns


def test_a_cell_without_a_name_is_a_checkpoint_too(notebook: Notebook) -> None:
    assert notebook.ok("%%checkpoint\nx = 1").text == "✓ cell → x"
    assert notebook.ok("%%checkpoint\ny = 2").text == "✓ cell → y"
    assert notebook.ok("%%checkpoint\nx = 1").status == "cached"


def test_loading_twice_and_again_after_unloading_works(notebook: Notebook) -> None:
    notebook.ok("%load_ext kitaru_nb")
    notebook.ok("%%checkpoint a\nx = 1")
    assert notebook.execution.lease is not None
    notebook.ok("%unload_ext kitaru_nb")
    for line in ("%%checkpoint a\nx = 1", "%kitaru", "%wait a"):
        ran = notebook.run(line)
        assert "not found" in ran.stderr + ran.stdout + ran.traceback
    notebook.ok("%load_ext kitaru_nb")
    assert notebook.ok("%%checkpoint a\nx = 1").status == "cached"


def test_loading_shows_nothing_and_begins_no_execution(notebook: Notebook) -> None:
    notebook.ok("%unload_ext kitaru_nb")
    ran = notebook.ok("%load_ext kitaru_nb")
    assert (ran.stdout, ran.bundles) == ("", [])
    notebook.ok("x = 1\ndef f():\n    return x")
    assert not (notebook.folder / "home").exists()
