"""The tree of calls under a checkpoint cell: what it says, when, and that a reused cell shows it again."""

from __future__ import annotations

import re
import threading
import time
from html.parser import HTMLParser
from typing import Any

import pretend_agent
import pytest
from notebookkit import Notebook, Ran

AGENT = "%%checkpoint research\nimport pretend_agent\nnotes = pretend_agent.run('knots')"


@pytest.fixture(autouse=True)
def _open_gate() -> Any:
    pretend_agent.gate.set()
    pretend_agent.held.clear()
    yield
    pretend_agent.gate.set()
    pretend_agent.held.clear()


def trees(ran: Ran) -> list[dict[str, Any]]:
    """Each painting of the tree, in order."""
    return [b for b in ran.bundles if (b["metadata"] or {}).get("kitaru", {}).get("calls")]


def text(html: str) -> str:
    """What a person reads in it."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader().feed(html)
    return " ".join(" ".join(found).split())


def test_a_cell_that_runs_an_agent_shows_its_calls_with_tokens_cost_and_answers(notebook: Notebook) -> None:
    ran = notebook.ok(AGENT)
    tree = trees(ran)[-1]
    assert tree["data"]["text/plain"] == (
        "4 calls inside\n  ✓ researcher\n    ✓ researcher.model\n    ✓ search\n    ✓ researcher.model"
    )
    said = text(tree["data"]["text/html"])
    assert said.startswith("4 calls · 26 tokens · $0.0004 · ")
    assert "query='knots 0' → passage about knots 0" in said
    assert "answer 0 <b>&amp;</b>" in said  # as the model wrote it
    assert "<b>&amp;</b>" not in tree["data"]["text/html"]  # and escaped
    assert "26 tokens" in text(ran.html.rpartition("<b>research</b>")[2])


def test_a_cell_without_calls_inside_shows_no_tree(notebook: Notebook) -> None:
    assert trees(notebook.ok("%%checkpoint a\nx = 1")) == []


def test_nested_checkpoints_of_the_notebook_are_in_the_tree_too(notebook: Notebook) -> None:
    notebook.ok(
        "from kitaru_nb import checkpoint\n@checkpoint\ndef inner(n):\n    return n\n"
        "@checkpoint\ndef outer(n):\n    return inner(n) + inner(n + 1)"
    )
    tree = trees(notebook.ok("%%checkpoint a\nx = outer(1)"))[-1]
    assert tree["data"]["text/plain"] == "3 calls inside\n  ✓ outer\n    ✓ inner\n    ✓ inner"
    assert "n=1 → 3" in text(tree["data"]["text/html"])


def test_the_tree_is_one_display_that_is_updated_while_the_cell_runs(notebook: Notebook) -> None:
    pretend_agent.gate.clear()
    pretend_agent.held.add("search")
    seen: list[str] = []
    published = notebook.shell.display_pub.outputs

    def watch() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            seen.extend(text(b["data"]["text/html"]) for b in list(published) if "running" in str(b["metadata"]))
            if any("● ƒ search" in s for s in seen):
                break
            time.sleep(0.02)
        pretend_agent.gate.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    ran = notebook.ok(AGENT)
    watcher.join()
    assert any("● ƒ search query='knots 0'" in s for s in seen), seen
    painted = trees(ran)
    assert [bool(b.get("update")) for b in painted] == [False] + [True] * (len(painted) - 1)
    ids = {b["transient"]["display_id"] for b in painted}
    assert len(ids) == 1
    assert painted[0]["metadata"]["kitaru"]["status"] == "running"
    assert "status" not in painted[-1]["metadata"]["kitaru"]
    assert "running" not in text(painted[-1]["data"]["text/html"])
    assert ran.status == "fresh"


def test_paintings_are_at_most_five_a_second(notebook: Notebook) -> None:
    began = time.monotonic()
    ran = notebook.ok(
        "%%checkpoint busy\nimport pretend_agent, time\nfor n in range(120):\n"
        "    pretend_agent.search(f'q{n}')\n    time.sleep(0.005)"
    )
    assert len(trees(ran)) <= (time.monotonic() - began) * 5 + 2


def test_a_reused_cell_shows_the_recorded_tree_once_also_after_a_restart(notebook: Notebook) -> None:
    fresh = trees(notebook.ok(AGENT))[-1]
    for _ in range(2):
        ran = notebook.ok(AGENT)
        assert ran.status == "cached"
        [tree] = trees(ran)
        assert tree["data"]["text/plain"] == fresh["data"]["text/plain"]
        said = text(tree["data"]["text/html"])
        assert said.startswith("4 calls · 4 reused · 26 tokens, 26 not paid again · $0.0004")
        assert "↺ ◎ researcher" in said
        notebook.restart()


def test_a_cell_that_goes_on_after_a_failure_tells_what_was_reused(notebook: Notebook) -> None:
    cell = "%%checkpoint research\nimport pretend_agent\nnotes = pretend_agent.run('knots')\n{}"
    failed = notebook.run(cell.format("1 / 0"))
    assert trees(failed)[-1]["metadata"]["kitaru"]["status"] == "failed"
    notebook.restart()
    ran = notebook.ok(cell.format("pretend_agent.search('more')"))
    tree = trees(ran)[-1]
    assert tree["data"]["text/plain"].splitlines()[1:] == [
        "  ✓ researcher",
        "    ✓ researcher.model",
        "    ✓ search",
        "    ✓ researcher.model",
        "  ✓ search",
    ]
    said = text(tree["data"]["text/html"])
    assert said.startswith("5 calls · 4 reused · 26 tokens, 26 not paid again")
    assert "↺ ◎ researcher" in said
    assert "✓ ƒ search" in said


def test_a_failed_call_says_why(notebook: Notebook) -> None:
    ran = notebook.run("%%checkpoint a\nimport pretend_agent\npretend_agent.search('x', fails=True)")
    tree = trees(ran)[-1]
    assert "✗ search" in tree["data"]["text/plain"]
    assert "no <such> index" in text(tree["data"]["text/html"])
    assert "<such>" not in tree["data"]["text/html"]


def test_a_failed_call_that_the_cell_handled_is_there_again_when_the_cell_is_reused(notebook: Notebook) -> None:
    cell = (
        "%%checkpoint a\nimport pretend_agent\ntry:\n    pretend_agent.search('x', fails=True)\n"
        "except ValueError:\n    y = pretend_agent.search('y')"
    )
    fresh = trees(notebook.ok(cell))[-1]["data"]["text/plain"]
    assert fresh == "2 calls inside\n  ✗ search\n  ✓ search"
    notebook.restart()
    assert trees(notebook.ok(cell))[-1]["data"]["text/plain"] == fresh


def test_what_was_in_flight_when_the_cell_was_interrupted_is_told_as_stopped(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%checkpoint a\nimport signal\nfrom kitaru_nb.surfaces.adapters.base import Operation, perform\n"
        "perform(Operation('slow', 'tool_call', {'arguments': 1}), lambda: signal.raise_signal(signal.SIGINT))"
    )
    assert isinstance(ran.error, KeyboardInterrupt)
    assert "‖ slow" in trees(ran)[-1]["data"]["text/plain"]


def test_agents_side_by_side_keep_their_calls(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%checkpoint both\nimport pretend_agent\nanswers = await pretend_agent.run_side_by_side(['ana', 'bo'])"
    )
    lines = trees(ran)[-1]["data"]["text/plain"].splitlines()
    assert lines[0] == "4 calls inside"
    assert lines[lines.index("  ✓ ana") + 1] == "    ✓ ana.model"
    assert lines[lines.index("  ✓ bo") + 1] == "    ✓ bo.model"


def test_calls_on_other_threads_are_in_the_tree_of_their_cell(notebook: Notebook) -> None:
    notebook.ok("from kitaru_nb import checkpoint\n@checkpoint\ndef double(n):\n    return n * 2")
    tree = trees(notebook.ok("%%checkpoint a\ny = [f.result() for f in double.map([1, 2, 3])]"))[-1]
    assert tree["data"]["text/plain"] == "3 calls inside\n  ✓ double\n  ✓ double\n  ✓ double"


def test_of_many_calls_the_last_ones_and_those_that_failed_are_unfolded(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%checkpoint many\nimport pretend_agent\nfor n in range(300):\n    try:\n"
        "        pretend_agent.search(f'q{n}', fails=n == 5)\n    except ValueError:\n        pass"
    )
    tree = trees(ran)[-1]
    lines = tree["data"]["text/plain"].splitlines()
    assert lines[:4] == ["300 calls inside", "  … 5 calls more", "  ✗ search", "  … 282 calls more"]
    assert len(lines) == 4 + 12
    html = tree["data"]["text/html"]
    assert html.count("<details") == 3
    assert "282 calls more" in text(html)
    assert len(html) < 400_000


def test_a_cleared_output_gets_the_tree_again(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%checkpoint a\nimport pretend_agent, time\nfrom IPython.display import clear_output\n"
        "pretend_agent.search('one')\ntime.sleep(0.6)\nclear_output()\npretend_agent.search('two')"
    )
    painted = trees(ran)
    assert not painted[0].get("update")
    assert painted[-1]["data"]["text/plain"] == "2 calls inside\n  ✓ search\n  ✓ search"


def test_the_recorded_output_of_a_cell_does_not_hold_the_tree(notebook: Notebook) -> None:
    notebook.ok(AGENT + "\nprint('done')")
    (call,) = [c for c in notebook.execution.checkpoints if c.name == "research"]
    (shown,) = [a for a in call.artifacts if a.name == "display"]
    outputs = notebook.session.runtime.store.read(shown)
    assert outputs == [{"output_type": "stream", "name": "stdout", "text": "done\n"}]


def test_in_ci_the_tree_is_shown_once_as_plain_text(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_CI", "1")
    [tree] = trees(notebook.ok(AGENT))
    assert set(tree["data"]) == {"text/plain"}
    assert re.search(r"\d\.\d|tok|\$", tree["data"]["text/plain"]) is None


def test_a_replay_that_reuses_the_cell_shows_the_calls_of_its_original(notebook: Notebook) -> None:
    notebook.ok(AGENT)
    notebook.ok("%%checkpoint final\nlength = len(notes)")
    notebook.ok("%kitaru replay final")
    ran = notebook.ok(AGENT)
    assert ran.status == "cached"
    assert "4 calls · 4 reused" in text(trees(ran)[-1]["data"]["text/html"])


def test_a_cell_reused_by_its_content_shows_the_calls_of_the_execution_that_ran_it(notebook: Notebook) -> None:
    cell = AGENT.replace("research\n", "research --reuse content\n", 1)
    notebook.ok(cell)
    notebook.ok("%kitaru new")
    ran = notebook.ok(cell)
    assert ran.status == "cached"
    assert "4 calls · 4 reused" in text(trees(ran)[-1]["data"]["text/html"])


def test_the_calls_are_in_the_lineage(notebook: Notebook) -> None:
    notebook.ok(AGENT)
    ran = notebook.ok("%kitaru lineage")
    assert "    ✓ researcher\n" in ran.text
    assert "      ✓ search" in ran.text
    assert "researcher.model" in ran.html
