"""The types of the front end are those of the Python model, and its files are where servers look for them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kitaru_nb.errors import KitaruFeatureNotAvailableError
from kitaru_nb.surfaces import frontend

SOURCE = Path(__file__).parents[2] / "labextension"


def test_the_types_are_those_of_the_model_as_it_is_now() -> None:
    written = (SOURCE / "src" / "model.ts").read_text()
    assert written == frontend.typescript(), "python -m kitaru_nb.surfaces.frontend types > labextension/src/model.ts"


def test_the_command_prints_the_types_and_tells_what_else_there_is() -> None:
    command = [sys.executable, "-m", "kitaru_nb.surfaces.frontend"]
    assert subprocess.run([*command, "types"], capture_output=True, text=True).stdout == frontend.typescript()
    wrong = subprocess.run([*command, "tpyes"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "frontend types" in wrong.stderr


def test_a_field_without_a_form_in_json_is_refused() -> None:
    @dataclass
    class Odd:
        value: complex

    with pytest.raises(TypeError, match="complex"):
        frontend.typescript([Odd])


def test_the_built_files_are_found() -> None:
    folder = frontend.static_folder()
    assert "<script" in (folder / "index.html").read_text()
    assert (frontend.labextension_folder() / "package.json").is_file()


def test_a_tree_that_was_not_built_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "_PACKAGE", tmp_path)
    with pytest.raises(KitaruFeatureNotAvailableError, match=r"app\.js") as caught:
        frontend.static_folder()
    assert "npm run build" in str(caught.value.fix)


def test_the_page_has_nothing_that_a_strict_policy_forbids() -> None:
    page = (frontend.static_folder() / "index.html").read_text()
    assert "<script>" not in page
    assert "style=" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_lock_names_no_host_to_download_from() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
