"""Deployments: which there are, their history, starting one, and moving tags. Each change records who made it."""

from __future__ import annotations

from kitaru_nb.core.control import Started
from kitaru_nb.core.runtime import acting_as
from kitaru_nb.model import Deployment, DeploymentChange
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Desk, Page
from kitaru_nb.surfaces.operations.paging import by_position, foreign


def list_deployments(desk: Desk, caller: Caller, given: a.ListDeployments) -> Page[Deployment]:
    """By flow, and from the newest version on. A page begins after the deployment that the cursor names."""
    deployments = desk.client.deployments
    after_flow, after_version = ("", 0) if given.cursor is None else _parsed(given.cursor)
    found: list[Deployment] = []
    for flow in deployments.flows() if given.flow is None else [given.flow]:
        if flow < after_flow:
            continue
        if flow == after_flow:
            found += [one for one in deployments.list(flow=flow) if one.version < after_version]
        else:
            found += deployments.list(flow=flow, limit=given.limit + 1)
        if len(found) > given.limit:
            return Page(tuple(found[: given.limit]), found[given.limit - 1].deployment_id)
    return Page(tuple(found))


def _parsed(cursor: str) -> tuple[str, int]:
    flow, _, version = cursor.rpartition("@v")
    if not (flow and version.isascii() and version.isdigit() and len(version) < 16):
        raise foreign(cursor)
    return flow, int(version)


def get(desk: Desk, caller: Caller, given: a.OneDeployment) -> Deployment:
    """One deployment: its tags, the schema of its inputs, its commit."""
    return desk.client.deployments.get(given.flow, version=given.version, tag=given.tag)


def history(desk: Desk, caller: Caller, given: a.DeploymentHistory) -> Page[DeploymentChange]:
    """Who made, tagged and deleted what, and when, oldest first."""
    changes = desk.client.deployments.history(given.flow, tag=given.tag)
    return by_position(changes, given.limit, given.cursor)


def invoke(desk: Desk, caller: Caller, given: a.Invoke) -> Started:
    """Start an execution of a deployment, whose inputs are checked first."""
    with acting_as(caller.name):
        handle = desk.client.deployments.invoke(
            given.flow, version=given.version, tag=given.tag, inputs=given.inputs, stack=given.stack, key=given.key
        )
    return Started(handle.exec_id, None)


def tag(desk: Desk, caller: Caller, given: a.MoveTag) -> Deployment:
    """Put a tag on a version; it leaves the one that it was on."""
    return desk.client.deployments.tag(given.flow, given.version, given.tag, by=caller.name)


def untag(desk: Desk, caller: Caller, given: a.OneTag) -> Deployment:
    """Take a tag away; the version that it was on."""
    deployments = desk.client.deployments
    version = deployments.get(given.flow, tag=given.tag).version
    deployments.untag(given.flow, given.tag, by=caller.name)
    return deployments.get(given.flow, version=version)


def rollback(desk: Desk, caller: Caller, given: a.Rollback) -> Deployment:
    """Move a tag back; the version that it is on now."""
    return desk.client.deployments.rollback(given.flow, given.tag, to=given.to, by=caller.name)


def delete(desk: Desk, caller: Caller, given: a.OneVersion) -> Deployment:
    """Delete a version that no tag is on and no execution runs; what it was."""
    found = desk.client.deployments.get(given.flow, version=given.version)
    desk.client.deployments.delete(given.flow, given.version, by=caller.name)
    return found
