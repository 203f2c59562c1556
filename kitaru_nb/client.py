"""`KitaruClient`: one facade over executions, artifacts and waits, for scripts, notebooks, the CLI and servers."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, get_args

from kitaru_nb.core import control
from kitaru_nb.core.control import Started
from kitaru_nb.core.create import create_replay, merged_inputs
from kitaru_nb.core.diff import ExecutionDiff, diff_executions
from kitaru_nb.core.folds import Folds
from kitaru_nb.core.graph import ExecutionGraph, graph
from kitaru_nb.core.handle import FlowHandle
from kitaru_nb.core.launch import start
from kitaru_nb.core.lineage import Edge, edges
from kitaru_nb.core.records import find_artifact
from kitaru_nb.core.replay import ReplayPreview, Scope, plan_replay
from kitaru_nb.core.runtime import Runtime, runtime_of
from kitaru_nb.errors import KitaruNotFoundError, KitaruUsageError
from kitaru_nb.journal.fold import FoldedCall, fold_logs
from kitaru_nb.model import (
    Artifact,
    ArtifactKind,
    CheckpointCall,
    Event,
    Execution,
    ExecutionStatus,
    LogEntry,
    Wait,
    is_exec_id,
)

if TYPE_CHECKING:
    from kitaru_nb.promote.deployments import Deployments
    from kitaru_nb.promote.schedules import Schedules
    from kitaru_nb.stacks.views import Stacks


# Compared and shown as what they refer to: their base's methods do that, and making them anew takes time at each start.


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ArtifactRef(Artifact):
    """An artifact that can be loaded."""

    client: KitaruClient | None = None

    def load(self) -> Any:
        """The value. Raises `KitaruArtifactError` when it is missing or damaged."""
        assert self.client is not None
        return self.client.runtime.store.read(self)

    @property
    def save_type(self) -> str:
        """Kitaru's name of ``kind``."""
        return self.kind


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ExecutionRef(Execution):
    """An execution that can be acted on; every method is one of `KitaruClient.executions`."""

    client: KitaruClient | None = None

    def _actions(self) -> Executions:
        assert self.client is not None
        return self.client.executions

    def refresh(self) -> ExecutionRef:
        """The execution as it stands now."""
        return self._actions().get(self.exec_id)

    def retry(self) -> Started:
        """See `Executions.retry`."""
        return self._actions().retry(self.exec_id)

    def resume(self) -> Started:
        """See `Executions.resume`."""
        return self._actions().resume(self.exec_id)

    def cancel(self) -> ExecutionRef:
        """See `Executions.cancel`."""
        return self._actions().cancel(self.exec_id)

    def replay(self, **options: Any) -> FlowHandle[Any]:
        """See `Executions.replay`."""
        return self._actions().replay(self.exec_id, **options)

    def list_checkpoints(self) -> list[CheckpointCall]:
        """The calls, in the order in which they started, with artifacts that can be loaded."""
        assert self.client is not None
        ref = self.client.artifacts.ref
        calls = self.refresh().checkpoints
        return [dataclasses.replace(call, artifacts=tuple(map(ref, call.artifacts))) for call in calls]

    def list_artifacts(self) -> list[ArtifactRef]:
        """The artifacts, in the order in which they were made."""
        assert self.client is not None
        return self.client.artifacts.list(self.exec_id)

    @property
    def flow_id(self) -> str:
        """Kitaru's id of the flow; here a flow is known by its name."""
        return self.flow_name

    @property
    def status_reason(self) -> str | None:
        """Why it failed, or what it waits for; None otherwise."""
        if self.failure is not None:
            return self.failure.message
        wait = self.pending_wait if self.status is ExecutionStatus.WAITING else None
        return None if wait is None else f"waits for {wait.name}"


_artifact_fields = attrgetter(*(f.name for f in dataclasses.fields(Artifact)))
_execution_fields = attrgetter(*(f.name for f in dataclasses.fields(Execution)))


