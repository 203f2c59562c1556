"""When a checkpoint cell is reused, and when it runs again."""

from __future__ import annotations

import pytest
from notebookkit import Notebook

AGENT = """
class Client:
    def __init__(self):
        import threading
        self.lock = threading.Lock()

class Agent:
    __slots__ = ("client", "instructions", "tools")
    def __init__(self, instructions, tools=()):
        self.client, self.instructions, self.tools = Client(), instructions, list(tools)
"""
SDK = """
import os
os.environ.setdefault("OPENAI_API_KEY", "none")
from agents import Agent, OpenAIChatCompletionsModel, function_tool
from openai import AsyncOpenAI
model = OpenAIChatCompletionsModel("tiny", AsyncOpenAI())
"""
RESEARCHER = """
passages = {passages!r}

@function_tool
def search(query: str) -> str:
    "{doc}"
    return " ".join(p for p in passages if query in p)

researcher = Agent("researcher", instructions={instructions!r}, tools=[search], model=model)
"""


def test_comments_layout_and_docstrings_of_helpers_do_not_count(notebook: Notebook) -> None:
    notebook.ok("def scale(x):\n    'Doubles.'\n    return x * 2")
    notebook.ok("%%checkpoint a\ny = scale(3)")
    notebook.ok("def scale(x):\n    'Twice as much.'\n    # a comment\n    return (x * 2)")
    assert notebook.ok("%%checkpoint a\n# as before\n\ny = scale( 3 )").status == "cached"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = {'a': 1, 'b': 2}", "x = {'b': 2, 'a': 1}"),
        ("import numpy as np\nx = np.array([1])", "import numpy as np\nx = np.array([1], dtype='int32')"),
        ("import pandas as pd\nx = pd.DataFrame({'a': [1]})", "import pandas as pd\nx = pd.DataFrame({'b': [1]})"),
        (
            "import pandas as pd\nx = pd.DataFrame({'a': [1]})",
            "import pandas as pd\nx = pd.DataFrame({'a': [1]}, index=[5])",
        ),
        ("def x():\n    return 1", "def x():\n    return 2"),
        ("K = 1\ndef x():\n    return K", "K = 2\ndef x():\n    return K"),
        ("class x:\n    a = 1", "class x:\n    a = 2"),
        ("class Point:\n    a: int = 1\nx = Point()", "class Point:\n    b: int = 1\nx = Point()"),
    ],
)
def test_a_changed_input_runs_the_cell_again(notebook: Notebook, first: str, then: str) -> None:
    notebook.ok(first)
    notebook.ok("%%checkpoint a\ny = repr(x)")
    notebook.ok(first)
    assert notebook.ok("%%checkpoint a\ny = repr(x)").status == "cached"
    notebook.ok(then)
    assert notebook.ok("%%checkpoint a\ny = repr(x)").status == "fresh"
    notebook.ok(first)
    assert notebook.ok("%%checkpoint a\ny = repr(x)").status == "cached"


def test_another_version_of_a_module_runs_the_cell_again(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    module = notebook.folder / "lib" / "ours.py"
    module.parent.mkdir()
    module.write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(module.parent))
    notebook.ok("import ours")
    notebook.ok("%%checkpoint a\ny = ours.f()")
    notebook.restart()
    module.write_text("def f():\n    return 22\n")
    notebook.ok("import importlib, ours\nimportlib.reload(ours)")
    assert notebook.ok("%%checkpoint a\ny = ours.f()").status == "fresh"


@pytest.mark.parametrize("setup", ["xs = [1]", "xs = [1]\nys = xs", "xs = [1]\nbox = {'in': xs}"])
def test_a_cell_that_changes_its_own_input_is_not_applied_twice(notebook: Notebook, setup: str) -> None:
    notebook.ok(setup)
    notebook.ok("%%checkpoint add\nxs.append(9)")
    ran = notebook.ok("%%checkpoint add\nxs.append(9)")
    assert "already applied to xs" in ran.text
    assert "--force" in ran.text
    assert notebook.ns["xs"] == [1, 9]
    notebook.ok("%%checkpoint add --force\nxs.append(9)")
    assert notebook.ns["xs"] == [1, 9, 9]


