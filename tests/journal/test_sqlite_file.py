"""The file of the SQLite journal: made whole, recognised, never harmed; troubles are said with the path and a fix."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kitaru_nb.config import Settings
from kitaru_nb.core.advance import advance
from kitaru_nb.core.records import load as load_value
from kitaru_nb.core.runtime import Runtime
from kitaru_nb.errors import KitaruBackendError, KitaruUsageError
from kitaru_nb.journal import connections, migrations
from kitaru_nb.journal.connections import Connections
from kitaru_nb.journal.open import open_journal
from kitaru_nb.journal.sqlite import SqliteJournal
from kitaru_nb.model import ExecutionStatus, to_json
from kitaru_nb.testing.journal import event, new_execution, together
from tests.journal import frozen_flow

V2_COUNTS = {"checkpoints": 16, "artifacts": 23, "waits": 4}
DATA = Path(__file__).parent / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    handle = SqliteJournal(f"sqlite://{path}", durability="process")
    yield handle
    handle.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {found.name: found.read_bytes() for found in folder.iterdir()}


def load(path: Path, dump: Path) -> None:
    """Make the SQLite file that a dump describes."""
    connection = sqlite3.connect(path)
    connection.executescript(dump.read_text())
    connection.close()


def run(script: str, *args: str) -> str:
    """Run a script in a fresh process; return what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(script), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestOpening:
    @pytest.mark.parametrize("slashes", ["//", "///"])
    def test_an_absolute_path_may_follow_any_number_of_slashes(self, tmp_path: Path, slashes: str) -> None:
        odd = tmp_path / "a folder?" / "100% #1.db"
        handle = open_journal(f"sqlite:{slashes}{odd}")
        assert handle.url == f"sqlite://{odd}"
        handle.close()
        assert list(files(odd.parent)) == ["100% #1.db"]

    @pytest.mark.parametrize(
        "url", ["postgres://host/db", "journal.db", "/tmp/journal.db", "", "sqlite:/x", "SQLITE://x"]
    )
    def test_an_unknown_scheme_is_refused_with_what_there_is(self, url: str) -> None:
        with pytest.raises(KitaruUsageError, match="sqlite://, memory://"):
            open_journal(url)

    @pytest.mark.parametrize("url", ["sqlite://relative.db", "sqlite://", "sqlite:///", "sqlite://./x"])
    def test_a_url_without_an_absolute_path_is_refused(self, url: str) -> None:
        with pytest.raises(KitaruUsageError, match="sqlite:///absolute/path"):
            open_journal(url)

    def test_a_durability_that_does_not_exist_is_refused(self, path: Path) -> None:
        with pytest.raises(KitaruUsageError, match="'power' or 'process'"):
            open_journal(f"sqlite://{path}", durability="hope")  # type: ignore[arg-type]
        assert not path.parent.exists()

    @pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
    def test_durability_decides_whether_a_commit_waits_for_the_disk(
        self, path: Path, durable: bool, synchronous: int
    ) -> None:
        opened = Connections(path, durable=durable)
        with opened.reader() as reader:
            for connection in (opened.writer(), reader):
                assert connection.execute("pragma synchronous").fetchone() == (synchronous,)
                assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
        opened.close()

    def test_many_who_create_it_at_once_share_one_file(self, path: Path) -> None:
        handles = together([lambda: SqliteJournal(f"sqlite://{path}")] * 8)
        made = [handle.create(new_execution(), []) for handle in handles]
        assert handles[0].executions() == made[::-1]
        for handle in handles:
            handle.close()
        assert list(files(path.parent)) == ["journal.db"]

    def test_opening_and_using_an_up_to_date_file_needs_the_standard_library_only(self, journal: SqliteJournal) -> None:
        script = """
            import sys
            from kitaru_nb.journal.open import open_journal
            journal = open_journal(sys.argv[1])
            journal.executions(), journal.waits()
            print([name for name in ("sqlite_utils", "pandas", "pydantic", "fsspec") if name in sys.modules])
            """
        assert run(script, journal.url).strip() == "[]"

    def test_opening_a_second_handle_keeps_the_file_locks_of_the_first(self, journal: SqliteJournal) -> None:
        # Another process that believes to be alone deletes the write-ahead log when it leaves.
        exec_id = journal.create(new_execution(), []).exec_id
        SqliteJournal(journal.url).close()
        script = "import sys, kitaru_nb.journal.open as o; j = o.open_journal(sys.argv[1]); j.executions(); j.close()"
        log = journal.path.with_name("journal.db-wal")
        before = log.stat().st_ino
        run(script, journal.url)
        assert log.stat().st_ino == before
        assert journal.append(exec_id, [event(exec_id)]) == 1

    def test_a_file_that_is_deleted_does_not_come_back_empty(self, journal: SqliteJournal) -> None:
        journal.path.unlink()
        with pytest.raises(KitaruBackendError, match=str(journal.path)):
            journal.create(new_execution(), [])
        assert not journal.path.exists()

    @pytest.mark.parametrize("how", ["deleted", "replaced"])
    def test_nothing_is_written_into_a_file_that_is_gone(self, journal: SqliteJournal, how: str) -> None:
        # SQLite would: the file lives on, without a name, as long as somebody has it open.
        exec_id = journal.create(new_execution(), []).exec_id
        before = journal.append(exec_id, [event(exec_id)])
        aside = journal.path.rename(journal.path.with_name("aside.db"))
        if how == "replaced":
            shutil.copyfile(aside, journal.path)
        for work in (lambda: journal.append(exec_id, [event(exec_id)]), lambda: journal.history(exec_id)):
            with pytest.raises(KitaruBackendError, match=rf"was {how}.* while it was in use; nothing was written"):
                work()
        aside.replace(journal.path)  # put back, it goes on
        assert journal.append(exec_id, [event(exec_id)]) == before + 1


