"""The tree of calls as HTML and as text. Rows are grids of one shape, so that columns stay aligned in folded parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from kitaru_nb.surfaces.notebook.calls import (
    DONE,
    FAILED,
    REUSED,
    RUNNING,
    STOPPED,
    CallNode,
    CallTree,
    folded,
)
from kitaru_nb.surfaces.notebook.display import FONT, MUTED, TEXT, escape, seconds_text

#: Of the calls on one level, this many of the last ones are shown unfolded.
SHOWN = 12
#: How many folded calls are written out at most, once the cell has ended.
WRITTEN = 500

_GRID = (
    "display:grid;grid-template-columns:minmax(11em,2fr) minmax(0,5fr) 6em 5.5em 5.5em;column-gap:10px;"
    "align-items:baseline;padding:1px 0"
)
_CUT = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
_NUMBER = f"text-align:right;font-variant-numeric:tabular-nums;{MUTED}"
_SUMMARY = "cursor:pointer;padding:2px 0"
_STATES = {
    RUNNING: ("●", "var(--jp-warn-color1,#b26a00)"),
    DONE: ("✓", "var(--jp-success-color1,#2e7d32)"),
    REUSED: ("↺", "var(--jp-brand-color1,#1565c0)"),
    FAILED: ("✗", "var(--jp-error-color1,#c62828)"),
    STOPPED: ("‖", "var(--jp-warn-color1,#b26a00)"),
}
_TYPES = {"agent_run": "◎", "model_call": "◇", "tool_call": "ƒ", "mcp_call": "⇄"}
_WORDS = {"agent_run": "agent", "model_call": "model call", "tool_call": "tool call", "mcp_call": "MCP call"}


def tree_html(tree: CallTree, *, live: bool = False) -> str:
    """The whole tree under one line that sums it up; ``live``: the cell still runs, and folded calls aren't listed."""
    now = time.time()
    rows = _rows(tree.root.children, 0, now, live)
    return (
        f'<details open style="{FONT};{TEXT};margin:2px 0"><summary style="{_SUMMARY}">{escape(total_line(tree, now))}'
        f"</summary>{rows}</details>"
    )


def tree_text(tree: CallTree) -> str:
    """Names and nesting, without what differs from run to run."""
    lines = [f"{_count(len(tree))} inside"]
    _text_rows(tree.root.children, "  ", lines)
    return "\n".join(lines)


def total_line(tree: CallTree, now: float) -> str:
    """``7 calls · 2 reused · 1,204 tokens, 380 not paid again · $0.0031 · 4.2 s``"""
    calls = tree.calls
    parts = [_count(len(calls))]
    for state, word in ((RUNNING, "running"), (REUSED, "reused"), (FAILED, "failed"), (STOPPED, "stopped")):
        if number := sum(node.state == state for node in calls):
            parts.append(f"{number} {word}")
    if tree.tokens:
        spared = tree.tokens - tree.root.paid()
        parts.append(f"{tree.tokens:,} tokens" + (f", {spared:,} not paid again" if spared > 0 else ""))
    if tree.root.cost:
        parts.append(cost_text(tree.root.cost))
    ran = [node for node in calls if node.state != REUSED]
    if ran:
        ends = [now if node.seconds is None else node.began + node.seconds for node in ran]
        parts.append(seconds_text(max(0.0, max(ends) - min(node.began for node in ran))))
    return " · ".join(parts)


def cost_text(dollars: float) -> str:
    """US dollars with the digits that tell something."""
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"


def _count(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"


def _rows(nodes: Sequence[CallNode], depth: int, now: float, live: bool) -> str:
    groups = folded(nodes, SHOWN)
    return "".join(_row(g[0], depth, now, live) if len(g) == 1 else _fold(g, depth, now, live) for g in groups)


def _row(node: CallNode, depth: int, now: float, live: bool) -> str:
    glyph, colour = _STATES[node.state]
    kind = _TYPES.get(node.type or "", "·")
    word = _WORDS.get(node.type or "", "checkpoint")
    attempt = f" (attempt {node.attempt})" if node.attempt > 1 else ""
    name = (
        f'<div style="{_CUT};padding-left:{depth * 1.4:.1f}em" title="{escape(node.name)}: {word}, {node.state}">'
        f'<span style="color:{colour}">{glyph}</span> <span style="{MUTED}">{kind}</span> '
        f"{escape(node.name + attempt)}</div>"
    )
    seconds = max(0.0, now - node.began) if node.seconds is None else node.seconds
    numbers = (
        f"{node.tokens:,} tok" if node.tokens else "",
        cost_text(node.cost) if node.cost else "",
        seconds_text(seconds),
    )
    cells = "".join(f'<div style="{_NUMBER}">{escape(text)}</div>' for text in numbers)
    return f'<div style="{_GRID}">{name}{_said(node)}{cells}</div>' + _rows(node.children, depth + 1, now, live)


def _said(node: CallNode) -> str:
    """Arguments and outcome; of a model call or an agent only the outcome, as its input is long."""
    colour = f"color:{_STATES[FAILED][1]}" if node.state == FAILED else MUTED
    asked = "" if node.type in ("model_call", "agent_run") else node.asked
    text = " → ".join(part for part in (asked, node.answered) if part)
    return f'<div style="{_CUT};{colour}" title="{escape(text)}">{escape(text)}</div>'


def _fold(nodes: Sequence[CallNode], depth: int, now: float, live: bool) -> str:
    parts = [f"{_count(_size(nodes))} more"]
    if reused := sum(node.state == REUSED for node in nodes):
        parts.append(f"{reused} reused")
    if tokens := sum(node.tokens for node in nodes):
        parts.append(f"{tokens:,} tokens")
    line = escape(" · ".join(parts))
    indent = f"padding-left:{depth * 1.4:.1f}em"
    if live:
        return f'<div style="{indent};{MUTED}">… {line}</div>'
    rows = "".join(_row(node, depth, now, live) for node in nodes[-WRITTEN:])
    if len(nodes) > WRITTEN:
        rest = escape(f"… {_count(len(nodes) - WRITTEN)} before these: %kitaru status")
        rows = f'<div style="{indent};{MUTED}">{rest}</div>{rows}'
    return f'<details><summary style="{_SUMMARY};{indent};{MUTED}">{line}</summary>{rows}</details>'


def _size(nodes: Iterable[CallNode]) -> int:
    return sum(1 for node in nodes for _ in node.walk())


def _text_rows(nodes: Sequence[CallNode], indent: str, lines: list[str]) -> None:
    for node, *others in folded(nodes, SHOWN):
        if others:
            lines.append(f"{indent}… {_count(_size([node, *others]))} more")
            continue
        glyph = "✓" if node.state == REUSED else _STATES[node.state][0]
        lines.append(f"{indent}{glyph} {node.name}")
        _text_rows(node.children, indent + "  ", lines)
