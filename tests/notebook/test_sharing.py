"""What cells change without naming it, and objects that share: a reused cell leaves what a run of it left."""

from __future__ import annotations

from notebookkit import Notebook

NUMPY = "import numpy as np\n"
PLOTS = "from matplotlib.figure import Figure\nfigure = Figure()\n"
COUNTER = """
def counter():
    n = 0
    def count():
        nonlocal n
        n += 1
        return n
    return count
"""

#: (plain cell, checkpoint cell, what is the same in a new kernel)
CELLS = {
    "a global of a function of the cell": (
        "total = 0",
        "def add(n):\n    global total\n    total += n\nadd(2); add(3)",
        "total",
    ),
    "a global that a helper changes": ("seen = []\ndef note(n):\n    seen.append(n)", "note(3)", "seen"),
    "a global that a helper's helper changes": (
        "table = {}\ndef put(k):\n    table[k] = 1\ndef both(k):\n    put(k)",
        "both('a')",
        "table",
    ),
    "a global that a method changes": (
        "log = []\nclass A:\n    def go(self):\n        log.append(1)\na = A()",
        "a.go()",
        "log",
    ),
    "a global that a function in a table changes": (
        "log = []\nTOOLS = {'a': lambda: log.append('a')}",
        "TOOLS['a']()",
        "log",
    ),
    "a closure": (COUNTER + "count = counter()", "n = count()", "n, count()"),
    "a list behind a partial": (
        "from functools import partial\nxs = []\npush = partial(list.append, xs)",
        "push(1)",
        "xs, push(2), xs",
    ),
    "a list behind a bound method": ("xs = []\npush = xs.append", "push(1)", "xs, push(2), xs"),
    "a list in a tuple": ("xs = [1]\npair = (xs, 5)", "xs.append(2)", "pair, pair[0] is xs"),
    "a list in an array of objects": (
        NUMPY + "xs = [1]\na = np.empty(2, object)\na[0] = xs",
        "xs.append(2)",
        "a[0], a[0] is xs",
    ),
    "a view": (NUMPY + "a = np.arange(4)\nv = a[::2]", "v[1] = 9", "a.tolist(), v.tolist(), np.shares_memory(a, v)"),
    "a new view": (NUMPY + "a = np.arange(4)", "v = a[::-1]\nv[0] = 9", "a.tolist(), np.shares_memory(a, v)"),
    "rows and columns": (
        NUMPY + "a = np.arange(6).reshape(2, 3)\nrow, t = a[0], a.T",
        "row[0] = 9",
        "a.tolist(), t.tolist(), np.shares_memory(row, t)",
    ),
    "a window": (
        NUMPY + "a = np.arange(4)\nw = np.lib.stride_tricks.sliding_window_view(a, 2)",
        "a[0] = 9",
        "w.tolist()",
    ),
    "a masked array": (NUMPY + "a = np.arange(3)\nm = np.ma.array(a, mask=[0, 0, 1])", "m[0] = 9", "a.tolist()"),
    "a buffer": (NUMPY + "data = bytearray(4)\na = np.frombuffer(data, 'u1')", "a[0] = 9", "list(data)"),
    "the plot of a figure": (PLOTS + "ax = figure.subplots()", "title = ax.set_title('T')", "ax.figure is figure"),
    "plots of a figure": (
        PLOTS,
        "axes = figure.subplots(1, 2)\nt = axes[0].set_title('T')",
        "figure.axes[0].get_title(), axes[0].figure is figure, t.figure is figure",
    ),
}


def test_what_a_cell_changed_comes_back(notebook: Notebook) -> None:
    found: dict[str, list[str]] = {what: [] for what in CELLS}
    for status in ("fresh", "cached"):
        for number, (what, (setup, body, look)) in enumerate(CELLS.items()):
            notebook.ok(setup)
            assert notebook.ok(f"%%checkpoint w{number}\n{body}").status == status, what
            found[what] += notebook.ok(f"repr(({look}))").results
        notebook.restart()
    assert {what: (before, after) for what, (before, after) in found.items() if before != after} == {}


def test_a_cell_whose_helper_changed_its_data_is_not_applied_twice(notebook: Notebook) -> None:
    notebook.ok("seen = []\ndef note(n):\n    seen.append(n)")
    notebook.ok("%%checkpoint w\nnote(3)")
    assert "already applied to seen" in notebook.ok("%%checkpoint w\nnote(3)").text
    assert notebook.ns["seen"] == [3]


def test_small_pieces_of_a_large_memory_do_not_bring_all_of_it(notebook: Notebook) -> None:
    notebook.ok(NUMPY + "big = np.zeros(100_000)\na, b = big[:10], big[5:15]\ndel big")
    notebook.ok("%%checkpoint w\na[5] = 1")
    assert sum(artifact.size for artifact in notebook.execution.checkpoints[0].artifacts) < 10_000
