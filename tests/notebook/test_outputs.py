"""What a checkpoint cell leaves behind, and how it comes back in a new kernel."""

from __future__ import annotations

import pytest
from notebookkit import Notebook

from kitaru_nb.errors import KitaruArtifactError


def twice(notebook: Notebook, *cells: str) -> None:
    """Run cells in a kernel, then again in a new one, where every checkpoint must be reused."""
    for cell in cells:
        notebook.ok(cell)
    notebook.restart()
    for cell in cells:
        ran = notebook.ok(cell)
        if cell.startswith("%%checkpoint"):
            assert ran.status in ("cached", "partial")


def test_new_rebound_and_deleted_names_come_back(notebook: Notebook) -> None:
    twice(notebook, "a, b, c = 1, 2, 3", "%%checkpoint w\nd = a + b\na = 10\ndel c")
    assert (notebook.ns["a"], notebook.ns["b"], notebook.ns["d"]) == (10, 2, 3)
    assert "c" not in notebook.ns


def test_inputs_that_were_changed_in_place_come_back(notebook: Notebook) -> None:
    twice(
        notebook,
        "import numpy as np, random\nxs, table, rng = [1], {'k': {'deep': []}}, random.Random(1)\nv = np.zeros(3)",
        "%%checkpoint w\nxs.append(2)\ntable['k']['deep'].append(rng.random())\nv[1] = 7",
        "after = rng.random()",
    )
    ns = notebook.ns
    assert ns["xs"] == [1, 2]
    assert len(ns["table"]["k"]["deep"]) == 1
    assert list(ns["v"]) == [0, 7, 0]
    import random

    expected = random.Random(1)
    assert ns["table"]["k"]["deep"] == [expected.random()]
    assert ns["after"] == expected.random()


def test_names_of_one_object_stay_names_of_one_object(notebook: Notebook) -> None:
    twice(notebook, "xs = [1]\nys = xs\nbox = {'in': xs}", "%%checkpoint w\nxs.append(2)")
    ns = notebook.ns
    assert ns["xs"] is ns["ys"] is ns["box"]["in"]
    assert ns["xs"] == [1, 2]


def test_deep_sharing_between_new_values_survives(notebook: Notebook) -> None:
    twice(
        notebook,
        "%%checkpoint w\nclass P:\n    pass\ninner = {'n': []}\np = P()\np.data = inner\nd = {'k': (1, inner['n'])}",
    )
    ns = notebook.ns
    assert ns["p"].data is ns["inner"]
    assert ns["d"]["k"][1] is ns["inner"]["n"]


def test_an_array_and_its_view_are_stored_as_one_state(notebook: Notebook) -> None:
    twice(notebook, "import numpy as np\na = np.arange(4)\nv = a[1:]", "%%checkpoint w\nv[0] = 99")
    assert list(notebook.ns["a"]) == [0, 99, 2, 3]
    assert list(notebook.ns["v"]) == [99, 2, 3]


def test_an_alias_of_an_untouched_input_stays_one(notebook: Notebook) -> None:
    twice(
        notebook,
        "import threading\nlock, xs = threading.Lock(), [1]",
        "%%checkpoint w\nbest, ys = lock, xs",
    )
    ns = notebook.ns
    assert ns["best"] is ns["lock"]
    assert ns["ys"] is ns["xs"]


def test_an_untouched_value_that_cannot_be_kept_is_never_taken_away(notebook: Notebook) -> None:
    twice(notebook, "import threading\nlock = threading.Lock()", "%%checkpoint w\npair = [lock, 1]\nn = 5")
    assert notebook.ns["lock"].acquire(blocking=False)
    assert notebook.ns["n"] == 5


