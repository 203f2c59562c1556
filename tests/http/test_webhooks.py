"""A webhook answers one wait, once, and gives no other right."""

from __future__ import annotations

import base64
import json
import os
import stat
import time

import httpx
import pytest

from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruConflictError, KitaruNotFoundError, KitaruUsageError
from kitaru_nb.surfaces.http import webhooks
from kitaru_nb.surfaces.http.webhooks import WebhookError
from tests.http import flows
from tests.http.httpkit import SECONDS, Direct, Ran, Served, stop_clock


def post(served: Served, token: str, value: object) -> httpx.Response:
    """Answer, as a stranger without any token of the server does."""
    return httpx.post(f"{served.url}/hooks/{token}", json={"value": value}, timeout=SECONDS)


def test_a_webhook_tells_what_is_asked_and_answers_it_once(served: Served, ran: Ran, runtime: Runtime) -> None:
    exec_id = ran(flows.brief, "x")
    made = webhooks.make(runtime, exec_id, by="ana")
    asked = httpx.get(f"{served.url}/hooks/{made.token}", timeout=SECONDS).json()
    assert (asked["name"], asked["question"], asked["schema"]) == (
        "approve",
        "Publish?\nnotes on x",
        {"type": "boolean"},
    )
    refused = post(served, made.token, "perhaps")
    assert refused.status_code == 422  # and the webhook still counts
    answer = post(served, made.token, True)
    assert (answer.status_code, answer.json()) == (200, {"exec_id": exec_id, "answered": True})
    (event,) = [e for e in runtime.journal.history(exec_id) if e.kind == "wait.resolved"]
    assert event.body == {"value": True, "by": "ana", "via": "webhook"}
    again = post(served, made.token, False)
    assert again.status_code == 409
    assert "ana" not in again.text
    assert httpx.get(f"{served.url}/hooks/{made.token}", timeout=SECONDS).status_code == 409


def test_two_webhooks_of_one_wait_count_once_together(served: Served, ran: Ran, runtime: Runtime) -> None:
    exec_id = ran(flows.twice)
    one, two = (webhooks.make(runtime, exec_id, "first") for _ in range(2))
    assert one.token != two.token
    assert post(served, one.token, True).status_code == 200
    assert post(served, two.token, True).status_code == 409


def test_a_changed_or_foreign_token_is_refused(served: Served, ran: Ran, runtime: Runtime) -> None:
    exec_id, other = ran(flows.twice), ran(flows.twice)
    token = webhooks.make(runtime, exec_id, "first").token
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    claims = json.loads(data[32:])
    forged = data[:32] + json.dumps([other, *claims[1:]], separators=(",", ":")).encode()
    for bad in (base64.urlsafe_b64encode(forged).decode().rstrip("="), token[:-2], token[4:], "A" * 5_000, "é", "-"):
        answer = post(served, bad, True)
        assert answer.status_code in (404, 409), bad[:50]
    assert len(runtime.journal.waits()) == 2


def test_a_webhook_ends(ran: Ran, direct: Direct, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    made = webhooks.make(runtime, ran(flows.brief), seconds=60)
    client = direct.api.desk.client
    assert webhooks.look(client, made.token).name == "approve"
    later = time.time() + 61
    monkeypatch.setattr(webhooks.time, "time", lambda: later)
    with pytest.raises(WebhookError, match="has ended"):
        webhooks.answer(client, made.token, True)
    assert client.executions.pending_waits()


def test_a_webhook_of_another_home_is_refused(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    made = webhooks.make(runtime, ran(flows.brief))
    (runtime.home / "webhook.key").unlink()
    with pytest.raises(WebhookError, match="isn't valid here"):
        webhooks.answer(direct.api.desk.client, made.token, True)


def test_the_key_is_its_owners_alone(ran: Ran, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    webhooks.make(runtime, exec_id)
    path = runtime.home / "webhook.key"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert len(path.read_bytes()) == 32
    assert [p.name for p in runtime.home.iterdir() if p.name.startswith(".webhook")] == []
    path.chmod(0o644)
    with pytest.raises(KitaruBackendError, match="Others than its owner"):
        webhooks.make(runtime, exec_id)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(KitaruBackendError, match="5 bytes long"):
        webhooks.make(runtime, exec_id)


def test_only_pending_waits_get_one(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.twice)
    with pytest.raises(KitaruNotFoundError, match="no pending wait 'third'"):
        webhooks.make(runtime, exec_id, "third")
    direct.json("POST", f"executions/{exec_id}/waits/first/resolve", {"value": True})
    with pytest.raises(KitaruConflictError, match="is closed"):
        webhooks.make(runtime, exec_id, "first")


@pytest.mark.parametrize("seconds", [0, -1, 1e12, float("nan")])
def test_how_long_it_lives_has_bounds(ran: Ran, runtime: Runtime, seconds: float) -> None:
    with pytest.raises(KitaruUsageError, match="can't live for"):
        webhooks.make(runtime, ran(flows.brief), seconds=seconds)


def test_waits_never_hold_a_token(ran: Ran, direct: Direct, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    made = webhooks.make(runtime, exec_id)
    assert made.token not in str(direct.json("GET", "waits"))
    assert made.token not in str([event.body for event in runtime.journal.tail(0)])


@pytest.mark.parametrize("body", [b"", b"true", b'{"value": 1, "by": "me"}', b"{"])
def test_a_body_that_cant_be_right_is_refused(served: Served, ran: Ran, runtime: Runtime, body: bytes) -> None:
    token = webhooks.make(runtime, ran(flows.brief)).token
    assert httpx.post(f"{served.url}/hooks/{token}", content=body, timeout=SECONDS).status_code == 400


def test_trying_webhooks_is_slowed_down(served: Served) -> None:
    stop_clock(served.webhook_tries)
    with served.client(None) as client:
        statuses = [client.post("/hooks/guess", json={"value": 1}).status_code for _ in range(40)]
    assert statuses[:20] == [409] * 20
    assert statuses[-1] == 429
