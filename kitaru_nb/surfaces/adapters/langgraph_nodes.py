"""A copy of a compiled graph whose nodes are checkpoints, and the state of its thread between runs.

LangGraph runs a graph from a checkpointer's last step. Here the execution's own record is that checkpointer: a resumed
run goes through the graph again, and nodes that have finished give back what they returned. Only at an interrupt the
thread's state is kept, as part of the run's result.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple
from langgraph.constants import START
from langgraph.errors import GraphBubbleUp
from langgraph.graph.message import add_messages
from langgraph.pregel import Pregel
from langgraph.types import Command

from kitaru_nb.core.checkpoint import checkpoint
from kitaru_nb.core.context import current
from kitaru_nb.core.engine import digest
from kitaru_nb.surfaces.adapters.base import Operation, Part, Recorded, perform, perform_async, within

__all__ = [
    "SavedStep",
    "Thread",
    "ThreadSaver",
    "Unfinished",
    "Visit",
    "durable_graph",
    "graph_code",
    "projected",
    "with_ids",
]


class Unfinished(BaseException):
    """A node or tool let go without an outcome (an interrupt, a command to a parent graph): nothing is recorded."""

    def __init__(self, signal: GraphBubbleUp) -> None:
        super().__init__(str(signal))
        self.signal = signal


@dataclass(frozen=True)
class SavedStep:
    """The last step of one (sub)graph of a thread.

    Attributes:
        namespace: which subgraph; "" for the graph itself.
        checkpoint, metadata: LangGraph's own.
        writes: what tasks of the step have written so far: (task id, number, channel, value).
    """

    namespace: str
    checkpoint: Mapping[str, Any]
    metadata: Mapping[str, Any]
    writes: Sequence[tuple[str, int, str, Any]]


@dataclass(frozen=True)
class Interrupted:
    """A node that was left at an interrupt, to be entered again.

    Attributes:
        node: its name.
        state: token of the state with which it was entered.
        inside: scope of what it had done: found again instead of done again.
    """

    node: str
    state: str
    inside: str


@dataclass(frozen=True)
class Thread:
    """The state of a graph between two runs.

    Attributes:
        thread_id: LangGraph's name of the thread.
        scope: identity of the calls of the run that left it.
        steps: the last step of each (sub)graph.
        run: id of the call that left it.
        interrupted: nodes to be entered again.
    """

    thread_id: str
    scope: str
    steps: Sequence[SavedStep] = ()
    run: str = ""
    interrupted: Sequence[Interrupted] = ()


class ThreadSaver(BaseCheckpointSaver[int]):
    """A checkpointer that holds one thread for the time of one run."""

    def __init__(self, thread: Thread) -> None:
        super().__init__()
        self.thread = thread
        self._steps: dict[str, dict[str, CheckpointTuple]] = {}
        self._writes: dict[tuple[str, str], dict[tuple[str, int], tuple[str, Any]]] = {}
        for step in thread.steps:
            found = cast(Any, step.checkpoint)
            self._keep(step.namespace, found, step.metadata, None)
            kept = self._writes.setdefault((step.namespace, found["id"]), {})
            for task_id, number, channel, value in step.writes:
                kept[task_id, number] = (channel, value)

    def saved(self) -> Thread:
        """The thread as it is now."""
        steps = []
        for namespace, known in self._steps.items():
            last = known[max(known)]
            kept = self._writes.get((namespace, last.checkpoint["id"]), {})
            writes = [(*key, *write) for key, write in kept.items()]
            steps.append(SavedStep(namespace, dict(last.checkpoint), dict(last.metadata), writes))
        return replace(self.thread, steps=steps)

    def _config(self, namespace: str, checkpoint_id: str) -> RunnableConfig:
        configurable = {
            "thread_id": self.thread.thread_id,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
        return {"configurable": configurable}

    def _keep(self, namespace: str, found: Any, metadata: Any, parent: RunnableConfig | None) -> RunnableConfig:
        # A copy: nodes may change values of the state in place while the step runs.
        config = self._config(namespace, found["id"])
        self._steps.setdefault(namespace, {})[found["id"]] = CheckpointTuple(
            config, copy.deepcopy(found), metadata, parent
        )
        return config

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The last step, or the one that ``config`` names."""
        configurable = config["configurable"]
        namespace = configurable.get("checkpoint_ns", "")
        known = self._steps.get(namespace)
        if not known:
            return None
        found = known.get(configurable.get("checkpoint_id") or max(known))
        if found is None:
            return None
        kept = self._writes.get((namespace, found.checkpoint["id"]), {})
        writes = [(task_id, *write) for (task_id, _), write in kept.items()]
        return found._replace(checkpoint=copy.deepcopy(found.checkpoint), pending_writes=writes)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """All steps of the thread that are known, newest first."""
        namespace = (config or {"configurable": {}})["configurable"].get("checkpoint_ns")
        for name, known in self._steps.items():
            if namespace is None or name == namespace:
                for checkpoint_id in sorted(known, reverse=True)[:limit]:
                    found = self.get_tuple(self._config(name, checkpoint_id))
                    assert found is not None
                    yield found

    def put(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        """Keep a step."""
        configurable = config["configurable"]
        parent = configurable.get("checkpoint_id")
        namespace = configurable.get("checkpoint_ns", "")
        return self._keep(namespace, checkpoint, metadata, self._config(namespace, parent) if parent else None)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task of the current step has written."""
        configurable = config["configurable"]
        key = configurable.get("checkpoint_ns", ""), configurable["checkpoint_id"]
        kept = self._writes.setdefault(key, {})
        for index, (channel, value) in enumerate(writes):
            kept[task_id, _order(channel, index)] = (channel, value)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return self.get_tuple(config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        for found in self.list(config, **options):
            yield found

    async def aput(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        """As `put`."""
        return self.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        self.put_writes(config, writes, task_id, task_path)


def _order(channel: str, index: int) -> int:
    """Errors, interrupts and the like are kept once for each task; LangGraph gives them numbers below zero."""
    return WRITES_IDX_MAP.get(channel, index)


@dataclass(slots=True)
class Visit:
    """One run through a graph.

    Attributes:
        scope: identity of the run's calls.
        finished: ids of the calls of nodes that have finished, for the edges of lineage.
        resumed: nodes that the run before has left at an interrupt.
        interrupted: those that this one leaves.
        seen: how many times a node was entered with one state.
    """

    scope: str
    finished: list[str] = field(default_factory=list)
    resumed: list[Interrupted] = field(default_factory=list)
    interrupted: list[Interrupted] = field(default_factory=list)
    seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def enter(self, node: str, state: Any) -> Interrupted:
        """The node as it is entered now."""
        frame = current.get()
        token = (frame.run.store.token(state) if frame is not None else None) or "?"
        for left in self.resumed:
            if (left.node, left.state) == (node, token):
                self.resumed.remove(left)
                return left
        number = self.seen[node, token] = self.seen.get((node, token), -1) + 1
        return Interrupted(node, token, digest(self.scope, "inside", node, token, str(number)))


def durable_graph(graph: Pregel[Any, Any, Any, Any], name: str, visit: Visit) -> Pregel[Any, Any, Any, Any]:
    """The graph with a checkpoint around each of its nodes; those of subgraphs that are nodes, too."""
    nodes = {}
    for key, node in graph.nodes.items():
        if key == START:
            nodes[key] = node
        elif isinstance(node.bound, Pregel):
            inner = durable_graph(node.bound, f"{name}.{key}", visit)
            nodes[key] = node.copy({"bound": Subgraph(inner, f"{name}.{key}", visit), "subgraphs": [inner]})
        else:
            nodes[key] = node.copy({"bound": Node(node.bound, f"{name}.{key}", visit, graph)})
    return graph.copy({"nodes": nodes})


class Node(Runnable[Any, Any]):
    """One node: what it returns is recorded, and given back when it is entered again with the same state."""

    name: str

    def __init__(self, bound: Runnable[Any, Any], name: str, visit: Visit, graph: Pregel[Any, Any, Any, Any]) -> None:
        self.bound = bound
        self.name = name
        self.visit = visit
        self.graph = graph

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Run the node once."""
        operation, entered = self._operation(input)

        def body() -> Any:
            try:
                with within(entered.inside):
                    return with_ids(self.bound.invoke(input, config, **options), self.graph, _drawn)
            except GraphBubbleUp as signal:
                raise Unfinished(signal) from signal

        try:
            value = perform(operation, body)
        except Unfinished as unfinished:
            self.visit.interrupted.append(entered)
            raise unfinished.signal from None
        return self._finished(operation, value)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Run the node once."""
        operation, entered = self._operation(input)

        async def body() -> Any:
            try:
                with within(entered.inside):
                    return with_ids(await self.bound.ainvoke(input, config, **options), self.graph, _drawn)
            except GraphBubbleUp as signal:
                raise Unfinished(signal) from signal

        try:
            value = await perform_async(operation, body)
        except Unfinished as unfinished:
            self.visit.interrupted.append(entered)
            raise unfinished.signal from None
        return self._finished(operation, value)

    def _operation(self, state: Any) -> tuple[Operation[Any], Interrupted]:
        inputs = {"state": projected(state)}
        operation = Operation[Any](
            self.name,
            "graph_node",
            inputs,
            encode=lambda value: Recorded((Part("output", value),)),
            reads={"state": list(self.visit.finished)},
            code=code_of(self.bound),
        )
        return operation, self.visit.enter(self.name, inputs["state"])

    def _finished(self, operation: Operation[Any], value: Any) -> Any:
        if operation.call_id is not None:
            self.visit.finished.append(operation.call_id)
        return value


class Subgraph(Runnable[Any, Any]):
    """A graph that is a node of another one: no checkpoint of its own, its nodes are."""

    def __init__(self, graph: Pregel[Any, Any, Any, Any], name: str, visit: Visit) -> None:
        self.graph = graph
        self.name = name
        self.visit = visit

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Run the subgraph."""
        return self.graph.invoke(input, config, **options)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Run the subgraph."""
        return await self.graph.ainvoke(input, config, **options)


def graph_code(graph: Pregel[Any, Any, Any, Any]) -> str:
    """Digest of all nodes' functions."""
    return digest(*(f"{name}={code_of(node.bound) or ''}" for name, node in sorted(graph.nodes.items())))


def code_of(bound: Any) -> str | None:
    """Digest of a node's function."""
    if isinstance(bound, Pregel):
        return graph_code(bound)
    function = getattr(bound, "func", None) or getattr(bound, "afunc", None)
    return checkpoint(function).code if callable(function) else None


# messages: LangGraph draws an id for each that has none, which would be another one in every process


def with_ids(value: Any, graph: Pregel[Any, Any, Any, Any], draw: Callable[[int], str]) -> Any:
    """An update of the state in which each message has an id.

    Args:
        draw: number of a message in the update → the id for it.
    """
    count = itertools.count()

    def identified(found: Any) -> Any:
        several = isinstance(found, list)
        messages = convert_to_messages(found if several else [found])
        for message in messages:
            number = next(count)
            message.id = message.id or draw(number)
        return messages if several else messages[0]

    def updated(found: Any) -> Any:
        if isinstance(found, Command):
            return replace(found, update=updated(found.update))
        if isinstance(found, list) and any(isinstance(item, Command) for item in found):
            return [updated(item) for item in found]
        if isinstance(found, dict):
            return {k: identified(v) if _adds_messages(graph, k) else v for k, v in found.items()}
        return found

    return updated(value)


def _adds_messages(graph: Pregel[Any, Any, Any, Any], key: Any) -> bool:
    return getattr(graph.channels.get(key), "operator", None) is add_messages


def _drawn(_: int) -> str:
    return str(uuid.uuid4())


def projected(value: Any) -> Any:
    """A state without the ids of messages, which are no part of what it says."""
    if isinstance(value, BaseMessage):
        kept = {k: v for k, v in value.__dict__.items() if k != "id" and v not in (None, {}, [])}
        return {"message": value.type, **kept}
    if isinstance(value, Mapping):
        return {k: projected(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(projected(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: projected(getattr(value, f.name)) for f in fields(value)}
    if hasattr(type(value), "model_fields"):
        return {name: projected(getattr(value, name)) for name in type(value).model_fields}
    return value