def test_definitions_run_again_and_are_never_unpickled(notebook: Notebook) -> None:
    cells = (
        "K = 2",
        "%%checkpoint w\nimport math as m\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass P:\n    x: int\n    def area(self):\n        return self.x * K\n"
        "def f(n):\n    return n * K\ng = lambda n: n + K\np = P(3)\nps = [P(1), P(2)]",
    )
    twice(notebook, *cells)
    ns = notebook.ns
    assert isinstance(ns["p"], ns["P"])
    assert all(isinstance(p, ns["P"]) for p in ns["ps"])
    assert ns["m"].sqrt(9) == 3
    notebook.ok("K = 5")
    assert notebook.ok("f(1), g(1), p.area()").results == ["(5, 6, 15)"]
    assert ns["f"].__globals__ is notebook.shell.user_global_ns


def test_a_function_that_a_call_made_sees_the_notebooks_globals(notebook: Notebook) -> None:
    twice(
        notebook,
        "K = 1",
        "%%checkpoint w\ndef make(n):\n    def add(x):\n        return x + n + K\n    return add\nadd3 = make(3)",
    )
    notebook.ok("K = 10")
    assert notebook.ok("add3(1)").results == ["14"]


def test_a_name_that_is_defined_and_then_rebound_keeps_its_value(notebook: Notebook) -> None:
    twice(notebook, "%%checkpoint w\ndef f():\n    return 4\nf = f()")
    assert notebook.ns["f"] == 4


def test_a_decorated_tool_needs_no_storing(notebook: Notebook) -> None:
    cells = (
        "import threading\nclass Tool:\n    def __init__(self, f):\n        self.f, self.lock = f, threading.Lock()\n"
        "def tool(f):\n    return Tool(f)",
        "%%checkpoint w\n@tool\ndef search(q):\n    return q\nn = 1",
    )
    twice(notebook, *cells)
    assert notebook.ns["search"].f("x") == "x"
    assert notebook.execution.checkpoints[0].partial == ()


def test_a_module_that_a_call_imported_is_imported_again(notebook: Notebook) -> None:
    twice(notebook, "%%checkpoint w\nimport importlib\nj = importlib.import_module('json')")
    assert notebook.ns["j"].dumps(1) == "1"


def test_frames_arrays_and_models_come_back_exactly(notebook: Notebook) -> None:
    twice(
        notebook,
        "%%checkpoint w\nimport pandas as pd, numpy as np\nfrom pydantic import BaseModel\n"
        "class M(BaseModel):\n    n: int\ndf = pd.DataFrame({'a': [1, 2]}, index=[5, 6])\n"
        "z = np.array([1], dtype='int8')\nm = M(n=1)",
    )
    ns = notebook.ns
    assert list(ns["df"].index) == [5, 6]
    assert ns["z"].dtype == "int8"
    assert isinstance(ns["m"], ns["M"])


def test_what_was_displayed_is_displayed_again(notebook: Notebook) -> None:
    cell = (
        "%%checkpoint w\nimport sys\nfrom IPython.display import HTML, display\nprint('one')\n"
        "print('two', file=sys.stderr)\nh = display(HTML('<i>draft</i>'), display_id=True)\n"
        "h.update(HTML('<i>final</i>'))\n42"
    )
    first = notebook.ok(cell)
    notebook.restart()
    again = notebook.ok(cell)
    assert (again.stdout, again.stderr) == (first.stdout, first.stderr) == ("one\n", "two\n")
    assert "<i>final</i>" in again.html
    assert "<i>draft</i>" not in again.html
    assert "42" in again.text
    assert notebook.execution.checkpoints[0].artifacts[-1].preview == {"text": "4 outputs"}


def test_a_cleared_output_is_not_shown_again(notebook: Notebook) -> None:
    cell = (
        "%%checkpoint w\nfrom IPython.display import clear_output\nfor i in range(3):\n"
        "    clear_output(wait=True)\n    print('at', i)"
    )
    notebook.ok(cell)
    notebook.restart()
    assert notebook.ok(cell).stdout == "at 2\n"


