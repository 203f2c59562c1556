"""``python -m tests.docs.page_process PAGE``: run a page's Python and notebook blocks, in a process of their own.

Python blocks share one ``__main__``, as if they were typed; notebook blocks are the cells of one IPython shell.
Answers with JSON: for each block its title, its output, and the error that ended it.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from tests.docs.pages import Block, read_blocks


def run_python(block: Block, main: types.ModuleType) -> str | None:
    """Run a block in ``main``; the last line of its traceback if it failed."""
    name = f"<{block.title}>"
    linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
    try:
        exec(compile(block.text, name, "exec"), vars(main))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return "".join(traceback.format_exception_only(error))
    return None


def run_cell(block: Block, shell: Any) -> str | None:
    """Run a block as a cell; the name of what ended it, but for a pause."""
    result = shell.run_cell(block.text, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    return None if error is None or type(error).__name__ == "Paused" else type(error).__name__


def make_shell() -> Any:
    """An IPython shell that prints values as a notebook shows them, without ``Out[1]:``."""
    from IPython.core.interactiveshell import InteractiveShell

    shell: Any = InteractiveShell.instance()
    shell.displayhook.write_output_prompt = lambda: None
    return shell


def run_page(page: Path) -> list[dict[str, str | None]]:
    """Run all blocks of a page, in order."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    shell = None
    answers: list[dict[str, str | None]] = []
    for block in read_blocks(page):
        if block.language == "shell" or block.file is not None:
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if block.language == "python":
                error = run_python(block, main)
            else:
                shell = shell or make_shell()
                error = run_cell(block, shell)
        answers.append({"title": block.title, "output": output.getvalue(), "error": error})
    return answers


if __name__ == "__main__":
    json.dump(run_page(Path(sys.argv[1])), sys.stdout)
