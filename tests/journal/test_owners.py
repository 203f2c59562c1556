"""Which processes are known to be dead: those of this machine, and of the same set of processes, alone."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitaru_nb.errors import KitaruLeaseError
from kitaru_nb.journal import base
from kitaru_nb.journal.base import is_dead, owner_of, this_host, this_process
from kitaru_nb.journal.open import open_journal
from kitaru_nb.testing.journal import new_execution
from kitaru_nb.testing.journal.setup import dead_owner, replaced_owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what tells kernels apart is Linux's")
Move = Callable[[str | None], None]


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Move]:
    """Go to a machine of the same name whose kernel has this boot id (None: it tells none)."""

    def to(boot: str | None) -> None:
        kernel = tmp_path / str(boot)
        if boot is not None:
            kernel.write_text(f"{boot}\n")
        monkeypatch.setattr(base, "_BOOT", kernel)
        base._kernel.cache_clear()

    yield to
    base._kernel.cache_clear()


def test_a_worker_in_another_container_of_the_same_name_is_not_taken_for_dead(move: Move) -> None:
    journal = open_journal("memory://containers")
    move("one")
    theirs = [dead_owner(), replaced_owner()]
    assert [is_dead(owner) for owner in theirs] == [True, True]
    move("two")
    assert {owner.host.partition("/")[0] for owner in [*theirs, this_process()]} == {socket.gethostname()}
    for owner in theirs:
        assert not is_dead(owner)
        exec_id = journal.create(new_execution(), []).exec_id
        journal.claim(exec_id, owner)
        with pytest.raises(KitaruLeaseError, match="is held by process"):
            journal.claim(exec_id, this_process())
    journal.close()


def test_where_nothing_tells_kernels_apart_a_process_knows_its_own_alone(move: Move) -> None:
    move(None)
    here = this_host()
    assert this_host() == here
    assert not is_dead(owner_of(os.getpid()))
    move(None)
    assert this_host() != here
