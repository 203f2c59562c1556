"""``%kitaru``: what each command shows, changes and refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from notebookkit import Notebook

from kitaru_nb.errors import KitaruContextError, KitaruError, Paused
from kitaru_nb.model import Execution

NAMES = ["status", "resume", "restore", "input", "replay", "diff", "lineage", "why", "load", "logs", "new", "panel"]
CELLS = {
    "research": "%%checkpoint research\ncount('research')\nprint('reading')\nnotes = topic + '!'",
    "draft": "%%checkpoint draft\ncount('draft')\ntext = notes.upper()",
    "aside": "%%checkpoint aside\ncount('aside')\nother = 5",
    "ask": "ok = %wait approve --question 'Publish {text}?'",
    "publish": "%%checkpoint publish\ncount('publish')\nfinal = (text, ok)",
}


def run_all(notebook: Notebook) -> BaseException | None:
    """Run All: it ends at the first cell that doesn't end well."""
    notebook.counting()
    notebook.ok("topic = 'sea'")
    for cell in CELLS.values():
        error = notebook.run(cell).error
        if error is not None:
            return error
    return None


def finished(notebook: Notebook) -> Execution:
    """A notebook that was run, answered and run to its end."""
    assert isinstance(run_all(notebook), Paused)
    notebook.ok("%kitaru input approve true")
    assert run_all(notebook) is None
    return notebook.execution


def test_without_a_command_there_is_the_list_of_them(notebook: Notebook) -> None:
    text = notebook.ok("%kitaru").text
    assert [line.split()[0] for line in text.splitlines()[2:]] == NAMES


def test_an_unknown_command_is_told_with_those_there_are(notebook: Notebook) -> None:
    ran = notebook.run("%kitaru statsu")
    assert "no command 'statsu'. Commands are: status, resume" in ran.traceback


@pytest.mark.parametrize("command", ["status", "lineage", "why a", "logs", "diff latest", "input a 1", "replay a"])
def test_before_the_first_checkpoint_a_command_says_so(notebook: Notebook, command: str) -> None:
    ran = notebook.run(f"%kitaru {command}")
    assert isinstance(ran.error, KitaruError)
    assert "no execution yet" in ran.traceback
    assert notebook.session.current() is None


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("%kitaru why", "%kitaru why draft"),
        ("%kitaru load latest", "notes = %kitaru load latest notes"),
        ("%kitaru input approve", "%kitaru input approve true"),
        ("%kitaru diff", "%kitaru diff latest"),
        ("%kitaru replay draft --set wait.approve", "%kitaru replay draft --set wait.approve=true"),
        ("%kitaru why nothing", "%kitaru status"),
        ("%kitaru replay", "--from research"),
        ("%kitaru replay nothing", "executions get"),
        ("%kitaru new execution", "%kitaru new"),
        ("%kitaru panel here", "%kitaru panel"),
        ("%kitaru restore research draft", "%kitaru restore research"),
        ("%kitaru status latest 'a b'", "%kitaru status latest"),
    ],
)
def test_a_wrong_line_is_told_with_the_right_one(notebook: Notebook, line: str, fix: str) -> None:
    run_all(notebook)
    ran = notebook.run(line)
    assert isinstance(ran.error, KitaruError)
    assert fix in ran.traceback.partition("fix: ")[2]


def test_an_answer_and_an_override_are_taken_as_they_are_typed(notebook: Notebook) -> None:
    finished(notebook)
    notebook.ok("name = 'draft'\nfive = 5")
    notebook.ok('%kitaru replay {name} --set \'checkpoint.draft={"text": "$five"}\'')
    notebook.ok(CELLS["research"])
    notebook.ok(CELLS["draft"])
    assert notebook.ns["text"] == "$five"
    assert isinstance(notebook.run("title = %wait title --schema str").error, Paused)
    notebook.ok("%kitaru input title 'costs $5, {five} of them'")
    notebook.ok("title = %wait title --schema str")
    assert notebook.ns["title"] == "costs $5, {five} of them"


