"""What a value is, in one line of text: equal for values that a cell can't tell apart, on any machine and day.

Data is its digest. Code is its source and all that it refers to, followed through globals, closures and defaults, in
one flat table of parts: so cycles are harmless, and a person can be told which part changed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from kitaru_nb.cells.analysis import BUILTINS
from kitaru_nb.cells.locate import Source, class_source, function_source
from kitaru_nb.cells.modules import file_digest, is_user_file, is_user_module, versioned

TokenKind = Literal["val", "src", "mod", "imp", "prov", "absent", "opaque"]
Digest = Callable[[object], "str | None"]

UNAVAILABLE = "unavailable:"
_ELEMENTS = 1000  # containers of undigestable things are looked through up to this size
MISSING = object()
_PLAIN = (int, float, complex, str, bytes, type(None), type(Ellipsis), Enum)


@dataclass(frozen=True, slots=True)
class Token:
    """Identity of one value.

    Attributes:
        kind: ``val`` data by digest; ``src`` code by source; ``mod`` a module; ``imp`` a thing imported from an
            installed package; ``prov`` undigestable, by who produced it; ``absent`` the name has no value; ``opaque``
            undigestable and nobody knows its producer: only its type is known.
        text: two tokens are the same when kind and text are.
        preview: a few characters to show; never part of the identity.
        parts: for code (and values whose class is the user's), the table of all that it reaches.
    """

    kind: TokenKind
    text: str
    preview: str = field(default="", compare=False)
    parts: Mapping[str, Token] = field(default_factory=dict, compare=False, hash=False)

    def as_json(self) -> dict[str, Any]:
        """The token as JSON values; without preview and parts where there are none."""
        found: dict[str, Any] = {"kind": self.kind, "text": self.text}
        if self.preview:
            found["preview"] = self.preview
        if self.parts:
            found["parts"] = {label: part.as_json() for label, part in self.parts.items()}
        return found


ABSENT = Token("absent", "")


def value_token(
    value: object,
    *,
    digest: Digest,
    provenance: str | None = None,
    namespace: Mapping[str, object] | None = None,
    name: str = "",
    documented: bool = False,
    producers: Mapping[str, str] | None = None,
    preview: Callable[[object], str] | None = None,
    source_of: Callable[[type], str | None] | None = None,
) -> Token:
    """The token of a value. Never raises for a value that it can't identify: it falls back to less exact kinds.

    Args:
        digest: gives a digest that is equal for equal data, or None where that can't be told exactly. What it raises
            counts as None.
        provenance: who produced this value, for when it has no digest; ``producers`` the same for the names of
            ``namespace``, which functions read.
        namespace: the notebook's variables. Functions look into their own globals, which are the same thing.
        name: the variable that holds it, to name it in `Token.parts`.
        documented: the docstring counts (it is handed to others, who may show it to a model).
        preview: a short text for a value; by default only numbers, booleans and None are shown, as a string may be
            a secret.
        source_of: source of the cell that defined a class of the notebook; without it, a class that has no method
            is known by its members.
    """
    return Walk(digest, namespace or {}, producers or {}, preview, source_of).token(
        name or label_of(value), value, documented, provenance
    )


class Walk:
    """One walk from a value to all the code and data that it reaches.

    Attributes:
        seen_globals: (globals, name, value found) for each name that code reads.
        seen_cells: (cell, value found) for each variable of a closure.
        seen_code: (function, its code) for each function.
        volatile: it met data that may change in place, or that isn't worth keeping alive.
    """

    def __init__(
        self,
        digest: Digest,
        namespace: Mapping[str, object],
        producers: Mapping[str, str],
        preview: Callable[[object], str] | None,
        source_of: Callable[[type], str | None] | None,
    ) -> None:
        self._digest = digest
        self._namespace = namespace
        self._producers = producers
        self._preview = preview or _safe_preview
        self._source_of = source_of or (lambda _: None)
        self._queue: deque[tuple[str, object, bool, str | None]] = deque()
        self._labels: dict[int, str] = {}
        self._values: dict[str, object] = {}  # keeps what was met alive, so that an id stays its own
        self._home = "__main__"
        self.parts: dict[str, Token] = {}
        self.seen_globals: list[tuple[Mapping[str, object], str, object]] = []
        self.seen_cells: list[tuple[Any, object]] = []
        self.seen_code: list[tuple[FunctionType, object]] = []
        self.volatile = False

    def token(self, label: str, value: object, documented: bool, provenance: str | None) -> Token:
        """The token of ``value`` with the table of all that it reaches."""
        self._home = _module_of(value)
        self._push(label, value, documented, provenance)
        while self._queue:
            at, item, shown, producer = self._queue.popleft()
            self.parts[at] = self._leaf(at, item, shown, producer)
        root = self.parts[label]
        if len(self.parts) == 1:
            return root
        table = [[at, part.kind, part.text] for at, part in sorted(self.parts.items())]
        text = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        # Anything less than exact in its root is what the whole is.
        return Token(root.kind, text, root.preview, self.parts)

    def _push(self, label: str, value: object, documented: bool = False, provenance: str | None = None) -> None:
        # Data is looked at under each of its names: equal data must not differ by being one object or two.
        known = None if _is_data(value) else self._labels.get(id(value))
        if known == label or (label in self._values and self._values[label] is value):
            return
        number, wanted = 2, label
        while label in self._values:
            label, number = f"{wanted}#{number}", number + 1
        self._values[label] = value
        if known is not None:
            self.parts[label] = Token("src", f"= {known}")
            return
        if not _is_data(value):
            self._labels[id(value)] = label
        self._queue.append((label, value, documented, provenance))

    def _leaf(self, label: str, value: object, documented: bool, provenance: str | None) -> Token:
        if isinstance(value, ModuleType):
            return self._module(label, value)
        if isinstance(value, FunctionType):
            return self._function(label, value, documented)
        if (text := self._type_expression(label, value)) is not None:
            return Token("imp", text)
        if isinstance(value, type):
            return self._class(label, value, documented)
        if isinstance(value, MethodType):
            self._push(f"{label}.self", value.__self__)
            return self._leaf(label, value.__func__, documented, None)
        if isinstance(value, partial):
            return self._partial(label, value, documented)
        if (name := _installed_name(value)) is not None:
            return Token("imp", name)
        if (wrapped := _wrapped(value)) is not None:
            self._labels.setdefault(id(wrapped), label)
            return self._leaf(label, wrapped, documented, None)
        return self._data(label, value, provenance)

    def _module(self, label: str, module: ModuleType) -> Token:
        name = module.__name__
        if not is_user_module(name):
            return Token("mod", versioned(name))
        for attribute, value in sorted(vars(module).items()):
            inner = value if isinstance(value, ModuleType) else sys.modules.get(str(_peek(value, "__module__")))
            if inner is not None and inner is not module and is_user_module(inner.__name__):
                self._push(f"{label}.{attribute}", inner)
        return Token("mod", f"{name}:{file_digest(module) or 'no file'}")

    def _function(self, label: str, function: FunctionType, documented: bool) -> Token:
        module = str(function.__globals__.get("__name__", "__main__"))
        code = function.__code__
        if not is_user_file(code.co_filename) or module.partition(".")[0] == __name__.partition(".")[0]:
            if (wrapped := _wrapped(function)) is not None:  # such as a user's function under @contextmanager
                inner = self._leaf(label, wrapped, documented, None)
                return Token(inner.kind, f"{versioned(module, code.co_qualname)} of {inner.text}")
            return Token("imp", versioned(module, code.co_qualname))
        self.seen_code.append((function, code))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=False))
        for name, cell in sorted(cells.items()):
            self._cell(f"{label}.{name}", name, cell)
        for name, value in _defaults(function):
            self._push(f"{label}({name}=)", value)
        source = function_source(function)
        if source is None:
            return Token("opaque", UNAVAILABLE + function.__qualname__)
        self._globals(function.__globals__, module, source, skip=cells)
        return Token("src", f"def {source.documented if documented else source.digest}")

    def _cell(self, label: str, name: str, cell: Any) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            self.parts[label] = ABSENT  # not bound yet
            return
        self.seen_cells.append((cell, value))
        if name == "__class__":
            return
        self.volatile |= not (_is_constant(value) or isinstance(value, FunctionType | type | ModuleType))
        self._push(label, value)

    def _globals(
        self, namespace: Mapping[str, object], module: str, source: Source, skip: Mapping[str, object] | None = None
    ) -> None:
        prefix = "" if module == self._home else f"{module}."
        for name in sorted(source.reads - set(skip or ())):
            value = namespace.get(name, MISSING)
            self.seen_globals.append((namespace, name, value))
            if value is not MISSING:
                self._push(prefix + name, value, name in source.passed, self._producers.get(name))
            elif name not in BUILTINS:
                self.parts.setdefault(prefix + name, ABSENT)

    def _class(self, label: str, cls: type, documented: bool) -> Token:
        if not is_user_module(cls.__module__):
            return Token("imp", versioned(cls.__module__, cls.__qualname__))
        namespace = _namespace_of(cls, self._namespace)
        source = class_source(cls, namespace, self._quietly(self._source_of, cls))
        if source is not None:
            self._globals(namespace, cls.__module__, source)
            return Token("src", f"class {source.documented if documented else source.digest}")
        for name, member in sorted(vars(cls).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType) and function.__code__.co_filename != "<string>":
                self._push(f"{label}.{name}", function)
        return Token("src", f"class {_members_digest(cls)}")

    def _partial(self, label: str, value: partial[Any], documented: bool) -> Token:
        for number, argument in enumerate(value.args):
            self._push(f"{label}.args[{number}]", argument)
        for name, argument in sorted(value.keywords.items()):
            self._push(f"{label}.args[{name}]", argument)
        inner = self._leaf(label, value.func, documented, None)
        return Token(inner.kind, f"partial {inner.text}")

    def _data(self, label: str, value: object, provenance: str | None) -> Token:
        self.volatile |= not _is_constant(value)
        cls = type(value)
        if cls.__module__ != "builtins" and is_user_module(cls.__module__):
            self._push(f"{label}.__class__", cls)  # what its methods do is a part of what it is
        if (digest := self._quietly(self._digest, value)) is not None:
            return Token("val", digest, self._quietly(self._preview, value) or "")
        if isinstance(value, list | tuple | dict) and len(value) <= _ELEMENTS:
            return self._elements(label, value)
        if provenance is not None:
            return Token("prov", provenance)
        return Token("opaque", f"{cls.__module__}.{cls.__qualname__}")

    def _elements(self, label: str, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> Token:
        if (known := self._labels.setdefault(id(value), label)) != label:
            return Token("val", f"= {known}")  # it may contain itself
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(key, str | int):
                self._push(f"{label}[{key!r}]", item)
            else:
                self._push(f"{label}[]", (key, item))
        return Token("val", f"{type(value).__name__} of {len(value)}")

    def _type_expression(self, label: str, value: object) -> str | None:
        if not isinstance(value, GenericAlias | UnionType | TypeVar) and get_origin(value) is None:
            return None
        for number, argument in enumerate(get_args(value)):
            self._push(f"{label}[{number}]", argument)
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))

    @staticmethod
    def _quietly(function: Callable[[Any], str | None], value: object) -> str | None:
        try:
            return function(value)
        except Exception:  # whatever a user's type does when it is looked at, the cell must still run
            return None


def label_of(value: object) -> str:
    """A name for a value that no variable is known for."""
    return str(_peek(value, "__qualname__") or type(value).__qualname__)


def _peek(value: object, attribute: str) -> Any:
    """An attribute, or None: strange objects may answer with any error."""
    try:
        return getattr(value, attribute, None)
    except Exception:
        return None


def _safe_preview(value: object) -> str:
    return repr(value) if value is None or type(value) in (bool, int, float) else ""


def _is_data(value: object) -> bool:
    return not (callable(value) or isinstance(value, ModuleType))


def _is_constant(value: object) -> bool:
    """Whether a value can't change in place."""
    if isinstance(value, tuple | frozenset):
        return all(_is_constant(item) for item in value)
    return isinstance(value, _PLAIN)


def _module_of(value: object) -> str:
    if isinstance(value, FunctionType):
        return str(value.__globals__.get("__name__", "__main__"))
    if isinstance(value, MethodType):
        return _module_of(value.__func__)
    if isinstance(value, partial):
        return _module_of(value.func)
    wrapped = _wrapped(value)
    if wrapped is not None:
        return _module_of(wrapped)
    return (value if isinstance(value, type) else type(value)).__module__


def _namespace_of(cls: type, fallback: Mapping[str, object]) -> Mapping[str, object]:
    for member in vars(cls).values():
        if isinstance(member, FunctionType) and member.__module__ == cls.__module__:
            return member.__globals__
    module = inspect.getmodule(cls)
    return fallback if cls.__module__ == "__main__" and fallback else vars(module) if module else fallback


def _defaults(function: FunctionType) -> list[tuple[str, object]]:
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    values = function.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    return sorted({**found, **(function.__kwdefaults__ or {})}.items())


def _wrapped(value: object) -> object | None:
    """What a decorator's result wraps. Looked up without running the attribute code of strange objects."""
    found = inspect.getattr_static(value, "__wrapped__", None)
    if isinstance(found, property) or inspect.ismemberdescriptor(found):
        found = _peek(value, "__wrapped__")
    return found if callable(found) else None


def _installed_name(value: object) -> str | None:
    """``module.qualname@version`` of a named thing that an installed package offers, such as ``len`` or ``np.add``."""
    if not callable(value) or isinstance(value, type):
        return None
    name = _peek(value, "__qualname__") or _peek(value, "__name__")
    module = _peek(value, "__module__") or type(value).__module__
    if not isinstance(name, str) or not isinstance(module, str) or is_user_module(module):
        return None
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = _peek(found, part)
    return versioned(module, name) if found is value else None  # else it is some object that only borrowed the name


def _members_digest(cls: type) -> str:
    """Digest of a class whose source can't be found: its bases, annotations, docstring and plain members."""
    lines = [cls.__qualname__, *(f"{b.__module__}.{b.__qualname__}" for b in cls.__bases__)]
    lines += [f"{name}: {hint!r}" for name, hint in sorted(inspect.get_annotations(cls).items())]
    lines += [cls.__doc__ or "", repr(vars(cls).get("__pydantic_fields__"))]
    for name, member in sorted(vars(cls).items()):
        if not name.startswith("_") and not callable(member):
            lines.append(f"{name} = {member!r}")
    text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