class Executions:
    """What can be read of executions, and done to them."""

    def __init__(self, client: KitaruClient) -> None:
        self._client = client
        self._runtime = client.runtime
        self._folds = Folds(client.runtime.journal)

    def get(self, exec_id: str, *, details: bool = True) -> ExecutionRef:
        """One execution with all details; with ``details=False`` without checkpoints and artifacts, which is what a
        page about a long one should ask for.

        Raises:
            KitaruNotFoundError: no such execution.
        """
        with self._folds.at(exec_id) as (row, folding):
            execution = folding.execution(row, details=details)
        ref = self._client.artifacts.ref
        result = execution.result and ref(execution.result)
        return self._ref(dataclasses.replace(execution, artifacts=tuple(map(ref, execution.artifacts)), result=result))

    def checkpoints(
        self, exec_id: str, *, after: str | None = None, limit: int = 100, parent: str | None = None
    ) -> builtins.list[CheckpointCall]:
        """A page of the calls of an execution with all details, in the order in which they started.

        Args:
            after: the call id that ended the page before.
            parent: only the calls made inside this one.

        Raises:
            KitaruNotFoundError: no such execution, or no such call in it.
        """
        with self._folds.at(exec_id) as (_, folding):
            calls = folding.calls()
            if after is not None:
                calls = calls[_position(exec_id, calls, after) + 1 :]
            chosen = (c for c in calls if parent is None or c.event.body.get("parent") == parent)
            return [folding.detail(call) for call in itertools.islice(chosen, max(limit, 0))]

    def checkpoint(self, exec_id: str, selector: str) -> CheckpointCall:
        """One call of an execution, with all details: ``name``, ``name#2`` or a call id.

        Raises:
            KitaruNotFoundError: no such execution, or the selector means nothing in it.
        """
        with self._folds.at(exec_id) as (_, folding):
            calls = folding.calls()
            return folding.detail(calls[_position(exec_id, calls, selector)])

    def graph(self, exec_id: str) -> ExecutionGraph:
        """Inputs, calls and waits of an execution as nodes, and the edges between them; quick also for thousands.

        Raises:
            KitaruNotFoundError: no such execution.
        """
        with self._folds.at(exec_id) as (row, folding):
            return graph(row, folding)

    def list(
        self,
        *,
        flow: str | None = None,
        status: str | ExecutionStatus | None = None,
        limit: int = 50,
        before: str | None = None,
        page: int = 1,
        size: int | None = None,
    ) -> list[ExecutionRef]:
        """Executions without details, newest first.

        ``before`` continues after the last id of a page; ``page`` (from 1) with ``size`` counts pages instead, as
        Kitaru does.

        Raises:
            KitaruUsageError: an unknown status, a page below 1, a negative number, or no id to continue after.
        """
        size = limit if size is None else size
        if page < 1 or size < 0:
            raise KitaruUsageError(
                f"page={page} of {size} can't be; the first is 1.", fix="executions.list(page=1, size=20)"
            )
        if before is not None and not is_exec_id(before):
            problem = f"before={before!r} is no id of an execution; expected the last one of a page."
            raise KitaruUsageError(problem, fix="executions.list(before='kr-0123456789ab')")
        wanted = None if status is None else parse_status(status)
        rows = self._runtime.journal.executions(flow=flow, status=wanted, limit=page * size, before=before)
        return [self._ref(row) for row in rows[(page - 1) * size :]]

    def latest(self, *, flow: str | None = None, status: str | ExecutionStatus | None = None) -> ExecutionRef:
        """The newest execution, with all details. Raises `KitaruNotFoundError` when there is none."""
        found = self.list(flow=flow, status=status, limit=1)
        if not found:
            raise KitaruNotFoundError(
                f"There is no execution{f' of {flow!r}' if flow else ''} yet.", fix="my_flow.run()"
            )
        return self.get(found[0].exec_id)

    def resolve(self, selector: str) -> str:
        """The id that ``selector`` means: an id, an unambiguous beginning of one, or ``latest``.

        Raises:
            KitaruNotFoundError: nothing fits.
            KitaruUsageError: several fit; lists them.
        """
        if selector == "latest":
            return self.latest().exec_id
        if len(selector) >= 15:
            return selector
        rows = self._runtime.journal.executions(limit=1000)
        matches = [r.exec_id for r in rows if r.exec_id.startswith(selector) or r.exec_id.endswith(selector)]
        if len(matches) > 1:
            raise KitaruUsageError(
                f"{selector!r} means {len(matches)} executions: {', '.join(matches[:5])}.",
                fix=f"kitaru executions get {matches[0]}",
            )
        if not matches:
            raise KitaruNotFoundError(f"There is no execution {selector!r}.", fix="kitaru executions list")
        return matches[0]

    def logs(
        self, exec_id: str, *, checkpoint: str | None = None, source: str | None = None, limit: int | None = None
    ) -> builtins.list[LogEntry]:
        """What the execution printed and logged, oldest first; the last ``limit`` lines.

        Args:
            checkpoint: only lines of this one: a name, ``name#2``, or a call id.
            source: only ``stdout``, ``stderr`` or ``logging``.

        Raises:
            KitaruNotFoundError: no such execution, or no such checkpoint in one that no worker advances.
        """
        status = self._runtime.journal.execution(exec_id).status
        entries = fold_logs(self._runtime.journal.history(exec_id))
        lives = status in (ExecutionStatus.RUNNING, ExecutionStatus.PENDING)
        named = {None, *(name for entry in entries for name in (entry.checkpoint_name, entry.call_id))}
        if checkpoint not in named and ("#" in str(checkpoint) or not lives):
            checkpoint = self.checkpoint(exec_id, str(checkpoint)).call_id
        chosen = [
            entry
            for entry in entries
            if (checkpoint is None or checkpoint in (entry.checkpoint_name, entry.call_id))
            and (source is None or entry.source == source)
        ]
        return chosen if limit is None else chosen[-limit:]

    def follow(self, exec_id: str, *, poll: float = 0.2) -> Iterator[Event]:
        """Events as they are recorded, until the execution ends or lets go."""
        journal = self._runtime.journal
        seq = 0
        while True:
            status = journal.execution(exec_id).status
            for event in journal.history(exec_id, after=seq):
                seq = event.seq
                yield event
            if status not in (ExecutionStatus.RUNNING, ExecutionStatus.PENDING):
                return
            time.sleep(poll)

    def pending_waits(self, exec_id: str | None = None) -> builtins.list[Wait]:
        """Waits that nobody has answered, oldest first; of all executions without an id."""
        return self._runtime.journal.waits(exec_id=exec_id)

    def input(
        self, exec_id: str, *, value: Any, wait: str | None = None, by: str | None = None, via: str = "client"
    ) -> Started:
        """Answer a wait; a fresh worker goes on. Raises as `kitaru_nb.core.control.answer`."""
        return control.answer(self._runtime, exec_id, value, wait=wait, by=by, via=via)

    def abort_wait(
        self, exec_id: str, *, wait: str | None = None, by: str | None = None, via: str = "client"
    ) -> Started:
        """Close a wait without an answer."""
        return control.abort(self._runtime, exec_id, wait=wait, by=by, via=via)

    def retry(self, exec_id: str) -> Started:
        """Run a failed execution again from where it failed."""
        return control.retry(self._runtime, exec_id)

    def resume(self, exec_id: str) -> Started:
        """Go on with an interrupted or answered execution."""
        return control.resume(self._runtime, exec_id)

    def resume_due(self) -> builtins.list[Started]:
        """Let the clock answer what is due, and start workers."""
        return control.resume_due(self._runtime)

    def cancel(self, exec_id: str, *, by: str | None = None) -> ExecutionRef:
        """End an execution."""
        if control.cancel(self._runtime, exec_id, by=by).deployment is not None:
            from kitaru_nb.promote.workplace import leave

            leave(self._runtime, exec_id)
        return self.get(exec_id)

    def replay(
        self,
        exec_id: str,
        *,
        from_: str | Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        scope: Scope = "downstream",
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> FlowHandle[Any]:
        """Start a new execution from an old one on its stack, with its code as it is now.

        Args:
            from_: what runs again: a checkpoint's name, ``name#2``, a call id, or several of them.
            overrides: what is taken instead: ``checkpoint.NAME`` (its outcome), ``arguments.NAME`` (its inputs: a
                mapping, and for an agent's tool call all its arguments) and ``wait.NAME`` (the answer).
            scope: ``after`` also runs all that came later in program order.
            inputs: new inputs of the flow; ``more_inputs`` are these too, for those with other names than the above.

        Raises:
            KitaruNotFoundError: no such execution, or a selector that means nothing in it.
            KitaruUsageError: what is asked for can't be done; nothing was started.
        """
        inputs = merged_inputs(inputs, more_inputs)
        execution = create_replay(self._runtime, exec_id, from_=from_, overrides=overrides, scope=scope, inputs=inputs)
        if not control.is_interactive(self._runtime, execution.exec_id):
            start(self._runtime, execution)
        return FlowHandle(self._runtime, execution.exec_id)

    def replay_plan(
        self,
        exec_id: str,
        *,
        from_: str | Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        scope: Scope = "downstream",
        inputs: Mapping[str, Any] | None = None,
        **more_inputs: Any,
    ) -> ReplayPreview:
        """What `replay` would run again, reuse and ask; nothing is started. Raises as `replay` does."""
        changed = list(merged_inputs(inputs, more_inputs))
        plan = plan_replay(
            self._runtime, exec_id, from_=from_, overrides=overrides, scope=scope, changed_inputs=changed
        )
        return plan.preview

    def diff(self, exec_id: str, other: str) -> ExecutionDiff:
        """Two executions side by side."""
        return diff_executions(self.get(exec_id), self.get(other))

    def lineage(self, exec_id: str) -> builtins.list[Edge]:
        """The edges between calls, waits, inputs and artifacts."""
        return edges(self.get(exec_id))

    def handle(self, exec_id: str) -> FlowHandle[Any]:
        """A handle on an execution that was started elsewhere."""
        self._runtime.journal.execution(exec_id)
        return FlowHandle(self._runtime, exec_id)

    def _ref(self, execution: Execution) -> ExecutionRef:
        fields: tuple[Any, ...] = (*_execution_fields(execution), self._client)
        return ExecutionRef(*fields)


def _position(exec_id: str, calls: Sequence[FoldedCall], selector: str) -> int:
    """Where a call stands among ``calls``. Raises `KitaruNotFoundError`."""
    for at, call in enumerate(calls):
        if selector in (call.event.key, call.selector):
            return at
    shown = [call.selector for call in calls[:20]] + (["…"] if len(calls) > 20 else [])
    raise KitaruNotFoundError(
        f"{exec_id} has no checkpoint {selector!r}. It has: {', '.join(shown) or 'none'}.",
        fix=f"kitaru executions get {exec_id}",
    )


class Artifacts:
    """What executions recorded."""

    def __init__(self, client: KitaruClient) -> None:
        self._client = client

    def list(
        self,
        exec_id: str,
        *,
        name: str | None = None,
        kind: str | None = None,
        producing_call: str | None = None,
        limit: int | None = None,
    ) -> list[ArtifactRef]:
        """Artifacts of an execution, in the order in which they were made. Raises `KitaruUsageError` for an unknown
        kind."""
        if kind not in (None, *get_args(ArtifactKind)):
            raise KitaruUsageError(
                f"{kind!r} is no kind of artifact. Kinds are: {', '.join(get_args(ArtifactKind))}.",
                fix=f"kitaru artifacts list {exec_id} --kind output",
            )
        execution = self._client.executions.get(exec_id)
        found = [*execution.artifacts, *([execution.result] if execution.result else [])]
        chosen = [
            self.ref(a)
            for a in found
            if (name is None or name in (a.name, *a.names))
            and (kind is None or a.kind == kind)
            and (producing_call is None or a.producing_call == producing_call)
        ]
        return chosen if limit is None else chosen[:limit]

    def get(self, artifact_id: str) -> ArtifactRef:
        """An artifact by id, or by ``EXECUTION/NAME``. Raises `KitaruNotFoundError`."""
        exec_id, _, name = artifact_id.partition("/")
        execution = self._client.executions.get(exec_id)
        for artifact in [*execution.artifacts, *([execution.result] if execution.result else [])]:
            if artifact.artifact_id == artifact_id:
                return self.ref(artifact)
        return self.ref(find_artifact(execution, name))

    def ref(self, artifact: Artifact) -> ArtifactRef:
        """The artifact, loadable."""
        fields: tuple[Any, ...] = (*_artifact_fields(artifact), self._client)
        return ArtifactRef(*fields)


class KitaruClient:
    """Read executions and act on them, deploy and invoke, read stacks.

    ``runtime`` names journal and store; default: those of ``stack``, and without one those of the stack in use.

    Attributes:
        executions: list, read, follow, answer, replay, resume, retry, cancel (`Executions`).
        artifacts: list and load what executions recorded (`Artifacts`).
    """

    def __init__(self, runtime: Runtime | None = None, *, stack: str | None = None) -> None:
        self.runtime = runtime or runtime_of(stack)
        self.executions = Executions(self)
        self.artifacts = Artifacts(self)

    # Loaded on first use: who lists executions needs none of them.

    @functools.cached_property
    def deployments(self) -> Deployments:
        """The deployments of this journal."""
        from kitaru_nb.promote.deployments import Deployments

        return Deployments(self.runtime)

    @functools.cached_property
    def schedules(self) -> Schedules:
        """The schedules of this journal."""
        from kitaru_nb.promote.schedules import Schedules

        return Schedules(self.runtime)

    @functools.cached_property
    def stacks(self) -> Stacks:
        """The stacks of this home."""
        from kitaru_nb.stacks.views import Stacks

        return Stacks(self.runtime.settings)


def parse_status(status: str | ExecutionStatus) -> ExecutionStatus:
    """A status by name. Raises `KitaruUsageError` that lists them."""
    try:
        return ExecutionStatus(status)
    except ValueError as error:
        raise KitaruUsageError(
            f"{status!r} is no status. Statuses are: {', '.join(s.value for s in ExecutionStatus)}."
        ) from error


def replay(exec_id: str, **options: Any) -> FlowHandle[Any]:
    """Start a new execution from an old one: see `Executions.replay`."""
    return KitaruClient().executions.replay(exec_id, **options)
