"""How what a call made is kept in its event: short, exact, and as version 1 of the files wrote it too."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.errors import KitaruArtifactError
from kitaru_nb.journal.fold import Outputs, adopted_outputs, fold, pack_artifact, pack_outputs, unpack_artifact
from kitaru_nb.journal.sqlite import SqliteJournal
from kitaru_nb.model import Artifact, Event, to_json
from kitaru_nb.testing.journal import new_execution

DATA = Path(__file__).parent / "data"
EXEC, CALL, NAME = "kr-0c0000000001", "c1", "research"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), inline_max_bytes=100)


def written(store: ArtifactStore, value: Any, name: str = NAME, **more: Any) -> Artifact:
    """An artifact of the call."""
    return store.write(value, name=name, exec_id=EXEC, producing_call=CALL, **more)


def completed(artifacts: list[Artifact], *, exec_id: str = EXEC, key: str = CALL) -> Event:
    """The event that keeps them."""
    blob = bytearray()
    packed = pack_outputs(artifacts, blob, exec_id=exec_id, call_id=key, name=NAME)
    return Event(exec_id, "checkpoint.completed", key, 10.0, {"name": NAME, "outputs": packed}, bytes(blob) or None, 7)


CASES: dict[str, dict[str, Any]] = {
    "the value of a function": {"value": {"a": 1}},
    "a text": {"value": "plain"},
    "bytes": {"value": b"\x00"},
    "one with a name of its own": {"value": 1, "name": "display"},
    "variables of a cell": {"value": [1], "name": "x", "names": ("x", "y")},
    "a prompt": {"value": "say", "kind": "prompt"},
    "one too large for the event": {"value": "x" * 200},
    "a pickle": {"value": print},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outputs_come_back_as_they_were(store: ArtifactStore, case: dict[str, Any]) -> None:
    artifact = written(store, **case)
    other = written(store, 2, "second")
    event = completed([artifact, other])
    outputs = Outputs(event)
    assert list(outputs) == [artifact, other]
    assert (len(outputs), outputs[-1], outputs[0:1]) == (2, other, [artifact])
    assert store.read(outputs[0]) == case["value"]


def test_what_follows_from_the_event_is_left_out(store: ArtifactStore) -> None:
    (body,) = completed([written(store, 498)]).body["outputs"]
    assert set(body) == {"serializer", "python_type", "digest", "size", "token", "preview", "inline"}


def test_an_artifact_of_another_call_keeps_its_ids(store: ArtifactStore) -> None:
    foreign = replace(written(store, 1), artifact_id="kr-other/c9/research", producing_call="c9")
    assert list(Outputs(completed([foreign]))) == [foreign]


def test_who_reuses_outputs_keeps_the_ids_of_who_made_them(store: ArtifactStore) -> None:
    made = completed([written(store, 1), written(store, 2, "second")])
    body = {"name": NAME, "outputs": adopted_outputs(made)}
    reused = Event("kr-0c0000000002", "checkpoint.completed", "c7", 20.0, body, made.blob)
    assert [(a.artifact_id, a.producing_call, a.exec_id) for a in Outputs(reused)] == [
        (f"{EXEC}/c1/research", "c1", "kr-0c0000000002"),
        (f"{EXEC}/c1/second", "c1", "kr-0c0000000002"),
    ]
    again = Event(
        "kr-0c0000000003", "checkpoint.completed", "c8", 20.0, {"name": NAME, "outputs": adopted_outputs(reused)}
    )
    assert [a.artifact_id for a in Outputs(again)] == [f"{EXEC}/c1/research", f"{EXEC}/c1/second"]


def test_an_artifact_by_itself_comes_back_as_it_was(store: ArtifactStore) -> None:
    blob = bytearray()
    artifact = replace(written(store, 1, "topic", kind="input"), tags=("a",), metadata={"b": 1})
    assert unpack_artifact(pack_artifact(artifact, blob), bytes(blob), EXEC) == artifact


@pytest.mark.parametrize("media", ["", "text/x-own"])
def test_a_media_type_of_its_own_is_kept(store: ArtifactStore, media: str) -> None:
    artifact = replace(written(store, 1), media_type=media, serializer="own", token=None)
    assert Outputs(completed([artifact]))[0].media_type == media


def test_tokens_are_those_of_values_that_are_not_everywhere(store: ArtifactStore) -> None:
    made = [written(store, True, "small"), written(store, "long enough", "big")]
    assert Outputs(completed(made)).tokens(above=5) == [made[1].token]


def test_damaged_inline_bytes_are_told_with_the_artifact(store: ArtifactStore) -> None:
    event = completed([written(store, "right")])._replace(blob=b"wrong")
    outputs = Outputs(event)
    serializer, digest, data = outputs.inline(0) or ("", "", b"")
    with pytest.raises(KitaruArtifactError, match=f"{EXEC}/{CALL}/{NAME}.* is damaged"):
        store.read_inline(serializer, digest, data, artifact=lambda: outputs[0])


def test_outputs_of_version_1_are_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "v1.sql").read_text())
    journal = SqliteJournal(f"sqlite://{path}")
    execution = fold(journal.execution(EXEC), journal.history(EXEC))
    (call,) = execution.checkpoints
    assert [(a.artifact_id, a.name, a.kind, a.media_type, a.producing_call, a.data) for a in call.artifacts] == [
        (f"{EXEC}/c1/notes", "notes", "output", "application/json", "c1", b'"notes"')
    ]
    assert [a.attempt_id for a in call.attempts] == ["c1/1"]
    journal.close()


def test_the_view_of_artifacts_fills_in_what_was_left_out(tmp_path: Path, store: ArtifactStore) -> None:
    journal = SqliteJournal(f"sqlite://{tmp_path}/journal.db", durability="process")
    exec_id = journal.create(new_execution(), []).exec_id
    whole = store.write({"a": 1}, name=NAME, exec_id=exec_id, producing_call=CALL)
    named = store.write("text", name="second", kind="prompt", exec_id=exec_id, producing_call=CALL)
    journal.append(exec_id, [completed([whole, named], exec_id=exec_id)])
    with closing(journal.database()) as database:
        rows = list(database["artifacts"].rows)
        (call,) = database["checkpoints"].rows
    shown = [(r["artifact_id"], r["name"], r["kind"], r["media_type"], r["call_id"]) for r in rows]
    assert shown == [(a.artifact_id, a.name, a.kind, a.media_type, CALL) for a in (whole, named)]
    assert (call["name"], call["status"], call["attempt"]) == (NAME, "completed", 1)
    journal.close()


def test_an_event_is_an_object_as_json() -> None:
    event = Event(EXEC, "metadata", "", 1.0, {"a": (1, 2)}, b"blob", 3)
    assert to_json(event) == {
        "exec_id": EXEC,
        "kind": "metadata",
        "key": "",
        "at": 1.0,
        "body": {"a": [1, 2]},
        "seq": 3,
        "cache_key": None,
    }
