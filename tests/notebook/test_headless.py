"""`run_notebook` and `go_on`: a notebook without a front end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kitaru_nb.cells.notebook import Progress, inject, parse_parameters, read_notebook
from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruLeaseError, KitaruRuntimeError, KitaruUsageError
from kitaru_nb.headless import NotebookOutcome, go_on, run_notebook
from kitaru_nb.journal.base import this_host
from kitaru_nb.model import ExecutionStatus, Owner
from kitaru_nb.stacks.process import _children

COUNT = "def count(word):\n    with open('side.txt', 'a') as side:\n        side.write(word + '\\n')"


def cell(source: str, *tags: str) -> Any:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


class Desk:
    """A folder with a notebook and a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "study.ipynb"
        self.runtime = Runtime(Settings(folder / "home"))
        self.client = KitaruClient(self.runtime)
        self.progress: list[Progress] = []

    def write(self, *cells: Any) -> None:
        made = [cell(c) if isinstance(c, str) else c for c in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=made), self.path)

    def run(self, parameters: dict[str, str] | None = None, **options: Any) -> NotebookOutcome:
        return run_notebook(self.runtime, self.path, parameters or {}, on_progress=self.progress.append, **options)

    def go_on(self, outcome: NotebookOutcome) -> NotebookOutcome:
        return go_on(self.runtime, outcome.exec_id)

    @property
    def counted(self) -> list[str]:
        side = self.folder / "side.txt"
        return side.read_text().split() if side.exists() else []

    def outputs(self, outcome: NotebookOutcome) -> list[str]:
        """Text of each code cell's outputs in the executed copy."""
        notebook = nbformat.read(outcome.output, as_version=4)
        nbformat.validate(notebook)
        return ["".join(o.get("text", "") for o in c.outputs) for c in notebook.cells if c.cell_type == "code"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("KITARU_EXECUTION", "KITARU_NOTEBOOK", "KITARU_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    desk = Desk(tmp_path)
    yield desk
    for process, *_ in (worker for workers in _children.values() for worker in workers):
        process.wait(timeout=60)  # or it would be reported as one that still runs
    desk.runtime.journal.close()


def test_a_notebook_runs_to_its_end(desk: Desk) -> None:
    desk.write(
        nbformat.v4.new_markdown_cell("# Study"),
        cell("topic, n = 'sea', 1", "parameters"),
        cell("%load_ext kitaru_nb"),
        cell("notes = topic * n\nnotes", "step:research"),
        "%%checkpoint draft\nimport asyncio\ntext = await asyncio.sleep(0, notes.upper())",
        "print(text)",
        cell("raise SystemError('skipped')", "skip"),
        "#| eval: false\nraise SystemError('skipped')",
        "",
    )
    outcome = desk.run({"n": "2"})
    assert (outcome.status, outcome.reason) == (ExecutionStatus.COMPLETED, "")
    execution = desk.client.executions.get(outcome.exec_id)
    assert [c.name for c in execution.checkpoints] == ["research", "draft"]
    assert execution.inputs == {"n": "2"}
    assert outcome.output == desk.folder / "study.executed.ipynb"
    executed = nbformat.read(outcome.output, as_version=4)
    injected = executed.cells[2]
    assert (injected.source, injected.metadata.tags) == ("n = 2", ["injected-parameters"])
    assert "SEASEA\n" in desk.outputs(outcome)
    done = [(p.index, p.total, p.name) for p in desk.progress if p.status == "done"]
    assert done[3:] == [(4, 6, "research"), (5, 6, "draft"), (6, 6, "print(text)")]
    left = {p.name for p in desk.folder.iterdir()}
    assert left == {"study.ipynb", "study.executed.ipynb", "home", "tmp"}
    assert list((desk.folder / "tmp").iterdir()) == []


def test_a_wait_ends_the_kernel_and_the_answer_goes_on(desk: Desk) -> None:
    desk.write(
        COUNT,
        "%%checkpoint draft\ncount('draft')\ntext = 'post'",
        "ok = %wait approve --question 'Publish {text}?'",
        "%%checkpoint publish\ncount('publish')\nfinal = ok",
        "print(final)",
    )
    outcome = desk.run()
    assert outcome.status is ExecutionStatus.WAITING
    assert outcome.reason == "waiting for an answer to 'approve'; the cells below run after it"
    assert desk.progress[-1].status == "waiting"
    assert desk.client.executions.get(outcome.exec_id).lease is None
    # Meanwhile the notebook changes and vanishes: the execution stays on what it began with.
    desk.path.unlink()
    desk.runtime.journal.append(outcome.exec_id, [answered(desk, outcome)])
    again = desk.go_on(outcome)
    assert again.status is ExecutionStatus.COMPLETED
    assert desk.outputs(again)[-1] == "True\n"
    assert desk.counted == ["draft", "publish"]


def test_an_answer_through_the_client_starts_a_worker_that_ends_the_notebook(desk: Desk) -> None:
    desk.write("ok = %wait approve", "%%checkpoint publish\nfinal = ok", "print(final)")
    outcome = desk.run()
    desk.client.executions.input(outcome.exec_id, value=True)
    deadline = time.monotonic() + 120
    while not desk.client.executions.get(outcome.exec_id).status.ended:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while "True\n" not in desk.outputs(outcome):  # the copy is written after the last event
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert str(desk.client.executions.get(outcome.exec_id).status) == "completed"


def answered(desk: Desk, outcome: NotebookOutcome) -> Any:
    from kitaru_nb.model import Event

    [wait] = desk.client.executions.pending_waits(outcome.exec_id)
    body = {"value": True, "by": "bo", "via": "test"}
    return Event(outcome.exec_id, "wait.resolved", wait.wait_id, time.time(), body)


def test_a_failed_notebook_goes_on_where_it_failed(desk: Desk) -> None:
    desk.write(
        COUNT,
        "%%checkpoint draft\ncount('draft')\ntext = 'post'",
        "%%checkpoint fetch\nassert open('up.txt').read()",
        "print(text)",
    )
    outcome = desk.run()
    assert outcome.status is ExecutionStatus.FAILED
    assert outcome.reason.startswith("FileNotFoundError")
    assert desk.progress[-1].status == "failed"
    failure = desk.client.executions.get(outcome.exec_id).failure
    assert failure is not None
    assert "FileNotFoundError" in failure.exception_type
    (desk.folder / "up.txt").write_text("yes")
    again = desk.go_on(outcome)
    assert again.status is ExecutionStatus.COMPLETED
    assert desk.counted == ["draft"]


def test_the_death_of_the_kernel_is_told_and_can_be_resumed(desk: Desk) -> None:
    desk.write(
        COUNT,
        "%%checkpoint draft\ncount('draft')\ntext = 'post'",
        "import os\nif not os.path.exists('up.txt'):\n    os._exit(3)",
        "print(text)",
    )
    with pytest.raises(KitaruRuntimeError, match="finished checkpoints are kept") as caught:
        desk.run()
    [execution] = desk.client.executions.list()
    assert caught.value.fix == f"kitaru executions resume {execution.exec_id}"
    assert str(execution.status) == "interrupted"
    assert (desk.folder / "study.executed.ipynb").exists()
    (desk.folder / "up.txt").write_text("yes")
    assert go_on(desk.runtime, execution.exec_id).status is ExecutionStatus.COMPLETED
    assert desk.counted == ["draft"]


def test_one_key_is_one_execution(desk: Desk) -> None:
    desk.write(COUNT, "%%checkpoint draft\ncount('draft')")
    first, second = desk.run(key="today"), desk.run(key="today")
    assert first.exec_id == second.exec_id
    assert second.reason == "it has ended already"
    assert desk.counted == ["draft"]


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (signal.SIGTERM, "import time\nwhile not up():\n    time.sleep(0.01)"),
        (signal.SIGINT, "import asyncio\nwhile not up():\n    await asyncio.sleep(0.01)"),
    ],
)
def test_a_signal_to_the_runner_is_a_durable_pause(desk: Desk, number: signal.Signals, body: str) -> None:
    desk.write(
        COUNT + "\nimport os\ndef up():\n    open('hangs', 'w').close()\n    return os.path.exists('up.txt')",
        "%%checkpoint draft\ncount('draft')\ntext = 'post'",
        f"%%checkpoint slow --in text\n{body}",
        "print(text)",
    )
    program = (
        "import sys\nfrom pathlib import Path\nfrom kitaru_nb.config import Settings\n"
        "from kitaru_nb.core.runtime import Runtime\nfrom kitaru_nb.headless import run_notebook\n"
        "home, path = map(Path, sys.argv[1:])\noutcome = run_notebook(Runtime(Settings(home)), path, {})\n"
        "print(outcome.status.value, outcome.reason, sep='|')"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program, str(desk.folder / "home"), str(desk.path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (desk.folder / "hangs").exists():
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.send_signal(number)
    said, _ = runner.communicate(timeout=120)
    assert said.strip() == f"interrupted|paused by {number.name}; nothing is lost"
    [execution] = desk.client.executions.list()
    assert desk.client.executions.get(execution.exec_id).lease is None
    [pause] = [e for e in desk.runtime.journal.history(execution.exec_id) if e.kind == "execution.paused"]
    assert pause.body == {"reason": f"the worker got {number.name}", "signal": number.name}
    assert list((desk.folder / "tmp").iterdir()) == []
    (desk.folder / "up.txt").write_text("yes")
    assert go_on(desk.runtime, execution.exec_id).status is ExecutionStatus.COMPLETED
    assert desk.counted == ["draft"]


def test_the_pause_of_a_kernel_that_had_to_be_killed_is_recorded_for_it(desk: Desk) -> None:
    from kitaru_nb.headless import _note_pause

    desk.write("%wait approve")
    exec_id = desk.run().exec_id
    lease = desk.runtime.journal.claim(exec_id, Owner(this_host(), 2**22 + 1, 1, "gone"))
    assert lease.epoch == 2
    for _ in range(2):
        _note_pause(desk.runtime, exec_id, "SIGTERM")
    events = desk.runtime.journal.history(exec_id)
    assert [e.body["signal"] for e in events if e.kind == "execution.paused"] == ["SIGTERM"]
    assert desk.runtime.journal.execution(exec_id).status is ExecutionStatus.INTERRUPTED


def test_a_cancelled_notebook_ends(desk: Desk) -> None:
    desk.write(
        "from kitaru_nb import KitaruClient, current_execution_id\nimport os",
        "%%checkpoint a\nKitaruClient().executions.cancel(current_execution_id(), by='bo')\n"
        "import time\nwhile True:\n    time.sleep(0.01)",
        "print('never')",
    )
    outcome = desk.run()
    assert outcome.status is ExecutionStatus.CANCELLED
    assert "cancelled by bo" in outcome.reason
    assert desk.go_on(outcome).reason == "it has ended already"


def test_who_runs_already_is_left_alone(desk: Desk) -> None:
    from kitaru_nb.journal.base import this_process

    desk.write("%wait approve")
    outcome = desk.run()
    desk.runtime.journal.claim(outcome.exec_id, this_process())
    with pytest.raises(KitaruLeaseError, match="run by another worker"):
        desk.go_on(outcome)


# files


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "There is no file"),
        ("{", "is no notebook"),
        ("[]", "is no notebook"),
        (json.dumps({"a": 1}), "is no notebook"),
        (b"\xff\xfe\x00", "can't be read"),
        ("print(1)", "is no notebook"),
    ],
)
def test_what_is_no_notebook_is_told(desk: Desk, content: str | bytes | None, problem: str) -> None:
    (desk.folder / "other.ipynb").write_text("{}")
    if isinstance(content, bytes):
        desk.path.write_bytes(content)
    elif content is not None:
        desk.path.write_text(content)
    with pytest.raises(KitaruUsageError, match=problem) as caught:
        read_notebook(desk.path)
    if content is None:
        assert "other.ipynb" in str(caught.value)


