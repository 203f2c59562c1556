"""Where a session that was cut off goes on, and what keeps its agent from going on unseen."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions

from adapters.claude_agent_sdk.agents import until
from kitaru_nb import KitaruUsageError
from kitaru_nb.surfaces.adapters import claude_watcher
from kitaru_nb.surfaces.adapters.claude_guard import guarded
from kitaru_nb.surfaces.adapters.claude_sessions import Known, rewound

OURS = Known(repeats=lambda tool: tool.startswith("ours"))


def asks(number: int, *calls: str, tool: str = "ours") -> list[dict[str, Any]]:
    """The lines of one answer of the model: one for each tool call."""
    return [
        {
            "type": "assistant",
            "uuid": f"use {call}",
            "sessionId": "s",
            "message": {"id": f"m{number}", "content": [{"type": "tool_use", "id": call, "name": tool, "input": {}}]},
        }
        for call in calls
    ]


def gets(call: str, text: str = "done") -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call, "content": text}
    return {"type": "user", "uuid": f"result {call}", "message": {"content": [block]}}


PROMPT: dict[str, Any] = {"type": "user", "uuid": "prompt", "message": {"content": "do it"}}
SAYS: dict[str, Any] = {
    "type": "assistant",
    "uuid": "said",
    "message": {"id": "m9", "content": [{"type": "text", "text": "well"}]},
}
SAVED: dict[str, Any] = {"type": "last-prompt", "leafUuid": "said"}


def told(lines: list[Any]) -> list[Any]:
    """Lines in short: results as (call, content), marks as the call that comes first."""
    found: list[Any] = []
    for line in lines:
        if line["type"] == "attachment":
            found.append(line["attachment"]["toolUseID"])
        else:
            found += [(block["tool_use_id"], block["content"]) for block in line["message"]["content"]]
    return found


@pytest.mark.parametrize(
    ("lines", "known", "expected"),
    [
        ([PROMPT, SAYS], OURS, (2, [], False)),
        ([PROMPT, *asks(1, "a")], OURS, (2, ["a"], True)),
        ([PROMPT, *asks(1, "a"), gets("a")], OURS, (2, ["a"], True)),
        ([PROMPT, *asks(1, "a"), gets("a"), SAYS, SAVED], OURS, (2, ["a"], True)),
        ([PROMPT, *asks(1, "a", tool="Bash"), gets("a")], OURS, (3, [], False)),
        ([PROMPT, *asks(1, "a", tool="Bash")], OURS, (2, ["a"], True)),
        ([PROMPT, *asks(1, "a"), gets("a"), *asks(2, "b")], OURS, (4, ["b"], True)),
        ([PROMPT, *asks(1, "a", "b"), gets("a")], OURS, (3, [("a", "done"), "b"], True)),
        ([PROMPT, *asks(1, "a", "b"), gets("b"), gets("a")], OURS, (3, [("a", "done"), "b"], True)),
        ([PROMPT, *asks(1, "a", "b")], Known({"a": {"content": "kept"}}), (3, [("a", "kept"), "b"], True)),
        ([PROMPT, *asks(1, "a", "b", "c")], Known({"a": {"content": "kept"}}), (4, [("a", "kept")], False)),
        ([PROMPT, *asks(1, "a")], Known({"a": {"content": "kept"}}, OURS.repeats), (2, ["a"], True)),
    ],
    ids=[
        "nothing was called",
        "one call in flight",
        "the model was asked again",
        "and had said something",
        "a call that would be made twice",
        "a foreign call in flight",
        "a later call in flight",
        "one of two in flight",
        "both have ended",
        "one has ended and nobody was told",
        "two in flight",
        "it has ended and nobody was told",
    ],
)
def test_a_session_goes_on_where_nothing_is_done_again(
    lines: list[Any], known: Known, expected: tuple[int, list[Any], bool]
) -> None:
    keep, more, pending = rewound(lines, known, ())
    assert (keep, told(more), pending) == expected


def test_a_replay_begins_with_the_chosen_call() -> None:
    lines = [PROMPT, *asks(1, "a"), gets("a"), *asks(2, "b", "c"), gets("b"), gets("c"), *asks(3, "d"), gets("d"), SAYS]
    assert [told(rewound(lines, OURS, {call})[1]) for call in "abcd"] == [
        ["a"],
        [("c", "done"), "b"],
        [("b", "done"), "c"],
        ["d"],
    ]
    assert [rewound(lines, OURS, {call})[0] for call in "abcd"] == [2, 5, 5, 8]
    with pytest.raises(KitaruUsageError, match="side by side"):
        rewound(lines, OURS, {"b", "c"})
    with pytest.raises(KitaruUsageError, match="made by a subagent"):
        rewound(lines, OURS, {"z"})


def test_what_is_cut_off_once_is_cut_off_the_same_again() -> None:
    lines = [PROMPT, *asks(1, "a", "b"), gets("a"), gets("b"), SAYS]
    keep, more, _ = rewound(lines, OURS, ())
    assert rewound([*lines[:keep], *more], OURS, ()) == (keep, more, True)


def test_the_guard_stands_before_the_command_that_was_asked_for_and_keeps_its_environment(tmp_path: Path) -> None:
    changes = guarded(ClaudeAgentOptions(cli_path="/opt/claude", env={"MINE": "1"}), tmp_path / "home")
    assert (changes["env"]["MINE"], changes["env"]["KITARU_CLAUDE_CLI"]) == ("1", "/opt/claude")
    assert changes["cli_path"].parent == tmp_path / "home"
    assert list((tmp_path / "home").iterdir()) == [changes["cli_path"]]


@pytest.mark.parametrize("whom", ["the process alone", "its whole group"])
def test_who_is_killed_takes_the_command_and_the_folder_of_a_resumed_session_along(whom: str, tmp_path: Path) -> None:
    """The folder has a copy of one's credentials. One's own folder stays."""
    resumed, own = tmp_path / "claude-resume-a1b2c3d4", tmp_path / "config"
    command = tmp_path / "command"
    command.write_text('#!/bin/sh\necho $$ >"$CLAUDE_CONFIG_DIR.pid"\nexec sleep 60\n')
    command.chmod(0o755)
    killed = []
    for folder in (resumed, own):
        folder.mkdir()
        changes = guarded(ClaudeAgentOptions(cli_path=command, env={"CLAUDE_CONFIG_DIR": str(folder)}), tmp_path)
        # A shell in between is the process that the guard watches.
        begun = ["sh", "-c", '"$0" & wait', changes["cli_path"]]
        killed.append(subprocess.Popen(begun, env=os.environ | changes["env"], start_new_session=True))
    pids = [Path(f"{folder}.pid") for folder in (resumed, own)]
    until(lambda: all(pid.exists() and sessions_below(int(pid.read_text() or 0)) > 0 for pid in pids))
    for process in killed:
        (os.kill if whom == "the process alone" else os.killpg)(process.pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid.read_text().strip()}").exists() for pid in pids))
    until(lambda: not resumed.exists())
    assert own.exists()
    for process in killed:
        process.wait()


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes."""
    both = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield both
    for process in both:
        process.kill()
        process.wait()


