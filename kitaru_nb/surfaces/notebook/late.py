"""Cells that were asked for before the notebook began to wait don't run after it, however late they arrive.

Run All sends all cells at once, and Jupyter's kernel aborts those that it has got when one of them fails. What arrives
a moment later, on a busy machine or a slow line, it would run: past a question that nobody has answered, with the
answer of yesterday. The date in a request's header tells when it was made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

#: Seconds after which a date that seems too early tells of a clock that was set back.
_ARRIVES_WITHIN = 60.0


class LateCells:
    """Tells requests that were made before the notebook stopped from those made since.

    A front end's clock isn't the kernel's. But no request runs before it was made, so each gives a lower bound of how
    far that clock is ahead; what is older than the stop by the greatest of them was surely made before it.
    """

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}
        self._stops: dict[str, float] = {}
        self._stopped_at = float("-inf")

    def arrived(self, header: Mapping[str, Any]) -> bool:
        """Take note of a request that begins, by its header; whether it was made before the notebook stopped."""
        made, front_end = header.get("date"), str(header.get("session", ""))
        if not isinstance(made, datetime):
            return False
        now, at = time.monotonic(), made.timestamp()
        self._ahead[front_end] = max(self._ahead.get(front_end, at - now), at - now)
        return now - self._stopped_at < _ARRIVES_WITHIN and at < self._stops.get(front_end, float("-inf"))

    def stop(self) -> None:
        """The notebook waits from now on."""
        self._stopped_at = time.monotonic()
        self._stops = {front_end: self._stopped_at + ahead for front_end, ahead in self._ahead.items()}
