"""Stacks as others may see them: where flows run and keep their state, without the values of variables."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kitaru_nb.config import Settings
from kitaru_nb.core.runners import BUILT_IN
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruNotFoundError


@dataclass(frozen=True, slots=True)
class StackView:
    """A stack as others may see it.

    Attributes:
        runner: who starts workers; ``thread``: a thread of the process that starts a flow.
        journal, store: URLs with ``${NAME}`` in place of passwords; None: those of the home.
        executor: where submitted checkpoints run; None: threads of the worker.
        environment: names of the variables of workers; values aren't told.
        secrets: variable of workers → where its value is, never the value.
        built_in: nobody created it.
        used: flows run on it that name none.
    """

    name: str
    runner: str
    journal: str | None
    store: str | None
    inline_max_bytes: int | None
    executor: str | None
    options: Mapping[str, Any]
    environment: tuple[str, ...]
    secrets: Mapping[str, str]
    built_in: bool
    used: bool


class Stacks:
    """What can be read of stacks. ``kitaru stack`` makes, checks, uses and deletes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list(self) -> builtins.list[StackView]:
        """The built-in ones, then those that somebody created, by name."""
        from kitaru_nb.stacks.definition import stack_names  # loads yaml, which few programs need

        return [self._view(name) for name in (*BUILT_IN, *stack_names(self._settings.home))]

    def get(self, name: str) -> StackView:
        """One stack. Raises `KitaruNotFoundError` that lists what there is."""
        try:
            return self._view(name)
        except KitaruFeatureNotAvailableError as error:
            raise KitaruNotFoundError(error.message, fix=error.fix) from error

    def _view(self, name: str) -> StackView:
        from kitaru_nb.stacks.definition import find_stack

        stack = find_stack(name, self._settings.home)
        return StackView(
            name=stack.name,
            runner="thread" if name == "local" else stack.runner,
            journal=stack.journal,
            store=stack.store,
            inline_max_bytes=stack.inline_max_bytes,
            executor=stack.executor,
            options=stack.options,
            environment=tuple(stack.environment),
            secrets=stack.secrets,
            built_in=name in BUILT_IN,
            used=name == self._settings.stack,
        )
