"""Flows in processes of their own: scripts, modules, notebooks' namespaces, and workers that find them again."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path

import pytest

from core.bench import Shop, until
from kitaru_nb import KitaruStateError, KitaruUserCodeError
from kitaru_nb.core import handle as handles

BODY = """
from dataclasses import dataclass
from kitaru_nb import checkpoint, flow, wait

@dataclass(frozen=True)
class Outcome:
    topic: str
    words: int

class Trouble(Exception):
    pass

@checkpoint
def research(topic: str) -> Outcome:
    with open("ran.txt", "a") as file:
        file.write(f"research {topic}\\n")
    return Outcome(topic, 3)

@checkpoint
def broken() -> None:
    with open("ran.txt", "a") as file:
        file.write("broken\\n")
    raise Trouble("as ever")

@checkpoint
def publish(notes: Outcome) -> str:
    assert isinstance(notes, Outcome), type(notes).__module__
    return f"published {notes.topic}"

@flow
def brief(topic: str) -> str:
    notes = research(topic)
    try:
        broken()
    except Trouble:
        pass
    if not wait("approve", question=f"Publish {notes.words} words?", timeout=0):
        return "rejected"
    return publish(notes)
"""

START = """
from kitaru_nb import KitaruWaitingError
handle = brief.run("agents")
try:
    handle.wait()
except KitaruWaitingError:
    print(handle.exec_id, flush=True)
"""

GUARD = "\nif __name__ == '__main__':\n    open('ran.txt', 'a').write('main\\n')\n"
GUARDED = BODY + GUARD + "".join(f"    {line}\n" for line in START.splitlines())
UNGUARDED = BODY + START
MODULE = "import sys; sys.path.insert(0, 'package')\nfrom flows.brief import brief\n" + START
NOTEBOOK = f"""
import sys, types
main = types.ModuleType("__main__")
main.get_ipython = lambda: None
sys.modules["__main__"] = main
source = {BODY + START!r}
import linecache
linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(True), "<cell 1>")
exec(compile(source, "<cell 1>", "exec"), main.__dict__)
"""


@pytest.mark.parametrize("place", ["guarded script", "script without a guard", "module", "notebook"])
def test_an_answer_from_another_process_starts_a_fresh_one_that_finds_the_flow(shop: Shop, place: str) -> None:
    if place == "module":
        package = shop.folder / "package" / "flows"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "brief.py").write_text(BODY)
    source = {"guarded script": GUARDED, "script without a guard": UNGUARDED, "module": MODULE, "notebook": NOTEBOOK}
    done = shop.run(shop.write("work.py", source[place]))
    assert done.returncode == 0, done.stderr
    exec_id = done.stdout.strip()
    handle = shop.bench.executions.handle(exec_id)
    started = shop.bench.answer(exec_id, True, by="ann")
    assert started.worker is not None
    assert handle.wait(120) == "published agents", shop.output(exec_id)
    ran = (shop.folder / "ran.txt").read_text().splitlines()
    assert ran == [*(["main"] if place == "guarded script" else []), "research agents", "broken"]
    shop.prints(exec_id, f"{exec_id} completed")


def test_a_flow_that_is_gone_fails_its_execution_and_retry_goes_on_when_it_is_back(shop: Shop) -> None:
    script = shop.write("work.py", GUARDED)
    exec_id = shop.run(script).stdout.strip()
    script.write_text(GUARDED.replace("def brief(", "def renamed(").replace("brief.run", "renamed.run"))
    handle = shop.bench.executions.handle(exec_id)
    shop.bench.answer(exec_id, True)
    with pytest.raises(KitaruUserCodeError, match=r"no longer defines a flow 'brief'") as caught:
        handle.wait(120)
    assert caught.value.fix == f"kitaru executions retry {exec_id}"
    script.write_text(GUARDED)
    shop.bench.executions.retry(exec_id)
    assert handle.wait(120) == "published agents"


def test_a_module_that_breaks_fails_its_execution_with_what_it_said(shop: Shop) -> None:
    script = shop.write("work.py", GUARDED)
    exec_id = shop.run(script).stdout.strip()
    script.write_text("import no_such_module\n" + GUARDED)
    shop.bench.answer(exec_id, True)
    with pytest.raises(KitaruUserCodeError, match="no_such_module"):
        shop.bench.executions.handle(exec_id).wait(120)


def test_a_worker_that_dies_before_it_begins_is_not_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_id = shop.run(shop.write("work.py", GUARDED)).stdout.strip()
    handle = shop.bench.executions.handle(exec_id)
    with monkeypatch.context() as patch:
        patch.setenv("KITARU_LEASE_SECONDS", "30")
        patch.setattr("sys.executable", "/bin/false")
        shop.bench.answer(exec_id, True)
    monkeypatch.setattr(handles, "TAKEN_UP_WITHIN", math.inf)
    with pytest.raises(KitaruStateError, match="no worker has taken it up") as caught:
        handle.wait(120)
    assert caught.value.fix == f"kitaru executions resume {exec_id}"
    shop.bench.executions.resume(exec_id)
    assert handle.wait(120) == "published agents"


def test_a_flow_that_can_not_travel_runs_here_and_is_resumed_here(shop: Shop) -> None:
    source = NOTEBOOK.replace("class Trouble", "import threading\\nlock = threading.Lock()\\n\\nclass Trouble").replace(
        "return Outcome(topic, 3)", "return lock and Outcome(topic, 3)"
    )
    source += """
