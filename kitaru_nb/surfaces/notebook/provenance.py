"""Where the notebook's variables come from: which cell made each, and which notebook code an object carries.

A value without a digest (an agent with a client) is known by the plain cell that made it, by that cell's inputs, and by
the notebook's functions and classes that can be found in the object: an agent's tool may read other variables.
"""

from __future__ import annotations

import gc
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kitaru_nb.cells.analysis import CellAnalysis
from kitaru_nb.cells.keys import Token, cell_key, input_tokens, value_token

Digest = Callable[[object], "str | None"]

#: How many objects are looked at in one value to find the notebook's code in it.
MAX_OBJECTS = 5_000
#: Inputs of plain cells up to these sizes are known by their content; larger ones by the cell that made them.
MAX_ITEMS, MAX_BYTES = 2_000, 16 << 20

_LEAVES = (str, bytes, int, float, complex, type(None), types.ModuleType, types.CodeType, types.FrameType)
# Through these one gets from anywhere to everywhere.
_HUBS = ("IPython", "ipykernel", "asyncio", "logging", "threading", "_thread", "zmq", "tornado", "kitaru_nb", "gc")


class Provenance:
    """What a session knows of its variables.

    Attributes:
        makers: variable → call id of the checkpoint cell that set it last.
        producers: variable → identity of the cell that set it last, for values without a digest.
        bodies: class → text of the cell that defined it last.
    """

    def __init__(self) -> None:
        self.makers: dict[str, str] = {}
        self.producers: dict[str, str] = {}
        self.bodies: dict[str, str] = {}

    def by_checkpoint(self, names: list[str], call_id: str) -> None:
        """A checkpoint cell has set these variables."""
        for name in names:
            self.makers[name] = call_id
            self.producers[name] = f"{name}@{call_id}"

    def by_plain_cell(self, names: list[str], analysis: CellAnalysis, before: Mapping[str, Any], token: Digest) -> None:
        """A plain cell has set these variables; ``before`` is the namespace as it found it."""

        def limited(value: object) -> str | None:
            return token(value) if is_small(value) else None

        tokens = input_tokens(analysis, before, digest=limited, producers=self.producers, source_of=self.source_of)
        tokens |= self.deeper(tokens, before, limited)
        identity = cell_key(analysis, tokens).digest
        for name in names:
            self.makers.pop(name, None)
            self.producers[name] = f"{name}@{identity}"

    def forget(self, names: list[str]) -> None:
        """These variables are gone."""
        for name in names:
            self.makers.pop(name, None)
            self.producers.pop(name, None)

    def defined(self, namespace: Mapping[str, Any], names: list[str], body: str) -> None:
        """A cell with this Python text has set these variables; classes among them can be looked up in it."""
        for name in names:
            value = namespace.get(name)
            if isinstance(value, type) and value.__module__ == "__main__":
                self.bodies[value.__qualname__] = body

    def source_of(self, cls: type) -> str | None:
        """Text of the cell that defined a class of the notebook."""
        return self.bodies.get(cls.__qualname__.partition(".")[0])

    def deeper(self, tokens: Mapping[str, Token], namespace: Mapping[str, Any], digest: Digest) -> dict[str, Token]:
        """More tokens for inputs that are known less than exactly: the notebook's code that is found in them."""
        found: dict[str, Token] = {}
        for name, token in tokens.items():
            inexact = [label for label, part in {name: token, **token.parts}.items() if part.kind in ("prov", "opaque")]
            for label in inexact:
                root = label.partition("[")[0]
                if root not in namespace:
                    continue
                if root in self.producers and token.kind != "prov":
                    found.setdefault(f"{root} (its cell)", Token("prov", self.producers[root]))
                for code in notebook_code(namespace[root]):
                    found.setdefault(
                        f"{code.__qualname__} of {root}",
                        value_token(
                            code,
                            digest=digest,
                            namespace=namespace,
                            name=code.__qualname__,
                            documented=True,
                            producers=self.producers,
                            source_of=self.source_of,
                        ),
                    )
        return found


def is_small(value: object) -> bool:
    """Whether taking a value's digest costs next to nothing."""
    if isinstance(value, str | bytes | bytearray):
        return len(value) <= MAX_BYTES
    if isinstance(value, list | tuple | set | frozenset | dict):
        items = value.values() if isinstance(value, dict) else value
        return len(value) <= MAX_ITEMS and all(is_small(item) for item in items)
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size <= MAX_BYTES
    usage = getattr(value, "estimated_size", None) or getattr(value, "shape", None)
    if isinstance(usage, tuple) and len(usage) == 2:
        return int(usage[0]) * int(usage[1]) <= MAX_BYTES // 64
    return True


def notebook_code(root: object) -> Iterator[Any]:
    """Functions and classes of the notebook that can be reached from an object, nearest first."""
    seen = {id(root)}
    todo: deque[object] = deque([root])
    looked = 0
    while todo and looked < MAX_OBJECTS:
        value = todo.popleft()
        looked += 1
        if value is not root and isinstance(value, types.FunctionType | type) and value.__module__ == "__main__":
            yield value
            continue
        for inner in _inside(value):
            if id(inner) not in seen and not isinstance(inner, _LEAVES):
                seen.add(id(inner))
                todo.append(inner)


def _inside(value: object) -> list[Any]:
    if isinstance(value, types.FunctionType):  # not its globals, from where everything can be reached
        cells = [c.cell_contents for c in value.__closure__ or () if _is_filled(c)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *vars(value).values()]
    if isinstance(value, type):
        return []
    if type(value).__module__.partition(".")[0] in _HUBS:
        return []
    return list(gc.get_referents(value))


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