def test_after_a_restart_run_all_gives_what_was_there(notebook: Notebook) -> None:
    for _ in range(2):
        notebook.ok("xs = [1]")
        notebook.ok("%%checkpoint add\nxs.append(9)")
        notebook.ok("%%checkpoint more\nxs.append(10)")
        assert notebook.ns["xs"] == [1, 9, 10]
        notebook.restart()


def test_an_undigestable_value_is_known_by_the_cell_that_made_it(notebook: Notebook) -> None:
    def run_all(instructions: str) -> str | None:
        notebook.ok(AGENT)
        notebook.ok(f"text = {instructions!r}")
        notebook.ok("agent = Agent(text)")
        return notebook.ok("%%checkpoint ask\nanswer = agent.instructions.upper()").status

    assert run_all("be brief") == "fresh"
    assert run_all("be brief") == "cached"
    notebook.restart()
    assert run_all("be brief") == "cached"
    assert run_all("be long") == "fresh"
    assert notebook.ns["answer"] == "BE LONG"


def test_a_list_of_undigestable_values_is_known_too(notebook: Notebook) -> None:
    def run_all(instructions: str) -> str | None:
        notebook.ok(AGENT)
        notebook.ok(f"team = [Agent({instructions!r}), Agent('b')]")
        return notebook.ok("%%checkpoint ask\nanswer = team[0].instructions").status

    assert [run_all("a"), run_all("a"), run_all("c")] == ["fresh", "cached", "fresh"]


def test_a_function_that_uses_an_agent_is_known_by_that_agent(notebook: Notebook) -> None:
    def run_all(instructions: str) -> str | None:
        notebook.ok(AGENT)
        notebook.ok(f"agent = Agent({instructions!r})")
        notebook.ok("def ask():\n    return agent.instructions")
        return notebook.ok("%%checkpoint ask\nanswer = ask()").status

    assert [run_all("a"), run_all("a"), run_all("c")] == ["fresh", "cached", "fresh"]


def test_a_value_of_a_checkpoint_cell_that_cannot_be_kept_is_known_by_that_cell(notebook: Notebook) -> None:
    def run_all(n: int) -> str | None:
        notebook.ok(f"%%checkpoint make\nimport threading\nlock, n = threading.Lock(), {n}")
        return notebook.ok("%%checkpoint use --in lock\ny = 1").status

    assert [run_all(1), run_all(1), run_all(2)] == ["fresh", "cached", "fresh"]


def test_what_the_tool_of_an_agent_reads_reaches_the_key(notebook: Notebook) -> None:
    def run_all(**changes: object) -> str | None:
        values: dict[str, object] = {"passages": ["the log"], "doc": "Find.", "instructions": "Search."}
        notebook.ok(SDK)
        notebook.ok(RESEARCHER.format(**(values | changes)))
        return notebook.ok("%%checkpoint research\nnotes = researcher.instructions").status

    assert run_all() == "fresh"
    assert run_all() == "cached"
    assert run_all(passages=["the log", "the line"]) == "fresh"
    assert "researcher comes from another run" in notebook.ok("%kitaru why research").text
    assert run_all(doc="Find all of it.") == "fresh"
    assert run_all(instructions="Search twice.") == "fresh"
    assert run_all() == "cached"
    notebook.restart()
    assert run_all() == "cached"


def test_documents_that_a_later_cell_loads_reach_the_key_through_the_tool(notebook: Notebook) -> None:
    notebook.ok(SDK)
    notebook.ok(RESEARCHER.format(passages=[], doc="Find.", instructions="Search."))
    notebook.ok("passages = ['one']")
    notebook.ok("%%checkpoint research\nnotes = researcher.instructions")
    notebook.ok("passages = ['two']")
    assert notebook.ok("%%checkpoint research\nnotes = researcher.instructions").status == "fresh"
    assert "passages, which search of researcher uses, changed" in notebook.ok("%kitaru why research").text


def test_plain_cells_run_each_time_and_make_no_execution(notebook: Notebook) -> None:
    notebook.counting()
    notebook.ok("count('plain')")
    notebook.ok("count('plain')")
    assert notebook.counted == ["plain", "plain"]
    assert notebook.session.current() is None
