"""The front end's built files, and the TypeScript types that it is written against.

The source is in ``labextension/``; the wheel carries what is built from it. The types are made from the Python model,
so that no shape is written twice::

    python -m kitaru_nb.surfaces.frontend types > labextension/src/model.ts
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

from kitaru_nb.core.control import Started
from kitaru_nb.core.diff import CallDiff, ExecutionDiff
from kitaru_nb.core.graph import ExecutionGraph, Node
from kitaru_nb.core.lineage import Edge
from kitaru_nb.core.replay import ReplayPreview
from kitaru_nb.errors import KitaruFeatureNotAvailableError
from kitaru_nb.model import (
    Artifact,
    CallInput,
    CheckpointAttempt,
    CheckpointCall,
    Deployment,
    Execution,
    ExecutionStatus,
    FailureInfo,
    Lease,
    LogEntry,
    Owner,
    Wait,
    json_fields,
)
from kitaru_nb.stacks.views import StackView

#: What travels between server and page, as `kitaru_nb.model.to_json` writes it.
SHAPES: tuple[type, ...] = (
    ExecutionStatus,
    Owner,
    Lease,
    FailureInfo,
    Artifact,
    CallInput,
    CheckpointAttempt,
    CheckpointCall,
    Wait,
    LogEntry,
    Execution,
    Edge,
    Node,
    ExecutionGraph,
    CallDiff,
    ExecutionDiff,
    ReplayPreview,
    Started,
    Deployment,
    StackView,
)
_PLAIN: Mapping[Any, str] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
    datetime: "string",
    Any: "unknown",
}
_HEAD = "// Written by `python -m kitaru_nb.surfaces.frontend types` from the Python model. Don't edit it by hand.\n"
_PACKAGE = Path(__file__).resolve().parent.parent
_NAMES = ("app.js", "app.css", "index.html", "widget.js", "widget.css")


def static_folder() -> Path:
    """The folder with the dashboard (``index.html``, ``app.js``, ``app.css``) and the panel's module (``widget.js``,
    ``widget.css``).

    Raises:
        KitaruFeatureNotAvailableError: this source tree was installed without building the front end.
    """
    folder = _PACKAGE / "static"
    missing = [name for name in _NAMES if not (folder / name).is_file()]
    if missing:
        raise KitaruFeatureNotAvailableError(
            f"The front end isn't built: {', '.join(missing)} expected in {folder}.",
            fix="cd labextension && npm ci && npm run build",
        )
    return folder


def labextension_folder() -> Path:
    """The folder with the built JupyterLab extension; it may be absent in a source tree."""
    return _PACKAGE / "labextension"


def labextension_paths() -> list[dict[str, str]]:
    """What ``jupyter labextension`` links and lists for ``kitaru_nb``."""
    return [{"src": "labextension", "dest": "kitaru-nb"}]


def typescript(shapes: Iterable[type] = SHAPES) -> str:
    """Interfaces for dataclasses and named tuples, unions for enums, in the given order.

    Raises:
        TypeError: a field has a type that JSON has no form for.
    """
    return _HEAD + "".join("\n" + _declaration(shape) for shape in shapes)


def _declaration(shape: Any) -> str:
    if issubclass(shape, Enum):
        return f"export type {shape.__name__} = {_union(shape)};\n"
    hints = typing.get_type_hints(shape)
    lines = [f"  {name}: {_type(hints[name])};\n" for name in json_fields(shape) or ()]
    return f"export interface {shape.__name__} {{\n{''.join(lines)}}}\n"


def _union(values: Iterable[Any]) -> str:
    return " | ".join(f'"{v.value if isinstance(v, Enum) else v}"' for v in values)


def _type(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " | ".join(_type(a) for a in arguments)
    if origin is Literal:
        return _union(arguments)
    if (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis) or origin is list:
        item = _type(arguments[0])
        return f"({item})[]" if " " in item else f"{item}[]"
    if origin is tuple:
        return f"[{', '.join(_type(a) for a in arguments)}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"Record<string, {_type(arguments[1])}>"
    kind: Any = hint
    if isinstance(hint, type) and (json_fields(kind) is not None or issubclass(hint, Enum)):
        return hint.__name__
    raise TypeError(f"{hint!r} has no form in JSON; use plain types, datetimes, enums, dataclasses and containers.")


def main(arguments: list[str]) -> int:
    """Print the types. Any other argument is told what there is."""
    if arguments != ["types"]:
        print("usage: python -m kitaru_nb.surfaces.frontend types", file=sys.stderr)
        return 2
    sys.stdout.write(typescript())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