from kitaru_nb import KitaruClient
import os, time
exec_id = main.handle.exec_id
while not os.path.exists("answered"):
    time.sleep(0.01)
KitaruClient().executions.resume(exec_id)
print(main.handle.wait())
"""
    with shop.start(shop.write("work.py", source)) as process:
        assert process.stdout is not None
        exec_id = process.stdout.readline().strip()
        assert exec_id.startswith("kr-"), process.communicate()
        answered = shop.bench.answer(exec_id, True)
        assert (answered.worker, answered.elsewhere) == (None, True)
        with pytest.raises(KitaruStateError, match=r"only in the process that started it[\s\S]*executions.resume"):
            shop.bench.executions.resume(exec_id)
        (shop.folder / "answered").touch()
        out, err = process.communicate(timeout=120)
    assert out.strip() == "published agents", err


def test_a_script_lives_until_its_flows_have_ended(shop: Shop) -> None:
    """Also what needs thread pools: submitted calls, and all that asyncio hands to threads."""
    source = """
import asyncio, threading
from pathlib import Path
from kitaru_nb import checkpoint, flow

@checkpoint
def step(n):
    return n

@checkpoint
async def step_async(n):
    return await asyncio.to_thread(lambda: n)

def main_has_ended():
    while threading.main_thread().is_alive() and not threading._SHUTTING_DOWN:
        pass

@flow
def plain():
    main_has_ended()
    total = sum(step.map(range(5)).results()) + sum(step_async.map(range(5)).results())
    Path("plain.txt").write_text(str(total))

@flow
async def asynchronous():
    main_has_ended()
    total = sum(await asyncio.gather(*(step_async(n) for n in range(5))))
    Path("async.txt").write_text(str(total))

plain.run()
asynchronous.run()
"""
    done = shop.run(shop.write("work.py", source))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (shop.folder / "plain.txt").read_text() == "20"
    assert (shop.folder / "async.txt").read_text() == "10"
    assert {e.status for e in shop.bench.executions.list()} == {"completed"}


def test_a_failure_that_nobody_waited_for_is_printed_at_the_end_with_the_next_line(shop: Shop) -> None:
    source = """
from kitaru_nb import flow

@flow
def failing(text):
    raise ValueError(text)

unseen = failing.run("nobody waits")
seen = failing.run("somebody waits")
try:
    seen.wait()
except Exception as error:
    print(unseen.exec_id)
"""
    done = shop.run(shop.write("work.py", source))
    exec_id = done.stdout.strip()
    assert done.returncode == 0
    assert done.stderr == (
        f"kitaru: {exec_id} failed: ValueError: nobody waits\n  fix: kitaru executions retry {exec_id}\n"
    )


@pytest.mark.parametrize("goes_on", ["", "while True:\n    time.sleep(0.01)\n"], ids=["at its end", "before its end"])
def test_ctrl_c_ends_a_script_and_pauses_its_flows(shop: Shop, goes_on: str) -> None:
    source = """
import time
from pathlib import Path
from kitaru_nb import checkpoint, flow

@checkpoint
def slow():
    Path("began").touch()
    while True:
        time.sleep(0.01)

