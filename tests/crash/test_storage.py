"""Storage that is full, read-only or damaged: a clear error, the journal as it was, and on it goes afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from crash.flows import asked, crowded, fill
from crash.workshop import Workshop
from kitaru_nb import KitaruBackendError
from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.create import create_execution
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.journal.base import Journal
from kitaru_nb.journal.fold import Outputs
from kitaru_nb.model import Event, ExecutionStatus, Lease
from kitaru_nb.testing.faults import FaultyJournal
from kitaru_nb.worker import EXIT_WAITING


class Mount:
    """A file system in memory, of its own size. Only root can have one."""

    def __init__(self, path: Path, options: str) -> None:
        self.path = path
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        result = subprocess.run(command, capture_output=True, text=True) if os.geteuid() == 0 else None
        self.mounted = result is not None and result.returncode == 0

    def unmount(self) -> None:
        """Give it back."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = Mount(tmp_path / "small", "size=2m")
    if not mount.mounted:
        pytest.skip("a small file system can't be mounted here; a limit for files stands in for it")
    yield mount.path
    mount.unmount()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to, root included where root can mount."""
    mount = Mount(tmp_path / "fixed", "ro")
    if not mount.mounted:
        mount.path.chmod(0o555)
    if os.access(mount.path, os.W_OK):
        pytest.skip("root can write anywhere here, and can't mount")
    yield mount.path
    mount.unmount()


def crash_on_full_disk(workshop: Workshop, fill: str) -> str:
    """Run `crowded` until its disk is full; the execution. Checks the error, and that nothing half-done is left."""
    journal = workshop.runtime.journal
    exec_id = workshop.create(crowded, 7)
    child = workshop.child(CRASH_FILL=fill)
    child.begin(exec_id)
    assert child.end() == EXIT_WAITING
    assert child.errors.startswith("KitaruBackendError: The journal ")
    assert "the disk is full or failing; nothing was written" in child.errors
    assert "fix: df -h " in child.errors
    kinds = [event.kind for event in journal.history(exec_id)]
    assert [kind for kind in kinds if kind != "checkpoint.started"] == [  # that is there where the machine is slow
        "execution.created",
        "execution.claimed",
        "checkpoint.completed",
        "checkpoint.completed",
    ]
    assert workshop.status(exec_id) is ExecutionStatus.INTERRUPTED
    return exec_id


def go_on(workshop: Workshop, exec_id: str) -> None:
    """Space is back: the execution goes on, and what was recorded isn't done again."""
    workshop.witness.life_begins(workshop.runtime.journal, exec_id)
    child = workshop.child()
    child.begin(exec_id)
    assert child.end() == 0, child.errors
    workshop.witness.life_ended(workshop.runtime.journal, exec_id)
    assert workshop.result(exec_id) == 10 * 40_000 + 7
    assert len(workshop.witness.bodies()) == 5  # four calls, one of which found the disk full


def test_a_full_disk_stops_the_flow_and_it_goes_on_when_there_is_space_again(
    small_disk: Path, workshops: Callable[..., Workshop]
) -> None:
    workshop = workshops(small_disk / "home")
    ballast = small_disk / "ballast"
    exec_id = crash_on_full_disk(workshop, str(ballast))
    ballast.unlink()
    go_on(workshop, exec_id)


def test_a_limit_for_files_stops_the_flow_and_it_goes_on_without_it(workshops: Callable[..., Workshop]) -> None:
    workshop = workshops()
    exec_id = crash_on_full_disk(workshop, "limit")
    go_on(workshop, exec_id)


