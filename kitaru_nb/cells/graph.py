"""Which cell's variables feed which cell, read from the notebook's order alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kitaru_nb.cells.analysis import CellAnalysis, analyse
from kitaru_nb.cells.source import Cell

# Magics after which names may exist that nobody can see.
_DEFINING_MAGICS = frozenset({"run", "pylab", "store", "macro", "load", "rerun", "recall"})


@dataclass(frozen=True, slots=True)
class Edge:
    """A variable that ``producer`` may have bound last when ``consumer`` reads it; both are cell ids."""

    producer: str
    consumer: str
    variable: str


@dataclass(frozen=True, slots=True)
class Undefined:
    """A name that a cell reads and that no cell above it leaves defined.

    Attributes:
        number: position of the cell, from 1.
        removed_by: number of the cell above that deleted it, or None when none ever bound it.
    """

    variable: str
    cell_id: str
    number: int
    removed_by: int | None = None


class CellGraph:
    """Edges between cells that run from top to bottom, each once.

    A cell that calls a function of a cell above needs what that function reads, at the place of the call. A producer
    that binds a variable only on some path doesn't hide the producers above it.
    """

    def __init__(self, cells: Sequence[tuple[str, Cell, CellAnalysis]]) -> None:
        self._ids = [cell_id for cell_id, _, _ in cells]
        self._edges: list[Edge] = []
        self._undefined: list[Undefined] = []
        self._writers: dict[str, list[int]] = {}  # variable → cells that may hold its value now
        self._removed: dict[str, int] = {}
        self._functions: dict[str, frozenset[str]] = {}
        self._anything = False
        for number, (_, cell, analysis) in enumerate(cells):
            self._read(number, cell, analysis)
            self._write(number, analysis)

    def edges(self) -> tuple[Edge, ...]:
        """All edges, in order of their consumers, then of the variables' names."""
        return tuple(self._edges)

    def upstream(self, cell_id: str) -> tuple[str, ...]:
        """Cells that ``cell_id`` needs, directly or not, in the notebook's order. Empty for an unknown id."""
        above: dict[str, list[str]] = {}
        for edge in self._edges:
            above.setdefault(edge.consumer, []).append(edge.producer)
        return self._reached(cell_id, above)

    def downstream(self, cell_id: str) -> tuple[str, ...]:
        """Cells that need ``cell_id``, directly or not, in the notebook's order. Empty for an unknown id."""
        below: dict[str, list[str]] = {}
        for edge in self._edges:
            below.setdefault(edge.producer, []).append(edge.consumer)
        return self._reached(cell_id, below)

    def undefined(self) -> tuple[Undefined, ...]:
        """Names read that no cell above defines.

        Below a cell that may define names unseen (``import *``, ``exec``, ``%run``) nothing is reported.
        """
        return tuple(self._undefined)

    def _read(self, number: int, cell: Cell, analysis: CellAnalysis) -> None:
        declared = cell.options.inputs
        needed = analysis.reads if declared is None else frozenset(declared)
        if cell.options.condition is not None:
            needed |= analyse(cell.options.condition).reads
        shadowed = {name for name in analysis.optional if name in self._writers}
        for name in sorted(self._with_callees(needed | shadowed, analysis)):
            producers = self._writers.get(name, [])
            self._edges += [Edge(self._ids[p], self._ids[number], name) for p in producers]
            if not producers and not self._anything:
                removed = self._removed.get(name)
                gone = None if removed is None else removed + 1
                self._undefined.append(Undefined(name, self._ids[number], number + 1, gone))

    def _with_callees(self, names: Iterable[str], analysis: CellAnalysis) -> set[str]:
        """``names``, and what the functions of cells above that they hold read."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            # What this cell surely binds may be read before it: only the namespace above is known to lack it.
            waiting += [n for n in self._functions.get(name, ()) if n in self._writers or n not in analysis.writes]
        return found

    def _write(self, number: int, analysis: CellAnalysis) -> None:
        self._anything |= bool(analysis.star_imports or "exec" in analysis.dynamic)
        self._anything |= bool(_DEFINING_MAGICS & set(analysis.magics))
        for name in analysis.writes:
            above = [] if name in analysis.binds else self._writers.get(name, [])
            self._writers[name] = [*above, number]
            self._removed.pop(name, None)
            reads = analysis.deferred.get(name, frozenset())
            self._functions[name] = reads if name in analysis.binds else reads | self._functions.get(name, frozenset())
        for name in analysis.removes:
            self._writers.pop(name, None)
            self._removed[name] = number

    def _reached(self, start: str, neighbours: Mapping[str, list[str]]) -> tuple[str, ...]:
        found: set[str] = set()
        waiting = list(neighbours.get(start, ()))
        while waiting:
            cell_id = waiting.pop()
            if cell_id not in found:
                found.add(cell_id)
                waiting += neighbours.get(cell_id, ())
        return tuple(cell_id for cell_id in self._ids if cell_id in found)
