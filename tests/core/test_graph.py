"""Reading long executions in parts: pages of calls, one call, the graph; and folding only what is new."""

from __future__ import annotations

import gc
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest

from core.bench import Bench
from kitaru_nb import (
    KitaruClient,
    KitaruNotFoundError,
    KitaruUserCodeError,
    KitaruWaitingError,
    checkpoint,
    flow,
    log,
    wait,
)
from kitaru_nb.core.folds import Folds
from kitaru_nb.core.lineage import edges
from kitaru_nb.journal.fold import fold
from kitaru_nb.journal.memory import MemoryJournal
from kitaru_nb.model import Event


@checkpoint
def leaf(n: int) -> str:
    log(tokens=n, cost=0.5)
    return f"leaf number {n}"


@checkpoint(type="branch")
def branch(start: int) -> list[str]:
    return [leaf(start), leaf(start + 1)]


@checkpoint
def gather(leaves: list[str]) -> str:
    return " ".join(leaves)


@flow
def tree(size: int) -> str:
    whole = gather(branch(1))
    for n in range(size):
        leaf(10 + n)
    wait("approve", timeout=0)
    return whole


@pytest.fixture
def exec_id(bench: Bench) -> str:
    handle = bench.run(tree, 3)
    bench.complete(handle, approve=True)
    return handle.exec_id


def test_pages_of_calls_join_to_all_calls(bench: Bench, exec_id: str) -> None:
    everything = bench.get(exec_id).checkpoints
    assert [c.selector for c in everything] == ["branch", "leaf", "leaf#2", "gather", "leaf#3", "leaf#4", "leaf#5"]
    pages: list[Any] = []
    while page := bench.executions.checkpoints(exec_id, after=pages[-1].call_id if pages else None, limit=3):
        assert len(page) <= 3
        pages += page
    assert tuple(pages) == everything


def test_a_page_can_hold_the_children_of_one_call(bench: Bench, exec_id: str) -> None:
    outer = bench.executions.checkpoint(exec_id, "branch")
    assert [c.selector for c in bench.executions.checkpoints(exec_id, parent=outer.call_id)] == ["leaf", "leaf#2"]
    assert bench.executions.checkpoints(exec_id, limit=0) == []


def test_one_call_is_found_by_selector_or_id(bench: Bench, exec_id: str) -> None:
    call = bench.executions.checkpoint(exec_id, "leaf#2")
    assert call.artifacts[0].preview["text"] == "'leaf number 2'"
    assert bench.executions.checkpoint(exec_id, call.call_id) == call
    for ask in (bench.executions.checkpoint, lambda e, s: bench.executions.checkpoints(e, after=s)):
        with pytest.raises(
            KitaruNotFoundError, match=r"no checkpoint 'leaf#9'\. It has: branch, leaf, leaf#2"
        ) as caught:
            ask(exec_id, "leaf#9")
        assert caught.value.fix == f"kitaru executions get {exec_id}"


def test_the_graph_says_of_each_call_what_the_details_say(bench: Bench, exec_id: str) -> None:
    execution, graph = bench.get(exec_id), bench.executions.graph(exec_id)
    assert (graph.exec_id, graph.status, graph.seq) == (exec_id, "completed", bench.events(exec_id)[-1].seq)
    assert list(graph.edges) == edges(execution)
    assert [(n.node_id, n.kind) for n in graph.nodes if n.kind != "checkpoint"] == [
        ("input:size", "input"),
        (f"wait:{execution.waits[0].wait_id}", "wait"),
    ]
    nodes = [n for n in graph.nodes if n.kind == "checkpoint"]
    for node, call in zip(nodes, execution.checkpoints, strict=True):
        assert (node.node_id, node.name, node.selector) == (call.call_id, call.name, call.selector)
        assert (node.type, node.status, node.parent) == (call.checkpoint_type, call.status, call.parent)
        assert (node.started_at, node.ended_at) == (call.started_at, call.ended_at)
        assert node.duration == pytest.approx(call.duration, abs=2e-6)
    assert [(n.tokens, n.cost) for n in nodes if n.name == "leaf"] == [(n, 0.5) for n in (1, 2, 10, 11, 12)]
    assert graph.nodes[-1].status == "resolved"


def test_the_graph_shows_what_failed_and_what_runs(bench: Bench) -> None:
    @checkpoint
    def broken() -> None:
        raise ValueError("no")

    @flow
    def failing() -> None:
        broken()

    handle = bench.run(failing)
    with pytest.raises(KitaruUserCodeError, match="no"):
        handle.wait()
    node = bench.executions.graph(handle.exec_id).nodes[0]
    assert (node.status, node.failure) == ("failed", "no")


