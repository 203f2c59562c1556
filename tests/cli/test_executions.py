"""``kitaru executions``: reading."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli import flows
from cli.conftest import Kitaru, Ran

LAUNCH = [sys.executable, "-c", "from kitaru_nb.surfaces.cli import main; main()"]


def test_a_list_is_newest_first_and_fits_eighty_columns(kitaru: Kitaru, ran: Ran) -> None:
    first, second = ran(flows.nested, "cats"), ran(flows.brief, "dogs")
    result = kitaru("executions", "list")
    assert result.code == 0
    assert result.widest <= 80
    head, *rows = result.out.splitlines()
    assert head.split() == ["ID", "STATUS", "STARTED", "TOOK", "FLOW"]
    assert [row.split()[0] for row in rows] == [second, first]
    assert "⏸ waiting" in rows[0]
    assert "✓ completed" in rows[1]
    assert "just now" in rows[1]
    assert "\x1b" not in result.out


@pytest.mark.parametrize("asked", [["--json"], ["--output", "json"], ["-o", "json"]])
def test_a_list_as_json_has_the_fields_of_a_row_and_iso_times(kitaru: Kitaru, ran: Ran, asked: list[str]) -> None:
    exec_id = ran(flows.nested, "cats")
    found = kitaru("executions", "list", *asked).json
    assert (found["command"], found["count"]) == ("executions.list", 1)
    (item,) = found["items"]
    assert item["exec_id"] == exec_id
    assert item["status"] == "completed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", item["created_at"])
    assert "checkpoints" not in item  # a list doesn't read histories


def test_a_list_is_filtered_and_paged(kitaru: Kitaru, ran: Ran) -> None:
    ids = [ran(flows.nested, "cats"), ran(flows.brief, "dogs"), ran(flows.nested, "owls")]

    def listed(*options: str) -> list[str]:
        return [item["exec_id"] for item in kitaru("executions", "list", "--json", *options).json["items"]]

    assert listed("--flow", "brief") == [ids[1]]
    assert listed("--status", "waiting") == [ids[1]]
    assert listed("--limit", "2") == [ids[2], ids[1]]
    assert listed("--limit", "2", "--before", ids[1]) == [ids[0]]
    page = kitaru("executions", "list", "--limit", "1", "--flow", "nested").out
    assert f"more: kitaru executions list --flow nested --limit 1 --before {ids[2]}" in page
    last_page = kitaru("executions", "list", "--limit", "2", "--flow", "nested").out
    assert ids[0] in last_page
    assert "more:" not in last_page
    assert "expected --before with the last id of a page" in kitaru("executions", "list", "--before", "latest").err


def test_an_empty_list_says_how_to_start(kitaru: Kitaru) -> None:
    result = kitaru("executions", "list")
    assert result.code == 0
    assert "kitaru run notebook.ipynb" in result.out
    assert kitaru("executions", "list", "--json").json == {"command": "executions.list", "items": [], "count": 0}


def test_an_empty_list_says_where_it_looked(kitaru: Kitaru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"No executions in {os.environ['KITARU_HOME']}." in kitaru("executions", "list").out
    elsewhere = f"sqlite://{tmp_path / 'elsewhere' / 'journal.db'}"
    monkeypatch.setenv("KITARU_JOURNAL", elsewhere)
    assert f"No executions in {elsewhere}." in kitaru("executions", "list").out


def test_a_page_that_no_list_can_have_is_wrong_usage(kitaru: Kitaru) -> None:
    for limit in ("0", "-1", "1.5", str(10**20)):
        result = kitaru("executions", "list", "--limit", limit)
        assert (result.code, result.out) == (2, "")
        assert "--limit" in result.err


def test_an_unknown_status_is_wrong_usage_and_lists_the_statuses(kitaru: Kitaru) -> None:
    result = kitaru("executions", "list", "--status", "sleeping")
    assert result.code == 2
    assert "'interrupted'" in result.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["executions", "list"], ["executions", "list", "--json"], ["status"]]
)
def test_help_and_lists_load_nothing_heavy(kitaru: Kitaru, ran: Ran, arguments: list[str]) -> None:
    ran(flows.nested, "cats")
    code = (
        "import sys\nfrom kitaru_nb.surfaces.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'pydantic', 'pandas', 'numpy', 'IPython', 'fsspec', 'sqlite_utils', 'rich', 'asyncio', 'jsonschema'}), "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_command_line_loads_only_the_commands_that_its_first_word_names(kitaru: Kitaru) -> None:
    code = (
        "import sys\nfrom kitaru_nb.surfaces.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(m[28:] for m in sys.modules if '.surfaces.commands.' in m), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "executions", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "['actions', 'executions', 'following']"


def test_each_first_word_alone_means_what_it_means_among_all() -> None:
    # In a process of its own, each word with nothing loaded: a command must not be where another word's module is.
    code = """
