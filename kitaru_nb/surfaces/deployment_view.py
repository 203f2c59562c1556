"""Deployments as people see them: model values in, blocks out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kitaru_nb.model import Deployment, DeploymentChange
from kitaru_nb.surfaces.render import Block, Column, Line, Span, Table, ago, command_line, counted, line, size, utc_now

if TYPE_CHECKING:
    from kitaru_nb.promote.comparison import DeploymentDiff
    from kitaru_nb.promote.snapshot import Snapshot

_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def deployments_blocks(found: Sequence[Deployment]) -> list[Block]:
    """A table of versions."""
    if not found:
        return [line("Nothing is deployed yet."), command_line("fix", "kitaru promote notebook.ipynb")]
    columns = (
        Column("flow", flexible=True),
        Column("version"),
        Column("tags", flexible=True),
        Column("stack"),
        Column("created"),
        Column("by", flexible=True),
        Column("digest"),
    )
    now = utc_now()
    rows = [
        (
            Span(d.flow, "bold"),
            Span(f"v{d.version}"),
            Span(", ".join(d.tags), "cyan"),
            Span(d.stack),
            Span(ago(d.created_at, now), "dim"),
            Span(d.created_by),
            Span(d.digest[:12], "dim"),
        )
        for d in found
    ]
    return [Table(columns, rows)]


def deployed_blocks(made: Deployment, *, elsewhere: bool = False) -> list[Block]:
    """A new version, and the line that starts it; ``elsewhere``: its stack is not the one in use."""
    its = f"KITARU_STACK={made.stack} kitaru" if elsewhere else "kitaru"
    head: list[Block] = [Line((Span("✓ ", "green"), Span(made.deployment_id, "bold"), Span("  is deployed")))]
    if not made.tags:
        route = command_line("route to it", f"{its} deployments tag {made.flow} {made.version} prod")
        return [*head, route, command_line("start it", f"{its} invoke {made.deployment_id}")]
    head.append(line(f"tags: {', '.join(made.tags)}", "dim", indent=2))
    tag = next((f"@{t}" for t in made.tags if t != "default"), "")
    return [*head, command_line("start it", f"{its} invoke {made.flow}{tag}")]


def deployment_blocks(found: Deployment, snapshot: Snapshot) -> list[Block]:
    """One version with all that is in it."""
    tags = f"  {', '.join(found.tags)}" if found.tags else ""
    blocks: list[Block] = [Line((Span(found.deployment_id, "bold"), Span(tags, "cyan")))]
    blocks.append(line(f"created {ago(found.created_at, utc_now())} by {found.created_by}", "dim", indent=2))
    if found.commit_sha:
        changed = ", with changes" if found.commit_dirty else ""
        blocks.append(line(f"commit {found.commit_sha[:12]}{changed}", "dim", indent=2))
    blocks += shipping_blocks(snapshot)[1:]
    return [*blocks, command_line("start it", f"kitaru invoke {found.deployment_id}")]


def shipping_blocks(snapshot: Snapshot) -> list[Block]:
    """What is in a snapshot."""
    manifest = snapshot.manifest
    inputs = manifest.parameters.get("properties", {})
    needed = manifest.parameters.get("required", ())
    blocks: list[Block] = [Line((Span(manifest.flow, "bold"), Span("  what would ship; nothing was stored", "dim")))]
    facts = [
        ("inputs", ", ".join(_input(n, s, n in needed) for n, s in inputs.items()) or "none"),
        ("checkpoints", ", ".join(str(c["name"]) for c in manifest.checkpoints) or "none"),
        ("waits", ", ".join(str(w["name"]) for w in manifest.waits) or "none"),
        ("secrets", ", ".join(manifest.secrets) or "none"),
        ("python", manifest.python),
        ("packages", f"{len(manifest.packages)} locked"),
        ("files", ", ".join(sorted(snapshot.files))),
        ("digest", snapshot.digest),
        ("size", size(len(snapshot.data))),
    ]
    if manifest.certificate is not None:
        number = len(manifest.certificate["checkpoints"])
        facts.append(("rehearsed", f"{counted(number, 'checkpoint')} gave what was recorded"))
    blocks += [Line((Span(f"{name:<13}", "dim"), Span(text)), 2) for name, text in facts]
    return blocks


def _input(name: str, schema: Mapping[str, Any], needed: bool) -> str:
    kind = schema.get("type") or ("one of " + "|".join(map(str, schema["enum"])) if "enum" in schema else "any")
    if "default" in schema:
        return f"{name}: {kind} = {json.dumps(schema['default'], ensure_ascii=False)}"
    return f"{name}: {kind}" + (" (needed)" if needed else "")


def moved_blocks(found: Deployment, tag: str) -> list[Block]:
    """Where a tag is now."""
    head = Line((Span("✓ ", "green"), Span(tag, "cyan"), Span(" routes to "), Span(found.deployment_id, "bold")))
    note = line("Executions that run stay on the version that they began with.", "dim", indent=2)
    return [head, note]


def changes_blocks(found: Sequence[DeploymentChange]) -> list[Block]:
    """Who did what, and when."""
    columns = (Column("when"), Column("by", flexible=True), Column("what", flexible=True))
    now = utc_now()
    rows = [(Span(ago(c.at, now), "dim"), Span(c.by), Span(_change(c))) for c in found]
    return [Table(columns, rows)] if rows else [line("Nothing happened yet.")]


def _change(change: DeploymentChange) -> str:
    before = f" (was on v{change.before})" if change.before is not None else ""
    if change.what == "tagged":
        return f"{change.tag} → v{change.version}{before}"
    if change.what == "untagged":
        return f"{change.tag} taken away{before}"
    return f"v{change.version} {change.what}"


def diff_blocks(found: DeploymentDiff) -> list[Block]:
    """Two versions side by side."""
    if found.same:
        return [line(f"{found.left} and {found.right} are the same.")]
    blocks: list[Block] = [Line((Span(f"{found.left} → {found.right}", "bold"),))]
    for title, table in (("inputs", found.parameters), ("packages", found.packages)):
        if table:
            blocks.append(line(title, "bold"))
            blocks += [line(f"{n}: {_shown(a)} → {_shown(b)}", indent=2) for n, (a, b) in table.items()]
    for text in found.files.values():
        blocks += [line(row, _DIFF_STYLES.get(row[:1], "")) for row in text.splitlines()]
    return blocks


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