def test_status_shows_checkpoints_and_waits(notebook: Notebook) -> None:
    finished(notebook)
    text = notebook.ok("%kitaru status").text
    assert text.splitlines()[0] == "study: running"
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[2:]]
    assert rows == [
        ["research", "completed", "notes"],
        ["draft", "completed", "text"],
        ["aside", "completed", "other"],
        ["publish", "completed", "final"],
        ["approve", "wait, resolved", "true"],
    ]


def test_resume_tells_what_the_notebook_waits_for_or_brings_all_back(notebook: Notebook) -> None:
    run_all(notebook)
    notebook.restart()
    assert notebook.ok("%kitaru resume").text.splitlines() == [
        "study waits for 'approve': Publish SEA!?",
        "  %kitaru input approve VALUE",
    ]
    notebook.ok("%kitaru input approve false")
    assert notebook.ok("%kitaru resume").text.startswith("Ready to go on. Restored: research, draft, aside.")
    assert notebook.ns["text"] == "SEA!"


def test_lineage_names_what_each_checkpoint_read(notebook: Notebook) -> None:
    finished(notebook)
    ran = notebook.ok("%kitaru lineage")
    assert ran.text.splitlines() == [
        "study",
        "  ✓ research",
        "  ✓ draft ← research",
        "  ✓ aside",
        "  ▸ approve",
        "  ✓ publish ← approve, draft",
    ]
    assert "<svg" in ran.html


def test_why_tells_the_first_difference(notebook: Notebook) -> None:
    notebook.counting()
    notebook.ok("topic = 'sea'")
    notebook.ok(CELLS["research"])
    assert "nothing was recorded for it" in notebook.ok("%kitaru why research").text
    notebook.ok(CELLS["research"])
    assert "was reused" in notebook.ok("%kitaru why research").text
    notebook.ok("topic = 'air'")
    notebook.ok(CELLS["research"])
    assert "research ran because input topic changed: 'sea' → 'air'." in notebook.ok("%kitaru why research").text
    notebook.ok(CELLS["research"] + "\n2 + 2")
    assert "the cell's code changed" in notebook.ok("%kitaru why research").text
    notebook.ok((CELLS["research"] + "\n2 + 2").replace("research\n", "research --force\n", 1))
    assert "it was forced to" in notebook.ok("%kitaru why research").text


def test_logs_are_those_of_the_checkpoints(notebook: Notebook) -> None:
    run_all(notebook)
    assert notebook.ok("%kitaru logs").text.splitlines()[2].split() == ["research", "stdout", "reading"]
    assert notebook.ok("%kitaru logs draft").text.splitlines()[0] == "0 lines"


def test_load_gives_a_value_of_another_execution(notebook: Notebook) -> None:
    first = finished(notebook).exec_id
    notebook.ok("%kitaru new")
    notebook.ok(f"old = %kitaru load {first} notes")
    assert notebook.ns["old"] == "sea!"
    assert "It has: " in notebook.run(f"%kitaru load {first} nots").traceback


def test_new_begins_afresh_and_ends_what_was(notebook: Notebook) -> None:
    first = finished(notebook).exec_id
    assert notebook.ok("%kitaru new").text == "A fresh execution has begun: checkpoints run again."
    assert str(notebook.client.executions.get(first).status) == "completed"
    assert isinstance(run_all(notebook), Paused)
    assert notebook.counted.count("research") == 2
    # An open question is withdrawn with its execution.
    second = notebook.execution.exec_id
    notebook.ok("%kitaru new")
    assert str(notebook.client.executions.get(second).status) == "cancelled"
    assert notebook.client.executions.pending_waits() == []


