"""Promotion of a notebook whose environment has 60 packages, and how soon a worker of it finishes a checkpoint.

python -m benchmarks.promote
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime

TURNS = 5
CELLS = [
    "%load_ext kitaru_nb",
    "import numpy as np\nimport pandas as pd",
    "%%checkpoint one\ntable = pd.DataFrame({'a': np.arange(10)})",
]
PLAIN = ["%load_ext kitaru_nb", "%%checkpoint one\na = 1"]
FLOWS = """\
from kitaru_nb import checkpoint, flow

@checkpoint
def one():
    return 1

@flow
def f():
    return one()
"""


def main() -> None:
    """Print the table. The first turn locks, builds wheels and the environment; the others find all that."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KITARU_CACHE"] = f"{folder}/cache"
        runtime = Runtime(Settings(Path(folder) / "home"))
        client = KitaruClient(runtime)
        path = notebook(Path(folder), "brief", CELLS)
        promotions = []
        for _ in range(TURNS + 1):
            begun = time.perf_counter()
            client.deployments.create(path)
            promotions.append(time.perf_counter() - begun)
        packages = len(client.deployments.snapshot("brief").manifest.packages)
        print(f"{'seconds':44}{'cold':>8}{'median':>8}{'quickest':>10}")
        show(f"promote, {packages} packages locked", promotions)
        client.deployments.create(notebook(Path(folder), "plain", PLAIN))
        (Path(folder) / "flows.py").write_text(FLOWS)
        client.deployments.create(f"{folder}/flows.py:f")
        show("notebook: invoke to the first checkpoint", [first_checkpoint(client, "plain") for _ in range(TURNS + 1)])
        show("function: invoke to the first checkpoint", [first_checkpoint(client, "f") for _ in range(TURNS + 1)])
        print(f"{'a kernel alone, for comparison':44}{'':8}{'':8}{kernel_alone():10.2f}")
        print(f"{'loading the worker alone, for comparison':44}{'':8}{'':8}{worker_alone():10.2f}")
        runtime.journal.close()


def show(name: str, taken: list[float]) -> None:
    """One row: the first turn, then the others."""
    cold, *warm = taken
    print(f"{name:44}{cold:8.2f}{statistics.median(warm):8.2f}{min(warm):10.2f}")


def notebook(folder: Path, name: str, cells: list[str]) -> Path:
    """A small notebook."""
    make: Any = nbformat.v4
    path = folder / f"{name}.ipynb"
    nbformat.write(make.new_notebook(cells=[make.new_code_cell(source) for source in cells]), path)
    return path


def first_checkpoint(client: KitaruClient, deployment: str) -> float:
    """Seconds from the invocation to the end of its first checkpoint."""
    begun = time.time()
    handle = client.deployments.invoke(deployment)
    handle.wait(timeout=300)
    history = client.runtime.journal.history(handle.exec_id)
    return next(e.at for e in history if e.kind == "checkpoint.completed") - begun


def kernel_alone() -> float:
    """Seconds that a bare kernel takes to run one trivial cell."""
    program = (
        "from jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel()\n"
        "client.execute_interactive('1')\n"
        "client.stop_channels()\n"
        "manager.shutdown_kernel(now=True)\n"
    )
    return quickest(program)


def worker_alone() -> float:
    """Seconds that a Python takes to load what every worker needs."""
    return quickest("import kitaru_nb.worker")


def quickest(program: str) -> float:
    """Seconds that a program takes, at best."""
    taken = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        taken.append(time.perf_counter() - begun)
    return min(taken)


if __name__ == "__main__":
    main()
