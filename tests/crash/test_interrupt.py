"""Interrupting at random moments, within one process: a pause that loses nothing, and never a hang."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from crash.evidence import Recorded
from crash.flows import journey, journey_async
from crash.workshop import SECONDS, Workshop
from kitaru_nb.core.control import resume
from kitaru_nb.core.flow import Flow
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.local import threads
from kitaru_nb.errors import KitaruStateError
from kitaru_nb.model import ExecutionStatus

ANSWERS = {"first": 1, "second": True}
WIDTH = 6
EXECUTIONS = 10
SEED = 20261123


def pause_after(handle: FlowHandle[Any], seconds: float) -> bool:
    """Interrupt the thread that advances the execution when this process has computed for ``seconds`` since it began
    to; whether there was something to interrupt. By the clock of a busy machine it might not even have begun."""
    local = threads[handle.exec_id]
    while local.run is None and not local.ended.wait(0.0002):
        pass
    moment = time.process_time() + seconds
    while time.process_time() < moment and not local.ended.wait(0.0002):
        pass
    run = local.run
    if run is not None:
        run.interrupt("paused", "the test said so")
    assert local.ended.wait(SECONDS), "the flow hangs"
    return run is not None and run.ending is not None


# An interrupt may come in the callback of a weak reference, or while Hypothesis, loaded by other tests, counts a
# collection of garbage: Python drops it there with a warning, and the run lets go at its next step instead.
@pytest.mark.filterwarnings("ignore:(?s).*errors.Paused:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("program", [journey, journey_async], ids=lambda f: f.name)
def test_interrupts_at_random_moments_lose_nothing_and_repeat_nothing(
    workshops: Callable[..., Workshop],
    program: Flow[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workshop = workshops()
    monkeypatch.setenv("CRASH_RAN", str(workshop.side_file))
    chance = random.Random(SEED)
    for _ in range(2):  # the first of them also loads what is needed
        began = time.process_time()
        result, recorded, _ = ordeal(workshop, program, lambda: SECONDS)
        whole = time.process_time() - began
    pauses = 0
    for _ in range(EXECUTIONS):
        again, recorded_again, paused = ordeal(workshop, program, lambda: chance.uniform(0, whole / 4))
        assert (again, recorded_again) == (result, recorded)
        pauses += paused
    with capsys.disabled():
        print(f"\n{program.name}: interrupted {pauses} times in {EXECUTIONS} executions")
    assert pauses > EXECUTIONS / 2


def ordeal(workshop: Workshop, program: Flow[..., Any], delay: Callable[[], float]) -> tuple[Any, Recorded, int]:
    """Run an execution, interrupt it after each ``delay()``, and resume it until it has completed."""
    workshop.side_file.write_text("")
    runtime, journal, witness = workshop.runtime, workshop.runtime.journal, workshop.witness
    witness.life_begins(journal, None)
    handle = program.with_options(runtime=runtime).run(WIDTH)
    pauses = 0
    while True:
        pauses += pause_after(handle, delay())
        witness.life_ended(journal, handle.exec_id)
        if handle.status is ExecutionStatus.COMPLETED:
            break
        workshop.answer(handle.exec_id, ANSWERS)
        witness.life_begins(journal, handle.exec_id)
        go_on(workshop, handle)
    recorded = workshop.recorded(handle.exec_id)
    witness.verdict(journal, handle.exec_id, recorded)
    assert handle.get() == workshop.result(handle.exec_id)
    return handle.get(), recorded, pauses


def go_on(workshop: Workshop, handle: FlowHandle[Any]) -> None:
    """Resume it; where it was asked to pause before it had claimed anything, it may have ended meanwhile."""
    try:
        resume(workshop.runtime, handle.exec_id)
    except KitaruStateError:
        assert handle.status is ExecutionStatus.COMPLETED