def test_the_plan_of_a_replay_names_calls_that_get_other_arguments(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\n\n\n@checkpoint\ndef double(n: int) -> int:\n    return 2 * n")
    notebook.ok("%%checkpoint sums\ntotal = double(3)")
    plan = notebook.ok("%kitaru replay --set 'arguments.double={\"n\": 5}' --dry-run").text
    rows = dict(re.split(r"\s{2,}", line.strip())[:2] for line in plan.splitlines()[2:])
    assert rows == {"double": "runs again with other arguments", "sums": "body runs again"}


def test_a_replay_runs_what_was_chosen_and_what_depends_on_it(notebook: Notebook) -> None:
    first = finished(notebook)
    plan = notebook.ok("%kitaru replay draft --dry-run").text
    rows = {r[0]: r[1] for r in (re.split(r"\s{2,}", line.strip()) for line in plan.splitlines()[2:])}
    assert rows == {
        "draft": "runs again",
        "publish": "runs again",
        "approve": "asked again",
        "research": "reused",
        "aside": "reused",
    }
    assert notebook.execution.exec_id == first.exec_id
    notebook.ok("%kitaru replay draft")
    assert notebook.execution.original_exec_id == first.exec_id
    assert isinstance(run_all(notebook), Paused)
    notebook.restart()
    notebook.ok("%kitaru input approve false")
    assert run_all(notebook) is None
    assert notebook.ns["final"] == ("SEA!", False)
    assert notebook.counted == ["research", "draft", "aside", "publish", "draft", "publish"]
    assert "draft was reused" in notebook.ok("%kitaru why draft").text
    notebook.restart()
    assert "the replay asked for it" in notebook.ok("%kitaru why draft").text
    diff = notebook.ok(f"%kitaru diff {first.exec_id}").text
    assert diff.startswith("1 of 4 checkpoints differ")


def test_a_replay_that_is_left_in_its_cell_begins_once(notebook: Notebook) -> None:
    """At each Run All the cell runs again: the notebook stays on its replay, after a restart of the kernel too."""
    finished(notebook)
    line = "%kitaru replay draft --set wait.approve=true"

    def replayed(line: str, cell: str | None) -> str:
        notebook.shell.kernel.cell = cell
        notebook.ok(line)
        return notebook.execution.exec_id

    first = replayed(line, "c1")
    for _ in range(2):
        assert run_all(notebook) is None
        assert notebook.counted.count("draft") == 2
        assert replayed(line, "c1") == first
        notebook.restart()
    notebook.shell.kernel.cell = "c1"
    shown = notebook.ok(line).text
    assert "%kitaru replay draft --set wait.approve=true --again" in shown
    begun = {first}
    # Asked for; from another cell; another line; a console, where each line is meant.
    for other, cell in (
        (f"{line} --again", "c1"),
        (line, "c2"),
        (f"{line[:-4]}false", "c2"),
        (line, None),
        (line, None),
    ):
        begun.add(replayed(other, cell))
        assert run_all(notebook) is None
    assert len(begun) == 6


def test_a_replay_with_an_override_needs_no_run_of_that_cell(notebook: Notebook) -> None:
    finished(notebook)
    notebook.ok("""%kitaru replay --set 'checkpoint.draft={"text": "MINE"}' --set wait.approve=true""")
    assert run_all(notebook) is None
    assert notebook.ns["final"] == ("MINE", True)
    assert notebook.counted.count("draft") == 1
    notebook.restart()
    assert "the replay gives it other values" in notebook.ok("%kitaru why draft").text
    notebook.ok("%kitaru restore")
    assert notebook.ns["final"] == ("MINE", True)


def test_a_replay_reuses_the_latest_run_of_a_forced_cell(notebook: Notebook) -> None:
    notebook.counting()
    cell = "%%checkpoint draw\nimport random\ncount('draw')\nx = random.random()"
    notebook.ok(cell)
    notebook.ok(cell.replace("draw\n", "draw --force\n", 1))
    drawn = notebook.ns["x"]
    notebook.ok("%%checkpoint use\ny = x")
    notebook.ok("%kitaru replay use")
    notebook.ok(cell)
    assert notebook.ns["x"] == drawn
    assert notebook.counted == ["draw", "draw"]


def test_a_replay_of_a_nested_call_enters_its_cell_and_reuses_its_siblings(notebook: Notebook) -> None:
    setup = "from kitaru_nb import checkpoint\n@checkpoint\ndef step(n):\n    count(f'step{n}')\n    return n"
    cell = "%%checkpoint agent --in step\ntotal = step(1) + step(2)"
    notebook.counting()
    notebook.ok(setup)
    notebook.ok(cell)
    notebook.ok("%kitaru replay step#2")
    notebook.ok(cell)
    assert notebook.counted == ["step1", "step2", "step2"]


def test_in_a_headless_run_nobody_switches_the_execution(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint a\nx = 1")
    notebook.session.headless = True
    assert isinstance(notebook.run("%kitaru new").error, KitaruContextError)


def volatile(text: str) -> list[str]:
    return re.findall(r"kr-\w{12}|\d+(?:\.\d+)? (?:ms|s|min)\b|\b\d{4}-\d\d-\d\d", text)


def test_plain_text_holds_no_ids_and_no_times(notebook: Notebook) -> None:
    first = finished(notebook).exec_id
    notebook.ok("%kitaru replay draft --set wait.approve=true")
    run_all(notebook)
    texts = [notebook.ok(cell).text for cell in ("%%checkpoint aside\ncount('aside')\nother = 5", CELLS["draft"])]
    lines = ["status", "resume", "restore", f"diff {first}", "lineage", "why draft", "logs", "replay draft --dry-run"]
    texts += [notebook.ok(f"%kitaru {line}").text for line in lines]
    notebook.ok("%kitaru new")
    texts.append(notebook.run("ok = %wait again").text)
    assert [found for text in texts for found in volatile(text)] == []


def test_what_is_shown_with_ci_set_is_plain_and_the_same_fresh_or_reused(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITARU_CI", "1")

    def shown() -> list[tuple[str, str, list[str], str]]:
        notebook.counting()
        notebook.ok("topic = 'sea'")
        found = []
        for cell in [*CELLS.values(), "%kitaru status", "%kitaru lineage", "%kitaru logs"]:
            ran = notebook.run(cell)
            assert ran.html == ""
            found.append((ran.stdout, ran.text, ran.results, ran.traceback))
        return found

    notebook.ok("%kitaru")
    shown()
    notebook.ok("%kitaru input approve true")
    before = shown()
    notebook.restart()
    assert shown() == before


def test_html_of_every_command_escapes_what_users_wrote(notebook: Notebook) -> None:
    evil = "<img src=x onerror=alert(1)>"
    notebook.ok(f"topic = {evil!r}")
    notebook.ok("%%checkpoint research\nprint(topic)\nnotes = topic")
    notebook.run("ok = %wait approve --question '{notes}'")
    for line in ("status", "resume", "lineage", "logs", "why research", "replay research --dry-run"):
        assert "<img" not in notebook.ok(f"%kitaru {line}").html


def test_a_front_end_is_told_status_and_execution_in_metadata(notebook: Notebook) -> None:
    ran = notebook.ok("%%checkpoint a\nx = 1")
    told = ran.bundles[-1]["metadata"]["kitaru"]
    assert (told["checkpoint"], told["status"], told["execution"]) == ("a", "fresh", notebook.execution.exec_id)
    assert Path(notebook.session.path or "").name == "study.ipynb"


def test_a_replay_of_a_cell_that_ran_twice_begins_with_its_last_run_and_says_so(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint draft\ntext = 'one'")
    notebook.ok("%%checkpoint draft\ntext = 'two'")
    notebook.ok("%%checkpoint use\nlength = len(text)")
    said = notebook.ok("%kitaru replay draft --dry-run").text
    assert "draft ran 2 times; the replay begins with its last run, not with draft#1." in said
    rows = dict(line.split(maxsplit=1) for line in said.splitlines() if line.startswith(("  draft", "  use")))
    assert rows == {"draft": "reused", "draft#2": "runs again", "use": "runs again"}


def test_a_replay_of_a_call_that_was_made_several_times_lists_them(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\n@checkpoint\ndef step(n):\n    return n")
    notebook.ok("%%checkpoint a\nx = [step(n) for n in range(3)]")
    ran = notebook.run("%kitaru replay step")
    assert "'step' was called 3 times: step#1, step#2, step#3." in ran.traceback
    assert "fix: %kitaru replay 'step#3'" in ran.traceback
