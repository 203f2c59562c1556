"""What the journal's contract runs in other processes. Small, because each of them imports it anew."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec

from kitaru_nb.errors import KitaruError
from kitaru_nb.journal.base import Journal, this_process
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event, Lease

P = ParamSpec("P")
Pipe = Any  # multiprocessing's Connection, whose class differs between systems


@contextmanager
def start(work: Callable[Concatenate[Pipe, P], None], *args: P.args, **kwargs: P.kwargs) -> Iterator[Pipe]:
    """Run ``work(pipe, ...)`` in a fresh process; yields this end of the pipe. In the end the process is gone."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *args), kwargs=kwargs, daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # whoever still listens hears the end of the pipe
        process.join(30)
        process.kill()
        process.join()
        process.close()


def claim_at_once(pipe: Pipe, url: str, exec_id: str) -> None:
    """Say ready, wait for go, claim; send the lease or the error, and live on until the pipe ends."""
    journal = open_journal(url)
    pipe.send("ready")
    pipe.recv()
    pipe.send(_outcome(lambda: journal.claim(exec_id, this_process())))
    _wait_for_the_end(pipe, journal)


def hold(pipe: Pipe, url: str, exec_id: str) -> None:
    """Claim, append one event, send the lease, and live on until the pipe ends."""
    journal = open_journal(url)
    lease = journal.claim(exec_id, this_process(), ttl=1000)
    journal.append(exec_id, [Event(exec_id, "metadata", "", time.time(), {"from": "holder"})], lease=lease)
    pipe.send(lease)
    _wait_for_the_end(pipe, journal)


def claim_by_wrong_clocks(pipe: Pipe, url: str, exec_id: str) -> None:
    """For each number of seconds that comes: claim for a minute with a clock that is so much ahead; send the lease or
    the error. None is the end."""
    true_time = time.time
    while (skew := pipe.recv()) is not None:
        time.time = lambda skew=skew: true_time() + skew  # type: ignore[misc]
        journal = open_journal(url)
        pipe.send(_outcome(lambda journal=journal: journal.claim(exec_id, this_process(), ttl=60)))  # type: ignore[misc]
        journal.close()


def append_with(pipe: Pipe, url: str, lease: Lease) -> None:
    """Append one event under ``lease``; send the seq or the error."""
    journal = open_journal(url)
    worth = Event(lease.exec_id, "metadata", "", time.time(), {"from": "stale"})
    pipe.send(_outcome(lambda: journal.append(lease.exec_id, [worth], lease=lease)))
    journal.close()


def append_many(pipe: Pipe, url: str, exec_id: str, name: str, count: int) -> None:
    """Say ready, wait for go, append ``count`` events one by one; send their seqs."""
    journal = open_journal(url)
    pipe.send("ready")
    pipe.recv()
    pipe.send(
        [journal.append(exec_id, [Event(exec_id, "metadata", name, time.time(), {"n": n})]) for n in range(count)]
    )
    journal.close()


def append_until_killed(pipe: Pipe, url: str, exec_id: str) -> None:
    """Append pairs of events that hold their number and this process's id; send the seq of each pair, forever."""
    journal = open_journal(url, durability="process")
    for n in itertools.count():
        pair = [Event(exec_id, "metadata", "", time.time(), {"n": n, "pid": os.getpid()})] * 2
        pipe.send(journal.append(exec_id, pair))


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except KitaruError as error:
        return error


def _wait_for_the_end(pipe: Pipe, journal: Journal) -> None:
    try:
        pipe.recv()
    except EOFError:
        journal.close()
