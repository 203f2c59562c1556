"""Who owns a module: the standard library, an installed distribution, or the user; and how a key names it."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

_STDLIB = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib"))
_SITE = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
# The runtime itself is not part of what a cell computes.
_RUNTIME = "kitaru_nb"


def is_user_file(filename: str) -> bool:
    """Whether code from ``filename`` is the user's: a cell, a script or a local module, not something installed."""
    if any(part in filename for part in _SITE):
        return False
    return not filename.startswith((*_STDLIB, "<frozen "))


def is_user_module(name: str) -> bool:
    """Whether the module ``name`` (``__main__`` included) is the user's own code."""
    top = name.partition(".")[0]
    if name == "__main__":
        return True  # whatever file started this process
    if top == _RUNTIME or top in sys.builtin_module_names:
        return False
    module = sys.modules.get(name)
    filename = getattr(module, "__file__", None) or next(
        (f"{p}{os.sep}" for p in getattr(module, "__path__", ())), None
    )
    if filename is None:
        return top not in sys.stdlib_module_names
    return is_user_file(filename)


def versioned(name: str, what: str | None = None) -> str:
    """How a key names a module that isn't the user's, or ``what`` in it: ``pandas==2.2.0``, ``pandas.concat@2.2.0``.

    The standard library and this runtime carry no version, so that a key holds on every Python.
    """
    version = None if name.partition(".")[0] == _RUNTIME else distribution_version(name.partition(".")[0])
    if what is not None:
        return f"{name}.{what}@{version}" if version else f"{name}.{what}"
    return f"{name}=={version}" if version else name


@cache
def distribution_version(top_level: str) -> str | None:
    """Version of the distribution that a top-level module came with; None for the standard library and local code."""
    if top_level in sys.stdlib_module_names or top_level == "__main__":
        return None
    from importlib import metadata  # slow to load

    try:
        return metadata.version(top_level)
    except metadata.PackageNotFoundError:
        owners = _owners().get(top_level)
        return metadata.version(owners[0]) if owners else None


@cache
def _owners() -> dict[str, list[str]]:
    from importlib import metadata

    # Reads the metadata of the whole environment: only for modules whose distribution has another name.
    return {module: list(owners) for module, owners in metadata.packages_distributions().items()}


def file_digest(module: ModuleType) -> str | None:
    """SHA-256 of the file that a local module was loaded from; None when there is none to read."""
    filename = getattr(module, "__file__", None)
    if filename is None:
        return None
    try:
        return hashlib.sha256(Path(filename).read_bytes()).hexdigest()
    except OSError:
        return None
