"""Which of several servers starts a worker: the one that writes it down first."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from kitaru_nb.core.runtime import whoami
from kitaru_nb.errors import KitaruConflictError
from kitaru_nb.journal.base import Journal
from kitaru_nb.model import Execution

logger = logging.getLogger("kitaru_nb.server")

#: Seconds that a worker has for taking its execution up before it counts as one that never came; doubled each time.
PATIENCE = 60.0
#: The same for one that is known to have ended.
PATIENCE_WITH_THE_DEAD = 5.0
#: A turn that no worker took up so often is left alone.
TRIES = 3


class Turns:
    """The right to start the worker of an execution's next turn, as the reference ``turn:EXECUTION`` of the journal.

    A turn is what comes after an epoch. ``clock`` gives Unix seconds.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._clock = clock

    def take(self, row: Execution, *, lost: float | None = None) -> bool:
        """Whether the caller is to start a worker now; then nobody else is, before that one must have come.

        ``lost``: when the newest worker began of which the caller knows that it has ended.
        """
        name = f"turn:{row.exec_id}"
        known = self._journal.reference(name)
        turn = json.loads(known or "{}")
        tries = turn["tries"] if turn.get("epoch") == row.epoch else 0
        if tries:
            patience = PATIENCE_WITH_THE_DEAD if lost is not None and lost >= turn["at"] else PATIENCE
            if self._clock() < turn["at"] + patience * 2 ** (tries - 1):
                return False
        if tries >= TRIES:
            if tries == TRIES:
                logger.warning("%s is left alone: %d workers were started, and none came", row.exec_id, tries)
                self._write(name, {**turn, "tries": tries + 1}, known)
            return False
        return self._write(name, {"epoch": row.epoch, "at": self._clock(), "tries": tries + 1}, known)

    def put_back(self, row: Execution) -> None:
        """The place where it should run took no worker: the try doesn't count, and whoever looks next may try."""
        name = f"turn:{row.exec_id}"
        if (known := self._journal.reference(name)) is not None:
            self._write(name, {"epoch": row.epoch, "at": self._clock(), "tries": 0}, known)

    def _write(self, name: str, turn: dict[str, float], known: str | None) -> bool:
        try:
            self._journal.set_reference(name, json.dumps(turn), expected=known, by=whoami())
        except KitaruConflictError:
            return False  # another server was faster
        return True
