"""Bring back what a cell had set: code by running its definitions again, data from artifacts."""

from __future__ import annotations

import ast
import importlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

from kitaru_nb.cells.analysis import defined_names, definitions
from kitaru_nb.core.run import Run
from kitaru_nb.errors import KitaruArtifactError
from kitaru_nb.model import Artifact, Event
from kitaru_nb.surfaces.notebook.transformer import file_of, transform_body


class Tripwire:
    """Stands for a variable that could not be brought back; any use of it says so."""

    def __init__(self, message: str) -> None:
        object.__setattr__(self, "_kitaru_message", message)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("_ipython", "_repr_")) or name in ("__array__", "__array_interface__", "__wrapped__"):
            raise AttributeError(name)
        raise self._error()

    def __repr__(self) -> str:
        return f"<not restored: {object.__getattribute__(self, '_kitaru_message')}>"

    def _error(self) -> Exception:
        return KitaruArtifactError(object.__getattribute__(self, "_kitaru_message"))

    def _trip(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error()

    __call__ = __iter__ = __len__ = __getitem__ = __setitem__ = __contains__ = __bool__ = __enter__ = _trip
    __add__ = __radd__ = __sub__ = __mul__ = __truediv__ = __lt__ = __gt__ = __le__ = __ge__ = __await__ = _trip
    __next__ = __int__ = __float__ = __str__ = __setattr__ = __exit__ = _trip
    __aenter__ = __aexit__ = __aiter__ = __anext__ = __format__ = _trip
    __eq__ = __ne__ = _trip
    __hash__ = None  # type: ignore[assignment]


def cell_of(event: Event, source: str = "") -> Mapping[str, Any]:
    """What a completed call recorded of its cell; of one that a replay overrides, only the text that is known now."""
    found: Mapping[str, Any] = event.body.get("cell") or {"source": source, "deleted": [], "aliases": {}, "modules": {}}
    return found


def is_cell(event: Event) -> bool:
    """Whether a completed call was one of a checkpoint cell."""
    return "cell" in event.body or any(a.get("names") for a in event.body["outputs"])


def restore_cell(
    shell: Any,
    run: Run,
    artifacts: Sequence[Artifact],
    event: Event,
    *,
    source: str = "",
    leniently: bool = False,
) -> list[str]:
    """Put back into the namespace what a cell had set; the names that it has.

    Args:
        source: text of the cell, for when ``event`` has none.
        leniently: what can't be brought back (a helper that isn't defined yet) becomes a `Tripwire`, not an error.

    Raises:
        KitaruArtifactError: a stored value is missing or damaged.
    """
    cell, namespace = cell_of(event, source), shell.user_ns
    names = _define(shell, cell["source"], leniently)
    for name, module in cell["modules"].items():
        namespace[name] = importlib.import_module(module)
    for artifact in artifacts:
        if artifact.names:
            namespace.update(_values(shell, run, artifact, event, leniently))
            names += artifact.names
    for name, original in cell["aliases"].items():
        if original in namespace:
            namespace[name] = namespace[original]
            names.append(name)
    for row in event.body.get("partial", ()):
        namespace[row["name"]] = Tripwire(
            f"{row['name']} ({row['type']}) was made by checkpoint {event.body['name']!r} and could not be persisted: "
            f"{row['why']} To have it, {row['do']}; or run that cell with --force."
        )
    for name in cell["deleted"]:
        namespace.pop(name, None)
    return names


def _define(shell: Any, source: str, leniently: bool) -> list[str]:
    """Run the definitions of a cell under the cell's own file name, so that `inspect.getsource` finds them."""
    tree = definitions(source)
    if not tree.body:
        return []
    body = transform_body(shell, source)
    name = file_of(shell, body, source)
    for statement in tree.body:
        code = compile(ast.Module([statement], []), name, "exec", flags=shell.compile.flags, dont_inherit=True)
        try:
            exec(code, shell.user_global_ns, shell.user_ns)
        except Exception as error:
            if not leniently:
                raise
            for defined in defined_names(ast.Module([statement], [])):
                shell.user_ns[defined] = Tripwire(
                    f"{defined} can't be defined yet ({type(error).__name__}: {error}). Run the cells above first."
                )
    return list(defined_names(tree))


def _values(shell: Any, run: Run, artifact: Artifact, event: Event, leniently: bool) -> Mapping[str, Any]:
    try:
        value = run.store.read(artifact)
    except KitaruArtifactError as error:
        if not leniently:
            raise
        wire = Tripwire(f"{error.message} It was made by checkpoint {event.body['name']!r}; run the cells above first.")
        return dict.fromkeys(artifact.names, wire)
    if "+" in artifact.name:
        return {n: _at_home(v, shell) for n, v in value.items()}
    return dict.fromkeys(artifact.names, _at_home(value, shell))


def _at_home(value: Any, shell: Any) -> Any:
    """A function that was loaded by value looks into a copy of the globals; give it those of the notebook."""
    if not isinstance(value, types.FunctionType) or value.__module__ != "__main__":
        return value
    if value.__globals__ is shell.user_global_ns:
        return value
    found = types.FunctionType(
        value.__code__, shell.user_global_ns, value.__name__, value.__defaults__, value.__closure__
    )
    found.__kwdefaults__, found.__doc__, found.__annotations__ = (
        value.__kwdefaults__,
        value.__doc__,
        value.__annotations__,
    )
    found.__qualname__, found.__module__ = value.__qualname__, value.__module__
    found.__dict__.update(value.__dict__)
    return found
