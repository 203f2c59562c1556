"""Stacks: where flows run and keep their state, without the values of variables."""

from __future__ import annotations

from kitaru_nb.stacks.views import StackView
from kitaru_nb.surfaces.operations import arguments as a
from kitaru_nb.surfaces.operations.base import Caller, Desk, Page


def list_stacks(desk: Desk, caller: Caller, given: a.Nothing) -> Page[StackView]:
    """The built-in ones, then those that somebody created, by name."""
    found = desk.client.stacks.list()
    return Page(tuple(found), total=len(found))


def get(desk: Desk, caller: Caller, given: a.OneStack) -> StackView:
    """One stack. Raises `KitaruNotFoundError` that lists what there is."""
    return desk.client.stacks.get(given.name)
