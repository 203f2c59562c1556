"""The schema of the SQLite journal as numbered steps. A file's version is the number of steps it has been through.

A step that was released never changes. ``schema.sql`` holds what all steps together make: new files are made from it,
and a test compares the two. The views (``views.sql``) hold no data, and are made anew by each upgrade. Only this module
knows sqlite-utils, and imports it (which takes seconds where pandas is installed) when a file is upgraded or opened for
reading by people.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kitaru_nb.errors import KitaruBackendError
from kitaru_nb.model import ONCE

if TYPE_CHECKING:
    import sqlite_utils

Migration: TypeAlias = Callable[["sqlite_utils.Database"], None]

#: In the header of every journal file, so that another program's database is never taken for one.
APPLICATION_ID = int.from_bytes(b"ktru")
_SCHEMA = Path(__file__).with_name("schema.sql")
_VIEWS = Path(__file__).with_name("views.sql")


def database(connection: sqlite3.Connection) -> sqlite_utils.Database:
    """``connection`` with the conveniences of sqlite-utils."""
    import sqlite_utils

    return sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)


def create(path: Path, *, durable: bool) -> None:
    """Make a new journal file at ``path``, and its folder; nothing happens when another process was faster.

    The file is made under a name of its own and published whole, so nobody ever opens half a journal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute(f"pragma synchronous={'full' if durable else 'normal'}")
            connection.execute(f"pragma application_id={APPLICATION_ID}")
            script = "".join(part.read_text(encoding="utf-8") for part in (_SCHEMA, _VIEWS))
            connection.executescript(f"begin;\n{script}\ncommit;")
        finally:
            connection.close()
        _publish(draft, path, durable)
    finally:
        for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm"), Path(f"{draft}-journal")):
            leftover.unlink(missing_ok=True)


def _publish(draft: Path, path: Path, durable: bool) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:
        # A file system without hard links. Two processes that create the same journal in the same instant could then
        # each believe to be the first; renaming is still all or nothing.
        if not path.exists():
            draft.replace(path)
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_header(path: Path) -> int:
    """The schema version in the file's header. The file isn't touched, and no file appears beside it.

    Raises:
        KitaruBackendError: the file isn't a journal, or a newer version wrote it.
    """
    if path.stat().st_size == 0:
        raise _foreign(path, "is empty")
    try:
        # Not by open(path): closing that would drop the file locks that other handles in this process hold.
        found, version = _header(f"{path.as_uri()}?mode=ro&immutable=1")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise _foreign(path, "is not a SQLite file") from error
        if not path.with_name(f"{path.name}-wal").exists():
            raise
        # A checkpoint of the write-ahead log ended in the middle (a full disk): only with the log is the file whole.
        found, version = _header(f"{path.as_uri()}?mode=rw")
    if found != APPLICATION_ID:
        raise _foreign(path, f"is a SQLite file of another program (application id {found})")
    return check_version(path, version)


def _header(uri: str) -> tuple[int, int]:
    """(application id, schema version)."""
    connection = sqlite3.connect(uri, uri=True)
    try:
        (application,) = connection.execute("pragma application_id").fetchone()
        (version,) = connection.execute("pragma user_version").fetchone()
    finally:
        connection.close()
    return application, version


def check_version(path: Path, version: int) -> int:
    """Return ``version``, or raise `KitaruBackendError` when it is newer than this program's."""
    if version > SCHEMA_VERSION:
        raise KitaruBackendError(
            f"{path} was written by a newer kitaru-nb: its schema is version {version}, this one knows versions up to "
            f"{SCHEMA_VERSION}. The file was left as it is.",
            fix="pip install --upgrade kitaru-nb",
        )
    return version