@pytest.mark.parametrize("tells", [True, False], ids=["the kernel tells", "an old kernel"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_watcher_knows_at_once_which_of_two_processes_has_ended(
    running: list[subprocess.Popen[bytes]], number: int, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks an agent without its owner could ask its model once more: where the kernel tells, nobody
    looks."""
    if tells:
        monkeypatch.setattr(claude_watcher, "time", None)
    else:
        monkeypatch.setattr(claude_watcher, "_told", refused)
    pids = [process.pid for process in running]
    with ThreadPoolExecutor() as beside:
        first = beside.submit(claude_watcher.first_to_end, *pids)
        running[number].kill()
        assert first.result(60) == pids[number]
    running[number].wait()
    assert claude_watcher.first_to_end(*pids) == pids[number]  # gone before anybody watched


def refused(_: tuple[int, ...]) -> int:
    raise OSError(errno.ENOSYS, "Function not implemented")


def sessions_below(pid: int) -> int:
    """How many children of a process lead sessions of their own, as the guard's watcher does."""
    ran = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,sess="], check=True, capture_output=True, text=True)
    found = [tuple(map(int, line.split())) for line in ran.stdout.splitlines()]
    return sum(parent == pid and own == session for own, parent, session in found)


def test_a_command_that_runs_as_another_user_has_no_guard(tmp_path: Path) -> None:
    assert guarded(ClaudeAgentOptions(cli_path="/opt/claude", user="somebody"), tmp_path) == {}
