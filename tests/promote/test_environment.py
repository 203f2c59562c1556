"""Locked environments: what is locked, that locks repeat, and that workers run in nothing else."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.config import Settings
from kitaru_nb.errors import KitaruBackendError, KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.promote import environment
from kitaru_nb.promote.environment import (
    build_environment,
    cache_folder,
    closure,
    environment_key,
    is_running,
    lock_environment,
    normal,
    runtime_for,
)
from kitaru_nb.promote.modules import closure_of, imports_of
from tests.promote.conftest import Desk

PURE = "idna"


def test_what_is_imported_is_locked_with_all_that_it_needs(desk: Desk) -> None:
    import ast

    found = closure_of(imports_of(ast.parse("import pandas, yaml\nimport json\nfrom nbformat import v4")), desk.folder)
    assert {normal(n) for n in found.distributions} == {"pandas", "pyyaml", "nbformat"}
    packages = closure(found.distributions)
    assert {"pandas", "numpy", "pyyaml", "jsonschema"} <= set(packages)
    assert packages["pandas"].version == importlib.metadata.version("pandas")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from google.cloud import run_v2, storage", {"google-cloud-run", "google-cloud-storage"}),
        ("import google.protobuf.message", {"protobuf"}),
        ("from azure.identity import DefaultAzureCredential", {"azure-identity"}),
        ("import langgraph.graph", {"langgraph"}),
        ("from langgraph.checkpoint.memory import InMemorySaver", {"langgraph-checkpoint"}),
    ],
    ids=["google", "protobuf", "azure", "langgraph", "checkpoint"],
)
def test_of_packages_that_share_a_name_the_one_that_is_imported_is_locked(
    desk: Desk, source: str, expected: set[str]
) -> None:
    import ast

    assert {normal(n) for n in closure_of(imports_of(ast.parse(source)), desk.folder).distributions} == expected


def test_where_the_module_of_a_shared_name_is_not_known_all_that_share_it_are_locked(desk: Desk) -> None:
    import ast

    found = closure_of(imports_of(ast.parse("import azure\nazure.core")), desk.folder).distributions
    assert {"azure-core", "azure-identity", "azure-storage-blob"} <= {normal(n) for n in found}


def test_optional_dependencies_come_along_unless_they_are_for_development() -> None:
    packages = closure({"pandas"})
    assert "pyarrow" in packages  # pandas[parquet]
    assert "pytest" not in packages  # pandas[test]
    own = closure({"kitaru-nb"})
    assert "openai-agents" in own
    assert not {"jupyterlab", "mypy", "playwright"} & set(own)


def test_a_lock_is_pinned_hashed_and_names_no_host(desk: Desk) -> None:
    lock = lock_environment({PURE})
    assert re.search(
        rf"^{PURE}=={re.escape(importlib.metadata.version(PURE))} \\\n    --hash=sha256:[0-9a-f]{{64}}", lock.text, re.M
    )
    assert "://" not in lock.text
    assert "/" not in lock.text.replace("./wheels/", "")
    assert lock.packages[PURE] == importlib.metadata.version(PURE)
    wheel = next(path for path in lock.wheels if "kitaru_nb" in path)
    with zipfile.ZipFile(io.BytesIO(lock.wheels[wheel])) as archive:
        assert "kitaru_nb/promote/environment.py" in archive.namelist()
    assert lock_environment({PURE}) == lock


def test_a_second_lock_asks_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lock_environment({PURE})

    def refuse(*arguments: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(environment, "_uv", refuse)
    if not any("kitaru_nb" in path for path in changed_since(first)):
        assert lock_environment({PURE}) == first


def changed_since(lock: environment.Lock) -> list[str]:
    """Wheels whose sources were edited since they were built."""
    return [path for path, content in lock.wheels.items() if not is_running("", {path: content})]


def test_a_package_that_no_index_has_is_refused_with_its_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "site" / "no_such_package_anywhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: no-such-package-anywhere\nVersion: 1.0+local\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(KitaruUsageError, match=r"can't be locked: .*no-such-package-anywhere"):
        lock_environment({"no-such-package-anywhere"})


def test_without_uv_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitaruFeatureNotAvailableError) as error:
        environment.find_uv()
    assert error.value.fix == "pip install uv"


# running


def test_this_environment_is_recognised(desk: Desk) -> None:
    version = importlib.metadata.version(PURE)
    assert is_running(f"{PURE}=={version} \\\n    --hash=sha256:0\n", {})
    assert not is_running(f"{PURE}==0.1 \\\n    --hash=sha256:0\n", {})
    assert not is_running("no-such-package-anywhere==1.0\n", {})


def wheel(name: str, version: str, files: dict[str, str]) -> tuple[str, bytes]:
    """A small wheel."""
    from kitaru_nb.promote.snapshot import pack

    info = f"{name}-{version}.dist-info"
    content = {path: text.encode() for path, text in files.items()}
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/RECORD"] = "".join(f"{p},,\n" for p in [*content, f"{info}/RECORD"]).encode()
    return f"wheels/{name}-{version}-py3-none-any.whl", pack(content, compressed=True)


def locked(path: str, content: bytes) -> str:
    from hashlib import sha256

    return f"./{path} \\\n    --hash=sha256:{sha256(content).hexdigest()}\n"


def test_an_environment_is_built_once_and_has_what_is_locked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_CACHE", str(desk.folder / "cache"))
    path, content = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 7\n"})
    lock = locked(path, content)
    assert not is_running(lock, {path: content})
    python = build_environment(lock, {path: content}, platform.python_version())
    seen = subprocess.run([python, "-c", "import tiny_thing; print(tiny_thing.VALUE)"], capture_output=True, text=True)
    assert seen.stdout == "7\n", seen.stderr
    before = python.stat().st_ino, sorted(os.listdir(cache_folder() / "environments"))
    assert build_environment(lock, {path: content}, platform.python_version()) == python
    assert (python.stat().st_ino, sorted(os.listdir(cache_folder() / "environments"))) == before
    assert environment_key(lock, "3.11.7") == environment_key(lock, "3.11.2") != environment_key(lock, "3.12.0")


def test_a_wheel_that_is_not_what_was_locked_is_not_installed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_CACHE", str(desk.folder / "cache"))
    path, content = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 7\n"})
    _, other = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 8\n"})
    with pytest.raises(KitaruBackendError, match=r"can't be built: .*[Hh]ash mismatch"):
        build_environment(locked(path, content), {path: other}, platform.python_version())
    assert os.listdir(cache_folder() / "environments") == []


def test_a_package_installed_from_a_file_travels_as_the_wheel_that_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = wheel("tiny_thing", "1.0", {"tiny_thing.py": "VALUE = 7\n", "tiny_thing_data/a.txt": "a"})
    file = desk.folder / Path(path).name
    file.write_bytes(content)
    site = desk.folder / "site"
    command = [environment.find_uv(), "pip", "install", "--quiet", "--target", str(site), str(file)]
    subprocess.run(command, check=True)
    monkeypatch.syspath_prepend(str(site))
    lock = lock_environment({"tiny_thing"})
    made = lock.wheels["wheels/tiny_thing-1.0-py3-none-any.whl"]
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = archive.namelist()
        assert archive.read("tiny_thing.py") == b"VALUE = 7\n"
    assert {"tiny_thing.py", "tiny_thing_data/a.txt", "tiny_thing-1.0.dist-info/RECORD"} <= set(names)
    assert not any("direct_url" in name for name in names)
    assert is_running("", {"wheels/tiny_thing-1.0-py3-none-any.whl": made})
    # What a wheel installs beside the modules, such as a front end, is not what code imports.
    code = {"tiny_thing.py": "VALUE = 7\n", "tiny_thing-1.0.data/data/share/jupyter/page.js": "1"}
    assert is_running("", dict([wheel("tiny_thing", "1.0", code)]))
    (site / "tiny_thing.py").write_text("VALUE = 8\n")
    assert not is_running("", {"wheels/tiny_thing-1.0-py3-none-any.whl": made})


def test_the_lock_has_what_reaches_the_journal_and_the_store(desk: Desk) -> None:
    home = Settings(desk.folder)
    assert runtime_for(home) == "kitaru-nb[]"
    team = Settings(desk.folder, journal="postgresql://kitaru@db/kitaru", store="s3://acme/artifacts")
    assert runtime_for(home, team) == "kitaru-nb[aws,postgres]"
    more = set(closure({runtime_for(team)})) - set(closure({runtime_for(home)}))
    assert {"psycopg", "psycopg-binary", "s3fs"} <= more


def test_a_module_beside_the_notebook_goes_before_an_installed_one(desk: Desk) -> None:
    import ast

    desk.file("yaml.py", "x = 1")
    found = closure_of(imports_of(ast.parse("import yaml")), desk.folder)
    assert (sorted(found.files), found.distributions) == (["yaml.py"], set())


def test_a_folder_of_data_does_not_go_before_an_installed_package(desk: Desk) -> None:
    import ast

    desk.file("pandas/sales.csv", "a,b\n")
    desk.file("parts/first.py", "x = 1\n")
    found = closure_of(imports_of(ast.parse("import pandas\nfrom parts import first")), desk.folder)
    assert (sorted(found.files), found.distributions) == (["parts/first.py"], {"pandas"})


def test_relative_imports_are_followed(desk: Desk) -> None:
    import ast

    desk.file("kit/__init__.py", "from .inner import *\n")
    desk.file("kit/inner.py", "from . import deep\nfrom ..nowhere import x\nimport other\n")
    desk.file("kit/deep/__init__.py", "")
    desk.file("other.py", "")
    found = closure_of(imports_of(ast.parse("import kit.inner")), desk.folder)
    assert sorted(found.files) == ["kit/__init__.py", "kit/deep/__init__.py", "kit/inner.py", "other.py"]


def test_an_environment_whose_python_is_gone_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_CACHE", str(tmp_path))
    installed, built = tmp_path / "python3.11", []

    def build(arguments: list[str], folder: Path) -> None:
        if arguments[0] == "venv":
            built.append(folder)
            (folder / "bin").mkdir()
            (folder / "bin" / "python").symlink_to(installed)

    monkeypatch.setattr(environment, "_build", build)
    installed.touch()
    first = build_environment("", {}, platform.python_version())
    assert (build_environment("", {}, platform.python_version()), len(built)) == (first, 1)
    installed.unlink()  # uninstalled, or replaced by a newer one elsewhere
    installed = tmp_path / "python3.11.9"
    installed.touch()
    assert build_environment("", {}, platform.python_version()) == first
    assert (len(built), first.resolve()) == (2, installed)


def test_what_a_killed_build_left_is_removed_a_day_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITARU_CACHE", str(tmp_path))
    kept = cache_folder() / "environments"
    for name, age in (("a" * 32, 90_000), (f"{'a' * 32}.0123abcd", 90_000), (f"{'b' * 32}.4567cdef", 80_000)):
        (kept / name / "bin").mkdir(parents=True)
        os.utime(kept / name, (time.time() - age,) * 2)

    def fail(arguments: list[str], folder: Path) -> None:
        raise KitaruBackendError("no network")

    monkeypatch.setattr(environment, "_build", fail)
    with pytest.raises(KitaruBackendError, match="no network"):
        build_environment("", {}, platform.python_version())
    assert sorted(path.name for path in kept.iterdir()) == ["a" * 32, f"{'b' * 32}.4567cdef"]
