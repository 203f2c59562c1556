"""``kitaru deployments`` and ``kitaru invoke``: versions, the tags that route to them, and starting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kitaru_nb.surfaces.commands.actions import By, Detach, json_object, pairs
from kitaru_nb.surfaces.commands.following import Before, follow
from kitaru_nb.surfaces.console import Answer, QuickGroup, command, record
from kitaru_nb.surfaces.deployment_view import (
    changes_blocks,
    deployment_blocks,
    deployments_blocks,
    diff_blocks,
    moved_blocks,
)
from kitaru_nb.surfaces.render import Line, Span, command_line, line

app = typer.Typer(
    cls=QuickGroup,
    name="deployments",
    help="List, compare, route, start and delete versions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
#: Commands without a group.
alone = typer.Typer(rich_markup_mode=None)

FlowName = Annotated[str, typer.Argument(metavar="FLOW", help="The flow's name.")]
Selected = Annotated[str, typer.Argument(metavar="FLOW", help="The flow's name; FLOW@v2 and FLOW@prod say which one.")]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="A number, such as 2 or v2.")]
Version = Annotated[str | None, typer.Option(metavar="N", help="This version.")]
Tag = Annotated[str | None, typer.Option(metavar="TAG", help="The version that this tag is on (default: default).")]


@command(app, "deployments.list")
def list_(
    flow: Annotated[str | None, typer.Argument(metavar="FLOW", help="Only this flow.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many.")] = None,
) -> Answer:
    """List versions, newest first."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().deployments.list(flow=flow, limit=limit)
    return Answer(deployments_blocks(found), items=[record(one) for one in found])


@command(app, "deployments.get")
def get(flow: Selected, version: Version = None, tag: Tag = None) -> Answer:
    """Show a version: what it takes, and what is in it."""
    from kitaru_nb.client import KitaruClient

    deployments = KitaruClient().deployments
    found = deployments.get(flow, version=version, tag=tag)
    snapshot = deployments.snapshot(found.deployment_id)
    item = {**record(found), "manifest": record(snapshot.manifest)}
    return Answer(deployment_blocks(found, snapshot), item=item)


@command(app, "deployments.diff")
def diff(
    flow: FlowName,
    left: Annotated[str, typer.Argument(metavar="LEFT", help="A version or a tag.")],
    right: Annotated[str | None, typer.Argument(metavar="RIGHT", help="Another one; default: the newest.")] = None,
) -> Answer:
    """Compare two versions.

    Shows what differs: code, packages, inputs."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().deployments.diff(flow, left, right)
    return Answer(diff_blocks(found), item=record(found))


@command(app, "deployments.tag")
def tag_(
    flow: FlowName, version: VersionName, tag: Annotated[str, typer.Argument(metavar="TAG")], by: By = None
) -> Answer:
    """Move a tag to a version."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().deployments.tag(flow, version, tag, by=by)
    return Answer(moved_blocks(found, tag), item=record(found))


@command(app, "deployments.untag")
def untag(flow: FlowName, tag: Annotated[str, typer.Argument(metavar="TAG")], by: By = None) -> Answer:
    """Take a tag away."""
    from kitaru_nb.client import KitaruClient

    KitaruClient().deployments.untag(flow, tag, by=by)
    return Answer([line(f"Tag {tag} of {flow} is on no version any more.")], item={"flow": flow, "tag": tag})


@command(app, "deployments.rollback")
def rollback(
    flow: FlowName,
    tag: Annotated[str, typer.Option(metavar="TAG", help="The tag to move back.")] = "default",
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="Default: where it was before.")] = None,
    by: By = None,
) -> Answer:
    """Move a tag back to the version that it was on before."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().deployments.rollback(flow, tag, to=to, by=by)
    return Answer(moved_blocks(found, tag), item=record(found))


@command(app, "deployments.history")
def history(
    flow: FlowName, tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only moves of this tag.")] = None
) -> Answer:
    """Show who changed what, and when.

    That is who created, tagged and deleted which version."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().deployments.history(flow, tag=tag)
    return Answer(changes_blocks(found), items=[record(change) for change in found])


@command(app, "deployments.delete")
def delete(flow: FlowName, version: VersionName, by: By = None) -> Answer:
    """Delete a version.

    One that a tag or a living execution uses is refused."""
    from kitaru_nb.client import KitaruClient

    deployments = KitaruClient().deployments
    found = deployments.get(flow, version=version)
    deployments.delete(flow, version, by=by)
    return Answer([line(f"{found.deployment_id} is deleted.")], item=record(found))


def invoke(
    flow: Selected,
    version: Version = None,
    tag: Tag = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="NAME=VALUE", help="JSON, else text; repeatable.")
    ] = None,
    args: Annotated[str | None, typer.Option("--args", metavar="JSON", help="Inputs as one JSON object.")] = None,
    stack: Annotated[str | None, typer.Option(help="Where it runs and is kept; default: the deployment's.")] = None,
    key: Annotated[str | None, typer.Option(help="The same key is the same execution, never a second one.")] = None,
    detach: Detach = False,
) -> Answer:
    """Start an execution of a deployment. Exit codes: 0 done, 1 failed, 75 it waits for an answer."""
    from kitaru_nb.client import KitaruClient

    client = KitaruClient(stack=stack)
    deployment = client.deployments.get(flow, version=version, tag=tag)
    given = {**json_object("--args", args), **typed_inputs(deployment.parameters, inputs)}
    handle = client.deployments.invoke(deployment.deployment_id, inputs=given, stack=stack, key=key)
    if not detach:
        return follow(client, handle.exec_id, Before())
    begun = client.runtime.journal.execution(handle.exec_id)  # with a key perhaps before, on another version
    head = Line((Span("▶ ", "cyan"), Span(begun.exec_id, "bold"), Span(f"  runs {begun.deployment}")))
    watch = command_line("watch", f"kitaru executions logs {begun.exec_id} --follow")
    item = {"exec_id": begun.exec_id, "deployment": begun.deployment, "status": begun.status.value}
    return Answer([head, watch], item=item)


def typed_inputs(parameters: Mapping[str, Any], inputs: list[str] | None) -> dict[str, Any]:
    """Inputs as typed: for a text input what was typed is the text, also where it could be a number."""
    known = parameters.get("properties", {})
    given: dict[str, Any] = pairs("--input", inputs)
    for text in inputs or ():
        name, _, value = text.partition("=")
        if known.get(name, {}).get("type") == "string":
            given[name] = value
    return given


command(app, "deployments.invoke")(invoke)
command(alone, "invoke")(invoke)
