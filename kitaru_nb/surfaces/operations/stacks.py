"""Stacks: where flows run and keep their state, without the values of variables."""

from __future__ import annotations

from kitaru_nb.core.runners import BUILT_IN
from kitaru_nb.errors import KitaruFeatureNotAvailableError, KitaruNotFoundError
from kitaru_nb.stacks.definition import find_stack, stack_names
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Desk, Page, StackView


def list_stacks(desk: Desk, caller: Caller, given: a.Nothing) -> Page[StackView]:
    """The built-in ones, then those that somebody created, by name."""
    names = [*BUILT_IN, *stack_names(desk.client.runtime.home)]
    return Page(tuple(_view(desk, name) for name in names), total=len(names))


def get(desk: Desk, caller: Caller, given: a.OneStack) -> StackView:
    """One stack. Raises `KitaruNotFoundError` that lists what there is."""
    try:
        return _view(desk, given.name)
    except KitaruFeatureNotAvailableError as error:
        raise KitaruNotFoundError(error.message, fix=error.fix) from error


def _view(desk: Desk, name: str) -> StackView:
    settings = desk.client.runtime.settings
    stack = find_stack(name, settings.home)
    return StackView(
        name=stack.name,
        runner="thread" if name == "local" else stack.runner,
        journal=stack.journal,
        store=stack.store,
        inline_max_bytes=stack.inline_max_bytes,
        options=stack.options,
        environment=tuple(stack.environment),
        secrets=stack.secrets,
        built_in=name in BUILT_IN,
        used=name == settings.stack,
    )
