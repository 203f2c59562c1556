"""What code imports: modules beside it, which travel along, and installed distributions, which the lock pins."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kitaru_nb.errors import KitaruUsageError

#: A local package larger than this holds data, which belongs into a bucket.
MAX_PACKAGE_BYTES = 20 << 20

_INSTALLED = ""
_SITE = ("site-packages", "dist-packages")
_STDLIB = tuple(Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib"))


@dataclass(frozen=True, slots=True)
class Import:
    """One module that code imports.

    Attributes:
        optional: the code goes on without it (``except ImportError``).
        names: what it takes from there; each may be a module of its own.
    """

    module: str
    line: int
    optional: bool = False
    names: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        """The top-level module."""
        return self.module.partition(".")[0]


@dataclass(slots=True)
class Closure:
    """All that some code imports, directly or through local modules.

    Attributes:
        files: path relative to the snapshot → content of local modules.
        distributions: installed distributions that it needs, by name.
        missing: imports of something that is neither here nor installed, with the file that has it ("" for cells).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    distributions: set[str] = field(default_factory=set)
    missing: list[tuple[Import, str]] = field(default_factory=list)


def imports_of(tree: ast.AST, package: str = "") -> list[Import]:
    """The modules that a file or cell imports, relative ones resolved against ``package``."""
    return list(_imports(tree, package, optional=False))


def _imports(node: ast.AST, package: str, *, optional: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, optional) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, package)
            if base:
                yield Import(base, child.lineno, optional, tuple(alias.name for alias in child.names))
        elif isinstance(child, ast.Try) and any(_catches_import_error(h) for h in child.handlers):
            for part in child.body:
                yield from _imports(ast.Module([part], []), package, optional=True)
            for rest in (*child.handlers, *child.orelse, *child.finalbody):
                yield from _imports(ast.Module([rest], []), package, optional=True)  # type: ignore[list-item]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), package, optional=optional)
        else:
            yield from _imports(child, package, optional=optional)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type else {"Exception"}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def closure_of(imports: Iterable[Import], folder: Path) -> Closure:
    """Follow imports from code in ``folder``.

    Raises:
        KitaruUsageError: a local package is too large to travel, or a module can't be read.
    """
    found = Closure()
    owners = _Owners(folder)
    todo: list[tuple[Import, str]] = [(i, "") for i in imports]
    seen: set[str] = set()
    while todo:
        wanted, file = todo.pop(0)
        if wanted.top in seen or wanted.top in sys.stdlib_module_names:
            continue
        owner = owners.of(wanted)
        if owner is None:
            if not wanted.optional:
                found.missing.append((wanted, file))
        elif isinstance(owner, Path):
            seen.add(wanted.top)
            for path, content in _local_files(owner).items():
                found.files[path] = content
                if path.endswith(".py"):
                    todo += [(i, path) for i in _imports_of_file(path, content)]
        else:
            found.distributions |= owner
    return found


def _imports_of_file(path: str, content: bytes) -> list[Import]:
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise KitaruUsageError(f"The module {path} can't be read: {error}.", fix=f"mend {path}") from error
    return imports_of(tree, package)


def _local_files(module: Path) -> dict[str, bytes]:
    """A module, or a whole package with the data that lies in it; hidden files and caches stay."""
    if module.is_file():
        return {module.name: module.read_bytes()}
    files: dict[str, bytes] = {}
    size = 0
    regular = (module / "__init__.py").exists()
    for path in sorted(module.rglob("*")):
        relative = path.relative_to(module)
        if (
            not path.is_file()
            or path.suffix == ".pyc"
            or any(p.startswith((".", "__pycache__")) for p in relative.parts)
        ):
            continue
        if not regular and path.suffix != ".py":
            continue  # a folder without __init__.py may hold anything
        size += path.stat().st_size
        if size > MAX_PACKAGE_BYTES:
            raise KitaruUsageError(
                f"The local package {module} holds more than {MAX_PACKAGE_BYTES >> 20} MB; a snapshot carries code.",
                fix=f"move the data out of {module}, and read it from a URL that is a parameter",
            )
        files[f"{module.name}/{relative.as_posix()}"] = path.read_bytes()
    return files