def test_a_handle_that_nobody_closed_is_closed_when_it_goes_or_the_process_ends(tmp_path: Path) -> None:
    script = """
        import gc, os, sys
        from kitaru_nb.journal.open import open_journal
        for name in ("forgotten", "kept"):
            journal = open_journal(f"sqlite://{sys.argv[1]}/{name}.db")
            journal.executions()
            journal.set_reference("a", "b", expected=None, by="ann")
            if name == "forgotten":
                del journal
                gc.collect()
        print(sorted(os.listdir(sys.argv[1])))
        """
    assert "forgotten.db-wal" not in run(script, str(tmp_path))
    assert sorted(files(tmp_path)) == ["forgotten.db", "kept.db"]


class TestForeignFiles:
    @pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0", b"x" * 5000])
    def test_what_is_no_sqlite_file_is_refused_and_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "notes.db"
        path.write_bytes(content)
        with pytest.raises(KitaruBackendError, match=str(path)) as caught:
            open_journal(f"sqlite://{path}")
        assert caught.value.fix
        assert files(tmp_path) == {"notes.db": content}

    @pytest.mark.parametrize("setting", ["journal_mode=delete", "journal_mode=wal", "application_id=7"])
    def test_the_database_of_another_program_is_refused_and_left_alone(self, tmp_path: Path, setting: str) -> None:
        path = tmp_path / "other.db"
        connection = sqlite3.connect(path)
        connection.execute(f"pragma {setting}")
        connection.execute("create table executions (id text)")
        connection.close()
        before = files(tmp_path)
        with pytest.raises(KitaruBackendError, match="another program"):
            open_journal(f"sqlite://{path}")
        assert files(tmp_path) == before

    def test_a_file_from_the_future_is_refused_with_both_versions_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.db"
        load(path, DATA / "future.sql")
        before = files(tmp_path)
        with pytest.raises(KitaruBackendError, match=rf"version 999.*{migrations.SCHEMA_VERSION}") as caught:
            open_journal(f"sqlite://{path}")
        assert caught.value.fix == "pip install --upgrade kitaru-nb"
        assert files(tmp_path) == before

    def test_an_upgrade_that_is_still_in_the_log_is_noticed(self, journal: SqliteJournal) -> None:
        connection = sqlite3.connect(journal.path)
        connection.execute("pragma user_version=999")
        with pytest.raises(KitaruBackendError, match="999"):
            SqliteJournal(journal.url)
        connection.close()

    def test_a_folder_in_place_of_the_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(KitaruBackendError, match=str(tmp_path)):
            open_journal(f"sqlite://{tmp_path}")

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "home").write_text("")
        with pytest.raises(KitaruBackendError, match=r"home.journal\.db"):
            open_journal(f"sqlite://{tmp_path}/home/journal.db")


