"""How often somebody may try."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: Names that are remembered; beyond, the one seen longest ago is forgotten.
REMEMBERED = 10_000


class RateLimit:
    """``burst`` tries at once, then one every ``seconds``, for each name. Thread-safe."""

    def __init__(self, burst: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst = burst
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        # When each name's tries would all be free again.
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str) -> float:
        """Use one try. 0.0 if there was one, else the seconds until there is."""
        with self._lock:
            now = self._clock()
            free_at = max(now, self._free_at.get(name, now)) + self.seconds
            missing = free_at - (now + self.burst * self.seconds)
            if missing > 1e-9:
                return missing
            self._free_at[name] = free_at
            self._free_at.move_to_end(name)
            if len(self._free_at) > REMEMBERED:
                self._free_at.popitem(last=False)
            return 0.0

    def wait(self, name: str) -> float:
        """As `take`, without using a try."""
        with self._lock:
            now = self._clock()
            free_at = max(now, self._free_at.get(name, now)) + self.seconds
            return max(0.0, free_at - (now + self.burst * self.seconds))
