"""Every error that kitaru_nb raises, and the one signal (`Paused`) that isn't an error.

A message says what was found and what was expected; ``fix`` is the line to type next. All of them survive pickling,
so that they can cross a process.
"""

from __future__ import annotations

import copyreg
from typing import Any


class KitaruError(Exception):
    """Base of all errors. ``str(error)`` is the message and, on lines of its own, the fix.

    Attributes:
        message: what was found, and what was expected.
        fix: the line to type, or None when there is none.
    """

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message

    def _render_traceback_(self) -> list[str]:
        # How IPython shows it: what went wrong and what to type, without the frames of the runtime between.
        lines = str(self).splitlines()
        return [f"\x1b[1;31m{type(self).__name__}\x1b[0m: {lines[0]}", *lines[1:]]

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), self.message), self.__dict__  # type: ignore[attr-defined]


class KitaruUsageError(KitaruError, ValueError):
    """A call was made with arguments that can't be right."""


class KitaruNotFoundError(KitaruError, LookupError):
    """An execution, artifact, wait, checkpoint or reference that doesn't exist was asked for."""


class KitaruContextError(KitaruError):
    """A function was called outside (or inside) the place where it has a meaning."""


class KitaruStateError(KitaruError):
    """The execution isn't in a state in which this can be done."""


class KitaruLeaseError(KitaruStateError):
    """Another live worker holds the execution."""


class KitaruFencedError(KitaruStateError):
    """This worker lost its lease: a successor advances the execution, so nothing was written."""


class KitaruConflictError(KitaruStateError):
    """Something that may happen once had already happened; ``existing`` is what was recorded first."""

    existing: Any = None


class KitaruWaitingError(KitaruStateError):
    """A result was asked of an execution that waits for an answer."""


class KitaruRuntimeError(KitaruError, RuntimeError):
    """The runtime itself could not go on."""


class KitaruExecutionError(KitaruRuntimeError):
    """An execution ended without a result (it failed or was cancelled)."""


class KitaruUserCodeError(KitaruExecutionError):
    """User code failed; the original exception is ``__cause__`` where it is still at hand."""


class KitaruTimeoutError(KitaruError, TimeoutError):
    """A checkpoint, or waiting for a result, took longer than was allowed."""


class KitaruWorkerLostError(KitaruRuntimeError):
    """The process that ran a checkpoint elsewhere (a job, a worker of a cluster) ended without an outcome."""


class KitaruAmbiguousFlowResultError(KitaruRuntimeError):
    """Kept for code written for Kitaru; a flow here returns plain values, so it is never raised."""


class KitaruBackendError(KitaruError):
    """A journal or an artifact store could not be reached, read or written."""


class KitaruStorageError(KitaruBackendError):
    """An artifact store is away, full or closed for the moment: no failure of the code that met it.

    An execution that it ends is interrupted, not failed, and goes on when the store is back.
    """


class KitaruLogRetrievalError(KitaruBackendError):
    """Logs could not be read."""


class KitaruArtifactError(KitaruBackendError):
    """A stored value is missing, damaged, or may not be loaded here."""


class KitaruSerializationError(KitaruError, TypeError):
    """A value can't be persisted."""


class KitaruDivergenceError(KitaruError):
    """A resumed flow asked, at the place of a recorded call, for something else."""


class KitaruWaitValidationError(KitaruUsageError):
    """An answer doesn't fit the schema of its wait; the wait stays open."""


class KitaruFeatureNotAvailableError(KitaruError):
    """An optional part is not installed, or not offered by this stack."""


class Paused(BaseException):
    """The execution let go on purpose: it waits, or was interrupted. Nothing failed and nothing is lost.

    It derives from ``BaseException`` so that a user's ``except Exception`` doesn't swallow it, and renders as one
    line in notebooks, where it ends Run All.
    """

    def __init__(self, reason: str = "interrupted; nothing is lost") -> None:
        super().__init__(reason)
        self.reason = reason

    def _render_traceback_(self) -> list[str]:
        return [f"‖ {self.reason}"]
