"""The stand-alone server on loopback: who comes in, what is sent, and what is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kitaru_nb.errors import KitaruFeatureNotAvailableError
from kitaru_nb.surfaces.http import page
from kitaru_nb.surfaces.http.tokens import Tokens
from kitaru_nb.surfaces.http.wire import MAX_BODY
from tests.http import flows
from tests.http.httpkit import OWNER, SECONDS, Ran, Served, stop_clock

HOSTILE = "<script>alert(1)</script> \x1b[2J\u202egpj \u2066x\u2069 \x00 </textarea>\r\nX: 1"


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    """A client that may do everything."""
    with served.client() as client:
        yield client


def test_without_a_token_nothing_is_told(served: Served) -> None:
    with served.client(None) as client:
        for path in ("/api/info", "/api/executions", "/api/openapi.json", "/api/nothing", "/mcp"):
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/api/executions/x/cancel", json={}).status_code == 401
        assert "A token, please" in client.get("/").text
        page = client.get("/", params={"token": "a-token-that-was-revoked"})
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "This token isn't valid" in page.text
        assert "set-cookie" not in page.headers


def test_the_openapi_document_says_where_it_is_served(served: Served) -> None:
    with served.client("view") as client:
        answer = client.get("/api/openapi.json")
        (server,) = answer.json()["servers"]
        assert client.get(f"{answer.url.join(server['url'])}/info").json()["user"] == "the view"


def test_tokens_say_who_and_what(served: Served) -> None:
    for role in ("view", "operate", "work", "admin"):
        with served.client(role) as client:
            info = client.get("/api/info").json()
            assert (info["user"], info["role"]) == (f"the {role}", role)
    answer = httpx.get(f"{served.url}/api/info", headers={"authorization": f"token {OWNER}"}, timeout=SECONDS)
    assert (answer.json()["user"], answer.json()["role"]) == ("owner", "admin")


def test_a_viewers_token_cant_act(served: Served, ran: Ran) -> None:
    exec_id = ran(flows.brief)
    with served.client("view") as client:
        answer = client.post(f"/api/executions/{exec_id}/waits/approve/resolve", json={"value": True})
        assert answer.status_code == 403
        assert client.get("/api/waits/count").json() == {"pending": 1}


def test_a_revoked_token_ends_at_once(served: Served) -> None:
    with served.client("view") as client:
        assert client.get("/api/info").status_code == 200
        Tokens(served.runtime.journal).revoke("the view")
        assert client.get("/api/info").status_code == 401


def test_guessing_tokens_is_slowed_down(served: Served) -> None:
    stop_clock(served.gate._failures)
    with served.client(None) as client:
        statuses = [client.get("/api/info", headers={"authorization": f"Bearer {n}"}).status_code for n in range(40)]
        assert statuses[:20] == [401] * 20
        assert statuses[-1] == 429
        answer = client.get("/api/info", headers={"authorization": "Bearer x"})
        assert int(answer.headers["retry-after"]) >= 1


def test_the_printed_address_becomes_a_cookie_and_leaves_the_bar(served: Served) -> None:
    with served.client(None) as client:
        answer = client.get("/", params={"token": OWNER})
        assert answer.status_code == 303
        assert OWNER not in answer.headers["location"]
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert client.get("/api/info").json()["user"] == "owner"
        assert client.get("/", params={"token": "wrong"}).status_code == 401


def test_who_came_in_before_isnt_locked_out_by_others_at_the_same_address(served: Served) -> None:
    stop_clock(served.gate._failures)
    with served.client("view") as known, served.client(None) as stranger:
        assert known.get("/api/info").status_code == 200
        for number in range(25):
            stranger.get("/", params={"token": f"wrong {number}"})
        assert stranger.get("/", params={"token": "wrong"}).status_code == 429
        assert known.get("/api/info").status_code == 200
        Tokens(served.runtime.journal).revoke("the view")
        assert known.get("/api/info").status_code == 401
        assert known.get("/api/info").status_code == 429


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 401),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 401),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 401),
    ],
)
def test_pages_of_other_sites_load_nothing_and_their_links_are_followed(
    served: Served, headers: dict[str, str], status: int
) -> None:
    with served.client(None) as client:
        assert client.get("/", params={"token": "wrong"}, headers=headers).status_code == status
        if status == 403:
            assert client.get("/hooks/x", headers=headers).status_code == 403
        elif headers["sec-fetch-site"] == "cross-site":
            assert client.post("/hooks/x", json={"value": 1}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "other",
    [
        "a=b",
        'theme={"dark": true}',
        'open="quote',
        "na[me]=1",
        "é=1",
        "alone",
        "a=b c",
        "sp ace=1",
        "path=/",
        "=",
        ";;",
    ],
)
def test_cookies_of_other_programs_of_this_host_sign_nobody_out(served: Served, other: str) -> None:
    with served.client(None) as client:
        name = client.get("/", params={"token": OWNER}).headers["set-cookie"].partition("=")[0]
        client.cookies.clear()
        mine = f"{name}={OWNER}"
        for cookie in (f"{other}; {mine}", f"{mine}; {other}"):
            assert client.get("/api/info", headers={"cookie": cookie.encode()}).status_code == 200


def test_a_page_of_others_cant_use_the_cookie(served: Served, ran: Ran) -> None:
    path = f"/api/executions/{ran(flows.brief)}/cancel"
    with served.client(None) as client:
        client.get("/", params={"token": OWNER})
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {},
        ):
            assert client.post(path, json={}, headers=headers).status_code == 403, headers
        assert client.post(path, json={}, headers={"origin": served.url}).status_code == 200


def test_a_form_of_others_isnt_json(served: Served, admin: httpx.Client, ran: Ran) -> None:
    answer = admin.post(f"/api/executions/{ran(flows.brief)}/cancel", data={"a": "b"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("kitaru.example", 200),
        ("KITARU.example:443", 200),
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("[::1]evil.example", 421),
        ("[::1", 421),
        ("localhost:80:80", 421),
        ("10.1.2.3", 200),
    ],
)
def test_host_names_of_others_are_refused(served: Served, admin: httpx.Client, host: str, status: int) -> None:
    answer = admin.get("/api/info", headers={"host": host})
    assert answer.status_code == status
    assert "content-security-policy" in answer.headers


def test_every_response_carries_the_security_headers(served: Served, admin: httpx.Client) -> None:
    for path in ("/", "/api/info", "/api/nothing", "/static/nothing.js", "/hooks/nothing", "/elsewhere"):
        headers = admin.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers or "uvicorn" in headers["server"]


def test_other_origins_get_no_permission(served: Served, admin: httpx.Client) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = admin.options("/api/executions", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_large_bodies_are_refused_before_they_are_read(served: Served, admin: httpx.Client, ran: Ran) -> None:
    path = f"/api/executions/{ran(flows.said, 'x')}/replay"
    assert admin.post(path, json={"inputs": {"text": "x" * 10_000_000}}).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 2):
            yield b" " * 65536

    answer = admin.post(path, content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b'{"value": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"value": ' + b"[" * 101 + b"]" * 101 + b"}",
        b'{"value": NaN}',
        b'{"value": 1e999, "more": Infinity}',
        b'{"value": "\\ud800"}',
        b'{"value": ' + b"9" * 6_000 + b"}",
        b"\xff\xfe",
        b"[1]",
        b'"text"',
        b"{",
        b"{}",
        b'{"value": true, "exec_id": "kr-000000000000"}',
        b'{"value": true, "colour": 1}',
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_bodies_that_cant_be_right_are_refused(served: Served, admin: httpx.Client, ran: Ran, body: bytes) -> None:
    path = f"/api/executions/{ran(flows.brief)}/waits/approve/resolve"
    answer = admin.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "KitaruUsageError"


def test_hostile_texts_go_through_as_data(served: Served, admin: httpx.Client, ran: Ran) -> None:
    exec_id = ran(flows.said, HOSTILE)
    assert "<script>" in admin.get(f"/api/executions/{exec_id}").json()["inputs"]["text"]
    lines = [entry["message"] for entry in admin.get(f"/api/executions/{exec_id}/logs").json()["items"]]
    assert any("<script>" in line for line in lines)
    answer = admin.get("/api/artifact/content", params={"id": f"{exec_id}/research"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.text == f"notes on {HOSTILE}"
    for path in ("/api/executions/%3Cscript%3E", "/api/%00", "/api/executions/a%2Fb"):
        assert admin.get(path).status_code == 404
    assert admin.get("/api/executions/%ff%fe").status_code == 400
    error = admin.get("/api/executions", params={"text": HOSTILE * 20}).json()["error"]
    assert "200 characters" in error["message"]


def test_a_text_of_ten_megabytes_is_cut_in_lists_and_whole_in_ranges(
    served: Served, admin: httpx.Client, ran: Ran
) -> None:
    text = "long " * 2_000_000
    exec_id = ran(flows.said, text)
    logs = admin.get(f"/api/executions/{exec_id}/logs")
    assert len(logs.content) < 100_000
    assert "10,000,000 characters" in logs.text
    assert len(admin.get(f"/api/executions/{exec_id}").content) < 100_000
    where = {"id": f"{exec_id}/research"}
    whole = admin.get("/api/artifact/content", params=where)
    assert whole.text == f"notes on {text}"
    assert int(whole.headers["content-length"]) == len(whole.content)
    part = admin.get("/api/artifact/content", params=where, headers={"range": "bytes=9-13"})
    assert (part.status_code, part.text) == (206, "long ")
    assert part.headers["content-range"] == f"bytes 9-13/{len(whole.content)}"


@pytest.mark.parametrize(
    ("asked", "status", "text"),
    [
        ("bytes=0-4", 206, "notes"),
        ("bytes=-1", 206, "x"),
        ("bytes=9-", 206, "x"),
        ("bytes=0-999", 200, "notes on x"),
        ("bytes=10-", 416, ""),
        ("bytes=5-2", 416, ""),
        ("bytes=-0", 416, ""),
        ("bytes=a-b", 200, "notes on x"),
        ("lines=0-1", 200, "notes on x"),
        ("bytes=0-1,3-4", 200, "notes on x"),
        ("bytes=-", 200, "notes on x"),
    ],
)
def test_ranges(served: Served, admin: httpx.Client, ran: Ran, asked: str, status: int, text: str) -> None:
    where = {"id": f"{ran(flows.said, 'x')}/research"}
    answer = admin.get("/api/artifact/content", params=where, headers={"range": asked})
    assert (answer.status_code, answer.text) == (status, text)


def test_a_piece_is_asked_for_without_a_header_too(served: Served, admin: httpx.Client, ran: Ran) -> None:
    where = {"id": f"{ran(flows.said, 'x')}/research"}
    for asked, text in (({"offset": 6, "length": 2}, "on"), ({"offset": 6}, "on x"), ({"offset": 99}, "")):
        answer = admin.get("/api/artifact/content", params=where | asked)
        assert (answer.status_code, answer.text) == (200, text)
    both = admin.get("/api/artifact/content", params=where | {"offset": 6}, headers={"range": "bytes=0-4"})
    assert (both.status_code, both.text) == (206, "notes")


def test_what_a_client_has_already_isnt_sent_again(served: Served, admin: httpx.Client, ran: Ran) -> None:
    where = {"id": f"{ran(flows.said, 'x')}/research"}
    first = admin.get("/api/artifact/content", params=where)
    again = admin.get("/api/artifact/content", params=where, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    stale = {"range": "bytes=0-4", "if-range": '"other"'}
    assert admin.get("/api/artifact/content", params=where, headers=stale).text == "notes on x"
    head = admin.head("/api/artifact/content", params=where)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")


def test_a_damaged_value_is_said_and_nothing_of_it_is_sent(served: Served, admin: httpx.Client, ran: Ran) -> None:
    exec_id = ran(flows.said, "long " * 10_000)
    (path,) = [p for p in (served.runtime.home / "artifacts").rglob("*") if p.is_file() and p.stat().st_size > 50_005]
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    answer = admin.get("/api/artifact/content", params={"id": f"{exec_id}/research"})
    assert answer.status_code == 503
    assert "is damaged" in answer.json()["error"]["message"]


def test_a_dropped_download_leaves_the_server_well(served: Served, admin: httpx.Client, ran: Ran) -> None:
    exec_id = ran(flows.said, "long " * 1_000_000)
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(
            f"GET /api/artifact/content?id={exec_id}/research HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {OWNER}\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 200")
    assert admin.get("/api/info").status_code == 200


def test_an_error_of_the_server_itself_keeps_its_words(
    served: Served, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret path /home/ana")

    monkeypatch.setattr(served.runtime.journal, "executions", broken)
    answer = admin.get("/api/executions")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_an_unforeseen_error_carries_the_security_headers_too(
    served: Served, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.gate, "caller", lambda *_, **__: 1 / 0)
    answer = admin.get("/api/executions")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalError"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get_list("content-security-policy", split_commas=False)[1:] == []


def test_the_dashboard_is_served_as_it_was_built(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "app.js").write_text("1")
    (tmp_path / "notes.txt").write_text("private")
    assert page.asset("app.js", lambda: tmp_path).headers["content-type"] == "text/javascript; charset=utf-8"
    assert page.index(lambda: tmp_path).status_code == 200
    for name in ("notes.txt", "missing.js", "a\0.js", "/etc/passwd", "../" + tmp_path.name + "/../x.js", ""):
        with pytest.raises(LookupError):
            page.asset(name, lambda: tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(LookupError):
        page.asset("../app.js", lambda: tmp_path / "inner")


def test_a_dashboard_that_isnt_built_says_how() -> None:
    def missing() -> Path:
        raise KitaruFeatureNotAvailableError("The front end isn't built.", fix="npm run build")

    answer = page.index(missing)
    assert answer.status_code == 503
    assert b"npm run build" in bytes(answer.body)