class TestDamage:
    def test_a_damaged_file_is_named_with_a_way_to_recover(self, journal: SqliteJournal) -> None:
        exec_id = journal.create(new_execution(), []).exec_id
        journal.append(exec_id, [event(exec_id, text="x" * 1000) for _ in range(100)])
        journal.close()
        with journal.path.open("r+b") as file:
            half = journal.path.stat().st_size // 2
            file.seek(half)
            file.write(b"\xff" * half)
        damaged = SqliteJournal(journal.url)
        with pytest.raises(KitaruBackendError, match="is damaged") as caught:
            damaged.history(exec_id)
        assert caught.value.fix
        assert ".recover" in caught.value.fix
        damaged.close()

    def test_a_damaged_event_is_named_and_the_others_are_readable(self, journal: SqliteJournal) -> None:
        exec_id = journal.create(new_execution(), []).exec_id
        journal.append(exec_id, [event(exec_id, n=n) for n in range(4)])
        for damage in ("{", '{"n":0},{"n":1}'):
            connection = sqlite3.connect(journal.path)
            connection.execute("update journal set body = ? where seq = 3", (damage,))
            connection.commit()
            connection.close()
            with pytest.raises(KitaruBackendError, match=f"Event 3 .*{exec_id}"):
                journal.history(exec_id)
        assert [e.body["n"] for e in journal.history(exec_id, after=3)] == [3]

    def test_a_file_that_another_program_locks_is_said_to_be_locked(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connections, "BUSY_SECONDS", 0.01)
        journal = SqliteJournal(f"sqlite://{path}")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        execution = new_execution()
        with pytest.raises(KitaruBackendError, match="is locked"):
            journal.create(execution, [])
        other.close()
        assert journal.create(execution, []) == execution
        journal.close()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that this process, as nobody special, may read but not write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    yield home
    if os.geteuid() != os.getuid():
        os.seteuid(os.getuid())
    home.chmod(0o755)
    shutil.rmtree(folder)


def give_up_rights(home: Path) -> None:
    for file in home.iterdir():
        file.chmod(0o444)
    home.chmod(0o555)
    if os.getuid() == 0:
        os.seteuid(65534)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX rights")
class TestReadOnlyFolders:
    def test_a_new_journal_in_a_read_only_folder_is_refused(self, unprivileged: Path) -> None:
        give_up_rights(unprivileged)
        with pytest.raises(KitaruBackendError, match=f"{unprivileged}") as caught:
            open_journal(f"sqlite://{unprivileged}/journal.db")
        assert caught.value.fix
        assert "KITARU_HOME" in caught.value.fix
        assert list(unprivileged.iterdir()) == []

    def test_an_existing_journal_in_a_read_only_folder_is_refused(self, unprivileged: Path) -> None:
        open_journal(f"sqlite://{unprivileged}/journal.db").close()
        before = files(unprivileged)
        give_up_rights(unprivileged)
        with pytest.raises(KitaruBackendError, match=f"{unprivileged}") as caught:
            open_journal(f"sqlite://{unprivileged}/journal.db")
        assert caught.value.fix
        assert files(unprivileged) == before


