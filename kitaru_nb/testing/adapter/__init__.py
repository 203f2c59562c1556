"""What every adapter of an agent SDK must do, as tests, which each runs by subclassing:

    class TestMyAdapter(AdapterContract):
        program = "my_tests.program"

``program`` is an importable module with these flows, written with the SDK. A fixture named ``endpoint`` gives the model
endpoint (`Endpoint`), to which the environment points the SDK, so clients are made inside functions; one named
``offline_model`` gives a running `kitaru_nb.testing.offline_model.OfflineModel`::

    async def run(prompt: str) -> str: ...                  # one agent run with the tools look_up, charge and trap

    @flow
    async def ask(prompt: str) -> str:
        return await run(prompt)

    @flow
    async def together(prompts: list[str]) -> list[str]:
        return await gathered([lambda p=p: run(p) for p in prompts])

    @flow
    async def streamed(prompt: str) -> str: ...             # as ask, with streamed model calls

    @flow
    def approved(prompt: str) -> str: ...                   # an agent whose tool pay waits for a person's approval

The tools are plain functions of `kitaru_nb.testing.adapter.tools`, to be wrapped as the SDK wants. `AdapterContract` is
the whole contract; an adapter whose unit of work is bigger than a call subclasses the parts that hold for it.
"""

from __future__ import annotations

from kitaru_nb.testing.adapter.approving import ApprovalContract
from kitaru_nb.testing.adapter.crashing import CrashContract, FaithfulnessContract
from kitaru_nb.testing.adapter.desk import AdapterSetup, Desk
from kitaru_nb.testing.adapter.notebook import NotebookContract
from kitaru_nb.testing.adapter.running import (
    ConcurrencyContract,
    FaultContract,
    RecordingContract,
    ReplayContract,
    StreamContract,
)
from kitaru_nb.testing.adapter.script import Endpoint, Request, ToolUse, Turn, say, side_by_side, use
from kitaru_nb.testing.adapter.smoke import SmokeContract

__all__ = [
    "AdapterContract",
    "AdapterSetup",
    "ApprovalContract",
    "ConcurrencyContract",
    "CrashContract",
    "Desk",
    "Endpoint",
    "FaithfulnessContract",
    "FaultContract",
    "NotebookContract",
    "RecordingContract",
    "ReplayContract",
    "Request",
    "SmokeContract",
    "StreamContract",
    "ToolUse",
    "Turn",
    "say",
    "side_by_side",
    "use",
]


class AdapterContract(
    RecordingContract,
    ReplayContract,
    ConcurrencyContract,
    CrashContract,
    FaithfulnessContract,
    FaultContract,
    StreamContract,
    ApprovalContract,
    NotebookContract,
    SmokeContract,
):
    """The whole contract."""
