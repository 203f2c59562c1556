"""An agent without a model: it makes the calls that adapters make, for what a notebook shows of them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, perform, perform_async

#: Set by tests: calls of these names wait until it is set.
gate = threading.Event()
held: set[str] = set()
#: The second search of a run waits until this file is there, where the test is another process.
gate_file: str | None = None


def _operation(name: str, type: str, inputs: Mapping[str, Any], place: int | None = None) -> Operation[str]:
    def encode(answer: str) -> Recorded:
        used = {"input_tokens": 10, "output_tokens": 3, "cost": 0.0002} if type == "model_call" else {}
        return Recorded((Part("output", answer, "response"),), used)

    return Operation(name, type, inputs, encode=encode, place=place)


def _wait(name: str) -> None:
    if name in held:
        assert gate.wait(30)


def run(question: str, searches: int = 1) -> str:
    """One agent run: a model call, then a search and a model call for each round."""

    def body() -> str:
        answer = model(question, 0)
        for n in range(searches):
            found = search(f"{question} {n}")
            answer = model(f"{question} {found}", n + 1)
        return answer

    return perform(_operation("researcher", "agent_run", {"question": question}), body)


def model(prompt: str, place: int) -> str:
    def body() -> str:
        _wait("model")
        return f"answer {place} <b>&amp;</b>"

    return perform(_operation("researcher.model", "model_call", {"prompt": prompt}, place), body)


def search(query: str, fails: bool = False) -> str:
    def body() -> str:
        _wait("search")
        while gate_file is not None and query.endswith(" 1") and not os.path.exists(gate_file):
            time.sleep(0.02)
        if fails:
            raise ValueError("no <such> index")
        return f"passage about {query}"

    return perform(_operation("search", "tool_call", {"arguments": {"query": query}}), body)


async def run_side_by_side(names: list[str]) -> list[str]:
    """Several agents at once; each makes one model call."""

    async def one(name: str) -> str:
        async def ask() -> str:
            await asyncio.sleep(0)
            return f"{name} says so"

        async def body() -> str:
            return await perform_async(_operation(f"{name}.model", "model_call", {"name": name}), ask)

        return await perform_async(_operation(name, "agent_run", {"name": name}), body)

    return list(await asyncio.gather(*(one(name) for name in names)))