@flow
def working():
    slow()

working.run()
"""
    with shop.start(shop.write("work.py", source + goes_on)) as process:
        until(lambda: (shop.folder / "began").exists(), 120)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    (execution,) = shop.bench.executions.list()
    assert execution.status == "interrupted"
    assert "execution.paused" in shop.bench.kinds(execution.exec_id)


def test_a_flow_on_the_process_stack_runs_in_a_worker(shop: Shop) -> None:
    source = """
import os
from kitaru_nb import checkpoint, flow

@checkpoint
def where():
    print("hello from the worker")
    return os.getpid()

@flow
def working():
    return where()

if __name__ == "__main__":
    handle = working.run(stack="process")
    assert handle.wait() != os.getpid()
    print(handle.exec_id)
"""
    done = shop.run(shop.write("work.py", source))
    exec_id = done.stdout.strip()
    assert exec_id.startswith("kr-"), done.stderr
    execution = shop.bench.get(exec_id)
    assert (execution.stack_name, execution.status) == ("process", "completed")
    assert [entry.message for entry in shop.bench.executions.logs(exec_id, checkpoint="where")] == [
        "hello from the worker"
    ]
    shop.prints(exec_id, "hello from the worker")


def test_code_in_kitarus_style_runs(shop: Shop) -> None:
    source = """
import kitaru_nb as kitaru
from kitaru_nb import KitaruClient, checkpoint, flow

@checkpoint(type="llm_call", retries=1)
def research(topic: str) -> str:
    kitaru.log(model="m", tokens=12)
    kitaru.save("raw", {"topic": topic}, type="context", tags=["x"])
    return f"notes on {topic}"

@checkpoint
def publish(notes: str) -> str:
    return notes.upper()

@flow(cache=False, retries=0)
def agent(topic: str) -> str:
    notes = research(topic, id="first")
    approved = kitaru.wait(schema=bool, name="approve", question="Publish?", timeout=0, metadata={"who": "ops"})
    if not approved:
        return "rejected"
    return publish(notes, id="second", after=[notes])

if __name__ == "__main__":
    handle = agent.run(topic="kitaru")
    try:
        handle.wait()
    except kitaru.KitaruStateError as error:
        print(type(error).__name__)
    print(handle.exec_id, handle.status)
    client = KitaruClient()
    waiting = client.executions.pending_waits(handle.exec_id)[0]
    print(waiting.wait_id != "", waiting.name, waiting.question, waiting.schema, dict(waiting.metadata))
    print(waiting.entered_waiting_at is not None)
    client.executions.input(handle.exec_id, wait="approve", value=True)
    print(handle.wait(), handle.get())
    execution = client.executions.get(handle.exec_id)
    print(execution.flow_id, execution.flow_name, execution.status, execution.stack_name, execution.status_reason)
    print(execution.started_at <= execution.ended_at, execution.failure, execution.pending_wait)
    for call in execution.list_checkpoints():
        print(call.name, call.status, call.checkpoint_type, dict(call.metadata), len(call.attempts), call.failure)
    for artifact in execution.artifacts:
        print(artifact.name, artifact.kind, artifact.save_type, artifact.load())
    print(client.artifacts.get(execution.artifacts[0].artifact_id).load(), kitaru.load(handle.exec_id, "raw"))
    overrides = {"checkpoint.research": "mine", "wait.approve": True}
    replayed = agent.replay(handle.exec_id, from_="publish", overrides=overrides)
    print(replayed.wait(), client.executions.get(replayed.exec_id).original_exec_id == handle.exec_id)
    print([e.exec_id for e in client.executions.list(flow="agent", status="completed", limit=10, page=1, size=1)] ==
          [replayed.exec_id], client.executions.latest(flow="agent").exec_id == replayed.exec_id)
    print(execution.refresh().exec_id == handle.exec_id, len(client.executions.logs(handle.exec_id, limit=5)))
