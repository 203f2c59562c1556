"""The packages that a flow needs, as the running environment has them: pinned, hashed, rebuilt elsewhere with uv.

What is needed is the closure of what is imported. Of the optional dependencies of a package that is imported itself
those that are installed come along, unless they are for tests or development. Packages that no index has (installed in
place, or from a file) travel as wheels.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kitaru_nb.artifacts.blobs import EXTRAS as STORES
from kitaru_nb.config import Settings
from kitaru_nb.core.runners import extra_of
from kitaru_nb.errors import KitaruBackendError, KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.journal.open import EXTRAS as JOURNALS
from kitaru_nb.promote.modules import project_folder
from kitaru_nb.promote.snapshot import WHEELS, pack

_NOT_SOURCES = frozenset({"node_modules", "__pycache__", "build", "dist", "tests", "docs"})

#: This very package, which runs the snapshot elsewhere.
RUNTIME = "kitaru-nb"

_DEVELOPMENT = re.compile(r"(all|full|complete)|.*(test|dev|doc|lint|typing|type|bench|ci|build|example|release).*")
#: What a wheel has besides modules: its own description, and what is installed elsewhere, such as a front end.
_NOT_CODE = re.compile(r"[^/]+\.(dist-info|data/(data|scripts|headers))/")
_FIELD = re.compile(r"^(Name|Version|Requires-Dist):(.*)$", re.MULTILINE)
_NAMED = re.compile(r"[A-Za-z0-9._-]*")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lock:
    """A locked environment.

    Attributes:
        text: ``requirements.lock``: pins with hashes, and the wheels that travel along.
        packages: distribution → version.
        wheels: path in the snapshot → content.
    """

    text: str
    packages: Mapping[str, str]
    wheels: Mapping[str, bytes]


def runtime_for(*settings: Settings) -> str:
    """This very package with the extras that a worker needs: to reach these journals, stores and executors, and to
    start workers on these stacks itself."""
    schemes = [url.partition("://")[0] for s in settings for url in (s.journal_url, s.store_url)]
    known = JOURNALS | STORES
    extras = {known[scheme] for scheme in schemes if scheme in known}
    extras |= {extra for s in settings if (extra := extra_of(s)) is not None}
    extras |= {"dask" for s in settings if s.executor.startswith("dask")}
    return f"{RUNTIME}[{','.join(sorted(extras))}]"


def lock_environment(roots: Iterable[str]) -> Lock:
    """Lock what these distributions need, in the versions that are installed here.

    Each set of pins is looked up once, and then found in `cache_folder`.

    Args:
        roots: their names, ``NAME[EXTRA,...]`` where extras are needed too.

    Raises:
        KitaruFeatureNotAvailableError: uv is not installed.
        KitaruUsageError: a package can't be locked; says which and why.
    """
    packages = closure({RUNTIME, *roots})
    wheels: dict[str, bytes] = {}
    pins = []
    for name, package in sorted(packages.items()):
        if package.distribution.read_text("direct_url.json") is None:
            pins.append(f"{name}=={package.version}")
        else:
            file, content = _wheel_of(package)
            wheels[WHEELS + file] = content
    lines = _hashed(pins) if pins else ""
    for path, content in sorted(wheels.items()):
        lines += f"./{path} \\\n    --hash=sha256:{sha256(content).hexdigest()}\n"
    return Lock(lines, {n: p.version for n, p in sorted(packages.items())}, wheels)


def normal(name: str) -> str:
    """A distribution's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution. Only the head of its metadata is read: the text below it may be long."""

    name: str
    version: str
    requires: tuple[str, ...]
    distribution: importlib.metadata.Distribution


def installed_packages() -> dict[str, Package]:
    """All installed distributions, by normal name."""
    found: dict[str, Package] = {}
    for distribution in importlib.metadata.distributions():
        head = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "").partition("\n\n")[0]
        fields: dict[str, list[str]] = {}
        for name, value in _FIELD.findall(head):
            fields.setdefault(name, []).append(value.strip())
        if "Name" in fields and "Version" in fields:
            name, version = fields["Name"][0], fields["Version"][0]
            package = Package(name, version, tuple(fields.get("Requires-Dist", ())), distribution)
            found.setdefault(normal(name), package)
    return found


def closure(roots: Iterable[str]) -> dict[str, Package]:
    """The installed distributions that ``roots`` need, themselves included, by normal name."""
    from packaging.requirements import Requirement

    installed = installed_packages()
    found: dict[str, Package] = {}
    named = [root.rstrip("]").partition("[") for root in sorted(roots)]
    chosen = {normal(name) for name, *_ in named} - {RUNTIME}
    todo = [(normal(name), frozenset(extras.split(",")) - {""}) for name, _, extras in named]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in done or name not in installed:
            continue
        done.add((name, extras))
        found[name] = package = installed[name]
        for text in package.requires:
            needed = _NAMED.match(text)
            if needed is None or normal(needed[0]) not in installed:
                continue
            requirement = Requirement(text)
            if _applies(requirement.marker, extras, optional=name in chosen):
                todo.append((normal(requirement.name), frozenset(requirement.extras)))
    return found