def test_a_big_value_that_finds_no_space_leaves_no_half_a_blob(
    small_disk: Path, workshops: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshops(small_disk / "home")
    monkeypatch.setenv("CRASH_RAN", str(workshop.side_file))
    store = workshop.runtime.store
    before = store.write("a" * 100_000, name="before")
    fill(str(small_disk / "ballast"))
    with pytest.raises(KitaruBackendError) as refused:
        store.write("b" * 100_000, name="after")
    assert refused.value.fix
    blob = Path(store.location(before.digest))
    (artifacts,) = {parent for parent in blob.parents if parent.name == "artifacts"}
    assert [path for path in artifacts.rglob("*") if path.is_file()] == [blob]
    (small_disk / "ballast").unlink()
    assert store.read(store.write("b" * 100_000, name="after")) == "b" * 100_000


def test_a_read_only_home_is_named_in_a_clear_error_and_nothing_starts(
    read_only: Path,
) -> None:
    for home in (read_only, read_only / "home"):
        with pytest.raises(KitaruBackendError) as refused:
            create_execution(Runtime(Settings(home)), crowded, {"value": 7})
        assert str(home / "journal.db") in str(refused.value)
        assert refused.value.fix == "export KITARU_HOME=/a/writable/folder"
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_a_damaged_blob_stops_the_resume_and_is_named(workshops: Callable[..., Workshop], damage: str) -> None:
    workshop = workshops()
    journal = workshop.runtime.journal
    exec_id = workshop.create(crowded, 7)
    victim = workshop.child()
    victim.begin(exec_id, at=2, when="after", only=["append"])
    assert victim.end() == -signal.SIGKILL, victim.errors
    event = journal.history(exec_id)[-1]
    artifact = Outputs(event)[0]
    blob = Path(workshop.runtime.store.location(artifact.digest))
    whole = blob.read_bytes()
    blob.chmod(0o644)
    spoil(blob, damage)

    child = workshop.child()
    child.begin(exec_id)
    assert child.end() == 1
    assert child.errors.startswith("KitaruArtifactError: ")
    assert artifact.artifact_id in child.errors
    assert ("missing" if damage == "gone" else "damaged") in child.errors
    assert len(workshop.witness.bodies()) == 2, "nothing ran on a value that isn't there"

    blob.write_bytes(whole)
    workshop.witness.life_begins(journal, exec_id)
    again = workshop.child()
    again.begin(exec_id)
    assert again.end() == 0, again.errors
    workshop.witness.life_ended(journal, exec_id)
    assert workshop.result(exec_id) == 10 * 40_000 + 7


class Away(FaultyJournal):
    """Can't be reached for the next ``operations`` operations from one of ``begins`` on."""

    def __init__(self, journal: Journal, begins: str, operations: int) -> None:
        super().__init__(journal)
        self.begins, self.operations, self.began = begins, operations, False

    def _reach(self, name: str) -> None:
        self.began = self.began or name == self.begins
        if self.began and self.operations:
            self.operations -= 1
            raise KitaruBackendError("The journal can't be reached.", fix="start it")

    def append(self, exec_id: str, events: Sequence[Event], *, lease: Lease | None = None) -> int:
        self._reach("append")
        return super().append(exec_id, events, lease=lease)

    def release(self, lease: Lease, events: Sequence[Event] = ()) -> None:
        self._reach("release")
        super().release(lease, events)

    def history(self, exec_id: str, *, after: int = 0) -> list[Event]:
        self._reach("look" if after else "history")
        return super().history(exec_id, after=after)


@pytest.mark.parametrize("begins", ["append", "release", "history", "look"])
@pytest.mark.parametrize("operations", [1, 2], ids=["for a moment", "longer"])
def test_a_journal_that_is_away_fails_no_execution_and_the_same_process_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str, operations: int
) -> None:
    monkeypatch.setenv("CRASH_RAN", str(tmp_path / "ran"))
    runtime = Runtime(Settings(tmp_path, durability="process"))
    away = Runtime(runtime.settings, journal=Away(runtime.journal, begins, operations))
    exec_id = create_execution(runtime, asked, {"value": 7}).exec_id
    with contextlib.suppress(KitaruBackendError):  # it is raised where nothing has begun yet
        outcome = advance(away, exec_id, asked, poll_seconds=0.0)
        assert outcome.status in (ExecutionStatus.INTERRUPTED, ExecutionStatus.WAITING)
    kinds = [event.kind for event in runtime.journal.history(exec_id)]
    assert not {"execution.failed", "execution.paused"} & set(kinds)
    outcome = advance(away, exec_id, asked, poll_seconds=0.0)  # at once: its own lease doesn't lock it out
    assert outcome.status is ExecutionStatus.WAITING
    assert runtime.journal.execution(exec_id).status is ExecutionStatus.WAITING
    runtime.journal.close()


def spoil(blob: Path, damage: str) -> None:
    """Do to the file what disks and people do."""
    whole = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    elif damage == "truncated":
        blob.write_bytes(whole[: len(whole) // 2])
    else:
        middle = len(whole) // 2
        blob.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
