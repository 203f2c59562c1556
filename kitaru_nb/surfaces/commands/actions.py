"""``kitaru executions``: what is done to executions: answer, replay, retry, resume, cancel, have answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kitaru_nb.errors import KitaruUsageError
from kitaru_nb.model import ExecutionStatus, Wait
from kitaru_nb.surfaces.commands.executions import ExecutionId, app
from kitaru_nb.surfaces.commands.following import Before, act, follow
from kitaru_nb.surfaces.console import Answer, command, record
from kitaru_nb.surfaces.render import Block, Line, Span, command_line, counted, line, status_span

if TYPE_CHECKING:
    from kitaru_nb.client import KitaruClient

By = Annotated[str | None, typer.Option(metavar="WHO", help="Who does it, for the record (default: you).")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Don't wait for the worker.")]
Scope = Literal["downstream", "after"]


@command(app, "executions.input")
def input_(
    execution: ExecutionId,
    wait: Annotated[str | None, typer.Option(metavar="NAME", help="Which wait, where several are pending.")] = None,
    value: Annotated[str | None, typer.Option(help="The answer: JSON, else text.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Ask here for the answer.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Close the wait without an answer.")] = False,
    by: By = None,
) -> Answer:
    """Answer a wait.

    The execution goes on by itself."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.commands.questions import answer_interactively, can_ask
    from kitaru_nb.surfaces.detail import started_blocks

    if (value is not None) + interactive + abort > 1:
        raise typer.BadParameter("give one of --value, --interactive and --abort.")
    client = KitaruClient()
    exec_id = client.executions.resolve(execution)
    if abort:
        started, done = client.executions.abort_wait(exec_id, wait=wait, by=by), "The wait is closed."
    elif value is not None:
        found = _pending(client, exec_id, wait)
        answer = value if found is None else typed(value, found.schema)
        started = client.executions.input(exec_id, value=answer, wait=wait, by=by, via="cli")
        done = "Answered."
    elif interactive or can_ask():
        started, done = answer_interactively(client, exec_id, wait, by), "Answered."
    else:
        raise _nothing_given(client, exec_id, wait)
    status = client.runtime.journal.execution(exec_id).status
    return Answer([line(done), *started_blocks(started)], item={**record(started), "status": status.value})


def _pending(client: KitaruClient, exec_id: str, wait: str | None) -> Wait | None:
    """The pending wait that is meant, if it is clear; the client's own look says what is wrong where it isn't."""
    found = [w for w in client.executions.pending_waits(exec_id) if wait in (None, w.name, w.wait_id)]
    return found[0] if len(found) == 1 else None


def _nothing_given(client: KitaruClient, exec_id: str, wait: str | None) -> KitaruUsageError:
    from kitaru_nb.core.answers import answering, describe_schema
    from kitaru_nb.core.control import find_wait

    found = find_wait(client.runtime, exec_id, wait)
    question = f": {found.question}" if found.question else ""
    return KitaruUsageError(
        f"No answer was given for wait {found.name!r}{question}. Expected {describe_schema(found.schema)}.",
        fix=answering(found, exec_id),
    )


def typed(text: str, schema: Mapping[str, Any] | None = None) -> Any:
    """What somebody typed as a value: for a string schema the text as it is, else JSON, else the text."""
    if schema is not None and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@command(app, "executions.replay")
def replay(
    execution: ExecutionId,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="CP", help="Begin here: name, name#2, id.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A new flow input.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="KEY=JSON",
            help="Use instead: checkpoint.NAME=JSON its outcome, arguments.NAME=JSON its inputs, wait.NAME=JSON its "
            "answer.",
        ),
    ] = None,
    overrides: Annotated[str | None, typer.Option(metavar="JSON", help="Overrides as one JSON object.")] = None,
    args: Annotated[str | None, typer.Option("--args", metavar="JSON", help="Flow inputs as one JSON object.")] = None,
    scope: Annotated[Scope, typer.Option(help="after: also all that came later in program order.")] = "downstream",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run again; start nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the new execution.")] = True,
    detach: Detach = False,
) -> Answer:
    """Run parts of an old execution again.

    Makes a new execution: the chosen checkpoints and what depends on them run again, the rest is reused."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.core.control import Started, is_interactive
    from kitaru_nb.surfaces.detail import plan_blocks, started_blocks

    options: dict[str, Any] = {
        "from_": from_ or None,
        "overrides": {**json_object("--overrides", overrides), **pairs("--override", override)},
        "scope": scope,
    }
    inputs = {**json_object("--args", args), **pairs("--set", set_)}
    client = KitaruClient()
    exec_id = client.executions.resolve(execution)
    if dry_run:
        plan = client.executions.replay_plan(exec_id, **options, inputs=inputs)
        return Answer(plan_blocks(plan), item=record(plan))
    handle = client.executions.replay(exec_id, **options, inputs=inputs)
    by_notebook = is_interactive(client.runtime, handle.exec_id)
    if wait and not detach and not by_notebook:
        return follow(client, handle.exec_id, Before())
    head = Line((Span("↻ ", "cyan"), Span(handle.exec_id, "bold"), Span(f"  replays {exec_id}")))
    started = Started(handle.exec_id, None, by_notebook)
    blocks = started_blocks(started) if by_notebook else [_watch(handle.exec_id)]
    return Answer([head, *blocks], item={**record(started), "status": handle.status.value})


def _watch(exec_id: str) -> Line:
    return command_line("watch", f"kitaru executions logs {exec_id} --follow")


def pairs(option: str, given: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` texts as a dict; values are JSON, else text. Raises `typer.BadParameter`."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{option} {text!r} can't be: expected {option} NAME=VALUE.")
        found[name] = typed(value)
    return found


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """The JSON object that an option holds. Raises `typer.BadParameter`."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{option} is not JSON ({error}); expected {option} '{{\"name\": 1}}'.") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{option} is {text}; expected an object: {option} '{{\"name\": 1}}'.")
    return found