def test_a_second_graph_shows_the_news_and_keeps_the_rest(bench: Bench) -> None:
    handle = bench.run(tree, 3)
    with pytest.raises(KitaruWaitingError):
        handle.wait()
    first = bench.executions.graph(handle.exec_id)
    leaf2 = bench.executions.checkpoint(handle.exec_id, "leaf#2")
    bench.runtime.journal.append(
        handle.exec_id, [Event(handle.exec_id, "metadata", leaf2.call_id, time.time(), {"tokens": 70})]
    )
    bench.runtime.journal.append(
        handle.exec_id, [Event(handle.exec_id, "metadata", leaf2.call_id, time.time(), {"cost": 9.0, "note": "late"})]
    )
    bench.complete(handle, approve=True)
    second = bench.executions.graph(handle.exec_id)
    assert second == KitaruClient(bench.runtime).executions.graph(handle.exec_id)
    assert (second.status, second.nodes[-1].status) == ("completed", "resolved")
    same = [a is b for a, b in zip(first.nodes, second.nodes, strict=True) if a.kind == "checkpoint"]
    assert same.count(False) == 1


def test_a_call_that_ended_late_but_began_first_renames_the_others(bench: Bench, exec_id: str) -> None:
    ended = [event for event in bench.events(exec_id) if event.kind == "checkpoint.completed"]
    first = next(event for event in ended if event.body["name"] == "leaf")
    bench.executions.graph(exec_id)
    earlier = {**first.body, "started_at": first.body["started_at"] - 0.5e-6}
    bench.runtime.journal.append(exec_id, [first._replace(key="0" * 20, body=earlier, seq=0)])
    graph = bench.executions.graph(exec_id)
    assert graph == KitaruClient(bench.runtime).executions.graph(exec_id)
    assert [n.selector for n in graph.nodes if n.name == "leaf"] == ["leaf", *(f"leaf#{n}" for n in range(2, 7))]


def test_looking_leaves_the_garbage_collector_as_it_was(bench: Bench, exec_id: str) -> None:
    reads = bench.executions
    assert gc.isenabled()
    with Folds(bench.runtime.journal).at(exec_id):
        assert not gc.isenabled()
        reads.graph(exec_id)  # the one inside doesn't turn it on for the one outside
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        reads.graph(exec_id)
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KitaruNotFoundError):
        reads.checkpoint(exec_id, "nothing")
    assert gc.isenabled()


def test_a_header_has_no_calls_but_all_else(bench: Bench, exec_id: str) -> None:
    whole, header = bench.get(exec_id), bench.executions.get(exec_id, details=False)
    assert header.checkpoints == ()
    assert header.artifacts == ()
    assert replace(whole, checkpoints=(), artifacts=()) == header
    assert header.result is not None
    assert header.waits[0].value is True


def test_every_read_refuses_an_unknown_execution(bench: Bench) -> None:
    reads = bench.executions
    for read in (reads.get, reads.graph, reads.checkpoints, lambda e: reads.checkpoint(e, "x")):
        with pytest.raises(KitaruNotFoundError, match="kr-none"):
            read("kr-none")


class CountingJournal(MemoryJournal):
    """Counts the events that were read."""

    read = 0

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        found = super().history(exec_id, after=after)
        self.read += len(found)
        return found


def test_a_second_look_reads_only_what_is_new(bench: Bench) -> None:
    handle = bench.run(tree, 3)
    with pytest.raises(KitaruWaitingError):
        handle.wait()
    journal = bench.runtime.journal
    folds = Folds(journal)
    with folds.at(handle.exec_id) as (row, folding):
        first = folding.execution(row)
        seq = folding.seq
    assert first == fold(journal.execution(handle.exec_id), journal.history(handle.exec_id))
    bench.complete(handle, approve=True)
    with folds.at(handle.exec_id) as (row, folding):
        second = folding.execution(row)
    assert seq < folding.seq
    assert second == fold(journal.execution(handle.exec_id), journal.history(handle.exec_id))
    # What didn't change wasn't made anew.
    assert all(a is b for a, b in zip(first.checkpoints, second.checkpoints, strict=True))


def test_each_prefix_of_a_history_folds_as_the_whole_of_it(bench: Bench, exec_id: str) -> None:
    history, row = bench.events(exec_id), bench.runtime.journal.execution(exec_id)
    counting = CountingJournal(f"memory://{uuid.uuid4().hex}")
    counting.create(row, [e._replace(seq=0) for e in history[:1]])
    folds = Folds(counting)
    for upto in range(1, len(history)):
        with folds.at(exec_id) as (_, folding):
            assert folding.execution(row) == fold(row, history[:upto])
        counting.append(exec_id, [history[upto]])
    assert counting.read == len(history) - 1


def test_only_so_many_calls_are_kept(bench: Bench) -> None:
    ids = [bench.run(tree, 0) for _ in range(3)]
    for handle in ids:
        bench.complete(handle, approve=True)
    folds = Folds(bench.runtime.journal, kept=8)  # each has 4 calls
    for handle in ids:
        with folds.at(handle.exec_id) as (_, folding):
            kept = folding
    with folds.at(ids[-1].exec_id) as (_, folding):
        assert folding is kept
    with folds.at(ids[0].exec_id) as (_, folding):
        assert folding.size == 4
    assert len(folds._kept) == 1
