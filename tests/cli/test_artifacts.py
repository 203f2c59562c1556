"""``kitaru artifacts``."""

from __future__ import annotations

import os
from pathlib import Path

from cli import flows
from cli.conftest import Kitaru, Ran


def test_artifacts_are_listed_with_what_to_type_for_each(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("artifacts", "list", exec_id)
    assert result.code == 0
    assert result.widest <= 80
    names = [row.split()[0] for row in result.out.splitlines()[1:-1]]
    assert names == ["agent", "research", "publish", "draft", "result"]
    assert f"show: kitaru artifacts get {exec_id}/agent" in result.out
    found = kitaru("artifacts", "list", exec_id, "--kind", "context", "--json").json
    assert (found["command"], found["count"], found["items"][0]["name"]) == ("artifacts.list", 1, "draft")


def test_an_unknown_kind_is_told_and_one_that_none_is_of_too(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("artifacts", "list", exec_id, "--kind", "picture")
    assert result.code == 1
    assert "'picture' is no kind of artifact. Kinds are: prompt, response, context, input, output, blob." in result.err
    assert kitaru("artifacts", "list", exec_id, "--kind", "blob").out == f"{exec_id} has no artifacts that fit.\n"


def test_artifacts_of_one_name_are_listed_by_what_tells_them_apart(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.twice)
    labels = [row.split()[0] for row in kitaru("artifacts", "list", exec_id).out.splitlines()[1:-1]]
    assert len(set(labels)) == len(labels) == 3
    texts = [kitaru("artifacts", "get", f"{exec_id}/{label}").out.splitlines()[1] for label in labels]
    assert texts == ["one", "two", "one two"]


def test_a_text_is_shown_whole(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats" * 2000)
    out = kitaru("artifacts", "get", f"{exec_id}/research").out
    assert f"notes on {'cats' * 2000}" in out


def test_json_is_laid_out(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    assert '{\n  "topic": "cats"\n}' in kitaru("artifacts", "get", f"{exec_id}/draft").out


def test_output_writes_the_stored_bytes(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    exec_id = ran(flows.nested, "cats")
    target = tmp_path / "notes.txt"
    result = kitaru("artifacts", "get", f"{exec_id}/research", "--output", str(target))
    assert result.code == 0
    assert target.read_bytes() == b"notes on cats"
    assert str(target) in result.out
    assert kitaru("artifacts", "get", f"{exec_id}/research", "-o", "-").out == "notes on cats"


def test_an_output_that_cannot_be_written_is_told(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("artifacts", "get", f"{exec_id}/research", "--output", str(tmp_path))
    assert result.code == 1
    assert "\n  fix: kitaru artifacts get " in result.err


def test_nothing_is_ever_unpickled(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    exec_id = ran(flows.thing)
    shown = kitaru("artifacts", "get", f"{exec_id}/result")
    assert "This is a preview." in shown.out
    assert kitaru("artifacts", "get", f"{exec_id}/result", "--json").json["item"]["serializer"].endswith("pickle")
    assert kitaru("artifacts", "get", f"{exec_id}/result", "-o", str(tmp_path / "it.pickle")).code == 0
    assert (tmp_path / "it.pickle").read_bytes().startswith(b"\x80")
    assert "KITARU_TEST_UNPICKLED" not in os.environ


def test_an_unknown_artifact_lists_what_there_is(kitaru: Kitaru, ran: Ran) -> None:
    exec_id = ran(flows.nested, "cats")
    result = kitaru("artifacts", "get", f"{exec_id}/nope")
    assert result.code == 1
    assert "It has: agent, research, publish" in result.err
    assert f"\n  fix: kitaru artifacts list {exec_id}" in result.err
    assert kitaru("artifacts", "get", "nope").code == 2
