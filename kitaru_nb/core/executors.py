"""Executors: where submitted checkpoints run side by side, when that isn't this process's threads."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from kitaru_nb.config import Settings
from kitaru_nb.core.engine import ReplayPlan
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruUsageError
from kitaru_nb.model import Event

#: Threads of the flow's own process.
THREADS = "threads"
#: Options of ``dask``, a cluster on this machine, and of ``dask+tls://``; others have none.
_OPTIONS = {"dask": ("workers", "threads"), "dask+tls": ("ca", "cert", "key")}
_EXPECTED = "'threads', 'dask', 'dask?workers=4&threads=2', 'dask://HOST:PORT' or 'dask+tls://HOST:PORT?ca=...'"


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at a checkpoint, for a worker that reaches the artifact store but not the journal.

    Attributes:
        order: the ``checkpoint.sent`` event.
        settings: of the artifact store.
        children: calls that were completed inside this one in earlier attempts.
        plan: of a replay: what may be reused inside.
        cache: default of ``cache`` for the checkpoints that it calls.
    """

    order: Event
    settings: Settings
    children: Sequence[Event] = ()
    plan: ReplayPlan | None = None
    cache: bool | None = None

    @property
    def key(self) -> str:
        """Unique for each attempt of each worker that ever advances the execution."""
        body = self.order.body
        return f"kitaru-{body['name']}-{self.order.exec_id}-{self.order.key}-{body['epoch']}-{body['attempt']}"


class Executor(Protocol):
    """Runs tasks on workers elsewhere."""

    #: What people are told of it.
    where: str

    def start(self, task: Task) -> Future[list[Event]]:
        """Begin; the events that the checkpoint caused, the last one its ``checkpoint.returned``.

        The future raises `KitaruWorkerLostError` when the worker was lost. Cancelling it stops the task.

        Raises:
            KitaruBackendError: the workers can't be reached.
            KitaruUsageError: they can't run what this process sends, as another version of Python can't.
        """

    def check(self, settings: Settings) -> str:
        """Connect, and look at all that `start` needs; what was found. Raises as `start`."""


@dataclass(frozen=True, slots=True)
class Address:
    """An executor's address in its parts.

    Attributes:
        kind: ``threads``, ``dask`` or ``dask+tls``.
        place: host and port, or "" for a cluster on this machine.
        options: what follows the question mark.
    """

    kind: str
    place: str
    options: dict[str, str]


def parse_executor(text: str) -> Address:
    """The parts of an executor's address. Raises `KitaruUsageError` for one that can't be."""

    def wrong(what: str) -> KitaruUsageError:
        return KitaruUsageError(f"executor is {text!r}: {what}; expected {_EXPECTED}.", fix="executor: dask")

    head, _, query = text.partition("?")
    try:
        parts = urlsplit(head)
        port = parts.port
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise wrong(str(error)) from error
    kind, place = (parts.scheme, parts.netloc) if "://" in head else (head, "")
    remote = "://" in head
    if (kind, remote) not in ((THREADS, False), ("dask", False), ("dask", True), ("dask+tls", True)):
        raise wrong("there is no such executor")
    if remote and (not parts.hostname or port is None or parts.path.strip("/") or "@" in place):
        raise wrong("it names no host and port of a scheduler")
    known = _OPTIONS.get(kind, ()) if (kind == "dask+tls") == remote else ()
    if unknown := sorted(set(options) - set(known)):
        raise wrong(f"{unknown[0]!r} is no option of it" + (f" ({', '.join(known)})" if known else ""))
    if any(not (v.isdigit() and int(v)) for o, v in options.items() if o in _OPTIONS["dask"]):
        raise wrong("workers and threads are numbers > 0")
    return Address(kind, place, options)


def check_executor(text: str) -> Address:
    """The parts of an executor's address, which can be used here as far as that is seen without connecting.

    Raises:
        KitaruUsageError: there can't be such an address.
        KitaruFeatureNotAvailableError: what it needs isn't installed.
    """
    address = parse_executor(text)
    if address.kind != THREADS and importlib.util.find_spec("distributed") is None:
        raise KitaruFeatureNotAvailableError(
            f"The executor {text!r} needs dask.distributed, which isn't installed.", fix="pip install 'kitaru-nb[dask]'"
        )
    # Dask imports it, and once the main thread of a script has ended it can't be imported any more.
    importlib.import_module("concurrent.futures.process")
    return address


def executor_of(text: str) -> Executor:
    """The executor at an address. Connections are kept and shared. Raises as `check_executor`."""
    address = check_executor(text)
    found: Executor = importlib.import_module("kitaru_nb.stacks.dask_executor").executor_at(address)
    return found
