"""Stacks that people create: their files, their settings, the commands, and flows that run on them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import load_settings
from kitaru_nb.core.create import write_created
from kitaru_nb.core.runtime import runtime_of
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.model import Event
from kitaru_nb.stacks.definition import find_stack, parse_stack, runner_for, save_stack, settings_of, stack_names
from tests.stacks.commands import home, kitaru

assert home  # a fixture, of all tests here


def test_a_stack_is_made_listed_shown_used_and_deleted(home: Path, tmp_path: Path) -> None:
    journal, store = f"sqlite://{tmp_path}/team.db", str(tmp_path / "team")
    kitaru("stack", "create", "team", "process", "--journal", journal, "--store", store, "--env", "GREETING=hello")
    assert stack_names() == ["team"]
    listed = json.loads(kitaru("stack", "list", "--json"))["items"]
    assert [(s["name"], s["runner"], s["used"]) for s in listed] == [
        ("local", "process", True),
        ("process", "process", False),
        ("team", "process", False),
    ]
    assert f"journal: {journal}" in kitaru("stack", "show", "team")
    kitaru("stack", "use", "team")
    assert load_settings().stack == "team"
    assert runtime_of(None).journal.url == journal
    assert runtime_of("local").journal.url == f"sqlite://{home}/journal.db"
    assert "is in use; it can't be deleted.\n  fix: kitaru stack use local" in kitaru("stack", "delete", "team", code=1)
    kitaru("stack", "use", "local")
    assert load_settings().stack == "local"
    kitaru("stack", "delete", "team")
    assert stack_names() == []
    assert "kitaru stack create" in kitaru("stack", "show", "team", code=1)


def test_each_part_is_checked_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    kitaru(
        "stack", "create", "good", "process", "--journal", f"sqlite://{tmp_path}/j.db", "--store", str(tmp_path / "s")
    )
    checked = json.loads(kitaru("stack", "check", "good", "--json"))["items"]
    assert [(c["what"], c["ok"]) for c in checked] == [("journal", True), ("artifact store", True), ("runner", True)]
    kitaru("stack", "create", "bad", "process", "--store", "nonsense://x")
    checked = json.loads(kitaru("stack", "check", "bad", "--json", code=1))["items"]
    assert [(c["what"], c["ok"]) for c in checked] == [("journal", True), ("artifact store", False), ("runner", True)]
    assert "nonsense://x" in checked[1]["seen"]


def test_a_flow_runs_on_the_stack_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = f"sqlite://{tmp_path}/team.db"
    kitaru(
        "stack", "create", "team", "process", "--journal", journal, "--store", str(tmp_path / "s"), "--env", "WHO=ann"
    )
    (tmp_path / "work.py").write_text(
        "import os\n"
        "from kitaru_nb import checkpoint, flow\n"
        "@checkpoint\n"
        "def who() -> str: return os.environ['WHO'] + ' in ' + str(os.getpid())\n"
        "@flow\n"
        "def ask() -> str: return who()\n"
        "if __name__ == '__main__':\n"
        "    handle = ask.run(stack='team')\n"
        "    print(handle.wait(), os.getpid())\n"
    )
    done = subprocess.run([sys.executable, "work.py"], cwd=tmp_path, capture_output=True, text=True)
    who, _, theirs, ours = done.stdout.split()
    assert (who, done.returncode) == ("ann", 0), done.stderr
    assert theirs != ours
    assert json.loads(kitaru("executions", "list", "--json"))["items"] == []
    monkeypatch.setenv("KITARU_STACK", "team")
    (execution,) = json.loads(kitaru("executions", "list", "--json"))["items"]
    assert (execution["stack"], execution["status"]) == ("team", "completed")


def test_a_url_takes_its_secret_from_the_environment_and_no_file_holds_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"journal": "postgresql://kitaru:${PGPASSWORD}@db/kitaru", "store": "s3://bucket/x"}
    save_stack(parse_stack("prod", fields, "test"))
    with pytest.raises(KitaruUsageError, match=r"needs \$\{PGPASSWORD\}") as caught:
        settings_of("prod", load_settings())
    assert caught.value.fix == "export PGPASSWORD=..."
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    settings = settings_of("prod", load_settings())
    assert settings.journal == "postgresql://kitaru:s3cret@db/kitaru"
    assert settings.inline_max_bytes == 0
    assert "s3cret" not in (home / "stacks" / "prod.yaml").read_text()
    for journal in ("postgresql://db/x?user=ann&password=${PGPASSWORD}", "https://${KITARU_TOKEN}@host"):
        parse_stack("prod", {"journal": journal}, "test")


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("Prod", {}, "can't be the name"),
        ("local", {}, "can't be the name"),
        ("prod", {"runner": "borg"}, r"runner is 'borg'.*process, kubernetes, aws, gcp, azure"),
        ("prod", {"journl": "x"}, "no 'journl'"),
        ("prod", {"inline_max_bytes": -1}, "inline_max_bytes is -1"),
        ("prod", {"journal": "postgresql://kitaru:secret@db/x"}, "holds a password"),
        ("prod", {"journal": "postgresql://kitaru:pa$word@db/x"}, "journal holds a password"),
        ("prod", {"journal": "postgresql://db/x?user=kitaru&password=secret"}, "journal holds a password"),
        ("prod", {"journal": "https://kt_token@db"}, "journal holds a password"),
        ("prod", {"store": "sftp://ann:secret@host/x"}, "store holds a password"),
        ("prod", ["runner"], "holds list"),
        ("prod", {"journal": "mysql://db/x"}, "'mysql://db/x' is no journal URL"),
        ("prod", {"journal": "postgres://kitaru:secret@db/x"}, "'postgres://kitaru@db/x' is no journal URL"),
        ("prod", {"store": "team/artifacts"}, r"store is 'team/artifacts' \(test\); expected an absolute path"),
        ("prod", {"store": "s3:/bucket/x"}, "store is 's3:/bucket/x'"),
        ("prod", {"store": "s3://"}, "store is 's3://'"),
    ],
    ids=[
        "capital",
        "built-in",
        "runner",
        "field",
        "value",
        "password",
        "dollar",
        "parameter",
        "token",
        "store",
        "shape",
        "scheme",
        "alias",
        "relative",
        "slash",
        "bucket",
    ],
)
def test_a_definition_that_cannot_be_is_refused(name: str, fields: object, words: str) -> None:
    with pytest.raises(KitaruUsageError, match=words):
        parse_stack(name, fields, "test")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"image": "x"}}, "options of stack 'here': there is no 'image'. There is: workers."),
        ({"options": {"workers": 0}}, "options of stack 'here': workers is 0: .* greater than or equal to 1"),
        ({"secrets": {"A": "b/c"}}, "the runner 'process' see this machine's own variables"),
    ],
    ids=["unknown", "none", "secrets"],
)
def test_what_the_process_runner_does_not_take_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(KitaruUsageError, match=words):
        runner_for(parse_stack("here", fields, "test"))


def test_a_store_is_the_same_folder_wherever_one_is(tmp_path: Path) -> None:
    for value, better in [
        ("artifacts", str(Path.cwd() / "artifacts")),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("s3://", "s3://bucket/folder"),
    ]:
        with pytest.raises(KitaruUsageError, match=r"\(environment variable KITARU_STORE\)") as caught:
            load_settings({"KITARU_HOME": str(tmp_path), "KITARU_STORE": value})
        assert caught.value.fix == better
    for value in ("~/artifacts", f"{tmp_path}/x", "s3://bucket", "file:///srv/x", "memory://"):
        assert load_settings({"KITARU_HOME": str(tmp_path), "KITARU_STORE": value}).store_url == value


def test_a_stack_stays_while_an_execution_is_on_it_and_an_answer_without_a_stack_is_kept(home: Path) -> None:
    kitaru("stack", "create", "team", "process")
    runtime = runtime_of(None)
    made = write_created(runtime, "brief", "team", {"ref": {"kind": "module", "module": "x"}}, bytearray())
    exec_id = made.exec_id
    asked = {"name": "approve", "question": "ok?", "schema": {"type": "boolean"}}
    runtime.journal.append(exec_id, [Event(exec_id, "wait.created", "w", time.time(), asked)])
    refused = kitaru("stack", "delete", "team", code=1)
    assert f"'team' can't be deleted: execution {exec_id} is on it, and has not ended." in refused
    assert f"cancel {exec_id}  # or: kitaru stack delete team --force" in refused
    kitaru("stack", "delete", "team", "--force")
    with pytest.raises(KitaruFeatureNotAvailableError, match="The answer is recorded, but no worker") as caught:
        KitaruClient().executions.input(exec_id, value=True)
    assert caught.value.fix == f"kitaru stack create team process  # then: kitaru executions resume {exec_id}"
    assert runtime.journal.waits(exec_id=exec_id) == []
    kitaru("stack", "create", "team", "process")
    KitaruClient().executions.cancel(exec_id)
    kitaru("stack", "delete", "team")
    kitaru("stack", "create", "gone", "process", "--journal", "postgresql://kitaru:${NOT_SET_HERE}@db/kitaru")
    assert "fix: export NOT_SET_HERE=...  # or: kitaru stack delete gone --force" in kitaru(
        "stack", "delete", "gone", code=1
    )
    kitaru("stack", "delete", "gone", "--force")
    assert stack_names() == []


def test_an_unknown_stack_lists_what_there_is(home: Path) -> None:
    save_stack(parse_stack("team", {}, "test"))
    with pytest.raises(KitaruFeatureNotAvailableError, match="Stacks are: local, process, team"):
        find_stack("tean")
    (home / "stacks" / "team.yaml").write_text("runner: [")
    with pytest.raises(KitaruUsageError, match="not valid YAML"):
        find_stack("team")