class _Owners:
    """Who a module belongs to: distributions (their names), or the user (its top-level module's path)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._distributions: Mapping[str, list[str]] | None = None
        self._editable: list[tuple[str, Path]] | None = None
        self._tops: dict[str, str | Path | None] = {}
        self._modules: dict[str, frozenset[str]] = {}

    def of(self, wanted: Import) -> frozenset[str] | Path | None:
        if wanted.top not in self._tops:
            self._tops[wanted.top] = self._of_top(wanted.top)
        owner = self._tops[wanted.top]
        if owner is None or isinstance(owner, Path):
            return owner
        return self._sharing(wanted) if owner == _INSTALLED else frozenset({owner})

    def _of_top(self, top: str) -> str | Path | None:
        """`_INSTALLED`, a distribution that is installed in place, or the path of a local module."""
        spec = PathFinder.find_spec(top, [str(self.folder)])
        beside = _located(spec)
        # A folder without __init__.py is a package only where nothing else is, for Python too.
        if beside is not None and spec is not None and spec.origin is not None and self._editable_owner(beside) is None:
            return beside
        try:
            found = _located(importlib.util.find_spec(top))
        except (ImportError, ValueError, AttributeError):
            found = None
        if found is None or any(part in _SITE for part in found.parts):
            return _INSTALLED if self._installed(top) else beside
        if any(found.is_relative_to(root) for root in _STDLIB):
            return None
        return self._editable_owner(found) or found

    def _installed(self, top: str) -> list[str]:
        if self._distributions is None:
            self._distributions = importlib.metadata.packages_distributions()
        return self._distributions.get(top, [])

    def _sharing(self, wanted: Import) -> frozenset[str]:
        """The distributions that a module is of. Several may share a top-level one, as those of ``google`` do: then
        those that have what is imported itself, or else something below it."""
        candidates = frozenset(self._installed(wanted.top))
        if len(candidates) == 1:
            return candidates
        found: set[str] = set()
        for name in wanted.names or ("",):
            path = f"{wanted.module}.{name}".rstrip(".")
            while not (owners := self._having(path, candidates)):
                path = path.rpartition(".")[0]
            found |= owners
        return frozenset(found)

    def _having(self, module: str, candidates: frozenset[str]) -> set[str]:
        for name in candidates - self._modules.keys():
            self._modules[name] = frozenset(_modules_of(importlib.metadata.distribution(name)))
        exactly = {name for name in candidates if module in self._modules[name]}
        inside = f"{module}."
        return exactly or {
            n for n in candidates if "." not in module or any(m.startswith(inside) for m in self._modules[n])
        }

    def _editable_owner(self, found: Path) -> str | None:
        if self._editable is None:
            self._editable = list(_editable_roots())
        return next((name for name, root in self._editable if found.parent == root), None)


def _modules_of(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """The modules of an installed distribution, by dotted name; namespaces are none."""
    for path in distribution.files or ():
        if path.suffix in (".py", ".so", ".pyd"):
            name = path.name.partition(".")[0]
            yield ".".join([*path.parts[:-1], *([] if name == "__init__" else [name])])


def _located(spec: object) -> Path | None:
    """Where a module is: its file, or its folder when it is a package."""
    if spec is None:
        return None
    places: Sequence[str] | None = getattr(spec, "submodule_search_locations", None)
    if places:
        return Path(next(iter(places))).resolve()
    origin = getattr(spec, "origin", None)
    return Path(origin).resolve() if origin and Path(origin).suffix == ".py" and Path(origin).is_file() else None


def _editable_roots() -> Iterator[tuple[str, Path]]:
    """(distribution, folder that its modules are imported from) of what is installed in place."""
    for distribution in importlib.metadata.distributions():
        project = project_folder(distribution)
        if project is None:
            continue
        for candidate in (project, project / "src", project / "python", project / "lib"):
            if candidate.is_dir():
                yield distribution.name, candidate.resolve()


def project_folder(distribution: importlib.metadata.Distribution) -> Path | None:
    """The folder that a distribution is installed from in place (``pip install -e``), or None."""
    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    body = json.loads(text)
    if not body.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(body["url"]).path))
