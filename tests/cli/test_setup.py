"""``kitaru init``, ``doctor``, ``status``, ``info``, ``--version`` and ``--help``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import kitaru_nb
from cli import flows
from cli.conftest import Kitaru, Ran
from kitaru_nb.config import find_home, load_settings


def test_init_makes_a_home_whose_settings_are_all_defaults(kitaru: Kitaru, tmp_path: Path) -> None:
    project = tmp_path / "project"
    result = kitaru("init", str(project))
    assert result.code == 0
    assert str(project / ".kitaru") in result.out
    config = (project / ".kitaru" / "config.toml").read_text()
    assert tomllib.loads(config) == {}
    assert find_home({}, project / "deep" / "inside") == project / ".kitaru"


def test_every_commented_setting_of_init_is_one(kitaru: Kitaru, tmp_path: Path) -> None:
    kitaru("init", str(tmp_path))
    path = tmp_path / ".kitaru" / "config.toml"
    lines = [text.removeprefix("# ") for text in path.read_text().splitlines() if " = " in text]
    path.write_text("\n".join(lines))
    settings = load_settings({}, tmp_path)
    assert (settings.durability, settings.inline_max_bytes, len(lines)) == ("power", 16384, 8)


def test_a_second_init_changes_nothing_and_says_so(kitaru: Kitaru, tmp_path: Path) -> None:
    kitaru("init", str(tmp_path))
    config = tmp_path / ".kitaru" / "config.toml"
    config.write_text('durability = "process"\n')
    result = kitaru("init", str(tmp_path), "--json")
    assert result.code == 0
    assert result.json["item"] == {"home": str(tmp_path / ".kitaru"), "made": []}
    assert "exists already" in kitaru("init", str(tmp_path)).out
    assert config.read_text() == 'durability = "process"\n'


def test_an_init_that_cannot_be_is_told_with_its_fix(kitaru: Kitaru, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = kitaru("init", str(tmp_path / "file"))
    assert result.code == 1
    assert "\n  fix: kitaru init /a/writable/folder" in result.err


def test_the_doctor_finds_nothing_wrong_with_a_fresh_home(kitaru: Kitaru, ran: Ran) -> None:
    ran(flows.nested, "cats")
    result = kitaru("doctor", "--json")
    assert result.code == 0
    checks = {check["name"]: check for check in result.json["items"]}
    for name in ("python", "packages", "home", "journal", "store", "kernel"):
        assert checks[name]["status"] in ("ok", "warn"), checks[name]
    assert "schema version" in checks["journal"]["found"]
    assert "1 execution" in checks["journal"]["found"]
    assert not list(kitaru.home.glob(".doctor-*"))


def test_the_doctor_tells_what_fails_with_its_fix_and_exits_1(
    kitaru: Kitaru, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "file"))
    result = kitaru("doctor")
    assert result.code == 1
    home = result.out.splitlines()[2:4]
    assert home[0].startswith("✗ fail  home")
    assert home[1].startswith("  fix: ")
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))


def test_the_doctor_sees_a_journal_that_is_none(kitaru: Kitaru) -> None:
    kitaru.home.mkdir()
    (kitaru.home / "journal.db").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    result = kitaru("doctor", "--json")
    (journal,) = [check for check in result.json["items"] if check["name"] == "journal"]
    assert (result.code, journal["status"]) == (1, "fail")
    assert journal["fix"]
    (kitaru.home / "journal.db").unlink()


def test_the_status_counts_and_shows_what_waits(kitaru: Kitaru, ran: Ran) -> None:
    assert "No executions yet." in kitaru("status").out
    ran(flows.nested, "cats")
    exec_id = ran(flows.brief, "dogs")
    result = kitaru("status")
    assert "⏸ 1 waiting   ✓ 1 completed" in result.out
    assert result.widest <= 80 or str(kitaru.home) in result.out
    assert exec_id in result.out
    item = kitaru("status", "--json").json["item"]
    assert item["executions"]["waiting"] == 1
    assert item["pending_waits"][0]["name"] == "approve"


def test_what_is_shown_is_of_the_stack_in_use(kitaru: Kitaru, ran: Ran, tmp_path: Path) -> None:
    ran(flows.brief, "cats")
    kitaru("stack", "create", "apart", "process", "--journal", f"sqlite:///{tmp_path}/apart.db")
    assert kitaru("status", "--json").json["item"]["executions"]["waiting"] == 1
    kitaru("stack", "use", "apart")
    item = kitaru("status", "--json").json["item"]
    assert (item["stack"], item["executions"]["waiting"], item["pending_waits"]) == ("apart", 0, [])
    assert kitaru("status").out.startswith("stack apart\n")
    item = kitaru("info", "--json").json["item"]
    assert (item["stack"], item["journal"]) == ("apart", f"sqlite:///{tmp_path}/apart.db")


def test_passwords_in_addresses_are_not_shown(kitaru: Kitaru, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_STORE", "sftp://ana:sesame@nowhere.test/folder")
    found = kitaru("info").out
    assert "sesame" not in found
    assert "nowhere.test/folder" in found


@pytest.mark.parametrize("content", [b"\xff\xfe", b"not = [toml"], ids=["bytes", "open"])
def test_settings_that_cannot_be_read_are_told(kitaru: Kitaru, content: bytes) -> None:
    kitaru.home.mkdir(parents=True)
    path = kitaru.home / "config.toml"
    path.write_bytes(content)
    result = kitaru("status")
    path.unlink()
    assert result.code == 1
    assert f"fix: edit {path}" in result.err


def test_info_shows_the_settings(kitaru: Kitaru) -> None:
    item = kitaru("info", "--json").json["item"]
    assert (item["version"], item["home"]) == (kitaru_nb.__version__, str(kitaru.home))
    assert str(kitaru.home) in kitaru("info").out


def test_version_and_help(kitaru: Kitaru) -> None:
    assert kitaru("--version").out == f"kitaru {kitaru_nb.__version__}\n"
    help_text = kitaru("--help")
    assert help_text.widest <= 80
    for name in ("executions", "artifacts", "run", "init", "doctor", "status", "info", "--install-completion"):
        assert name in help_text.out
    group = kitaru("executions", "--help").out
    for name in ("list", "get", "logs", "input", "replay", "retry", "resume", "cancel", "diff"):
        assert f"  {name} " in group
    assert "..." not in group.partition("Commands:")[2]  # no summary is cut


def test_a_wrong_setting_is_told_by_every_command(kitaru: Kitaru, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_JOURNAL", "carrier://pigeon")
    for command in (["executions", "list"], ["executions", "get", "latest"], ["status"]):
        result = kitaru(*command)
        assert result.code == 1
        assert "\n  fix: export KITARU_JOURNAL=" in result.err
    monkeypatch.delenv("KITARU_JOURNAL")
