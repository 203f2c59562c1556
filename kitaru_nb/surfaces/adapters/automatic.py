"""Other libraries made durable by themselves, once they are imported. What nobody imports is never loaded."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Library → (a module that only this library of that name has, the module here whose ``install()`` does it).
LIBRARIES = {"agents": ("agents.run", "kitaru_nb.surfaces.adapters.openai_agents.agent_runner")}

_installed: set[str] = set()


def install_imported() -> None:
    """Make the libraries that are imported durable; those that are imported later, when they are.

    Cheap: a look into `sys.modules` for each library.
    """
    for library, (proof, installer) in LIBRARIES.items():
        if library in _installed:
            continue
        if library not in sys.modules:
            if not any(isinstance(finder, _Later) for finder in sys.meta_path):
                sys.meta_path.insert(0, _Later())
        elif proof in sys.modules:
            _installed.add(library)
            importlib.import_module(installer).install()


class _Later(importlib.abc.MetaPathFinder):
    """Sees a library's import, leaves it to the others, and installs after it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The library's own spec, with something to do after it was loaded. None for all else."""
        if name not in LIBRARIES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Another loader, and `install_imported` after it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other does."""
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """As the other does; then the library is there."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        self._loader.exec_module(module)
        install_imported()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