# Fills the disk in steps, then asks what is left; `limit` and `relieve` are the two ways to have a small disk.
FILL = """
import json, sys, time
from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.journal.open import open_journal
from kitaru_nb.model import Event

def new_events(exec_id, text):
    return [Event(exec_id, "metadata", "", time.time(), {"text": text})] * 2

url, exec_id = sys.argv[1:3]
journal = open_journal(url)
limit()
written, errors = 0, []
for size in (40_000, 40_000, 3_000):  # after the first refusal, smaller ones fill what is left
    try:
        while True:
            journal.append(exec_id, new_events(exec_id, "x" * size))
            written += 2
    except KitaruBackendError as error:
        errors.append([str(error), error.fix])
full = len(journal.history(exec_id))
relieve()
journal.append(exec_id, new_events(exec_id, "x" * 40_000))
print(json.dumps({"written": written, "full": full, "after": len(journal.history(exec_id)), "errors": errors}))
journal.close()
"""


class TestFullDisks:
    def check(self, journal: SqliteJournal, limit: str) -> None:
        exec_id = journal.create(new_execution(), []).exec_id
        journal.close()
        result = json.loads(run(limit + FILL, journal.url, exec_id))
        assert result["written"] > 0
        assert result["full"] == result["written"]
        assert result["after"] == result["written"] + 2
        assert len(result["errors"]) == 3
        for message, fix in result["errors"]:
            assert str(journal.path) in message
            assert "disk is full" in message
            assert str(journal.path.parent) in fix
        check = sqlite3.connect(journal.path)
        assert check.execute("pragma integrity_check").fetchone() == ("ok",)
        check.close()

    def test_a_file_that_may_not_grow_refuses_whole_appends_and_goes_on_later(self, journal: SqliteJournal) -> None:
        pytest.importorskip("resource")
        self.check(
            journal,
            "import resource\n"
            "def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))\n"
            "def relieve(): resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n",
        )

    def test_a_full_disk_refuses_whole_appends_and_goes_on_when_there_is_space(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a small disk here")
        try:
            ballast = disk / "ballast"
            self.check(
                SqliteJournal(f"sqlite://{disk}/journal.db"),
                f"import os\nballast = {str(ballast)!r}\n"
                "def limit(): open(ballast, 'wb').write(b'x' * 1_000_000)\n"
                "def relieve(): os.remove(ballast)\n",
            )
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_a_disk_that_is_full_from_the_start_leaves_no_half_journal(self, path: Path) -> None:
        pytest.importorskip("resource")
        script = """
            import resource, sys
            from kitaru_nb.errors import KitaruBackendError
            from kitaru_nb.journal.open import open_journal
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            try:
                open_journal(sys.argv[1])
            except KitaruBackendError as error:
                print(error)
            """
        assert str(path) in run(script, f"sqlite://{path}")
        assert files(path.parent) == {}


def _add_column(name: str) -> migrations.Migration:
    def step(database: Any) -> None:
        database["executions"].add_column(name, str)

    return step


class TestMigrations:
    def test_a_new_file_is_what_all_steps_make(self, journal: SqliteJournal) -> None:
        upgraded, new = sqlite3.connect(":memory:", isolation_level=None), sqlite3.connect(journal.path)
        migrations.migrate(upgraded)
        assert migrations.structure(upgraded) == migrations.structure(new)
        for connection in (upgraded, new):
            connection.close()

    def test_a_new_file_has_the_newest_version_and_our_application_id(self, journal: SqliteJournal) -> None:
        assert migrations.check_header(journal.path) == migrations.SCHEMA_VERSION == len(migrations.MIGRATIONS)

    @pytest.mark.parametrize(
        ("version", "counts"), [(1, {"checkpoints": 2, "artifacts": 3, "waits": 2}), (2, V2_COUNTS)], ids=["v1", "v2"]
    )
    def test_a_frozen_history_reads_as_it_was_written_and_goes_on(
        self, path: Path, version: int, counts: dict[str, int]
    ) -> None:
        path.parent.mkdir()
        load(path, DATA / f"v{version}.sql")
        journal = SqliteJournal(f"sqlite://{path}")
        executions = journal.executions()
        found = {
            "executions": to_json(executions),
            "events": [{**to_json(e), "blob": e.blob and e.blob.hex()} for e in journal.tail(0)],
            "waits": to_json(journal.waits()),
            "references": {name: to_json(journal.reference_history(name)) for name in ("tag/brief/prod", "tag/gone")},
        }
        assert found == json.loads((DATA / f"v{version}.json").read_text())
        exec_id = executions[0].exec_id
        assert journal.append(exec_id, [event(exec_id)]) == found["events"][-1]["seq"] + 1
        with closing(journal.database()) as database:
            assert {view: len(list(database[view].rows)) for view in counts} == counts
        journal.close()

    def test_an_execution_of_a_frozen_history_is_resumed_and_nothing_recorded_runs_again(self, path: Path) -> None:
        path.parent.mkdir()
        load(path, DATA / "v2.sql")
        runtime = Runtime(Settings(path.parent, journal=f"sqlite://{path}"))
        journal = runtime.journal
        waits, answered, completed = (e.exec_id for e in journal.executions())
        frozen_flow.ran.clear()
        for exec_id in (waits, answered):
            assert advance(runtime, exec_id, frozen_flow.frozen, poll_seconds=0).status is ExecutionStatus.WAITING
        for exec_id, answers in ((waits, [True, "fair"]), (answered, ["good"])):
            for answer in answers:
                (asked,) = journal.waits(exec_id=exec_id)
                body = {"value": answer, "by": "bob", "via": "cli"}
                journal.append(exec_id, [event(exec_id, "wait.resolved", asked.wait_id, **body)])
                outcome = advance(runtime, exec_id, frozen_flow.frozen, poll_seconds=0)
            assert outcome.status is ExecutionStatus.COMPLETED
        assert frozen_flow.ran == ["publish", "publish"]
        assert [load_value(exec_id, "result", runtime=runtime) for exec_id in (waits, answered, completed)] == [
            "wind: 3 lines, fair",
            "rain: 3 lines, good",
            "snow: 3 lines, good",
        ]
        journal.close()

    def test_missing_steps_are_taken_once_and_in_order(self, journal: SqliteJournal) -> None:
        steps = (*migrations.MIGRATIONS, _add_column("a"), _add_column("b"))
        opened = [sqlite3.connect(journal.path, isolation_level=None) for _ in range(2)]
        for connection in opened:
            migrations.migrate(connection, steps)
        columns = [row[1] for row in opened[0].execute("pragma table_info(executions)")]
        assert columns[-2:] == ["a", "b"]
        assert opened[1].execute("pragma user_version").fetchone() == (len(steps),)
        for connection in opened:
            connection.close()

    def test_a_step_that_fails_leaves_the_file_as_it_was(self, journal: SqliteJournal) -> None:
        def failing(_: object) -> None:
            raise sqlite3.OperationalError("no")

        connection = sqlite3.connect(journal.path, isolation_level=None)
        before = migrations.structure(connection)
        with pytest.raises(sqlite3.OperationalError):
            migrations.migrate(connection, (*migrations.MIGRATIONS, _add_column("a"), failing))
        assert migrations.structure(connection) == before
        connection.close()
        assert journal.create(new_execution(), []).epoch == 0


def test_a_checkpoint_of_the_log_that_a_full_disk_cut_off_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    open_journal(f"sqlite://{path}").close()
    short = path.stat().st_size
    journal = open_journal(f"sqlite://{path}")
    execution = journal.create(new_execution(), [])
    journal.append(execution.exec_id, [event(execution.exec_id, text="x" * 100_000)])
    log = path.with_name("journal.db-wal").read_bytes()
    journal.close()  # all of the log goes into the file
    whole = path.read_bytes()
    assert len(whole) > short
    path.write_bytes(whole[:short])  # the first page tells the new size, and the rest didn't fit on the disk
    path.with_name("journal.db-wal").write_bytes(log)
    again = open_journal(f"sqlite://{path}")
    assert again.execution(execution.exec_id) == execution
    assert [len(e.body["text"]) for e in again.history(execution.exec_id)] == [100_000]
    again.close()
