"""Importing nbformat in the blink of an eye."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Where JupyterLab is installed, jsonschema (which nbformat imports) compiles a grammar of IRIs: seconds, for a check
#: of texts that no notebook has.
_GRAMMAR = "rfc3987_syntax"


@contextmanager
def without_grammars() -> Iterator[None]:
    """While it lasts, jsonschema is imported without its grammar of IRIs. For processes that are ours alone: code of
    users in the same process could miss that check."""
    modules: dict[str, Any] = sys.modules
    if _GRAMMAR in modules or "jsonschema" in modules:
        yield
        return
    modules[_GRAMMAR] = None  # an import of it raises ImportError, which jsonschema takes for "not installed"
    try:
        yield
    finally:
        modules.pop(_GRAMMAR, None)
