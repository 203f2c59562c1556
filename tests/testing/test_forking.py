"""Forked processes behave like started ones: their pid, folder, environment, output and end are their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitaru_nb.testing.forking import ForkServer

PROGRAM = """
import json, os, sys, threading, time

loaded_in = os.getpid()

def say():
    print(json.dumps({
        "main": __name__, "pid": os.getpid(), "session": os.getsid(0), "arguments": sys.argv[1:], "cwd": os.getcwd(),
        "word": os.environ.get("WORD"), "path": sys.path[0], "threads": threading.active_count(),
        "heavy": sys.modules["heavy"].loaded_in,
    }))

if __name__ == "__main__":
    if "stay" in sys.argv:
        print("here", flush=True)
        time.sleep(300)
    if "late" in sys.argv:
        threading.Thread(target=lambda: (time.sleep(0.2), print("late"))).start()
    else:
        say()
    if "fail" in sys.argv:
        raise ValueError("no good")
    sys.exit(7)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "heavy.py").write_text("import os\nloaded_in = os.getpid()\n")
    with ForkServer(["heavy", "program"], folder=folder) as server:
        yield server


def until_it_says(path: Path, word: str) -> None:
    deadline = time.monotonic() + 60
    while word not in path.read_text():
        assert time.monotonic() < deadline, f"{word!r} is not in {path.read_text()!r}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_forked_process_is_one_of_its_own_that_has_the_modules_already(server: ForkServer, tmp_path: Path) -> None:
    said = []
    for word in ("one", "two"):
        with (tmp_path / word).open("wb") as output:
            environment = os.environ | {"WORD": word}
            process = server.start("program", word, stdout=output, environment=environment, cwd=tmp_path)
        assert process.wait(60) == 7
        assert process.poll() == 7
        said.append(json.loads((tmp_path / word).read_text()))
        assert said[-1] == {
            "main": "__main__",
            "pid": process.pid,
            "session": process.pid,
            "arguments": [word],
            "cwd": str(tmp_path),
            "word": word,
            "path": str(tmp_path),
            "threads": 1,
            "heavy": said[0]["heavy"],
        }
    assert len({os.getpid(), said[0]["pid"], said[1]["pid"], said[0]["heavy"]}) == 4


def test_a_failure_is_printed_and_threads_are_waited_for(server: ForkServer, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with output.open("wb") as stdout:
        assert server.start("program", "late", "fail", stdout=stdout).wait(60) == 1
    assert "ValueError: no good" in output.read_text()
    assert "late\n" in output.read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_process_tells_the_signal(server: ForkServer, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "said"
    with output.open("wb") as stdout:
        process = server.start("program", "stay", stdout=stdout)
    until_it_says(output, "here")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.killpg(process.pid, number)
    assert process.wait(60) == -number
    assert gone(process.pid)


def test_a_command_line_passes_on_output_and_exit_code(server: ForkServer, tmp_path: Path) -> None:
    command = server.command("program", "a b")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (ended.returncode, ended.stderr) == (7, "")
    assert json.loads(ended.stdout)["arguments"] == ["a b"]


def test_a_process_ends_with_whoever_asked_for_it(server: ForkServer, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with output.open("wb") as stdout:
        asking = subprocess.Popen(server.command("program", "stay"), stdout=stdout)
    until_it_says(output, "here")
    (forked,) = [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]
    asking.kill()
    asking.wait()
    deadline = time.monotonic() + 60
    while not gone(forked):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_to_the_command_line_reaches_the_process(server: ForkServer, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with output.open("wb") as stdout:
        asking = subprocess.Popen(server.command("program", "stay"), stdout=stdout)
    until_it_says(output, "here")
    asking.send_signal(signal.SIGTERM)
    assert asking.wait(60) == 128 + signal.SIGTERM


def test_a_signal_that_comes_before_the_process_is_known_reaches_it_too(server: ForkServer) -> None:
    early = (
        "import signal, sys\n"
        "from kitaru_nb.testing import forking\n"
        "ask = forking._ask\n"
        "forking._ask = lambda *asked: (ask(*asked), signal.raise_signal(signal.SIGTERM))[0]\n"
        "sys.exit(forking._run(sys.argv[1], ['program', 'stay']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", early, server.address], stdout=subprocess.DEVNULL, timeout=60)
    assert ended.returncode == 128 + signal.SIGTERM


def test_what_can_not_be_forked_is_said_at_the_first_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    with ForkServer(["threaded"], folder=tmp_path) as server, pytest.raises(RuntimeError, match="ended with 1"):
        server.command("threaded")
    assert "A process with threads can't be forked" in capfd.readouterr().err