def test_a_copy_that_cannot_be_written_is_told_before_anything_runs(desk: Desk) -> None:
    desk.write(COUNT, "count('ran')")
    with pytest.raises(KitaruBackendError, match="can't be written") as caught:
        desk.run(output=desk.folder / "missing" / "out.ipynb")
    assert "--output" in str(caught.value)
    assert desk.counted == []


# parameters

DECLARED = (
    "topic = 'sea'\nn: int = 1\nrate = 0.5\nflag = False\nnames: list[str] = []\nmaybe: 'int | None' = None\n"
    "mode: Literal['a', 'b'] = 'a'\nwhen: datetime.date = None\nanything = None"
)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("topic", "42", "42"),
        ("n", "3", 3),
        ("rate", "2", 2.0),
        ("flag", "true", True),
        ("names", '["x"]', ["x"]),
        ("maybe", "null", None),
        ("maybe", "5", 5),
        ("mode", "b", "b"),
        ("when", "2026-01-02", "2026-01-02"),
        ("anything", "[1]", [1]),
        ("anything", "words", "words"),
    ],
)
def test_parameters_are_read_as_what_they_are_declared(desk: Desk, name: str, text: str, value: Any) -> None:
    desk.write(cell(DECLARED, "parameters"))
    found = parse_parameters(read_notebook(desk.path), {name: text}, desk.path)
    assert found == {name: value}
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "x"),
        ("n", "true"),
        ("n", "1.5"),
        ("rate", "x"),
        ("flag", "1"),
        ("names", "[1]"),
        ("maybe", "x"),
        ("mode", "c"),
    ],
)
def test_a_parameter_of_another_type_is_refused(desk: Desk, name: str, text: str) -> None:
    desk.write(cell(DECLARED, "parameters"))
    with pytest.raises(KitaruUsageError, match=f"Parameter {name} is"):
        desk.run({name: text})
    assert desk.client.executions.list() == []


