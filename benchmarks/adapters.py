"""What the OpenAI Agents adapter adds to each model call and each tool call, for each strategy, beside the floor.

The same agent with a model that answers at once runs bare, in a flow as one checkpoint (``runner_call``), and in a flow
with a checkpoint for each call (``calls``), in turns. The floor of a call that is a checkpoint is one bare SQLite
commit of the bytes that it became. A real model call takes about a second; so milliseconds are what matters here. Of
several turns the quickest counts: what it takes when nothing else runs.

python -m benchmarks.adapters [FOLDER]
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from benchmarks.checkpoint import INSERT, bare
from benchmarks.timing import in_turns
from kitaru_nb import KitaruClient, KitaruRunner, OpenAIRunRequest, flow
from kitaru_nb.journal.sqlite import SqliteJournal

CALLS = 20
TURNS = 7


class Instant(Model):
    """Asks for ``calls`` tool calls, ``width`` of them in each answer, and then is done."""

    def __init__(self, calls: int, width: int) -> None:
        self.calls = calls
        self.width = width

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        """The next answer, by how many results there are."""
        done = sum(1 for item in input if item.get("type") == "function_call_output")
        output: list[Any] = [
            ResponseFunctionToolCall(
                id=f"fc_{done + n}", type="function_call", name="work", call_id=f"c{done + n}", arguments='{"n": 1}'
            )
            for n in range(self.width if done < self.calls else 0)
        ]
        if not output:
            text = ResponseOutputText(type="output_text", text="done", annotations=[])
            output = [
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])
            ]
        return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        """Not measured."""
        raise NotImplementedError


@function_tool
async def work(n: int) -> str:
    """Does nothing."""
    return "ok"


def agent(shape: str) -> Agent[Any]:
    """The agent whose runs are measured: it makes no tool call, one after the other, or all side by side."""
    calls, width = {"none": (0, 1), "chain": (CALLS, 1), "wide": (CALLS, CALLS)}[shape]
    return Agent(name="worker", model=Instant(calls, width), tools=[work])


def bare_run(shape: str) -> Callable[[], object]:
    """The SDK alone."""
    return lambda: asyncio.run(Runner.run(agent(shape), "go", max_turns=CALLS + 2))


def durable(shape: str, strategy: Literal["calls", "runner_call"]) -> Callable[[], object]:
    """The same in a flow."""

    @flow
    async def measured() -> None:
        runner = KitaruRunner(agent(shape), checkpoint_strategy=strategy)
        await runner.run(OpenAIRunRequest.start("go", max_turns=CALLS + 2))

    return lambda: measured.run().wait()


def rows(name: str) -> list[tuple[Any, ...]]:
    """What the calls of that name became in the journal, in a run where one comes after the other."""
    durable("chain", "calls")()
    journal = KitaruClient().runtime.journal
    assert isinstance(journal, SqliteJournal)
    columns = INSERT.partition("(")[2].partition(")")[0]
    asked = f"select {columns} from journal where kind = 'checkpoint.completed' and json_extract(body, '$.name') = ?"
    with closing(sqlite3.connect(journal.path)) as connection:
        return connection.execute(asked, (name,)).fetchall()


def committed(connection: sqlite3.Connection, found: list[tuple[Any, ...]]) -> Callable[[], object]:
    """One commit for each."""

    def commit() -> None:
        for row in found:
            connection.execute(INSERT, row)

    return commit


def main(folder: str | None = None) -> None:
    """Print the table."""
    set_tracing_disabled(True)
    with tempfile.TemporaryDirectory(dir=folder) as home, closing(bare(Path(home) / "floor.db", "power")) as connection:
        os.environ["KITARU_HOME"] = home
        works: dict[str, Callable[[], object]] = {}
        for shape in ("none", "chain", "wide"):
            works[f"bare {shape}"] = bare_run(shape)
            works[f"runner_call {shape}"] = durable(shape, "runner_call")
            works[f"calls {shape}"] = durable(shape, "calls")
        calls = {"model": rows("worker.model")[:CALLS], "tool": rows("work")[:CALLS]}
        works |= {f"floor {kind}": committed(connection, found) for kind, found in calls.items()}
        found = in_turns(works, TURNS)
    lowest = {kind: found[f"floor {kind}"].quickest / CALLS * 1e3 for kind in calls}
    print(f"{'added by the adapter':36}{'ms':>8}{'floor':>8}{'ratio':>7}")
    for strategy in ("runner_call", "calls"):
        none, chain, wide = (
            (found[f"{strategy} {shape}"].quickest - found[f"bare {shape}"].quickest) * 1e3
            for shape in ("none", "chain", "wide")
        )
        # One after the other there are CALLS + 1 model calls, side by side 2, without tools 1.
        model = (chain - wide) / (CALLS - 1)
        tool = (wide - none - model) / CALLS
        print(f"{strategy + ', the flow and the run':36}{none:8.2f}")
        for kind, taken in (("model", model), ("tool", tool)):
            # Calls are no checkpoints of their own in the other strategy, so nothing is committed for them.
            floor = f"{lowest[kind]:8.2f}{taken / lowest[kind]:7.2f}" if strategy == "calls" else ""
            print(f"{strategy + f', per {kind} call':36}{taken:8.2f}{floor}")


if __name__ == "__main__":
    main(*sys.argv[1:])
