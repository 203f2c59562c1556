"""Versions, tags, history, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kitaru_nb.client import KitaruClient
from kitaru_nb.config import Settings
from kitaru_nb.core.create import write_created
from kitaru_nb.core.runtime import Runtime, default_runtime
from kitaru_nb.errors import (
    KitaruConflictError,
    KitaruFeatureNotAvailableError,
    KitaruNotFoundError,
    KitaruStateError,
    KitaruUsageError,
)
from kitaru_nb.journal.base import Journal
from kitaru_nb.promote.deployments import Deployments
from kitaru_nb.testing.faults import FaultyJournal
from tests.promote.conftest import Desk, code


@pytest.fixture
def deployed(desk: Desk, tiny_lock: Any) -> Deployments:
    """brief v1 (default), v2 (prod) and v3."""
    tiny_lock()
    desk.promote(code("topic: str = 'sea'", "parameters"), "a = 1")
    desk.promote(code("topic: str = 'sea'\nn: int = 1", "parameters"), "a = 2", tags="prod")
    desk.promote(code("topic: str = 'sea'\nn: int = 1", "parameters"), "a = 3")
    return desk.client.deployments


def versions(deployments: Deployments) -> dict[str, tuple[str, ...]]:
    return {d.deployment_id: d.tags for d in deployments.list()}


def test_versions_count_up_and_the_first_gets_the_default_tag(deployed: Deployments) -> None:
    assert versions(deployed) == {"brief@v3": (), "brief@v2": ("prod",), "brief@v1": ("default",)}
    first = deployed.get("brief")
    assert (first.version, first.created_by, first.kind, first.stack) == (1, "ana", "notebook", "local")
    assert deployed.flows() == ["brief"]


def test_a_version_is_found_by_number_by_tag_or_in_the_name(deployed: Deployments) -> None:
    assert [deployed.get("brief", version=v).version for v in (2, "2", "v2")] == [2, 2, 2]
    assert deployed.get("brief", tag="prod").version == deployed.get("brief@prod").version == 2
    assert deployed.get("brief@v3").version == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flow": "letter"}, KitaruNotFoundError, "no deployment of a flow 'letter'. Flows are: brief."),
        ({"flow": "brief", "tag": "live"}, KitaruNotFoundError, "no tag 'live'. Tags are: default, prod."),
        (
            {"flow": "brief", "version": 9},
            KitaruNotFoundError,
            "Version v9 .* does not exist. Versions are: v3, v2, v1.",
        ),
        ({"flow": "brief", "version": "new"}, KitaruUsageError, "'new' is no version"),
        ({"flow": "brief", "version": 1, "tag": "prod"}, KitaruUsageError, "Both version 1 and tag 'prod'"),
        ({"flow": "brief@v1", "tag": "prod"}, KitaruUsageError, "names a version already"),
    ],
    ids=["flow", "tag", "version", "no number", "both", "twice"],
)
def test_what_is_not_there_is_told_with_what_is(
    deployed: Deployments, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        deployed.get(**arguments)


def test_a_tag_moves_and_every_move_is_kept(deployed: Deployments) -> None:
    deployed.tag("brief", 3, "prod", by="bob")
    assert deployed.get("brief@prod").version == 3
    deployed.untag("brief", "prod", by="eve")
    moves = [(c.by, c.what, c.version, c.before) for c in deployed.history("brief", tag="prod")]
    assert moves == [("ana", "tagged", 2, None), ("bob", "tagged", 3, 2), ("eve", "untagged", None, 3)]
    everything = [(c.what, c.version, c.tag) for c in deployed.history("brief")]
    assert everything[:2] == [("created", 1, None), ("tagged", 1, "default")]
    assert len(everything) == 7


def test_rollback_goes_back_step_by_step(deployed: Deployments) -> None:
    deployed.tag("brief", 1, "live")
    deployed.tag("brief", 2, "live")
    deployed.tag("brief", 3, "live")
    assert deployed.rollback("brief", "live").version == 2
    assert deployed.rollback("brief", "live").version == 1
    with pytest.raises(KitaruStateError, match=r"'live' .* is back on v1, the first that it was on") as back:
        deployed.rollback("brief", "live")
    assert back.value.fix == "kitaru deployments rollback brief --tag live --to v2"
    with pytest.raises(KitaruStateError, match=r"'default' .* was on no other version") as never:
        deployed.rollback("brief")
    assert never.value.fix == "kitaru deployments tag brief VERSION default"
    deployed.tag("brief", 3, "live")
    assert deployed.rollback("brief", "live").version == 1
    assert deployed.rollback("brief", "live", to="v2").version == 2


@pytest.mark.parametrize("tag", ["v2", "2", "", "a b", "-x", "a/b", "ä"])
def test_a_name_that_can_not_be_a_tag_is_refused(deployed: Deployments, tag: str) -> None:
    with pytest.raises(KitaruUsageError, match="can't be a tag"):
        deployed.tag("brief", 1, tag)
    with pytest.raises(KitaruUsageError, match="can't be on two versions"):
        deployed.tag("brief", 1, "prod", exclusive=False)


def test_a_wrong_tag_or_stack_stops_a_promotion_before_it_begins(desk: Desk) -> None:
    path = desk.write("a = 1")
    with pytest.raises(KitaruUsageError, match="'v1' can't be a tag"):
        desk.client.deployments.create(path, tags=["v1"])
    with pytest.raises(KitaruFeatureNotAvailableError, match="no stack 'moon'"):
        desk.client.deployments.create(path, stack="moon")
    assert desk.client.deployments.list() == []


def test_a_deleted_version_is_gone_and_its_number_never_used_again(deployed: Deployments, desk: Desk) -> None:
    deployed.delete("brief", 3)
    assert sorted(versions(deployed)) == ["brief@v1", "brief@v2"]
    with pytest.raises(KitaruNotFoundError, match=r"v3 .* was deleted. Versions are: v2, v1."):
        deployed.get("brief", version=3)
    assert desk.promote("a = 4").version == 4
    assert [c.what for c in deployed.history("brief") if c.version == 3] == ["created", "deleted"]


def test_a_version_in_use_is_not_deleted(deployed: Deployments) -> None:
    with pytest.raises(KitaruStateError, match="brief@v2 has the tag 'prod'"):
        deployed.delete("brief", 2)
    runtime = default_runtime()
    ref = {"kind": "snapshot", "digest": "", "size": 0}
    made = write_created(runtime, "brief", "local", {"ref": ref}, bytearray(), deployment="brief@v3")
    with pytest.raises(KitaruStateError, match=f"brief@v3 is in use: execution {made.exec_id} has not ended"):
        deployed.delete("brief", "v3")
    KitaruClient().executions.cancel(made.exec_id)
    KitaruClient().schedules.create("brief", version=3, cron="0 7 * * *", name="daily")
    with pytest.raises(KitaruStateError, match="brief@v3 is in use: the schedule 'daily' starts it"):
        deployed.delete("brief", "v3")
    KitaruClient().schedules.delete("daily")
    deployed.delete("brief", "v3")


def test_who_loses_a_tag_to_somebody_who_promotes_at_once_is_told_and_default_is_set(
    desk: Desk, tiny_lock: Any
) -> None:
    tiny_lock()
    snapshot = desk.snapshot("a = 1")
    other = Deployments(default_runtime())

    class Slower(Deployments):
        def _tag(self, flow: str, tag: str) -> int | None:
            found = super()._tag(flow, tag)
            if tag == "prod" and found is None:  # seen; and before it is moved:
                assert other.add(snapshot, tags=["prod"]).version == 2
            return found

    with pytest.raises(KitaruConflictError, match=r"brief@v1 is deployed, but without its tag\. .* v2") as lost:
        Slower(default_runtime()).add(snapshot, tags=["prod", "canary"])
    assert lost.value.fix == "kitaru deployments tag brief 1 prod"
    assert [(d.version, d.tags) for d in other.list()] == [(2, ("prod",)), (1, ("canary", "default"))]


def test_people_who_promote_at_once_get_versions_of_their_own(desk: Desk, tiny_lock: Any) -> None:
    tiny_lock()
    snapshot = desk.snapshot("a = 1")
    start = threading.Barrier(4)
    found: list[int] = []

    def promote() -> None:
        runtime = Runtime(Settings(default_runtime().home, durability="process"))
        start.wait()
        found.append(Deployments(runtime).add(snapshot, by="somebody").version)
        runtime.journal.close()

    threads = [threading.Thread(target=promote) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 3, 4]
    assert versions(desk.client.deployments) == {
        "brief@v4": (),
        "brief@v3": (),
        "brief@v2": (),
        "brief@v1": ("default",),
    }


def test_who_moves_a_tag_that_was_moved_meanwhile_is_told(deployed: Deployments, monkeypatch: Any) -> None:
    slow = Deployments(default_runtime())
    seen = slow._tag

    def late(flow: str, tag: str) -> int | None:
        found = seen(flow, tag)
        if tag == "prod" and found == 2:
            deployed.tag("brief", 3, "prod", by="bob")
        return found

    monkeypatch.setattr(slow, "_tag", late)
    monkeypatch.setattr(slow, "_tags", lambda flow: {})
    with pytest.raises(KitaruConflictError, match="'prod' of flow 'brief' was moved to v3 by somebody else"):
        slow.tag("brief", 1, "prod")
    assert deployed.get("brief@prod").version == 3


def test_what_differs_between_two_versions(deployed: Deployments) -> None:
    found = deployed.diff("brief", "v1", "prod")
    assert (found.left, found.right, found.same) == ("brief@v1", "brief@v2", False)
    assert found.parameters == {"n": (None, {"type": "integer", "default": 1})}
    assert "-a = 1\n+a = 2\n" in found.files["flow.py"]
    assert deployed.diff("brief", 2, 2).same
    assert deployed.diff("brief", 2).right == "brief@v3"


def test_the_commit_is_noted(desk: Desk, tiny_lock: Any) -> None:
    import subprocess

    tiny_lock()
    path = desk.write("a = 1")
    git = ["git", "-c", "user.name=ana", "-c", "user.email=ana@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=desk.folder, check=True)
    first = desk.client.deployments.create(path)
    assert first.commit_sha is not None
    assert (len(first.commit_sha), first.commit_dirty) == (40, False)
    assert desk.promote("a = 2").commit_dirty


# inputs


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"subject": "x"}, r"brief@v2 has no input 'subject'. Inputs are: topic, n."),
        ({"n": "two"}, r"Input 'n' of brief@v2 is \"two\"; expected a whole number"),
        ({"n": True}, r"Input 'n' of brief@v2 is true; expected a whole number"),
        ({"topic": 3}, r"Input 'topic' of brief@v2 is 3; expected a text"),
        ({"topic": object()}, r"can't be sent as JSON"),
    ],
    ids=["unknown", "wrong", "bool", "number", "object"],
)
def test_inputs_are_checked_before_anything_starts(deployed: Deployments, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(KitaruUsageError, match=message) as error:
        deployed.invoke("brief", tag="prod", inputs=inputs)
    assert error.value.fix.startswith("kitaru invoke brief --version 2 -i topic=")
    assert KitaruClient().executions.list() == []


class Interposed(FaultyJournal):
    """Something happens just before a reference changes."""

    def __init__(self, journal: Journal, name: str, happens: Callable[[], object]) -> None:
        super().__init__(journal)
        self._name, self._happens = name, happens

    def set_reference(self, name: str, value: str | None, *, expected: str | None, by: str) -> None:
        if name == self._name:
            self._name = ""
            self._happens()
        super().set_reference(name, value, expected=expected, by=by)


def interposed(name: str, happens: Callable[[], object]) -> Deployments:
    runtime = default_runtime()
    return Deployments(Runtime(runtime.settings, journal=Interposed(runtime.journal, name, happens)))


def test_a_version_that_gets_a_tag_while_it_is_being_deleted_stays(deployed: Deployments) -> None:
    slow = interposed("deployment:brief@v3", lambda: deployed.tag("brief", 3, "canary"))
    with pytest.raises(KitaruStateError, match="has the tag 'canary'"):
        slow.delete("brief", 3)
    assert versions(deployed)["brief@v3"] == ("canary",)


MOVES: dict[str, Callable[[Deployments], object]] = {
    "tag": lambda deployments: deployments.tag("brief", 3, "prod"),
    "rollback": lambda deployments: deployments.rollback("brief", "prod", to=3),
}


@pytest.mark.parametrize("move", list(MOVES))
def test_a_tag_is_not_put_on_a_version_that_is_deleted_meanwhile(deployed: Deployments, move: str) -> None:
    slow = interposed("deployment:brief@prod", lambda: deployed.delete("brief", 3))
    with pytest.raises(KitaruNotFoundError, match="v3 of flow 'brief' was deleted"):
        MOVES[move](slow)
    assert deployed.get("brief@prod").version == 2
