"""Deployments: a flow's numbered snapshots and the tags that route to them, kept as references of the journal.

Every change is a compare-and-set, so two people who promote at once get two versions, and who moved a tag, and when, is
never lost. References: ``deployments`` (flows), ``deployment:FLOW`` (how many versions and which tags there are),
``deployment:FLOW@v1`` (a version, or that it was deleted), ``deployment:FLOW@TAG`` (the number that a tag is on).
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitaru_nb.core.context import current
from kitaru_nb.core.create import pack_inputs, write_created
from kitaru_nb.core.engine import Input
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.launch import start
from kitaru_nb.core.runners import checked_stack
from kitaru_nb.core.runtime import Runtime, whoami
from kitaru_nb.core.unended import unended
from kitaru_nb.errors import KitaruConflictError, KitaruNotFoundError, KitaruStateError, KitaruUsageError
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Deployment, DeploymentChange, Execution, ExecutionStatus, utc
from kitaru_nb.promote.inputs import checked
from kitaru_nb.promote.revision import file_of, revision_of
from kitaru_nb.promote.schedule_records import starting
from kitaru_nb.promote.selectors import check_tag, number_of, selected, tag_names
from kitaru_nb.promote.snapshot import Snapshot, load_snapshot, save_snapshot

if TYPE_CHECKING:
    from kitaru_nb.core.flow import Flow
    from kitaru_nb.promote.comparison import DeploymentDiff

#: The tag that `invoke` uses when none is named; the first version gets it.
DEFAULT = "default"

_FLOWS = "deployments"


class Deployments:
    """The deployments of one journal. A version is named by number or tag; without either it is that of `DEFAULT`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def _journal(self) -> Journal:
        return self._runtime.journal

    # reading

    def list(self, *, flow: str | None = None, limit: int | None = None) -> builtins.list[Deployment]:
        """All versions of a flow, or of all flows, by flow and from the newest on. Deleted ones are left out."""
        flows = self.flows() if flow is None else [self._known(flow)]
        found: builtins.list[Deployment] = []
        for name in flows:
            tags = self._tags(name)
            for number in range(self._index(name)["versions"], 0, -1):
                if limit is not None and len(found) >= limit:
                    return found
                deployment = self._version(name, number, tags)
                if deployment is not None:
                    found.append(deployment)
        return found

    def flows(self) -> builtins.list[str]:
        """Names of all flows that were ever deployed."""
        return builtins.list(json.loads(self._journal.reference(_FLOWS) or "[]"))

    def get(self, flow: str, *, version: int | str | None = None, tag: str | None = None) -> Deployment:
        """One deployment. ``flow`` may carry the selector: ``brief@prod``, ``brief@v2``.

        Raises:
            KitaruNotFoundError: no such flow, version or tag; lists what there is.
            KitaruUsageError: both a version and a tag, or a version that can't be.
        """
        flow, version, tag = selected(flow, version, tag)
        if tag is not None:
            check_tag(tag)
        self._known(flow)
        if version is not None:
            number = version
        else:
            found = self._tag(flow, tag or DEFAULT)
            if found is None:
                there = ", ".join(sorted(self._tags(flow))) or "none"
                raise KitaruNotFoundError(
                    f"Flow {flow!r} has no tag {tag or DEFAULT!r}. Tags are: {there}.",
                    fix=f"kitaru deployments tag {flow} VERSION {tag or DEFAULT}",
                )
            number = found
        deployment = self._version(flow, number, self._tags(flow))
        if deployment is None:
            there = ", ".join(f"v{d.version}" for d in self.list(flow=flow, limit=10)) or "none"
            gone = "was deleted" if number <= self._index(flow)["versions"] and number > 0 else "does not exist"
            raise KitaruNotFoundError(
                f"Version v{number} of flow {flow!r} {gone}. Versions are: {there}.",
                fix=f"kitaru deployments list {flow}",
            )
        return deployment

    def snapshot(self, flow: str, *, version: int | str | None = None, tag: str | None = None) -> Snapshot:
        """What a deployment consists of, verified. Raises as `get`, and `KitaruArtifactError`."""
        deployment = self.get(flow, version=version, tag=tag)
        return load_snapshot(self._runtime, deployment.digest, deployment.size)

    def history(self, flow: str, *, tag: str | None = None) -> builtins.list[DeploymentChange]:
        """What happened to a flow's versions and tags (or to one tag), by whom and when, oldest first."""
        if tag is not None:
            check_tag(tag)
        self._known(flow)
        changes: builtins.list[DeploymentChange] = []
        if tag is None:
            for number in range(1, self._index(flow)["versions"] + 1):
                for at, value, by in self._journal.reference_history(_version_name(flow, number)):
                    what = "deleted" if value is None or json.loads(value).get("deleted") else "created"
                    changes.append(DeploymentChange(utc(at), by, what, number))
        for name in self._index(flow)["tags"] if tag is None else [tag]:
            before: int | None = None
            for at, value, by in self._journal.reference_history(_tag_name(flow, name)):
                now = None if value is None else int(value)
                what = "untagged" if now is None else "tagged"
                changes.append(DeploymentChange(utc(at), by, what, now, name, before))
                before = now
        return sorted(changes, key=lambda c: c.at)

    def diff(self, flow: str, left: int | str, right: int | str | None = None) -> DeploymentDiff:
        """What differs between two versions or tags; ``right`` is the newest version when left out."""
        from kitaru_nb.promote.comparison import compare

        newest = f"v{self._index(self._known(flow))['versions']}"
        one, other = (self.get(f"{flow}@{s}") for s in (left, newest if right is None else right))
        return compare(one, self.snapshot(one.deployment_id), other, self.snapshot(other.deployment_id))

    # changing

    def create(
        self,
        target: str | Path | Flow[..., Any],
        *,
        name: str | None = None,
        tags: str | Sequence[str] | Mapping[str, bool] = (),
        stack: str | None = None,
        rehearse: bool = False,
        by: str | None = None,
        recorded: Runtime | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Deployment:
        """Promote a notebook (its path), or deploy a flow (itself, or ``file.py:flow``), as the next version.

        Args:
            stack: where its executions run; default: the stack in use.
            recorded: where the notebook's own executions are; default: here.
            inputs: of a flow: values that its executions take when they are given no others.

        Raises:
            KitaruUsageError: it can't be promoted; lists all that there is to mend.
        """
        from kitaru_nb.promote.building import build  # loads Jupyter, which other methods don't need

        stack = checked_stack(self._runtime, stack)
        wanted = tag_names(tags)
        snapshot = build(self._runtime, target, name=name, rehearse=rehearse, defaults=inputs, recorded=recorded)
        return self.add(snapshot, tags=wanted, stack=stack, by=by, source=file_of(target))

    def add(
        self,
        snapshot: Snapshot,
        *,
        tags: Sequence[str] = (),
        stack: str | None = None,
        by: str | None = None,
        source: Path | None = None,
    ) -> Deployment:
        """Store a snapshot as the next version of its flow. The first version gets the tag `DEFAULT` too.

        Args:
            source: the file that it was made from, whose Git commit is noted.

        Raises:
            KitaruConflictError: somebody else moved a tag at this moment; the version is there without it.
        """
        stack = checked_stack(self._runtime, stack)
        for tag in tags:
            check_tag(tag)
        save_snapshot(self._runtime, snapshot)
        manifest = snapshot.manifest
        commit, dirty = revision_of(source) if source is not None else (None, False)
        record = {
            "digest": snapshot.digest,
            "size": len(snapshot.data),
            "parameters": manifest.parameters,
            "kind": manifest.kind,
            "stack": stack,
            "python": manifest.python,
            "commit_sha": commit,
            "commit_dirty": dirty,
        }
        flow, who = manifest.flow, by or whoami()
        number = self._append(flow, json.dumps(record), who)
        self._change(_FLOWS, "[]", lambda flows: sorted({*flows, flow}), who)
        self._register(flow, versions=number, by=who)
        self._tag_new(flow, number, tags, who)
        return self.get(flow, version=number)

    def _tag_new(self, flow: str, number: int, tags: Sequence[str], by: str) -> None:
        """Put all tags on a new version. Raises `KitaruConflictError` for one that somebody else moved, in the end."""
        lost: KitaruConflictError | None = None
        for tag in dict.fromkeys([*([DEFAULT] if number == 1 else []), *tags]):
            try:
                self.tag(flow, number, tag, by=by)
            except KitaruConflictError as conflict:
                if tag in tags:  # that it is the first one's by itself holds no longer
                    conflict.message = f"{flow}@v{number} is deployed, but without its tag. {conflict.message}"
                    conflict.fix = f"kitaru deployments tag {flow} {number} {tag}"
                    lost = conflict
        if lost is not None:
            raise lost

    def _append(self, flow: str, record: str, by: str) -> int:
        """Take the next free number; one that somebody takes at this moment isn't free."""
        number = int(self._index(flow)["versions"]) + 1
        while True:
            try:
                self._journal.set_reference(_version_name(flow, number), record, expected=None, by=by)
            except KitaruConflictError:
                number += 1
            else:
                return number

    def tag(
        self, flow: str, version: int | str, tag: str, *, exclusive: bool = True, by: str | None = None
    ) -> Deployment:
        """Put a tag on a version; it leaves the version that it was on. Executions that run stay where they are.

        Args:
            exclusive: a tag is on one version at a time; kept for code written for Kitaru.

        Raises:
            KitaruNotFoundError: no such flow or version.
            KitaruUsageError: a name that can't be a tag's, or ``exclusive=False``.
            KitaruConflictError: somebody else moved the tag at this moment; says to which version.
        """
        if not exclusive:
            raise KitaruUsageError(
                f"Tag {tag!r} can't be on two versions: it would not say which one to start.",
                fix=f"client.deployments.tag({flow!r}, {version!r}, {tag!r})",
            )
        check_tag(tag)
        deployment = self.get(flow, version=version)
        before = self._tag(deployment.flow, tag)
        return self._route(deployment.flow, tag, before, deployment.version, by or whoami())

    def untag(self, flow: str, tag: str, *, by: str | None = None) -> None:
        """Take a tag away. Raises `KitaruNotFoundError` when it is on no version."""
        number = self.get(flow, tag=tag).version
        self._move(flow, tag, number, None, by or whoami())

    def rollback(
        self, flow: str, tag: str = DEFAULT, *, to: int | str | None = None, by: str | None = None
    ) -> Deployment:
        """Move a tag back to the version that it was on before (or to ``to``).

        Raises:
            KitaruStateError: it is on the first version that it was on, or the one before was deleted.
        """
        current = self.get(flow, tag=tag).version
        target = number_of(to) if to is not None else self._before(flow, tag)
        if self._version(flow, target, {}) is None:
            raise KitaruStateError(
                f"Tag {tag!r} of flow {flow!r} can't be rolled back to v{target}, which was deleted.",
                fix=f"kitaru deployments tag {flow} VERSION {tag}",
            )
        return self._route(flow, tag, current, target, by or whoami())

    def _before(self, flow: str, tag: str) -> int:
        """Where a tag was before: rolling back twice goes two moves back, not to and fro. Raises `KitaruStateError`."""
        moves = [int(v) for _, v, _ in self._journal.reference_history(_tag_name(flow, tag)) if v is not None]
        path: builtins.list[int] = []
        for number in moves:
            if number in path:  # back on it: what came in between is undone
                del path[path.index(number) :]
            path.append(number)
        if len(path) > 1:
            return path[-2]
        others = [number for number in reversed(moves) if number != path[-1]]
        since = f"is back on v{path[-1]}, the first that it was on" if others else "was on no other version"
        again = f"rollback {flow} --tag {tag} --to v{others[0]}" if others else f"tag {flow} VERSION {tag}"
        raise KitaruStateError(
            f"Tag {tag!r} of flow {flow!r} can't be rolled back: it {since}.", fix=f"kitaru deployments {again}"
        )

    def delete(self, flow: str, version: int | str, *, by: str | None = None) -> None:
        """Delete a version: it can't be invoked any more. Its number is never used again.

        Raises:
            KitaruStateError: a tag is on it, a schedule starts it, or an execution that has not ended runs it.
        """
        deployment = self.get(flow, version=version)
        if deployment.tags:
            tag = deployment.tags[0]
            raise KitaruStateError(
                f"{deployment.deployment_id} has the tag {tag!r}; it is in use.",
                fix=f"kitaru deployments tag {flow} VERSION {tag}  # or: kitaru deployments untag {flow} {tag}",
            )
        if (schedule := starting(self._journal, deployment.flow, deployment.version)) is not None:
            raise KitaruStateError(
                f"{deployment.deployment_id} is in use: the schedule {schedule!r} starts it.",
                fix=f"kitaru deployments unschedule {schedule}",
            )
        if (exec_id := self._used_by(deployment)) is not None:
            raise KitaruStateError(
                f"{deployment.deployment_id} is in use: execution {exec_id} has not ended.",
                fix=f"kitaru executions cancel {exec_id}",
            )
        name, deleted, who = _version_name(flow, deployment.version), json.dumps({"deleted": True}), by or whoami()
        known = self._journal.reference(name)
        self._journal.set_reference(name, deleted, expected=known, by=who)
        if deployment.version in self._tags(flow).values():  # it got a tag in this moment
            self._journal.set_reference(name, known, expected=deleted, by=who)
            self.delete(flow, version, by=by)

    def _used_by(self, deployment: Deployment) -> str | None:
        mine = deployment.deployment_id
        return next(
            (row.exec_id for row in unended(self._journal, flow=deployment.flow) if row.deployment == mine), None
        )

    # starting

    def invoke(
        self,
        flow: str,
        *,
        version: int | str | None = None,
        tag: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        stack: str | None = None,
        key: str | None = None,
    ) -> FlowHandle[Any]:
        """Start an execution of a deployment; a handle, at once. It stays on this version whatever happens to tags.

        Args:
            stack: where it runs; default: the deployment's.
            key: the same key is the same execution, never a second one. Inside an execution there is one by itself: a
                flow that is resumed finds the execution that it had started.

        Raises:
            KitaruNotFoundError: no such flow, version or tag.
            KitaruUsageError: inputs that don't fit; nothing was started.
        """
        key = key or _key_of_caller(flow, version, tag, inputs or {})
        execution = self.prepare(flow, version=version, tag=tag, inputs=inputs, stack=stack, key=key)
        if execution.status in (ExecutionStatus.PENDING, ExecutionStatus.INTERRUPTED):
            start(self._runtime, execution)
        return FlowHandle(self._runtime, execution.exec_id)

    def prepare(
        self,
        flow: str,
        *,
        version: int | str | None = None,
        tag: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        stack: str | None = None,
        key: str | None = None,
    ) -> Execution:
        """`invoke`, but nothing is started yet. Raises as that."""
        deployment, values, place = self.fitting(flow, version=version, tag=tag, inputs=inputs, stack=stack)
        blob = bytearray()
        body = {
            "ref": {"kind": "snapshot", "digest": deployment.digest, "size": deployment.size},
            "inputs": pack_inputs(self._runtime, values, blob),
            "options": {},
        }
        return write_created(
            self._runtime, deployment.flow, place, body, blob, key=key, deployment=deployment.deployment_id
        )

    def fitting(
        self,
        flow: str,
        *,
        version: int | str | None = None,
        tag: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        stack: str | None = None,
    ) -> tuple[Deployment, dict[str, Any], str]:
        """What would be invoked with what, and where. Raises as `invoke`."""
        deployment = self.get(flow, version=version, tag=tag)
        values = checked(deployment, inputs or {})
        return deployment, values, checked_stack(self._runtime, stack or deployment.stack)

    # references

    def _known(self, flow: str) -> str:
        if "@" in flow:
            name = flow.partition("@")[0]
            raise KitaruUsageError(f"{flow!r} names a version; expected a flow's name.", fix=name)
        if self._journal.reference(_flow_ref(flow)) is None:
            there = ", ".join(self.flows()) or "none"
            raise KitaruNotFoundError(
                f"There is no deployment of a flow {flow!r}. Flows are: {there}.", fix="kitaru promote notebook.ipynb"
            )
        return flow

    def _index(self, flow: str) -> dict[str, Any]:
        text = self._journal.reference(_flow_ref(flow))
        return dict(json.loads(text)) if text else {"versions": 0, "tags": []}

    def _version(self, flow: str, number: int, tags: Mapping[str, int]) -> Deployment | None:
        text = self._journal.reference(_version_name(flow, number))
        record = json.loads(text) if text else {"deleted": True}
        if record.get("deleted"):
            return None
        at, _, by = self._journal.reference_history(_version_name(flow, number))[0]
        mine = tuple(sorted(t for t, n in tags.items() if n == number))
        return Deployment(flow, number, created_at=utc(at), created_by=by, tags=mine, **record)

    def _tags(self, flow: str) -> dict[str, int]:
        found = {tag: self._tag(flow, tag) for tag in self._index(flow)["tags"]}
        return {tag: number for tag, number in found.items() if number is not None}

    def _tag(self, flow: str, tag: str) -> int | None:
        text = self._journal.reference(_tag_name(flow, tag))
        return None if text is None else int(text)

    def _route(self, flow: str, tag: str, before: int | None, after: int, by: str) -> Deployment:
        """Put a tag on a version; not if that is deleted in this moment, which is said as by `get`."""
        while True:
            self._move(flow, tag, before, after, by)
            if self._version(flow, after, {}) is not None:
                return self.get(flow, version=after)
            self._move(flow, tag, after, before, by)
            self.get(flow, version=after)  # or its deletion was taken back: once more

    def _move(self, flow: str, tag: str, before: int | None, after: int | None, by: str) -> None:
        if before == after:
            return
        if after is not None:  # first, so that every tag that is on a version is known
            self._register(flow, tag=tag, by=by)
        try:
            self._journal.set_reference(_tag_name(flow, tag), _text(after), expected=_text(before), by=by)
        except KitaruConflictError as conflict:
            now = "no version" if conflict.existing is None else f"v{conflict.existing}"
            error = KitaruConflictError(
                f"Tag {tag!r} of flow {flow!r} was moved to {now} by somebody else at this moment.",
                fix=f"kitaru deployments history {flow} --tag {tag}",
            )
            error.existing = conflict.existing
            raise error from conflict

    def _register(self, flow: str, *, versions: int = 0, tag: str | None = None, by: str) -> None:
        def changed(index: dict[str, Any]) -> dict[str, Any]:
            tags = sorted({*index["tags"], *([tag] if tag else [])})
            return {"versions": max(index["versions"], versions), "tags": tags}

        self._change(_flow_ref(flow), '{"versions": 0, "tags": []}', changed, by)

    def _change(self, name: str, empty: str, change: Callable[[Any], Any], by: str) -> None:
        """Apply a change to a reference that others may change at the same time."""
        while True:
            known = self._journal.reference(name)
            wanted = json.dumps(change(json.loads(known or empty)))
            if wanted == known:
                return
            try:
                self._journal.set_reference(name, wanted, expected=known, by=by)
            except KitaruConflictError:
                continue  # somebody else was faster: look again
            return


def _key_of_caller(flow: str, version: object, tag: str | None, inputs: Mapping[str, Any]) -> str | None:
    """A key that is the same whenever the running execution comes to this very call again; None outside of one."""
    frame = current.get()
    if frame is None:
        return None
    given = [Input("flow", flow, f"{flow} {version} {tag}"), Input("inputs", inputs, repr(sorted(inputs.items())))]
    call_id, _ = frame.run.engine.identify(frame, "invoke", given)
    return f"{frame.run.exec_id}:{call_id}"


def _flow_ref(flow: str) -> str:
    return f"deployment:{flow}"


def _version_name(flow: str, number: int) -> str:
    return f"deployment:{flow}@v{number}"


def _tag_name(flow: str, tag: str) -> str:
    return f"deployment:{flow}@{tag}"


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