def _foreign(path: Path, what: str) -> KitaruBackendError:
    return KitaruBackendError(
        f"{path} {what}; expected a journal of kitaru-nb, or no file. It was left as it is.",
        fix="export KITARU_HOME=/a/folder/of/its/own",
    )


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] | None = None) -> None:
    """Bring a journal to the newest version: all missing steps in one transaction, or none.

    Processes that do this at once wait for each other, and the later ones find nothing to do.
    """
    steps = MIGRATIONS if migrations is None else migrations
    connection.execute("begin immediate")
    try:
        (version,) = connection.execute("pragma user_version").fetchone()
        if version < len(steps):
            tables = database(connection)
            for step in steps[version:]:
                step(tables)
            _renew_views(connection)
            connection.execute(f"pragma user_version={len(steps)}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _renew_views(connection: sqlite3.Connection) -> None:
    for (name,) in connection.execute("select name from sqlite_master where type = 'view'").fetchall():
        connection.execute(f'drop view "{name}"')
    for statement in _VIEWS.read_text(encoding="utf-8").split(";\n"):  # not as a script, which would commit
        if statement.strip():
            connection.execute(statement)


def structure(connection: sqlite3.Connection) -> str:
    """The schema of a journal as SQL, views included."""
    statements = [
        "\n".join(line.rstrip() for line in sql.strip().splitlines()) + ";\n"
        for (sql,) in connection.execute("select sql from sqlite_master where sql is not null order by rowid")
    ]
    (version,) = connection.execute("pragma user_version").fetchone()
    return "\n".join([*statements, f"pragma user_version={version};\n"])


def _v1(db: sqlite_utils.Database) -> None:
    _v1_executions(db)
    _v1_journal(db)
    _v1_references(db)


def _v1_executions(db: sqlite_utils.Database) -> None:
    columns: dict[str, Any] = {
        "id": str,
        "flow": str,
        "status": str,
        "created_at": float,
        "updated_at": float,
        "ended_at": float,
        "original_exec_id": str,
        "deployment": str,
        "stack": str,
        "key": str,
        "epoch": int,
        "lease_owner": str,
        "lease_expires_at": float,
    }
    table: Any = db["executions"]
    table.create(
        columns,
        pk="id",
        not_null={"id", "flow", "status", "created_at", "updated_at", "stack", "epoch"},
        defaults={"epoch": 0},
    )
    table.create_index(["flow", "id"])
    table.create_index(["status", "id"])
    table.create_index(["flow", "status", "id"])
    db.execute("create unique index executions_key on executions (flow, key) where key is not null")


def _v1_journal(db: sqlite_utils.Database) -> None:
    columns: dict[str, Any] = {
        "seq": int,
        "exec_id": str,
        "kind": str,
        "key": str,
        "at": float,
        "body": str,
        "blob": bytes,
        "cache_key": str,
    }
    table: Any = db["journal"]
    table.create(columns, pk="seq", not_null={"exec_id", "kind", "key", "at", "body"})
    table.create_index(["exec_id", "seq"])
    once = ", ".join(f"'{kind}'" for kind in sorted(ONCE))
    db.execute(f"create unique index journal_once on journal (exec_id, kind, key) where kind in ({once})")
    db.execute("create index journal_cache_key on journal (cache_key) where cache_key is not null")
    _v1_pending_waits(db)


def _v1_pending_waits(db: sqlite_utils.Database) -> None:
    # Triggers keep this table in step within the very statement that adds the event, whoever writes it.
    columns: dict[str, Any] = {"seq": int, "exec_id": str, "wait_id": str, "until": float}
    table: Any = db["pending_waits"]
    table.create(columns, pk="seq", not_null={"exec_id", "wait_id"})
    table.create_index(["exec_id", "wait_id"])
    db.execute("create index pending_waits_until on pending_waits (until) where until is not null")
    db.execute("""
        create trigger wait_created after insert on journal when new.kind = 'wait.created' begin
            insert into pending_waits (seq, exec_id, wait_id, until)
            select new.seq, new.exec_id, new.key, json_extract(new.body, '$.until')
            where not exists (
                select 1 from journal where exec_id = new.exec_id and kind = 'wait.resolved' and key = new.key);
        end""")
    db.execute("""
        create trigger wait_resolved after insert on journal when new.kind = 'wait.resolved' begin
            delete from pending_waits where exec_id = new.exec_id and wait_id = new.key;
        end""")


def _v1_references(db: sqlite_utils.Database) -> None:
    refs: Any = db["refs"]
    refs.create({"name": str, "value": str}, pk="name", not_null={"name", "value"})
    changes: Any = db["ref_changes"]
    columns: dict[str, Any] = {"id": int, "name": str, "value": str, "at": float, "by": str}
    changes.create(columns, pk="id", not_null={"name", "at", "by"})
    changes.create_index(["name", "id"])


def _v2(db: sqlite_utils.Database) -> None:
    """Outputs leave out what their event says, and what nearly all have; the views fill it in."""


MIGRATIONS: tuple[Migration, ...] = (_v1, _v2)
SCHEMA_VERSION = len(MIGRATIONS)
