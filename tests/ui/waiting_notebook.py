"""A notebook that runs to a wait, and what it recorded."""

from __future__ import annotations

from pathlib import Path

import nbformat
from labkit import Lab

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime

#: A plain cell's variable and what it takes for granted: a kernel that lost them can't go on from the middle.
CELLS = [
    "%load_ext kitaru_nb\nimport os, pathlib\n"
    "pid = pathlib.Path('{name}.pid').write_text(str(os.getpid()))\nunit = 'knots'",
    "%%checkpoint measure\nprint('measured')\nspeeds = [4.0, 6.5, 9.0]",
    "%%checkpoint mean\nmean = sum(speeds) / len(speeds)\nmean",
    'approved = %wait approve --question "Publish a mean of {{mean}} {{unit}}?"',
    "%%checkpoint publish\ntext = f'{{mean}} {{unit}}: {{approved}}'\ntext",
    "print('final', text)",
]
WAIT, LAST = 3, 5


def write(lab: Lab, name: str, *, panel: bool = False) -> None:
    """A notebook of this name in the lab's folder; with ``panel``, a last cell shows that."""
    sources = [source.format(name=name) for source in CELLS] + (["%kitaru panel"] if panel else [])
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), lab.root / f"{name}.ipynb")


def kernel_of(lab: Lab, name: str) -> int:
    """Process id of the kernel that ran the notebook's first cell last."""
    return int((lab.root / f"{name}.pid").read_text())


def answers(lab: Lab, name: str) -> list[tuple[str, object, str]]:
    """Name, value and way of each answered wait of the notebook's newest execution."""
    runtime = Runtime(Settings(Path(lab.environment["KITARU_HOME"])))
    try:
        execution = KitaruClient(runtime).executions.latest(flow=name)
        return [(w.name, w.value, str(w.via)) for w in execution.waits if w.status == "resolved"]
    finally:
        runtime.journal.close()
