"""What a call consists of: a function, a notebook's cell, a model's answer. Each kind says how it runs and is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kitaru_nb.model import Artifact, Event

if TYPE_CHECKING:
    from kitaru_nb.core.engine import Call
    from kitaru_nb.core.run import Run


class Work(Protocol):
    """What a call consists of: the code, and how its outcome is kept."""

    def invoke(self, call: Call, attempt: int) -> Any:
        """Run the user's code in this thread."""

    async def invoke_async(self, call: Call, attempt: int) -> Any:
        """Run the user's code in this task."""

    def outputs(self, run: Run, call: Call, value: Any) -> tuple[list[Artifact], Mapping[str, Any]]:
        """Persist the outcome; its artifacts, and more for the body of ``checkpoint.completed``."""

    def restore(self, run: Run, call: Call, artifacts: Sequence[Artifact], event: Event) -> Any:
        """The outcome again, from what was recorded."""

    def recorded_failure(self, event: Event) -> BaseException:
        """The exception again that ended the call's last attempt."""


@runtime_checkable
class TakesArguments(Protocol):
    """A `Work` that can run with other values of its inputs than the flow gave, because a replay says so."""

    def with_arguments(self, call: Call, values: Mapping[str, Any]) -> None:
        """Let the call run with ``values``, by name of input, instead: its body gets them, and ``call.inputs`` has them
        (`kitaru_nb.core.function_work.replace_inputs`). Identity and place of the call stay as the flow asked for it.

        Raises:
            KitaruUsageError: these values can't be.
        """
