"""The checks of ``kitaru doctor``: each says what it found, and the line to type where that isn't enough."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Literal

from kitaru_nb.artifacts.store import ArtifactStore
from kitaru_nb.config import Settings, shown
from kitaru_nb.errors import KitaruError
from kitaru_nb.journal.open import open_journal
from kitaru_nb.surfaces.render import counted, size

OLDEST_PYTHON = (3, 11)
LOW_DISK, FULL_DISK = 1_000_000_000, 100_000_000
PACKAGES = ("kitaru-nb", "ipython", "ipykernel", "pydantic", "fsspec", "sqlite-utils", "openai-agents")
#: Extra → a package that it brings.
EXTRAS = {"lab": ("jupyterlab",), "data": ("numpy", "pandas", "pyarrow", "polars", "matplotlib", "pillow")}
_PROBE = b"kitaru doctor writes these bytes, and reads them again."


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``fix`` is the line to type where ``status`` isn't ok."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str | None = None


def all_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which trouble shows. They write a probe of a few bytes into home and store."""
    named: Iterable[tuple[str, Callable[[Settings], Iterator[Check]]]] = (
        ("python", lambda _: check_python()),
        ("packages", lambda _: check_packages()),
        ("home", check_home),
        ("disk", check_disk),
        ("journal", check_journal),
        ("store", check_store),
        ("kernel", lambda _: check_kernel()),
        ("extras", lambda _: check_extras()),
    )
    return [check for name, checks in named for check in _guarded(name, checks, settings)]


def _guarded(name: str, checks: Callable[[Settings], Iterator[Check]], settings: Settings) -> list[Check]:
    """A check that can't even be made has failed; the others are still of use."""
    try:
        return list(checks(settings))
    except KitaruError as error:
        return [Check(name, "fail", error.message, error.fix)]
    except (OSError, sqlite3.Error) as error:
        return [Check(name, "fail", f"{type(error).__name__}: {error}", "export KITARU_HOME=/a/writable/folder")]


def check_python() -> Iterator[Check]:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        yield Check("python", "fail", f"{found}; expected 3.11 or newer", "uv venv --python 3.13")
    else:
        yield Check("python", "ok", found)


def check_packages() -> Iterator[Check]:
    """What kitaru_nb needs to be installed."""
    versions = {package: version_of(package) for package in PACKAGES}
    missing = [package for package, version in versions.items() if version is None]
    found = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("packages", "ok", found)


def check_home(settings: Settings) -> Iterator[Check]:
    """The folder where everything is kept."""
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as probe:
        probe.write(_PROBE)
    yield Check("home", "ok", f"{home} is writable")


def check_disk(settings: Settings) -> Iterator[Check]:
    """Free space."""
    free = shutil.disk_usage(settings.home).free
    status: Literal["ok", "warn", "fail"] = "ok" if free >= LOW_DISK else "warn" if free >= FULL_DISK else "fail"
    yield Check("disk", status, f"{size(free)} free", None if status == "ok" else f"df -h '{settings.home}'")


def check_journal(settings: Settings) -> Iterator[Check]:
    """The journal opens and answers."""
    journal = open_journal(settings.journal_url, durability=settings.durability)
    try:
        found = len(journal.executions(limit=1000))
    finally:
        journal.close()
    many = "1,000 executions or more" if found == 1000 else counted(found, "execution")
    yield Check("journal", "ok", f"{shown(settings.journal_url)}{_schema_version(settings)}, {many}")


def _schema_version(settings: Settings) -> str:
    if not settings.journal_url.startswith("sqlite:"):
        return ""
    from kitaru_nb.journal.connections import path_of
    from kitaru_nb.journal.migrations import check_header

    return f", schema version {check_header(path_of(settings.journal_url))}"


def check_store(settings: Settings) -> Iterator[Check]:
    """The store keeps what is written into it."""
    store = ArtifactStore(settings.store_url, inline_max_bytes=0, trust_pickle=False, durability=settings.durability)
    artifact = store.write(_PROBE, name="doctor")
    good = store.read(artifact) == _PROBE and artifact.digest == sha256(_PROBE).hexdigest()
    if good:
        yield Check("store", "ok", f"{shown(settings.store_url)} gives back what is written")
    else:
        yield Check(
            "store",
            "fail",
            f"{shown(settings.store_url)} gives back other bytes",
            "export KITARU_STORE=/another/folder",
        )


def check_kernel() -> Iterator[Check]:
    """A Jupyter kernel that runs this very Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        fix = f"{sys.executable} -m ipykernel install --sys-prefix"
        yield Check("kernel", "fail", "there is no Jupyter kernel 'python3'", fix)
        return
    command = spec.argv[0] if spec.argv else "nothing"
    # A kernel spec may name its interpreter without a path: jupyter_client then takes this one.
    if Path(command).name == command or Path(command).parent == Path(sys.executable).parent:
        yield Check("kernel", "ok", f"python3 at {spec.resource_dir}")
    else:
        fix = f"{sys.executable} -m ipykernel install --sys-prefix"
        yield Check("kernel", "warn", f"the kernel 'python3' runs {command}, not {sys.executable}", fix)


def check_extras() -> Iterator[Check]:
    """Optional parts."""
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if version_of(package) is None]
        if missing:
            fix = f"pip install 'kitaru-nb[{extra}]'"
            yield Check(extra, "warn", f"optional, not installed: {', '.join(missing)}", fix)
        else:
            yield Check(extra, "ok", ", ".join(f"{package} {version_of(package)}" for package in packages))


def version_of(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
