"""What is tried, what may be installed and what the documentation says are the same versions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from adapters.matrix.__main__ import ENVIRONMENTS, ROOT, name_of, requirements

SDKS = sorted({environment.sdk for environment in ENVIRONMENTS.values()})


def oldest(sdk: str) -> Version:
    """The oldest version that is tried."""
    pinned = ENVIRONMENTS[f"{sdk}-oldest"].pinned
    assert pinned is not None
    return Version(pinned)


def lower_bounds(sdk: str) -> Iterator[Version]:
    """Of what users install: the package itself and its extras, without those for developers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for name in extras for line in extras[name] if name != "dev")]:
        if (requirement := Requirement(line)).name == sdk:
            yield from (Version(bound.version) for bound in requirement.specifier if bound.operator == ">=")


@pytest.mark.parametrize("sdk", SDKS)
def test_the_oldest_version_that_is_tried_is_the_oldest_that_may_be_installed(sdk: str) -> None:
    assert list(lower_bounds(sdk)) == [oldest(sdk)]
    assert ENVIRONMENTS[f"{sdk}-newest"].pinned is None


@pytest.mark.parametrize("sdk", SDKS)
def test_the_documentation_names_the_oldest_version(sdk: str) -> None:
    page = (ROOT / "docs" / "how-to" / "agent-sdks.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{re.escape(sdk)}` \|.*$", page, re.MULTILINE)
    assert Version(row.split(" | ")[2]) == oldest(sdk)


def test_what_all_tests_import_is_installed_in_each_environment() -> None:
    read = ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(read) if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in ast.walk(read) if isinstance(node, ast.Import) for name in node.names]
    needed = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - {"kitaru_nb"}
    for environment in ENVIRONMENTS.values():
        assert needed <= {name_of(package) for package in requirements(environment)}
