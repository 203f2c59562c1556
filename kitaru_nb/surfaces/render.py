"""What people see, as values: model values in, blocks out. Pure functions; `kitaru_nb.surfaces.console` shows blocks.

A block holds text as somebody wrote it. Escaping is done in one place, `escaped`, by whoever turns blocks into output.
This module loads neither rich nor the engine, so that lists answer at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeAlias

from kitaru_nb.model import Execution, ExecutionStatus, Wait

#: Status → (glyph, style). Each glyph is one column wide.
GLYPHS = {
    "pending": ("○", "dim"),
    "running": ("●", "blue"),
    "waiting": ("⏸", "yellow"),
    "completed": ("✓", "green"),
    "reused": ("↺", "cyan"),
    "failed": ("✗", "red"),
    "cancelled": ("⊘", "dim"),
    "interrupted": ("◌", "magenta"),
    "resolved": ("✓", "green"),
    "aborted": ("⊘", "dim"),
    "ok": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "red"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one style (a name that rich knows, or "")."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; one that is ``flexible`` is cut where the table would be too wide."""

    title: str
    right: bool = False
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one-line cells under titles."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Span]]


@dataclass(frozen=True, slots=True)
class Line:
    """Text that is never cut: it wraps, and can be copied whole."""

    spans: Sequence[Span] = ()
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines in a frame."""

    title: str
    lines: Sequence[str] = field(default_factory=tuple)
    style: str = ""


Block: TypeAlias = Table | Line | Panel


def line(text: str = "", style: str = "", *, indent: int = 0) -> Line:
    """One line in one style."""
    return Line((Span(text, style),), indent)


def command_line(label: str, command: str) -> Line:
    """A labelled line to type."""
    return Line((Span(f"{label}: ", "dim"), Span(command, "bold")), indent=2)


def status_span(status: str) -> Span:
    """A status with its glyph."""
    glyph, style = GLYPHS.get(status, ("·", ""))
    return Span(f"{glyph} {status}", style)


def escaped(text: str, *, lines: bool = False) -> str:
    """``text`` with what could deceive a reader of a terminal made visible: control and format characters, bidi
    overrides and lone surrogates become escapes such as ``\\x1b`` and ``\\u202e``. With ``lines``, newlines stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c, lines) for c in text)


def _escaped(character: str, lines: bool) -> str:
    if character == "\n":
        return "\n" if lines else "⏎ "
    if character == "\t":
        return "    " if lines else " "
    # The joiner of compound emoji is the one format character that is only beautiful.
    if character == "\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width_of(text: str) -> int:
    """Columns that printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """At most ``width`` columns of ``text``; an ellipsis shows that it was cut."""
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += width_of(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…" if width > 0 else ""


def ago(instant: datetime, now: datetime) -> str:
    """How long ago, in words: ``2 min ago``; the date when it is more than a month."""
    seconds = (now - instant).total_seconds()
    if seconds < -1:
        return f"in {_rough(-seconds)}"
    if seconds < 5:
        return "just now"
    return f"{_rough(seconds)} ago" if seconds < 30 * 86400 else instant.astimezone().strftime("%Y-%m-%d")


def _rough(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def duration(seconds: float | None) -> str:
    """A duration with the unit that fits: ``12 ms``, ``1.2 s``, ``2 min 03 s``, ``1 h 05 min``."""
    if seconds is None:
        return ""
    if seconds < 0.0005:
        return "< 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: int) -> str:
    """A number of bytes: ``812 B``, ``1.2 kB``, ``3.4 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 execution``, ``2 executions``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def utc_now() -> datetime:
    """This instant."""
    return datetime.now(timezone.utc)


def took(execution: Execution, now: datetime) -> str:
    """From the beginning of an execution to its end, or to now while it runs."""
    live = execution.status in (ExecutionStatus.RUNNING, ExecutionStatus.PENDING)
    end = execution.ended_at or (now if live else execution.updated_at)
    return duration((end - execution.created_at).total_seconds())


def executions_blocks(executions: Sequence[Execution], *, now: datetime, hint: str, more: str | None) -> list[Block]:
    """A page of executions, and the line that shows the next one, where there is one: ``more``, with where to continue.
    ``hint`` is what to say when there are no executions."""
    if not executions:
        return [line(hint, "dim")]
    rows = [
        (
            Span(e.exec_id, "bold"),
            status_span(e.status),
            Span(ago(e.created_at, now)),
            Span(took(e, now)),
            Span(f"↻ {e.flow_name}" if e.original_exec_id else e.flow_name),
        )
        for e in executions
    ]
    columns = (
        Column("ID"),
        Column("STATUS"),
        Column("STARTED"),
        Column("TOOK", right=True),
        Column("FLOW", flexible=True),
    )
    blocks: list[Block] = [Table(columns, rows)]
    if more is not None:
        blocks.append(command_line("more", f"{more} --before {executions[-1].exec_id}"))
    return blocks


def overview_blocks(counts: Iterable[tuple[str, int]], waits: Sequence[Wait], now: datetime) -> list[Block]:
    """Executions by status, and the pending waits."""
    shown = [(status, number) for status, number in counts if number]
    if not shown:
        return [line("No executions yet.", "dim")]
    spans: list[Span] = []
    for status, number in shown:
        spans += [Span("   " if spans else ""), Span(f"{GLYPHS[status][0]} {number:,} {status}", GLYPHS[status][1])]
    blocks: list[Block] = [Line(spans)]
    if waits:
        rows = [
            (Span(w.exec_id, "bold"), Span(w.name), Span(ago(w.created_at, now)), Span(w.question or "")) for w in waits
        ]
        columns = (Column("WAITS"), Column("FOR", flexible=True), Column("SINCE"), Column("QUESTION", flexible=True))
        blocks += [line(), Table(columns, rows), command_line("answer", f"kitaru executions input {waits[0].exec_id}")]
    return blocks