"""
    done = shop.run(shop.write("work.py", source))
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"kr-[0-9a-z]{12} waiting", lines[1])
    del lines[1]
    assert lines == [
        "KitaruWaitingError",
        "True approve Publish? {'type': 'boolean'} {'who': 'ops'}",
        "True",
        "NOTES ON KITARU NOTES ON KITARU",
        "agent agent completed local None",
        "True None None",
        "research completed llm_call {'model': 'm', 'tokens': 12} 1 None",
        "publish completed None {} 1 None",
        "research output output notes on kitaru",
        "publish output output NOTES ON KITARU",
        "raw context context {'topic': 'kitaru'}",
        "notes on kitaru {'topic': 'kitaru'}",
        "MINE True",
        "True True",
        "True 0",
    ]


def test_importing_has_no_effect_and_loads_nothing_of_others(shop: Shop) -> None:
    source = """
import sys, logging, threading
before, handlers = set(sys.modules), list(logging.getLogger().handlers)
stdout = sys.stdout
import kitaru_nb
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert new - set(sys.stdlib_module_names) == {"kitaru_nb"}, new
assert sys.stdout is stdout and logging.getLogger().handlers == handlers and threading.active_count() == 1
from kitaru_nb import checkpoint, flow, wait, KitaruClient
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(name for name in new - set(sys.stdlib_module_names) if not name.startswith("_sysconfigdata")))
"""
    home = shop.folder / "untouched"
    shop.environment["KITARU_HOME"] = str(home)
    done = shop.run(shop.write("work.py", source))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['kitaru_nb']"
    assert not home.exists()


def test_the_public_names_are_these() -> None:
    import kitaru_nb

    assert set(kitaru_nb.__all__) == {
        *("__version__", "checkpoint", "flow", "wait", "wait_async", "save", "load", "log", "replay", "Retry"),
        *("FlowHandle", "KitaruClient", "current_execution_id", "idempotency_key", "register_serializer"),
        *("Execution", "ExecutionStatus", "CheckpointCall", "CheckpointAttempt", "Artifact", "Wait", "FailureInfo"),
        *("LogEntry", "load_ipython_extension", "unload_ipython_extension"),
        *("llm", "llm_async", "durable", "register_price", "cost_of", "Deployment", "KitaruRunner", "OpenAIRunRequest"),
        *("OpenAIRunResult", "OpenAIApprovalDecision", "OpenAIInterruptionSummary", "OpenAIRunStateEnvelope"),
        *("OpenAIUsageSummary", "OpenAICapturePolicy", "wait_for_approval", "wait_for_approvals"),
        *("wait_for_approval_async", "wait_for_approvals_async", "build_resume_request", "KitaruClaudeRunner"),
        *("ClaudeRunRequest", "ClaudeRunResult", "ClaudeDecision", "KitaruAgent", "KitaruDurability"),
        *("wait_for_deferred", "wait_for_deferred_async", "KitaruGraphRunner", "LangGraphRunRequest"),
        *("LangGraphRunResult", "wait_for_interrupts", "wait_for_interrupts_async", "durable_chat_model"),
        *("durable_tool", "load_ipython_extension"),
        *("KitaruError", "KitaruUsageError", "KitaruNotFoundError", "KitaruContextError", "KitaruStateError"),
        *("KitaruLeaseError", "KitaruFencedError", "KitaruConflictError", "KitaruWaitingError", "KitaruRuntimeError"),
        *("KitaruExecutionError", "KitaruUserCodeError", "KitaruTimeoutError", "KitaruAmbiguousFlowResultError"),
        *("KitaruWorkerLostError", "KitaruStorageError"),
        *("KitaruBackendError", "KitaruLogRetrievalError", "KitaruArtifactError", "KitaruSerializationError"),
        *("KitaruDivergenceError", "KitaruWaitValidationError", "KitaruFeatureNotAvailableError", "Paused"),
    }
    for name in kitaru_nb.__all__:
        assert getattr(kitaru_nb, name) is not None
    assert sorted(kitaru_nb.__all__) == dir(kitaru_nb)
    with pytest.raises(AttributeError, match="no attribute 'flw'"):
        kitaru_nb.flw  # noqa: B018


def test_the_worker_command_says_how_it_is_called(shop: Shop) -> None:
    done = shop.run("-m", "kitaru_nb.worker")
    assert (done.returncode, done.stderr) == (
        2,
        "usage: python -m kitaru_nb.worker [--supervised] [--job NAME] EXECUTION\n",
    )
    done = shop.run("-m", "kitaru_nb.worker", "kr-000000000000")
    assert done.returncode == 1
    assert "There is no execution 'kr-000000000000'" in done.stderr
    assert Path(shop.home).exists()
