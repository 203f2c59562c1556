"""How long one waits before anything happens: imports, the command line, ``%load_ext``. Bytecode is compiled before.

python -m benchmarks.startup
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.timing import in_turns

TURNS = 11
REPO = str(Path(__file__).parents[1])
PROCESSES = {
    "bare python": "pass",
    "import kitaru_nb": "import kitaru_nb",
    "flow, checkpoint and wait": "from kitaru_nb import flow, checkpoint, wait",
    "kitaru executions list": "from kitaru_nb.surfaces.cli import main; main()",
}
LOAD_EXT = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
start = time.perf_counter()
shell.run_line_magic("load_ext", "kitaru_nb")
print(time.perf_counter() - start)
"""


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KITARU_HOME": f"{folder}/home", "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment |= {"PYTHONPATH": REPO, "IPYTHONDIR": f"{folder}/ipython"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        works = {name: partial(run, code, environment) for name, code in PROCESSES.items()}
        in_turns(works, 2)  # compile, and create the journal
        found = in_turns(works, TURNS)
        bare = found.pop("bare python")
        print(f"{'milliseconds':36}{'median':>8}{'quickest':>9}")
        print(f"{'bare python':36}{bare.median * 1e3:8.0f}{bare.quickest * 1e3:9.0f}")
        for name, taken in found.items():
            above = [(taken.median - bare.median) * 1e3, (taken.quickest - bare.quickest) * 1e3]
            print(f"{f'{name}, above it':36}{above[0]:8.0f}{above[1]:9.0f}")
        run(LOAD_EXT, environment)
        loads = [float(run(LOAD_EXT, environment)) * 1e3 for _ in range(TURNS)]
        print(f"{'%load_ext kitaru_nb':36}{statistics.median(loads):8.0f}{min(loads):9.0f}")


def run(code: str, environment: Mapping[str, str]) -> str:
    """Run code as a program called ``kitaru executions list``; the last line that it printed."""
    command = [sys.executable, "-c", code, "executions", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().rpartition("\n")[2]


if __name__ == "__main__":
    main()
