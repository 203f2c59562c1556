"""``kitaru deployments schedule``: deployments that the server starts by the clock."""

from __future__ import annotations

from typing import Annotated

import typer

from kitaru_nb.surfaces.commands.actions import By, json_object
from kitaru_nb.surfaces.commands.deployments import Selected, Tag, Version, app, typed_inputs
from kitaru_nb.surfaces.console import Answer, command, record
from kitaru_nb.surfaces.render import line
from kitaru_nb.surfaces.schedule_view import changes_blocks, scheduled_blocks, schedules_blocks

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


@command(app, "deployments.schedule")
def schedule(
    flow: Selected,
    cron: Annotated[
        str, typer.Option(metavar="CRON", help='Minute, hour, day, month, day of the week: "0 7 * * 1-5".')
    ],
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Where the hours are read: Europe/Berlin.")] = "UTC",
    version: Version = None,
    tag: Tag = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="NAME=VALUE", help="JSON, else text; repeatable.")
    ] = None,
    args: Annotated[str | None, typer.Option("--args", metavar="JSON", help="Inputs as one JSON object.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The schedule's name; default: the flow's.")] = None,
    stack: Annotated[str | None, typer.Option(help="Where it runs and is kept; default: the deployment's.")] = None,
    catch_up: Annotated[
        str, typer.Option(metavar="WHICH", help="Of the times missed while no server ran: skip, one (the last) or all.")
    ] = "skip",
    by: By = None,
) -> Answer:
    """Have the server start a deployment by the clock.

    A tag is looked up each time, so that moving it changes what starts."""
    from typing import cast

    from kitaru_nb.client import KitaruClient
    from kitaru_nb.promote.schedules import CatchUp

    client = KitaruClient(stack=stack)
    deployment = client.deployments.get(flow, version=version, tag=tag)
    made = client.schedules.create(
        flow,
        cron=cron,
        timezone=timezone,
        name=name,
        version=version,
        tag=tag,
        inputs={**json_object("--args", args), **typed_inputs(deployment.parameters, inputs)},
        stack=stack,
        catch_up=cast(CatchUp, catch_up),
        by=by,
    )
    return Answer(scheduled_blocks(made), item=record(made))


@command(app, "deployments.schedules")
def schedules(flow: Annotated[str | None, typer.Argument(metavar="FLOW", help="Only this flow.")] = None) -> Answer:
    """List schedules.

    Each with when it comes next, and what came of it last."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().schedules.list(flow=flow)
    return Answer(schedules_blocks(found), items=[record(one) for one in found])


@command(app, "deployments.schedule-history")
def history(name: Name) -> Answer:
    """Show what a schedule started, and when.

    Also who made and deleted it."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().schedules.history(name)
    return Answer(changes_blocks(found), items=[record(change) for change in found])


@command(app, "deployments.unschedule")
def unschedule(name: Name, by: By = None) -> Answer:
    """Delete a schedule. What it started goes on."""
    from kitaru_nb.client import KitaruClient

    found = KitaruClient().schedules.delete(name, by=by)
    return Answer([line(f"{found.flow} is no longer started by the schedule {name}.")], item=record(found))
