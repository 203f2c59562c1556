"""What runners that start workers elsewhere share: the command, the environment, and what a check finds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kitaru_nb.config import secrets_in
from kitaru_nb.core.runners import Job
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.stacks.definition import DEFINITION, Stack, on_stack
from kitaru_nb.stacks.process import environment


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: whether it works, what was seen, and the line that mends it."""

    what: str
    ok: bool
    seen: str
    fix: str | None = None


#: Options of runners that speak of the machine on which they were written down.
_OF_THIS_MACHINE = ("kubeconfig", "context", "profile")


def worker_command(exec_id: str, job: Job | None = None) -> list[str]:
    """The command of a worker that something else starts again when it dies: ends with 0 once its turn is recorded."""
    options = [] if job is None else ["--job", job.name]
    return ["python", "-m", "kitaru_nb.worker", "--supervised", *options, exec_id]


def worker_environment(runtime: Runtime, stack: Stack) -> dict[str, str]:
    """Variables of a worker: where journal and store are, and what the stack adds. Without the home of this machine.

    Both are as the stack says: a server that has the journal itself reaches it another way than its workers.

    Raises:
        KitaruUsageError: a password would be readable wherever the platform shows the worker.
    """
    settings = on_stack(stack, runtime.settings)
    for what, url in (("journal", settings.journal_url), ("store", settings.store_url)):
        variable = f"KITARU_{what.upper()}"
        if variable not in stack.secrets and secrets_in(url):
            raise KitaruUsageError(
                f"The {what} of stack {stack.name!r} has a password, which workers must get as a secret.",
                fix=f"kitaru stack create {stack.name} {stack.runner} ... --secret {variable}=REFERENCE",
            )
    variables = {name: value for name, value in environment(settings).items() if name != "KITARU_HOME"}
    # By this a worker starts jobs for isolated checkpoints where it runs itself.
    options = {name: value for name, value in stack.options.items() if name not in _OF_THIS_MACHINE}
    fields = stack.model_dump(exclude_defaults=True) | {"name": stack.name, "runner": stack.runner, "options": options}
    variables[DEFINITION] = json.dumps(fields)
    return {**variables, "PYTHONUNBUFFERED": "1", **stack.environment}