def test_figures_are_shown_again(notebook: Notebook) -> None:
    cell = "%%checkpoint w\nplt.plot([1, 2])\nnone = None"
    setup = "%matplotlib inline\nimport matplotlib.pyplot as plt"
    notebook.ok(setup)
    notebook.ok(cell)
    notebook.restart()
    notebook.ok(setup)
    ran = notebook.ok(cell)
    assert any("image/png" in b["data"] for b in ran.bundles)


def test_live_widgets_are_not_recorded(notebook: Notebook) -> None:
    cell = (
        "%%checkpoint w\nfrom IPython.display import display\nprint('text')\n"
        "display({'application/vnd.jupyter.widget-view+json': {}, 'text/plain': 'w'}, raw=True)"
    )
    notebook.ok(cell)
    assert notebook.execution.checkpoints[0].artifacts[-1].preview == {"text": "1 output"}


PARTIAL = "%%checkpoint w\nimport threading\nlock = threading.Lock()\nitems = (i for i in range(3))\ndata = {'a': 1}"


def test_what_cannot_be_kept_is_told_in_a_table_and_the_rest_is_kept(notebook: Notebook) -> None:
    ran = notebook.ok(PARTIAL)
    assert ran.status == "partial"
    head, *rows = ran.text.splitlines()[2:]
    assert head.split() == ["name", "type", "why", "do"]
    assert [row.split()[0] for row in rows] == ["items", "lock"]
    assert "builtins.generator" in ran.text
    assert "list(value)" in ran.html
    assert notebook.ns["lock"].acquire(blocking=False)
    notebook.restart()
    assert notebook.ok(PARTIAL).status == "partial"
    assert notebook.ns["data"] == {"a": 1}


def test_a_name_that_was_not_kept_is_a_tripwire(notebook: Notebook) -> None:
    notebook.ok(PARTIAL)
    notebook.restart()
    notebook.ok(PARTIAL)
    assert "not restored: lock" in notebook.ok("lock").results[0]
    for use in ("lock.acquire()", "with lock: pass", "list(items)", "bool(lock)", "lock == 1", "f'{items!s}'"):
        ran = notebook.run(use)
        assert isinstance(ran.error, KitaruArtifactError), use
        assert "was made by checkpoint 'w' and could not be persisted" in ran.traceback
        assert "--force" in ran.traceback
    notebook.ok(PARTIAL.replace("w\n", "w --force\n", 1))
    assert notebook.ok("list(items)").results == ["[0, 1, 2]"]


@pytest.mark.parametrize("name", ["w", ""])
def test_restore_brings_variables_back_without_running_anything(notebook: Notebook, name: str) -> None:
    notebook.counting()
    notebook.ok("%%checkpoint w\ncount('w')\nx = 3\ndef f():\n    return x")
    notebook.ok("%%checkpoint v\ny = x + 1")
    notebook.restart()
    ran = notebook.ok(f"%kitaru restore {name}")
    assert ran.text == ("Restored: w" if name else "Restored: w, v")
    assert notebook.ok("f()").results == ["3"]
    assert ("y" in notebook.ns) is not bool(name)
    assert notebook.counted == ["w"]


def test_restore_without_the_cells_above_leaves_a_tripwire_until_they_ran(notebook: Notebook) -> None:
    cells = ("class Base:\n    pass", "%%checkpoint w\nclass P(Base):\n    pass\np = P()\nn = 1")
    for cell in cells:
        notebook.ok(cell)
    notebook.restart()
    assert notebook.ok("%kitaru restore").error is None
    assert notebook.ns["n"] == 1
    assert "Run the cells above first" in notebook.run("P()").traceback
    for cell in cells:
        notebook.ok(cell)
    assert isinstance(notebook.ns["p"], notebook.ns["P"])


def test_restore_of_an_unknown_checkpoint_lists_those_there_are(notebook: Notebook) -> None:
    notebook.ok("%%checkpoint w\nx = 3")
    ran = notebook.run("%kitaru restore ww")
    assert "no completed checkpoint cell 'ww'. Completed: w." in ran.traceback
