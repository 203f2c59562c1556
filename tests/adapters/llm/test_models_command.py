"""``kitaru model``: aliases in config.toml, whose other lines stay as they are."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kitaru_nb.config import load_tables
from kitaru_nb.surfaces.cli import app
from kitaru_nb.surfaces.commands.models import with_entry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KITARU_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kitaru(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return found.exit_code, found.stdout, found.stderr


def test_a_registered_model_is_listed_and_used(home: Path) -> None:
    code, out, _ = kitaru("model", "register", "fast", "openai:gpt-4o-mini")
    assert (code, out) == (0, f"fast is openai:gpt-4o-mini (in {home / 'config.toml'})\n")
    kitaru("model", "register", "default", "anthropic:claude-sonnet-4-5")
    assert load_tables().models == {"fast": "openai:gpt-4o-mini", "default": "anthropic:claude-sonnet-4-5"}
    code, out, _ = kitaru("model", "list", "--json")
    assert json.loads(out)["items"] == [
        {"alias": "default", "model": "anthropic:claude-sonnet-4-5"},
        {"alias": "fast", "model": "openai:gpt-4o-mini"},
    ]
    assert "openai:gpt-4o-mini" in kitaru("model", "list")[1]


def test_without_models_the_list_says_how_to_begin() -> None:
    code, out, _ = kitaru("model", "list")
    assert code == 0
    assert "kitaru model register default openai:gpt-4o-mini" in out


def test_registering_anew_replaces_and_keeps_the_rest_of_the_file(home: Path) -> None:
    home.mkdir()
    before = (
        '# mine\ndurability = "process"\n\n[models] # names\n# quick ones\nfast = "a"\nslow = "b"\n\n'
        "[prices]\nfast = { input = 1, output = 2 }\n"
    )
    (home / "config.toml").write_text(before)
    kitaru("model", "register", "fast", "openai:c")
    assert (home / "config.toml").read_text() == before.replace('fast = "a"', 'fast = "openai:c"')


@pytest.mark.parametrize(
    ("alias", "model"),
    [("", "m"), ("a b", "m"), ('a"b', "m"), ("[x]", "m"), ("-x", "m"), ("fast", " ")],
    ids=["empty", "space", "quote", "bracket", "dash", "no model"],
)
def test_what_cant_be_a_name_is_refused_and_nothing_written(home: Path, alias: str, model: str) -> None:
    code, _, err = kitaru("model", "register", "--", alias, model)
    assert code == 1
    assert "fix: kitaru model register" in err
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "a"),
        ("x = 1", "a"),
        ("[models]", "a"),
        ("[ models ]\nb = 'x'", "a"),
        ("[models]\na = 'x' # old", "a"),
        ("[models]\n\"a.b\" = 'x'\n[prices]\na = 1", "a.b"),
        ("[prices]\na = 1\n[models]\na = 'x'\n", "a"),
    ],
    ids=["empty", "no table", "empty table", "spaces", "comment", "dotted", "other table"],
)
def test_the_file_stays_valid_and_says_what_was_meant(text: str, key: str) -> None:
    before = tomllib.loads(text)
    value = 'quotes " and \\ and ü'
    after = tomllib.loads(with_entry(text, "models", key, value))
    assert after == before | {"models": before.get("models", {}) | {key: value}}
