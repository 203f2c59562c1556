"""Spans that say which checkpoint a call is, and whether it was made or taken from the record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agents.tracing import custom_span, get_current_trace

from kitaru_nb.core.context import current_execution_id


@dataclass(slots=True)
class Link:
    """The span around one call.

    Attributes:
        live: whether the call is made now. A span that isn't live says ``replayed``, so that nothing is counted twice.
    """

    live: bool = False
    span: Any = None
    data: dict[str, Any] = field(default_factory=dict)

    def ids(self) -> dict[str, Any]:
        """Ids of trace and span, for the checkpoint's metadata."""
        if self.span is None or self.span.span_id == "no-op":
            return {}
        return {"trace_id": self.span.trace_id, "span_id": self.span.span_id}

    def close(self, call_id: str | None) -> None:
        """Tell the span which checkpoint it stands for."""
        if self.span is not None:
            self.span.span_data.data.update(
                execution=current_execution_id(), checkpoint=call_id, replayed=not self.live
            )


@contextmanager
def linked(name: str, *, around: bool = True) -> Iterator[Link]:
    """A span for one call. Without a trace there is none.

    Args:
        around: whether spans of the call itself are inside it. The SDK's own code for tools of MCP servers complains
            where its span for the tool isn't the innermost.
    """
    if get_current_trace() is None:
        yield Link()
        return
    span = custom_span("checkpoint", {"name": name})
    span.start(mark_as_current=around)
    try:
        yield Link(span=span)
    finally:
        span.finish(reset_current=around)