@command(app, "executions.retry")
def retry(execution: ExecutionId, detach: Detach = False) -> Answer:
    """Run a failed execution again from where it failed."""
    from kitaru_nb.client import KitaruClient

    client = KitaruClient()
    return act(client, client.executions.resolve(execution), client.executions.retry, detach=detach)


@command(app, "executions.resume")
def resume(
    execution: Annotated[
        str | None, typer.Argument(metavar="ID", help="An id, its beginning or end, or: latest.")
    ] = None,
    due: Annotated[bool, typer.Option("--due", help="Let the clock answer every wait whose time has come.")] = False,
    detach: Detach = False,
) -> Answer:
    """Go on with an execution.

    That is an interrupted one, or one whose wait was answered. A failed one is for retry."""
    from kitaru_nb.client import KitaruClient

    if (execution is None) != due:
        raise typer.BadParameter("give the ID of an execution, or --due for all whose time has come.")
    client = KitaruClient()
    if execution is not None:
        return act(client, client.executions.resolve(execution), client.executions.resume, detach=detach)
    return _resume_due(client)


def _resume_due(client: KitaruClient) -> Answer:
    from kitaru_nb.surfaces.detail import started_blocks

    started = client.executions.resume_due()
    blocks = [line(f"The clock answered {counted(len(started), 'wait')}.")]
    for one in started:
        blocks.append(line(one.exec_id, "bold"))
        blocks += [block for block in started_blocks(one) if isinstance(block, Line)]
    return Answer(blocks, items=[record(one) for one in started])


@command(app, "executions.cancel")
def cancel(execution: ExecutionId, by: By = None) -> Answer:
    """End an execution.

    A live worker lets go at its next step."""
    from kitaru_nb.client import KitaruClient

    client = KitaruClient()
    found = client.executions.cancel(client.executions.resolve(execution), by=by)
    spans = [status_span(found.status), Span(f"  {found.exec_id}", "bold")]
    if found.status is ExecutionStatus.RUNNING:
        spans.append(Span("  its worker lets go at its next step"))
    return Answer([Line(spans)], item=record(found))


@command(app, "executions.webhook")
def webhook(
    execution: ExecutionId,
    wait: Annotated[str | None, typer.Option(metavar="NAME", help="Which wait, where several are pending.")] = None,
    hours: Annotated[float, typer.Option(min=0.001, help="How long it may be used.")] = 168.0,
    by: Annotated[
        str | None, typer.Option(metavar="WHO", help="Who will answer, for the record (default: you).")
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="The server's address from outside.")] = None,
) -> Answer:
    """Make a URL that answers one wait, once.

    Whoever has it may answer, and do nothing else. A server must run (kitaru server) when it is used."""
    from kitaru_nb.client import KitaruClient
    from kitaru_nb.surfaces.http import webhooks
    from kitaru_nb.surfaces.http.address import address_of

    client = KitaruClient()
    exec_id = client.executions.resolve(execution)
    made = webhooks.make(client.runtime, exec_id, wait, seconds=hours * 3600, by=by)
    address = f"{(url or address_of(client.runtime.home)).rstrip('/')}/hooks/{made.token}"
    until = made.expires_at.astimezone().strftime("%Y-%m-%d %H:%M")
    blocks: list[Block] = [
        Line((Span(address, "bold"),)),
        line(f"It answers {made.wait!r} of {exec_id}, once, until {until}.", "dim"),
        command_line("use", "curl --json '{\"value\": true}' URL"),
    ]
    return Answer(blocks, item={**record(made), "url": address})
