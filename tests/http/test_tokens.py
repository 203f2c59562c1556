"""Tokens: made once, kept as hashes, ended at once; and the commands around them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from kitaru_nb.core.runtime import Runtime, default_runtime
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.surfaces.cli import app
from kitaru_nb.surfaces.http import serving
from kitaru_nb.surfaces.http.address import address_of
from kitaru_nb.surfaces.http.tokens import REFERENCE, Tokens
from kitaru_nb.surfaces.operations.base import Role
from tests.http import flows
from tests.http.httpkit import SECONDS, Ran, until

ROOT = Path(__file__).parents[2]


def test_a_token_is_found_by_its_secret_until_it_is_revoked(runtime: Runtime) -> None:
    tokens = Tokens(runtime.journal)
    secret = tokens.create("ana", Role.OPERATE, by="bo")
    assert tokens.find(secret) == ("ana", Role.OPERATE)
    assert tokens.find(secret + "x") is None
    assert tokens.find("\ud800") is None
    tokens.revoke("ana")
    assert tokens.find(secret) is None
    assert runtime.journal.reference(REFERENCE) is None


def test_only_hashes_are_kept_and_every_change_with_who(runtime: Runtime) -> None:
    tokens = Tokens(runtime.journal)
    secret = tokens.create("ana", Role.VIEW, by="bo")
    tokens.revoke("ana", by="cy")
    history = runtime.journal.reference_history(REFERENCE)
    assert [by for _, _, by in history] == ["bo", "cy"]
    assert secret not in str(history)
    assert secret.removeprefix("kt_") not in str(history)


def test_tokens_made_at_once_are_all_kept(runtime: Runtime) -> None:
    tokens = Tokens(runtime.journal)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tokens.create(f"token {number}", Role.VIEW), range(16)))
    assert len(tokens.list()) == 16


@pytest.mark.parametrize("name", ["", " x", "x\n", "\u202ex", "x" * 101])
def test_names_that_cant_be_shown_are_refused(runtime: Runtime, name: str) -> None:
    with pytest.raises(KitaruUsageError, match="can't be the name of a token"):
        Tokens(runtime.journal).create(name, Role.VIEW)


def test_a_name_is_taken_once_and_an_unknown_one_is_said(runtime: Runtime) -> None:
    tokens = Tokens(runtime.journal)
    tokens.create("ana", Role.VIEW)
    with pytest.raises(KitaruUsageError, match="There is a token 'ana' already"):
        tokens.create("ana", Role.ADMIN)
    with pytest.raises(KitaruNotFoundError, match="Tokens are: ana"):
        tokens.revoke("bo")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for the command."""
    for name in ("KITARU_JOURNAL", "KITARU_STORE", "KITARU_SERVER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KITARU_DURABILITY", "process")
    monkeypatch.setenv("KITARU_USER", "ana")
    yield tmp_path / "home"
    default_runtime().journal.close()


def kitaru(*arguments: str, code: int = 0) -> Any:
    """The command's JSON."""
    found = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert found.exit_code == code, found.output
    return json.loads(found.stdout or found.stderr)


def test_the_commands_make_list_and_revoke(home: Path) -> None:
    made = kitaru("server", "token", "create", "ci", "--role", "operate")["item"]
    assert made["token"].startswith("kt_")
    (listed,) = kitaru("server", "token", "list")["items"]
    assert (listed["name"], listed["role"], listed["created_by"]) == ("ci", "operate", "ana")
    assert made["token"] not in str(listed)
    plain = CliRunner().invoke(app, ["server", "token", "list"]).stdout
    assert "ci" in plain
    assert "operate" in plain
    kitaru("server", "token", "revoke", "ci")
    assert kitaru("server", "token", "list")["items"] == []
    assert kitaru("server", "token", "revoke", "ci", code=1)["error"]["type"] == "KitaruNotFoundError"


