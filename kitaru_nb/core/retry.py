"""When a failed attempt is tried again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from kitaru_nb.errors import (
    KitaruBackendError,
    KitaruDivergenceError,
    KitaruError,
    KitaruFencedError,
    KitaruTimeoutError,
    KitaruUsageError,
    KitaruWorkerLostError,
)

#: How often a checkpoint whose worker was lost elsewhere runs again, even where it has no retries: as a crash of the
#: flow's own process, that is none of its failures. One that kills its workers must end all the same.
LOST_WORKERS = 3


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with jitter.

    Attributes:
        attempts: how many times to try again after the first failure.
        delay: seconds before the first retry.
        backoff: factor from one delay to the next.
        max_delay: upper bound of a delay, seconds.
        jitter: share of the delay drawn at random, 0 to 1 ("equal jitter", AWS Architecture Blog 2015).
        on: exception types that are tried again.
        never: exception types that aren't, even when they match ``on``.
    """

    attempts: int = 0
    delay: float = 0.1
    backoff: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.5
    on: tuple[type[Exception], ...] = (Exception,)
    never: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if not (_is_count(self.attempts) and all(map(_is_number, (self.delay, self.backoff, self.max_delay)))):
            raise self._wrong(
                "whole attempts >= 0, delay and max_delay in seconds, backoff >= 1 and jitter from 0 to 1"
            )
        if self.delay < 0 or self.max_delay < 0 or self.backoff < 1 or not 0 <= self.jitter <= 1:
            raise self._wrong("attempts >= 0, delay >= 0, max_delay >= 0, backoff >= 1 and jitter from 0 to 1")
        for kinds in (self.on, self.never):
            if not (isinstance(kinds, type) or (isinstance(kinds, tuple) and all(isinstance(k, type) for k in kinds))):
                raise self._wrong("types of exceptions, as a tuple, for on and never")

    def _wrong(self, expected: str) -> KitaruUsageError:
        return KitaruUsageError(
            f"{self} can't be: expected {expected}.", fix="Retry(attempts=3, delay=0.5, backoff=2.0, on=(OSError,))"
        )

    def delay_after(self, error: BaseException, failures: int) -> float | None:
        """Seconds to wait after the ``failures``-th failure, or None when it isn't tried again."""
        if isinstance(error, KitaruWorkerLostError):
            return self._delay(failures) if failures <= max(self.attempts, LOST_WORKERS) else None
        if failures > self.attempts or isinstance(error, self.never) or not isinstance(error, self.on):
            return None
        if isinstance(error, KitaruError) and not isinstance(error, KitaruTimeoutError):
            return None  # a misuse or a lost lease is the same the next time
        return self._delay(failures)

    def _delay(self, failures: int) -> float:
        try:
            delay = min(self.max_delay, self.delay * float(self.backoff) ** (failures - 1))
        except OverflowError:
            delay = self.max_delay
        return delay * (1 - self.jitter * random.random())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value


def as_retry(value: int | Retry | None) -> Retry:
    """A number of retries, or a policy, as a policy."""
    if isinstance(value, Retry):
        return value
    if value is not None and not _is_count(value):
        raise KitaruUsageError(
            f"retries={value!r} can't be: expected a number >= 0 or a Retry(...).", fix="@checkpoint(retries=2)"
        )
    return Retry(attempts=value or 0)


def is_fatal(error: BaseException) -> bool:
    """Whether an error speaks of the execution or its storage, so that it passes through checkpoints unrecorded."""
    return isinstance(error, KitaruDivergenceError | KitaruFencedError | KitaruBackendError)
