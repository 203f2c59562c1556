"""What an operation is, who asks for it, and the shapes of answers that the model doesn't have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from kitaru_nb.client import KitaruClient
from kitaru_nb.errors import KitaruError, KitaruUsageError
from kitaru_nb.model import Artifact, LogEntry, Wait
from kitaru_nb.surfaces.operations.limits import RateLimit

T = TypeVar("T")


class Role(IntEnum):
    """What a caller may do; each role may do all that the ones before it may.

    ``view`` reads, ``operate`` answers and acts on executions, ``work`` starts code and routes deployments, ``admin``
    does everything.
    """

    VIEW = 1
    OPERATE = 2
    WORK = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()


def parse_role(text: str) -> Role:
    """A role by name. Raises `KitaruUsageError` that lists them."""
    for role in Role:
        if str(role) == text:
            return role
    raise KitaruUsageError(f"{text!r} is no role. Roles are: {', '.join(map(str, Role))}.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: what the record says: a token's name, a Jupyter user, an MCP client.
        via: the way: ``http``, ``jupyter``, ``mcp``.
        account: whose tries count, where ``name`` also tells what a program calls itself; None: ``name``.
    """

    name: str
    role: Role
    via: str
    account: str | None = None


@dataclass(slots=True)
class Desk:
    """What operations work with: one for each server.

    Attributes:
        host: ``server`` (stand-alone), ``jupyter`` or ``mcp``.
        root: the folder whose notebooks and flows may be started.
        answers: how often one caller may try to answer waits.
    """

    client: KitaruClient
    host: Literal["server", "jupyter", "mcp"]
    root: Path
    answers: RateLimit = field(default_factory=lambda: RateLimit(burst=30, seconds=1.0))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; ``next`` is the cursor of the one after it, or None. It may be empty and still have a next,
    when a search went through many that don't fit."""

    items: tuple[T, ...]
    next: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Log lines, oldest first. ``previous`` leads to older ones, ``next`` to newer ones."""

    items: tuple[LogEntry, ...]
    next: str | None = None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class InboxWait(Wait):
    """A wait, with the name of the flow that asks."""

    flow_name: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactDetail(Artifact):
    """An artifact, with the calls that read it."""

    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One event of the journal as live views need it. ``status`` is the execution's after it, if it changed it."""

    seq: int
    exec_id: str
    kind: str
    key: str
    at: float
    name: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Info:
    """Who is asking whom.

    Attributes:
        features: groups of operations that this version has beside those on executions.
    """

    version: str
    user: str
    role: str
    home: str
    host: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """How many executions there are, by status and by flow (the largest first)."""

    total: int
    by_status: Mapping[str, int]
    flows: tuple[tuple[str, int], ...]
    pending_waits: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many waits are pending."""

    pending: int


@dataclass(frozen=True, slots=True)
class Content:
    """The stored bytes of an artifact from ``offset`` on, not read yet; without ``length`` what the host sends."""

    artifact: Artifact
    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Follow:
    """Changes from ``after`` on (None: from now), of one execution or all: a stream, or up to ``limit`` of them, which
    are waited for ``timeout`` seconds."""

    exec_id: str | None
    after: int | None
    limit: int = 200
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class News:
    """Changes, and the seq to ask for later ones with."""

    events: tuple[Change, ...]
    seq: int


_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for, on every surface.

    Attributes:
        name: ``group.verb``.
        path: below ``/api/``; ``{name}`` takes one argument. Of a GET the other arguments are the query, else the body.
        result: type of the answer; `Content` is bytes, `Follow` a stream of `Change`.
        client: the method of `KitaruClient` that a program calls for it, or None for what only a server knows.
        destructive: it ends or closes something for good.
        idempotent: doing it twice is as doing it once.
        limited: how often somebody may ask for it is limited.
        tool: its name among the MCP tools; None is ``kitaru_`` and the name.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    arguments: type[BaseModel]
    result: Any
    call: Callable[[Desk, Caller, Any], Any]
    client: str | None
    help: str
    role: Role = Role.VIEW
    destructive: bool = False
    idempotent: bool = True
    limited: bool = False
    tool: str | None = None

    @property
    def read_only(self) -> bool:
        """Whether nothing is changed by it."""
        return self.method == "GET" or self.role is Role.VIEW

    @property
    def tool_name(self) -> str:
        """Its name among the MCP tools."""
        return self.tool or f"kitaru_{self.name.replace('.', '_')}"

    @cached_property
    def path_parameters(self) -> tuple[str, ...]:
        """Names of the arguments in the path."""
        return tuple(_PARAMETER.findall(self.path))

    def check_role(self, caller: Caller) -> None:
        """Raises `KitaruPermissionError` when the caller may not do this."""
        if caller.role < self.role:
            # Over stdio there is no account: the role is the one that `kitaru mcp` was started with.
            by_itself = caller.via == "mcp" and caller.account is None
            raise KitaruPermissionError(
                f"{caller.name} has the role {caller.role}; {self.name} needs {self.role}.",
                fix=f"kitaru {'mcp' if by_itself else 'server token create NAME'} --role {self.role}",
            )


class KitaruPermissionError(KitaruError):
    """The caller's role doesn't allow this."""
