"""What runners that start workers elsewhere share: the command, the environment, and what a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.stacks.definition import Stack
from kitaru_nb.stacks.process import environment


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: whether it works, what was seen, and the line that mends it."""

    what: str
    ok: bool
    seen: str
    fix: str | None = None


def worker_command(exec_id: str) -> list[str]:
    """The command of a worker that something else starts again when it dies: ends with 0 once its turn is recorded."""
    return ["python", "-m", "kitaru_nb.worker", "--supervised", exec_id]


def worker_environment(runtime: Runtime, stack: Stack) -> dict[str, str]:
    """Variables of a worker: where journal and store are, and what the stack adds. Without the home of this machine.

    Raises:
        KitaruUsageError: a password would be readable wherever the platform shows the worker.
    """
    journal = "KITARU_JOURNAL"
    if journal not in stack.secrets and urlsplit(runtime.settings.journal_url).password:
        raise KitaruUsageError(
            f"The journal of stack {stack.name!r} has a password, which workers must get as a secret.",
            fix=f"kitaru stack create {stack.name} {stack.runner} ... --secret {journal}=NAME/KEY",
        )
    variables = {name: value for name, value in environment(runtime.settings).items() if name != "KITARU_HOME"}
    return {**variables, "PYTHONUNBUFFERED": "1", **stack.environment}