def test_the_webhook_command_prints_an_address_once(home: Path, ran: Ran, runtime: Runtime) -> None:
    exec_id = ran(flows.brief)
    made = kitaru("executions", "webhook", exec_id[-6:], "--wait", "approve", "--url", "https://kitaru.example/")[
        "item"
    ]
    assert made["url"] == f"https://kitaru.example/hooks/{made['token']}"
    assert (made["exec_id"], made["wait"]) == (exec_id, "approve")
    assert kitaru("executions", "webhook", exec_id)["item"]["url"].startswith(f"{address_of(runtime.home)}/hooks/")
    assert kitaru("executions", "webhook", exec_id, "--wait", "other", code=1)["error"]["type"] == "KitaruNotFoundError"


def test_the_server_command_serves_announces_itself_and_ends_on_sigterm(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kitaru_nb", "server", "--port", "0", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KITARU_SERVER_TOKEN": "a-token-for-tests"}
    with (tmp_path / "err").open("wb") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, cwd=tmp_path)
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        url = told["item"]["url"]
        assert told["item"]["token"] == "a-token-for-tests"
        assert address_of(home) == url
        headers = {"authorization": "Bearer a-token-for-tests"}

        def info() -> Any:
            try:
                return httpx.get(f"{url}/api/info", headers=headers).json()
            except httpx.TransportError:
                return None

        assert until(info, "the server")["user"] == "ana"
        with httpx.stream("GET", f"{url}/api/events", headers=headers, timeout=SECONDS) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 2000"
            process.send_signal(signal.SIGTERM)
            assert "event: change" not in list(lines)
        process.wait(SECONDS)
        assert not (home / "server.json").exists()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("where", [{"host": "0.0.0.0"}, {"url": "https://kitaru.test/"}, {"host": "127.0.0.1"}])
async def test_the_address_that_is_printed_is_one_by_which_it_may_be_called(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, str]
) -> None:
    served: list[Any] = []
    told: list[str] = []
    monkeypatch.setattr(serving._Uvicorn, "run", lambda self, sockets: served.append(self.config.app))
    asked = serving.Serving(port=0, root=home, dispatch=False, **where)
    serving.serve(default_runtime(), asked, ready=lambda url, secret: told.append(url))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served[0])) as client:
        assert (await client.get(f"{told[0]}/api/info")).status_code == 401
        assert (await client.get("https://elsewhere.test/api/info")).status_code == 421
    assert default_runtime().addresses == {told[0]}  # a stack whose journal has this address is of this server


@pytest.mark.parametrize(
    ("token", "arguments", "problem"),
    [
        ("short", (), "16 or more"),
        ("sixteen-letters ;", (), "16 or more"),
        ("a-token-for-tests", ("--url", "kitaru.example"), "is no address of a server"),
    ],
)
def test_what_the_server_cant_run_with_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, token: str, arguments: tuple[str, ...], problem: str
) -> None:
    monkeypatch.setenv("KITARU_SERVER_TOKEN", token)
    error = kitaru("server", "start", *arguments, code=1)["error"]
    assert problem in error["message"]
    assert error["fix"]
    assert token not in str(error)
    assert "KITARU_SERVER_TOKEN" not in os.environ


@pytest.mark.parametrize("chosen", ["a-token-for-tests", None], ids=["chosen", "made"])
def test_a_token_that_somebody_chose_is_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    if chosen:
        monkeypatch.setenv("KITARU_SERVER_TOKEN", chosen)
    monkeypatch.setattr(
        serving, "serve", lambda runtime, asked, *, ready: ready("http://kitaru.test", asked.secret or "made")
    )
    said = CliRunner().invoke(app, ["server", "start"], catch_exceptions=False).stdout
    assert f"http://kitaru.test/?token={'TOKEN' if chosen else 'made'}\n" in said
    assert ("it ends with the server" in said) is (chosen is None)
    assert "a-token-for-tests" not in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": 1}', "\udcff"], ids=["empty", "cut", "list", "other", "bytes"]
)
def test_a_damaged_note_of_the_servers_address_is_as_none(home: Path, text: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert address_of(home) == "http://127.0.0.1:8765"


def test_an_address_in_use_is_said(home: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = kitaru("server", "start", "--port", str(taken.getsockname()[1]), code=1)["error"]
    assert "can't be listened on" in error["message"]
    error = kitaru("server", "start", "--host", "not a host", code=1)["error"]
    assert "is no address to listen on" in error["message"]