def test_an_unknown_parameter_is_told_with_those_there_are(desk: Desk) -> None:
    desk.write(cell("topic = 'sea'\nn = 1", "parameters"))
    with pytest.raises(KitaruUsageError, match=r"no parameter 'tpic'\. Parameters are: topic, n"):
        desk.run({"tpic": "x"})
    desk.write("topic = 'sea'")
    with pytest.raises(KitaruUsageError, match="no cell is tagged 'parameters'"):
        desk.run({"topic": "x"})


def test_injected_values_come_right_after_the_declared_ones(desk: Desk) -> None:
    desk.write("a = 0", cell("n = 1", "parameters"), "b = n")
    notebook = read_notebook(desk.path)
    inject(notebook, {"n": 2, "s": "it's"})
    assert [c.source for c in notebook.cells] == ["a = 0", "n = 1", 'n = 2\ns = "it\'s"', "b = n"]


def test_the_environment_of_a_kernel_names_journal_store_and_execution(desk: Desk) -> None:
    desk.write("import os\nprint(os.environ['KITARU_EXECUTION'], os.path.basename(os.environ['KITARU_NOTEBOOK']))")
    outcome = desk.run()
    assert desk.outputs(outcome) == [f"{outcome.exec_id} study.ipynb\n"]
    assert "KITARU_EXECUTION" not in os.environ
