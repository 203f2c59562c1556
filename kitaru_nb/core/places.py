"""How many workers run on this machine at once. Each has a place, a file in the home that names its process; who finds
none free queues.

A worker that was killed holds no place: its process is gone. One that waits for another execution gives its place up,
or workers that wait for others would keep those from ever beginning.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kitaru_nb.journal.base import is_dead, owner_of
from kitaru_nb.model import Owner

#: Path of a worker's place, in its environment and in that of a notebook's kernel.
VARIABLE = "KITARU_PLACE"

_TAKEN, _GIVEN_UP = ".taken", ".given-up"


@dataclass(frozen=True, slots=True)
class Place:
    """A worker that lives: its process, when it was started (Unix seconds), and whether it counts."""

    owner: Owner
    begun_at: float
    counts: bool


class Places:
    """The places of one home. ``number``: how many workers may run at once."""

    def __init__(self, home: Path, number: int = 0) -> None:
        self.folder = home / "workers" / "places"
        self.number = number

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else on this machine starts a worker of this home meanwhile. Raises `OSError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            if os.name != "nt":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file
            yield

    def free(self) -> bool:
        """Whether one more worker may run. To be asked while `locked`."""
        return sum(place.counts for place in self._living("*")) < self.number

    def new(self, exec_id: str) -> Path:
        """Where the next worker of an execution will have its place."""
        return self.folder / f"{exec_id}-{uuid.uuid4().hex[:8]}{_TAKEN}"

    def of(self, exec_id: str) -> list[Place]:
        """The living workers of an execution."""
        return list(self._living(f"{exec_id}-*"))

    def _living(self, pattern: str) -> Iterator[Place]:
        for path in self.folder.glob(pattern):
            if path.suffix not in (_TAKEN, _GIVEN_UP):
                continue
            with suppress(FileNotFoundError):  # given up, or found dead by somebody else, at this moment
                owner = signed_by(path)
                if is_dead(owner):
                    path.unlink()
                else:
                    yield Place(owner, path.stat().st_mtime, path.suffix == _TAKEN)


def end(place: Place, grace: float) -> None:
    """Tell a worker to end (SIGTERM, and SIGKILL after ``grace`` seconds); return when it has."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(place.owner.pid, number)
        until = time.monotonic() + grace
        while time.monotonic() < until:
            if is_dead(place.owner):
                return
            time.sleep(0.02)


def sign(path: Path, pid: int) -> None:
    """Write into a file which process of this machine it belongs to, so that `is_dead` knows it; all or nothing."""
    write_whole(path, json.dumps(asdict(owner_of(pid))))


def write_whole(path: Path, text: str) -> None:
    """Write a file that nobody ever sees in part. Raises `OSError`, and nothing is left then."""
    beside = path.with_suffix(".new")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def signed_by(path: Path) -> Owner:
    """Whose file it is. Raises `FileNotFoundError`.

    One that was cut off (the machine lost its power) is nobody's, and is removed.
    """
    try:
        return Owner(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        path.unlink(missing_ok=True)
        raise FileNotFoundError(path) from None


def give_way() -> None:
    """Give this worker's place up, where it has one: it waits for another execution, which may need it to begin."""
    if path := os.environ.get(VARIABLE):
        with suppress(FileNotFoundError):
            Path(path).rename(Path(path).with_suffix(_GIVEN_UP))