def _applies(marker: object, extras: frozenset[str], *, optional: bool) -> bool:
    """Whether a dependency is needed; with ``optional`` also one that is for other than development."""
    if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):  # type: ignore[attr-defined]
        return True
    if not optional:
        return False
    named = re.findall(r"""extra\s*==\s*['"]([^'"]+)['"]""", str(marker))
    useful = [extra for extra in named if not _DEVELOPMENT.fullmatch(extra.lower())]
    return any(marker.evaluate({"extra": extra}) for extra in useful)  # type: ignore[attr-defined]


# hashes


def find_uv() -> str:
    """Path of uv. Raises `KitaruFeatureNotAvailableError`."""
    beside = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise KitaruFeatureNotAvailableError(
            "Locking and building environments is uv's work, and uv is not installed here.", fix="pip install uv"
        )
    return found


def _hashed(pins: list[str]) -> str:
    """The pins with the hashes of all their files, from the index; each set of pins is asked for once."""
    text = "\n".join(pins) + "\n"
    version = platform.python_version()
    known = cache_folder() / "locks" / f"{sha256(f'{version} {sys.platform} {text}'.encode()).hexdigest()}.lock"
    if known.exists():
        return known.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="kitaru-") as folder:
        (Path(folder) / "pins.txt").write_text(text, encoding="utf-8")
        command = ["pip", "compile", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--python", sys.executable]
        command += ["pins.txt", "-o", "out.lock"]
        ended = _uv([*command, "--offline"], Path(folder))  # what uv's own cache knows needs no index
        if ended.returncode != 0:
            ended = _uv(command, Path(folder))
        if ended.returncode != 0:
            raise KitaruUsageError(
                f"The environment can't be locked: {_reason(ended.stderr)}",
                fix="install each package from the index, or with `pip install ./its-folder`, and promote again",
            )
        found = (Path(folder) / "out.lock").read_text(encoding="utf-8")
    _keep(known, found.encode())
    return found


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _uv(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return subprocess.run(
        [find_uv(), *arguments],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _reason(stderr: str) -> str:
    """What uv says, without its drawing."""
    lines = [re.sub(r"^[\s×╰─▶│├hint:]+", "", line).strip() for line in stderr.splitlines()]
    text = " ".join(line for line in lines if line)
    return f"{text[:400]} … {text[-600:]}" if len(text) > 1000 else text or "uv gave no reason."


# wheels


def _wheel_of(package: Package) -> tuple[str, bytes]:
    """(file name, content) of a wheel of a package that no index has: built again, or put together from what is
    installed. The same sources give the same bytes."""
    project = project_folder(package.distribution)
    if project is None:
        return _repacked(package)
    folder = cache_folder() / "wheels" / f"{normal(package.name)}-{_fingerprint(project)}"
    if not (known := sorted(folder.glob("*.whl"))):
        name, content = _built(package.name, project)
        _keep(folder / name, content)
        return name, content
    return known[0].name, known[0].read_bytes()


def _fingerprint(project: Path) -> str:
    """Changes whenever a file of a project does; what no build reads isn't looked at."""
    digest = sha256(str(project).encode())
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _NOT_SOURCES)
        for name in sorted(files):
            stat = os.stat(os.path.join(folder, name), follow_symlinks=False)
            digest.update(f"{folder}/{name} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _built(name: str, project: Path) -> tuple[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="kitaru-") as folder:
        ended = _uv(["build", "--wheel", str(project), "-o", folder, "--quiet"], Path(folder))
        built = sorted(Path(folder).glob("*.whl"))
        if ended.returncode != 0 or not built:
            raise KitaruUsageError(
                f"{name} is installed in place from {project}, and no wheel can be built of it: "
                f"{_reason(ended.stderr)}",
                fix=f"uv build --wheel {project}",
            )
        with zipfile.ZipFile(built[0]) as archive:
            files = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
        return built[0].name, pack(files, compressed=True)


def _repacked(package: Package) -> tuple[str, bytes]:
    """A wheel of the files that a package was installed with."""
    distribution = package.distribution
    wheel, record = distribution.read_text("WHEEL"), distribution.read_text("RECORD")
    if wheel is None or record is None:
        raise KitaruUsageError(
            f"{package.name} {package.version} was not installed from an index, and what it was installed "
            "with is not recorded.",
            fix=f"pip install --force-reinstall {package.name}=={package.version}",
        )
    files: dict[str, bytes] = {}
    rows = []
    dropped = ("/direct_url.json", "/INSTALLER", "/REQUESTED", "/uv_cache.json", "/RECORD")
    for path, digest, size in csv.reader(record.splitlines()):
        if path.startswith("..") or path.endswith(".pyc") or path.endswith(dropped) or Path(path).is_absolute():
            continue
        files[path] = Path(str(distribution.locate_file(path))).read_bytes()
        rows.append((path, digest, size))
    info = next(p for p in files if p.endswith(".dist-info/METADATA")).rpartition("/")[0]
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows([*sorted(rows), (f"{info}/RECORD", "", "")])
    files[f"{info}/RECORD"] = target.getvalue().encode()
    tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)$", wheel, re.MULTILINE)
    joined = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    name = re.sub(r"[-_.]+", "_", package.name)
    return f"{name}-{package.version}-{joined}.whl", pack(files, compressed=True)


# rebuilding


def is_running(lock: str, wheels: Mapping[str, bytes]) -> bool:
    """Whether the environment of this process has exactly what is locked (and perhaps more)."""
    installed = _installed_versions()
    if any(installed.get(normal(name)) != version for name, version in _PIN.findall(lock)):
        return False
    return all(_has_wheel(path, content) for path, content in wheels.items())


def _installed_versions() -> dict[str, str]:
    """Version of every installed distribution, from the names of their folders: a hundred are read in a millisecond."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.endswith(".dist-info"):
                    distribution, _, version = name.removesuffix(".dist-info").partition("-")
                    found.setdefault(normal(distribution), version)
    return found


def _has_wheel(path: str, content: bytes) -> bool:
    """Whether the code in a wheel is what this process would import."""
    name = Path(path).name.split("-")[0]
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    project = project_folder(distribution)
    roots = [Path(str(distribution.locate_file("")))] if project is None else [project, project / "src"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        code = [e for e in archive.infolist() if not _NOT_CODE.match(e.filename) and not e.is_dir()]
        for root in roots:
            if code and all(_is_file(root / e.filename, archive, e) for e in code):
                return True
    return False


def _is_file(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        return path.stat().st_size == entry.file_size and path.read_bytes() == archive.read(entry)
    except OSError:
        return False


def cache_folder() -> Path:
    """Where locks, wheels and built environments are kept, for all projects of the user: ``KITARU_CACHE``, else the
    user's own cache. All of it can be made again."""
    if named := os.environ.get("KITARU_CACHE"):
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "kitaru" / "cache"
    cache = Path.home() / "Library" / "Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or cache) / "kitaru"


def environment_key(lock: str, python: str) -> str:
    """Under which an environment is kept: what is locked, for which Python, on which machine."""
    text = json.dumps([lock, _minor(python), sys.platform, platform.machine()])
    return sha256(text.encode()).hexdigest()


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def build_environment(lock: str, wheels: Mapping[str, bytes], python: str) -> Path:
    """The Python of an environment with exactly what is locked: built once, then found again, for as long as the
    Python that it was built with is installed.

    Raises:
        KitaruBackendError: it can't be built; says why.
    """
    place = cache_folder() / "environments" / environment_key(lock, python)[:32]
    found = _python_in(place)
    if found.exists():  # it is a link
        return found
    temporary = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        _sweep(place.parent)
        for path, content in {**wheels, "requirements.lock": lock.encode()}.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(content)
        # --relocatable: it is built under another name than it is used under, so that nobody finds half of it.
        _build(["venv", "--quiet", "--relocatable", "--allow-existing", "--python", _python(python), "."], temporary)
        install = ["pip", "install", "--quiet", "--require-hashes", "--no-deps"]
        _build([*install, "--python", str(_python_in(temporary)), "-r", "requirements.lock"], temporary)
        if place.exists() and not found.exists():
            place.replace(place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}"))  # swept up a day later
        temporary.replace(place)
    except OSError as error:
        if not found.exists():  # another worker was faster: its environment is the same
            raise KitaruBackendError(
                f"The environment can't be built in {place}: {error.strerror or error}.",
                fix="KITARU_CACHE=/a/writable/folder",
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return found


def _sweep(environments: Path) -> None:
    """Remove environments whose building was cut off: what is built takes less than a day."""
    for temporary in environments.glob("*.????????"):
        with suppress(FileNotFoundError):  # it was finished in this moment
            if time.time() - temporary.stat().st_mtime > 86_400:
                shutil.rmtree(temporary, ignore_errors=True)


def _python(version: str) -> str:
    """This Python if it fits, else one that uv finds or fetches."""
    here = ".".join(map(str, sys.version_info[:2]))
    return sys.executable if here == _minor(version) else _minor(version)


def _build(arguments: list[str], folder: Path) -> None:
    ended = _uv(arguments, folder)
    if ended.returncode != 0:
        raise KitaruBackendError(
            f"The locked environment can't be built: {_reason(ended.stderr)}",
            fix="mend this machine's network or package index, then: kitaru executions retry EXECUTION",
        )


def _python_in(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
