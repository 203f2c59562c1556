"""What the texts of the repository say of each other: links, versions, the generated reference, and foreign paths."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

import kitaru_nb
from tests.docs.pages import PAGES, ROOT, name_of

_LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
#: Folders of one machine, and hosts of package registries: neither belongs into a text that others read.
_FOREIGN = re.compile(
    r"(?<![\w.~$}])/(?:root|work|Users/\w+|home/\w+)/\w|files\.pythonhosted\.org|\bpypi\.org|registry\.npmjs\.org|proxy\.golang\.org"
)
MARKDOWN = PAGES


def anchors(page: Path) -> set[str]:
    """The anchors that headings give, as GitHub makes them."""
    found = set()
    for heading in _HEADING.finditer(
        re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    ):
        words = re.sub(r"[^\w\- ]", "", heading["text"].lower())
        found.add(words.strip().replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    """Targets of links and images inside this repository."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    targets = [found["target"] or found["image"] for found in _LINK.finditer(text)]
    return [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(page)} links to {target}"


def test_every_page_can_be_reached_from_the_map() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert {page for page in PAGES if page.is_relative_to(index.parent)} - {index} <= reached


def generator() -> Any:
    """The module ``docs/generate.py``."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says_now() -> None:
    stored = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert stored == generator().reference(), "stale; write it anew: python docs/generate.py"


def test_the_reference_lists_the_public_names_and_no_others() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    names = text.partition("## Names")[2].partition("## What they return")[0]
    errors = text.partition("## Errors")[2].partition("## Settings")[0]
    listed = re.findall(r"^### `(\w+)`", names, re.MULTILINE) + re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE)
    assert sorted(listed) == sorted(kitaru_nb.__all__)


def test_versions_agree() -> None:
    changelog = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert newest is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest[1] == kitaru_nb.__version__ == project["version"]


def test_a_page_shows_its_first_cell_and_output_early() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "```text" in lines[:30]
    assert len(lines) < 150


def tracked_files() -> list[Path]:
    """Text files of the repository, as git knows them (of the folder, where there is no git)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else []
    found = [ROOT / name for name in names if name] or [p for p in ROOT.rglob("*") if ".venv" not in p.parts]
    return [path for path in {*found, *MARKDOWN} if path.is_file()]


def test_no_text_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not a text
        found += [f"{name_of(path)}: {hit[0]}" for hit in _FOREIGN.finditer(text)]
    assert found == []


def test_no_module_imports_itself_on_a_way_round() -> None:
    graph = grimp.build_graph("kitaru_nb", cache_dir=None, exclude_type_checking_imports=True)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