import json, sys, typer
from kitaru_nb.surfaces import cli

def helps(command, name):
    parts = getattr(command, "commands", {}).items()
    found = {name: command.get_help(typer.Context(command, info_name=name))}
    return found | {k: v for word, part in parts for k, v in helps(part, f"{name} {word}").items()}

def alone(word):
    for module in [m for m in sys.modules if ".surfaces.commands." in m]:
        del sys.modules[module]
    return helps(typer.main.get_command(cli.application(word)).commands[word], word)

whole = typer.main.get_command(cli.app).commands
shown = {word: [helps(whole[word], word), alone(word)] for word in whole}
print(json.dumps([sorted(whole) == sorted(cli.COMMANDS), [word for word, (a, b) in shown.items() if a != b]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]


def test_details_show_the_tree_the_sums_and_the_result(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("executions", "get", exec_id)
    assert result.code == 0
    assert result.widest <= 80
    assert f"{exec_id}  nested  ✓ completed" in result.out
    assert "topic = 'cats'" in result.out
    assert "result     'published notes on cats'" in result.out
    rows = [text for text in result.out.splitlines() if "✓ completed" in text][1:]
    assert [row.split(" ✓")[0].rstrip() for row in rows] == ["agent", "├ research", "└ publish"]
    assert "1,052  $0.0123" in rows[1]
    assert "3 checkpoints · 1,052 tokens · $0.0123" in result.out


def test_details_as_json_are_the_whole_execution(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    found = kitaru("executions", "get", exec_id, "--json").json
    assert found["command"] == "executions.get"
    item = found["item"]
    assert [c["selector"] for c in item["checkpoints"]] == ["agent", "research", "publish"]
    assert item["result"]["preview"]["text"] == "'published notes on cats'"
    assert "client" not in item


def test_an_execution_is_named_by_latest_by_its_beginning_or_its_end(kitaru: Kitaru, ran: Ran) -> None:
    ids = [ran(flows.brief, "a"), ran(flows.brief, "b")]
    assert kitaru("executions", "get", "latest", "--json").json["item"]["exec_id"] == ids[1]
    assert kitaru("executions", "get", ids[0][-6:], "--json").json["item"]["exec_id"] == ids[0]
    ambiguous = kitaru("executions", "get", "kr-")
    assert ambiguous.code == 1
    assert all(exec_id in ambiguous.err for exec_id in ids)
    assert "  fix: kitaru executions get kr-" in ambiguous.err


def test_a_pending_wait_is_shown_with_the_line_that_answers_it(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "cats")
    out = kitaru("executions", "get", exec_id).out
    assert "⏸ wait approve" in out
    assert "  Publish notes on cats?" in out
    assert f"  answer: kitaru executions input {exec_id} --wait approve --value true" in out


def test_a_failure_is_shown_with_the_line_that_tries_again(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    exec_id = ran(flows.fragile, str(tmp_path / "nothing"))
    out = kitaru("executions", "get", exec_id).out
    assert "FileNotFoundError (user)" in out
    assert "✗ failed" in out
    assert f"  fix: kitaru executions retry {exec_id}" in out


def test_hostile_text_is_harmless_in_every_answer(kitaru: Kitaru, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_id = ran(flows.hostile, flows.HOSTILE)
    commands = [
        ["executions", "get", exec_id],
        ["executions", "logs", exec_id],
        ["executions", "input", exec_id],
        ["executions", "input", exec_id, "--value", flows.HOSTILE],
        ["executions", "diff", exec_id, exec_id],
        ["executions", "get", flows.HOSTILE],
        ["artifacts", "list", exec_id],
        ["artifacts", "get", f"{exec_id}/echo"],
        ["status"],
    ]
    for color in (False, True):
        if color:
            monkeypatch.setenv("FORCE_COLOR", "1")
        for command in commands:
            result = kitaru(*command)
            shown = result.out + result.err
            assert "\x1b[2J" not in shown, command
            assert "\u202e" not in shown, command
            assert "[bold]x[/bold]" in shown, command
            # The one line that begins like a fix is the command's own.
            assert not re.search(r"^  fix: curl", result.err, re.MULTILINE), command


def test_an_unknown_execution_is_told_with_its_fix(kitaru: Kitaru) -> None:
    result = kitaru("executions", "get", "kr-nothing")
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: There is no execution 'kr-nothing'.\n  fix: kitaru executions list\n"


def test_an_error_as_json_has_type_message_and_fix(kitaru: Kitaru) -> None:
    result = kitaru("executions", "get", "kr-nothing", "--json")
    assert result.code == 1
    assert json.loads(result.err) == {
        "error": {
            "type": "KitaruNotFoundError",
            "message": "There is no execution 'kr-nothing'.",
            "fix": "kitaru executions list",
        }
    }


def test_logs_name_the_checkpoint_of_each_line(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    first, second = kitaru("executions", "logs", exec_id).out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d research +looking for cats", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d publish +WARNING publishing", second)


def test_logs_are_filtered_and_limited(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")

    def messages(*options: str) -> list[str]:
        return [item["message"] for item in kitaru("executions", "logs", exec_id, "--json", *options).json["items"]]

    assert messages() == ["looking for cats", "publishing"]
    assert messages("--checkpoint", "research") == ["looking for cats"]
    assert messages("--source", "logging") == ["publishing"]
    assert messages("--limit", "1") == ["publishing"]
    assert kitaru("executions", "logs", exec_id, "--source", "radio").code == 2


def test_lines_of_one_call_are_found_by_its_selector_and_an_unknown_one_is_told(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("executions", "logs", exec_id, "--checkpoint", "nothing")
    assert result.code == 1
    assert f"{exec_id} has no checkpoint 'nothing'. It has: agent, " in result.err
    assert kitaru("executions", "logs", exec_id, "--checkpoint", "agent").code == 0


def test_grouped_logs_stand_under_their_checkpoint(kitaru: Kitaru, ran: Ran) -> None:
    lines = kitaru("executions", "logs", ran(flows.nested, "cats"), "--grouped").out.splitlines()
    assert lines[0] == "research"
    assert lines[1].endswith("looking for cats")
    assert lines[3] == "publish"


def test_following_logs_of_an_ended_execution_shows_them_and_ends(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("executions", "logs", exec_id, "--follow", "--limit", "1")
    assert result.code == 0
    assert result.out.endswith("WARNING publishing\n")
    assert "looking for cats" not in result.out
    assert "✓ completed" in result.err
    lines = kitaru("executions", "logs", exec_id, "--follow", "--json").out.splitlines()
    assert [json.loads(text)["item"]["message"] for text in lines] == ["looking for cats", "publishing"]


def test_following_what_was_just_answered_waits_for_its_worker(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.brief, "tides")
    kitaru("executions", "input", exec_id, "--value", "true")
    result = kitaru("executions", "logs", exec_id, "--follow")
    assert "publishing" in result.out
    assert "completed" in result.err


def test_following_shows_lines_while_the_execution_runs(kitaru: Kitaru, tmp_path: Path) -> None:
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    exec_id = flows.patient.with_options(stack="process").run(str(fifo)).exec_id
    follower = subprocess.Popen(
        [*LAUNCH, "executions", "logs", exec_id, "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        first = follower.stdout.readline()
        assert "listening" in first, follower.stderr.read()  # the checkpoint can't end before the next line
        fifo.write_text("go on")
        _, err = follower.communicate()
    assert follower.returncode == 0
    assert "result: 'go on'" in err


def test_a_difference_names_the_calls_that_differ_and_why(kitaru: Kitaru, ran: Ran) -> None:
    left, right = ran(flows.nested, "cats"), ran(flows.nested, "dogs")
    result = kitaru("executions", "diff", left, right)
    assert result.code == 0
    assert result.widest <= 80
    assert "≠ output" in result.out
    assert "inputs: " in result.out
    assert "3 checkpoints differ, 0 the same" in result.out
    item = kitaru("executions", "diff", left, right, "--json").json["item"]
    assert [call["change"] for call in item["calls"]] == ["output"] * 3
    assert "0 checkpoints differ" in kitaru("executions", "diff", left, left).out
