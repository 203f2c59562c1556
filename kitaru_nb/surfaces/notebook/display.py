"""What a notebook shows: mime bundles that read well live, saved, on GitHub, and as plain text.

``text/plain`` holds no id and no time, so that stored outputs compare equal; those go to the output's metadata. With
``KITARU_CI=1`` only the plain text is shown. Everything that a user or model wrote is escaped, also what would deceive
a reader: control characters and bidi overrides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape as escaped_html
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.answers import answering, answering_here, describe_schema
from kitaru_nb.core.engine import WaitRequest
from kitaru_nb.model import Event
from kitaru_nb.surfaces.notebook.calls import one_line, tokens_in
from kitaru_nb.surfaces.render import escaped

if TYPE_CHECKING:
    from kitaru_nb.surfaces.notebook.cell_work import CellWork

GREEN, BLUE, AMBER, RED, GREY = "#2e7d32", "#1565c0", "#b26a00", "#c62828", "#757575"
FONT = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5"
#: VS Code has its own colours (and loads JupyterLab's light ones for its widgets, in dark themes too); a page that has
#: neither, such as Colab's, gives its own colour to what asks for none.
TEXT = "color:var(--vscode-editor-foreground,var(--jp-ui-font-color1,inherit))"
MUTED = "opacity:0.72"
_GROUND = "var(--vscode-textCodeBlock-background,var(--jp-layout-color2,rgba(127,127,127,.16)))"
_CODE = (
    f"font-family:var(--jp-code-font-family,monospace);font-size:12px;background:{_GROUND};{TEXT};"
    "padding:1px 6px;border-radius:3px"
)


def publish(
    shell: Any,
    plain: str,
    html: str,
    metadata: Mapping[str, Any] | None = None,
    live: Mapping[str, Any] | None = None,
) -> None:
    """Show a bundle of plain text and HTML; ``live`` has richer forms of it, for front ends that know them."""
    data: dict[str, Any] = {"text/plain": escaped(plain, lines=True)}
    if os.environ.get("KITARU_CI") != "1":
        data |= {"text/html": html, **(live or {})}
    shell.display_pub.publish(data, {"kitaru": dict(metadata)} if metadata else {})


def escape(text: str) -> str:
    """Text as HTML that shows each of its characters: none is markup, none changes how others are read."""
    return escaped_html(escaped(text, lines=True))


def card(colour: str, body: str) -> str:
    """A block with a coloured edge."""
    return f'<div style="{FONT};{TEXT};border-left:3px solid {colour};padding:2px 12px;margin:2px 0">{body}</div>'


def muted(text: str) -> str:
    """Secondary text, escaped."""
    return f'<span style="{MUTED}">{escape(text)}</span>'


def code(text: str) -> str:
    """A line to type, escaped."""
    return f'<code style="{_CODE}">{escape(text)}</code>'


# checkpoint cells


def show_done(shell: Any, exec_id: str, event: Event, work: CellWork, tokens_inside: int) -> None:
    """One line under a checkpoint cell: what it made, whether it ran or was reused, and the tokens that it took."""
    body = event.body
    name = str(body["name"])
    made = ", ".join(work.names)
    reused = work.reused is not None
    seconds = float(body.get("duration", 0.0))
    tokens = tokens_in(body.get("metadata", {})) or tokens_inside
    facts = [f"reused, {seconds_text(seconds)} saved" if reused else seconds_text(seconds)]
    facts += [f"{tokens:,} tokens{' not paid again' if reused else ''}"] if tokens else []
    arrow = f" → {made}" if made else ""
    colour = AMBER if work.partial else BLUE if reused else GREEN
    glyph = "◐" if work.partial else "↺" if reused else "✓"
    line = f"{glyph} <b>{escape(name)}</b>{escape(arrow)} &nbsp;{muted(' · '.join(facts))}"
    plain = f"{'◐' if work.partial else '✓'} {name}{arrow}"
    metadata = {
        "execution": exec_id,
        "call": event.key,
        "checkpoint": name,
        "status": "partial" if work.partial else "cached" if reused else "fresh",
        "seconds": seconds,
    }
    if work.partial:
        columns = ("name", "type", "why", "do")
        rows = [[row[c] for c in columns] for row in work.partial]
        line += f'<div style="margin-top:4px">Not persisted:</div>{table(columns, rows)}'
        plain += "\nnot persisted:\n" + plain_table(columns, rows)
    publish(shell, plain, card(colour, line), metadata)


def show_skipped(shell: Any, name: str, condition: str) -> None:
    """A checkpoint cell whose condition is false."""
    publish(
        shell,
        f"– {name} skipped: {condition} is false",
        card(GREY, f"– <b>{escape(name)}</b> {muted('skipped,')} {code(condition)} {muted('is false')}"),
    )


def show_already_applied(shell: Any, name: str, changed: Sequence[str]) -> None:
    """A cell that changes its own input, run again on its own result."""
    names = ", ".join(changed)
    publish(
        shell,
        f"↺ {name} is already applied to {names}; run the cell with --force to apply it again",
        card(BLUE, f"↺ <b>{escape(name)}</b> is already applied to {code(names)}; {code('--force')} applies it again"),
    )


# waits


def show_answer(shell: Any, exec_id: str, wait: WaitRequest, answer: Mapping[str, Any]) -> None:
    """One line under a wait that was answered: what, by whom, through what."""
    value = json.dumps(answer.get("value"), ensure_ascii=False)
    given = muted(f"by {answer['by']} through {answer['via']}")
    html = f"✓ <b>{escape(wait.name)}</b>: {escape(value)} &nbsp;{given}"
    metadata = {"execution": exec_id, "wait": wait.wait_id, "name": wait.name, "status": "answered"}
    publish(shell, f"✓ {wait.name}: {value}", card(GREEN, html), metadata)


def show_wait(
    shell: Any, exec_id: str, wait: WaitRequest, form: Callable[[str, str], Mapping[str, Any]] | None = None
) -> None:
    """The card of a pending wait: the question, what an answer looks like, and the lines that give it.

    Where widgets are live, ``form`` makes of the HTML above and below it the bundle that stands in place of the lines.
    """
    here, shell_line = answering_here(wait), answering(wait, exec_id)
    question = wait.question or "An answer is needed to go on."
    plain = f"‖ {wait.name}: {question}\n  answer: {describe_schema(wait.schema)}\n  here:   {here}"
    head = (
        f"‖ <b>Waiting: {escape(wait.name)}</b> &nbsp;{muted('nothing runs and nothing is lost meanwhile')}"
        f'<div style="white-space:pre-wrap;margin:6px 0;max-width:75ch">{escape(question)}</div>'
    )
    anywhere = f"<div>{muted('anywhere')} {code(shell_line)}</div>"
    html = (
        f"{head}<div>{muted('Answer with ' + describe_schema(wait.schema) + ':')}</div>"
        f"<div>{muted('here')} {code(here)}</div>{anywhere}"
        f"<div>{muted('Then run this cell again, or Run All: finished checkpoints are reused.')}</div>"
    )
    live = None if form is None else form(card(AMBER, head), card(AMBER, anywhere))
    metadata = {"execution": exec_id, "wait": wait.wait_id, "name": wait.name, "status": "waiting"}
    publish(shell, plain, card(AMBER, html), metadata, live)


# tables and notes


def show_note(
    shell: Any,
    text: str,
    *,
    colour: str = GREY,
    command: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """One line, with a line to type if there is one."""
    tail = f" {code(command)}" if command else ""
    publish(shell, text + (f"\n  {command}" if command else ""), card(colour, escape(text) + tail), metadata)


def show_table(
    shell: Any,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    varying: Sequence[str] = (),
    note: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """A titled table. Plain text is without the columns in ``varying`` and the note: they differ from run to run."""
    head = f"<b>{escape(title)}</b> {muted(note)}" if note else f"<b>{escape(title)}</b>"
    html = f'<div style="{FONT};{TEXT}">{head}</div>{table(columns, rows)}'
    kept = [i for i, column in enumerate(columns) if column not in varying]
    plain = plain_table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    publish(shell, f"{title}\n{plain}", html, metadata)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table, escaped."""
    cell = "text-align:left;padding:2px 14px 2px 0;vertical-align:top"
    head = "".join(f'<th scope="col" style="{cell};{MUTED};font-weight:500">{escape(c)}</th>' for c in columns)
    lines = "".join(
        "<tr>" + "".join(f'<td style="{cell};white-space:pre-wrap">{escape(str(v))}</td>' for v in row) + "</tr>"
        for row in rows
    )
    style = f"{FONT};{TEXT};border-collapse:collapse;margin:2px 0"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces; long cells are cut."""
    texts = [[one_line(str(v), 44) for v in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    return "\n".join("  " + "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in texts)


def seconds_text(seconds: float | None) -> str:
    """A duration as people say it."""
    if seconds is None:
        return "—"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
