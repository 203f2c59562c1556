"""The graph of an execution as inline SVG and as text, for ``%kitaru lineage`` and the still panel."""

from __future__ import annotations

from kitaru_nb.core.lineage import edges
from kitaru_nb.model import CheckpointCall, Execution
from kitaru_nb.surfaces.notebook.display import AMBER, BLUE, GREEN, GREY, RED, TEXT, escape, muted, seconds_text

WIDTH, HEIGHT, GAP_X, GAP_Y = 168, 44, 56, 24
DIP = 40
MAX_NODES = 200
_COLOURS = {"completed": GREEN, "reused": BLUE, "failed": RED, "running": AMBER, "waiting": AMBER, "pending": AMBER}
_GLYPHS = {"completed": "✓", "reused": "↺", "failed": "✗", "running": "●", "pending": "‖", "resolved": "▸"}


def nodes_of(execution: Execution) -> dict[str, tuple[str, str, str]]:
    """Node id → (label, status, detail), in order of time: inputs, calls and waits."""
    timed = [
        (c.started_at or execution.created_at, c.call_id, (c.selector, c.status, _detail(c)))
        for c in execution.checkpoints
    ]
    for wait in execution.waits:
        answer = f"{wait.value!r}" if wait.status == "resolved" else wait.status
        timed.append((wait.created_at, f"wait:{wait.wait_id}", (wait.name, wait.status, answer)))
    found = {f"input:{name}": (name, "input", shown) for name, shown in execution.inputs.items()}
    found.update({node: row for _, node, row in sorted(timed, key=lambda t: t[0])})
    return found


def graph_html(execution: Execution) -> str:
    """The drawing, and the same as text: GitHub and others take drawings out of a notebook."""
    text = escape(graph_text(execution))
    return f"{graph_svg(execution)}<details><summary>{muted('as text')}</summary><pre>{text}</pre></details>"


def graph_svg(execution: Execution) -> str:
    """A layered drawing: sources left, readers right; solid edges are data, dashed ones program order or nesting."""
    nodes = dict(list(nodes_of(execution).items())[:MAX_NODES])
    links = [e for e in edges(execution) if e.source in nodes and e.target in nodes]
    order = {node: i for i, node in enumerate(nodes)}
    layer = dict.fromkeys(nodes, 0)
    for node in nodes:  # sources come before their readers in time, so one pass is enough
        before = [layer[e.source] + 1 for e in links if e.target == node and order[e.source] < order[node]]
        layer[node] = max(before, default=0)
    place: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for node in nodes:
        row = rows.get(layer[node], 0)
        rows[layer[node]] = row + 1
        place[node] = (8 + layer[node] * (WIDTH + GAP_X), 8 + row * (HEIGHT + GAP_Y))
    width = 16 + (max(layer.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X
    height = 16 + max(rows.values(), default=1) * (HEIGHT + GAP_Y) - GAP_Y
    height += DIP if any(layer[e.target] - layer[e.source] > 1 for e in links) else 0
    parts = [_edge(place[e.source], place[e.target], e.kind) for e in links]
    parts += [_node(place[node], *row) for node, row in nodes.items()]
    label = f"{len(nodes)} nodes, {len(links)} edges"
    return (
        f'<div style="overflow-x:auto"><svg role="img" aria-label="lineage: {label}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="font-family:var(--jp-ui-font-family,system-ui,sans-serif);'
        f'{TEXT};max-width:none">{"".join(parts)}</svg></div>'
    )


def graph_text(execution: Execution) -> str:
    """One line for each node: what it read, and what it is."""
    nodes = nodes_of(execution)
    reads: dict[str, list[str]] = {}
    for edge in edges(execution):
        if edge.kind == "data" and edge.source in nodes:
            reads.setdefault(edge.target, []).append(nodes[edge.source][0])
    depth = {c.call_id: _depth(execution, c) for c in execution.checkpoints}
    lines = []
    for node, (label, status, _) in nodes.items():
        source = f" ← {', '.join(dict.fromkeys(reads[node]))}" if node in reads else ""
        lines.append(f"  {'  ' * depth.get(node, 0)}{_GLYPHS.get(status, '·')} {label}{source}")
    return "\n".join(lines)


def _depth(execution: Execution, call: CheckpointCall) -> int:
    by_id = {c.call_id: c for c in execution.checkpoints}
    depth, parent = 0, call.parent
    while parent is not None and parent in by_id:
        depth, parent = depth + 1, by_id[parent].parent
    return depth


def _detail(call: CheckpointCall) -> str:
    return "reused" if call.status == "reused" else seconds_text(call.duration)


def _edge(start: tuple[int, int], end: tuple[int, int], kind: str) -> str:
    x1, y1 = start[0] + WIDTH, start[1] + HEIGHT // 2
    x2, y2 = end[0], end[1] + HEIGHT // 2
    # An edge that passes by other layers dips below their nodes.
    dip = HEIGHT + DIP // 2 if x2 - x1 > GAP_X else 0
    bend = min(WIDTH, max(24, (x2 - x1) // 2))
    dash = "" if kind == "data" else ' stroke-dasharray="4 4"'
    return (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1 + dip} {x2 - bend} {y2 + dip} {x2 - 6} {y2}" fill="none" '
        f'stroke="currentColor" stroke-opacity="0.45" stroke-width="1.5"{dash}/>'
        f'<path d="M{x2} {y2} l-7 -4 v8 z" fill="currentColor" fill-opacity="0.45"/>'
    )


def _node(at: tuple[int, int], label: str, status: str, detail: str) -> str:
    x, y = at
    colour = _COLOURS.get(status, GREY)
    name = escape(label if len(label) <= 20 else label[:19] + "…")
    shown = escape(" ".join(detail.split())[:24])
    return (
        f"<g><title>{escape(label)}: {escape(status)}, {escape(detail[:300])}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"/>'
        f'<text x="{x + 10}" y="{y + 19}" font-size="13" fill="currentColor">'
        f'<tspan fill="{colour}">{_GLYPHS.get(status, "·")}</tspan> {name}</text>'
        f'<text x="{x + 10}" y="{y + 35}" font-size="11" fill="currentColor" fill-opacity="0.72">{shown}</text></g>'
    )
