"""The store on one machine: one SQLite file, shared by threads and processes.

Write-ahead log, so that readers never wait for a writer; every write is one transaction, flushed to disk, so
that a revoked token stays revoked after a power cut. A write waits for another program's lock as long as
`stores.patience` allows, outside this process's own queue. The file and its folder are the owner's alone. Deleted
bytes are overwritten (secure_delete); `scrub` removes the copies that the file and the log may still hold.
Not for network file systems (https://www.sqlite.org/wal.html).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import files
from ..errors import Conflict, Internal, SettingsError, StoreBusy
from .store import BESIDE_SECONDS, Entry, Moment, Place, Row, check_value, end_of, in_batches, new_version, patience

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x74776F63                # "twoc": the file is ours
_SCHEMA = (
    "CREATE TABLE entry (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, "
    "expires INTEGER, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE INDEX expiring ON entry (expires) WHERE expires IS NOT NULL",
)
_COLUMNS = "kind, key, value, version, expires"
_READ_BATCH = 400                           # rows of one SELECT; older engines take 999 parameters
_BUSY_SECONDS = 5.0                         # that a read or a scrub waits
_BLOCKED_SECONDS = 5.0                      # after a wait in vain, in which no write beside an answer waits again


class SqliteStore:
    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self.path = Path(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._blocked = -_BLOCKED_SECONDS   # when a write last waited in vain (time.monotonic)
        self._writing = threading.Lock()    # SQLite lets one write, and who waits for it sleeps; here they take turns
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._pid = os.getpid()
        self._inherited: list[sqlite3.Connection] = []          # a forked child must neither use nor close these
        self._prepare()

    def get(self, kind: str, key: str) -> Row | None:
        with self._connection() as connection:
            row = connection.execute(
                "SELECT value, version FROM entry WHERE kind = ? AND key = ? AND (expires IS NULL OR expires > ?)",
                (kind, key, self._clock())).fetchone()
        return Row(*row) if row else None

    def get_many(self, places: Sequence[Place]) -> dict[Place, Row]:
        rows = dict[Place, Row]()
        for batch in in_batches(dict.fromkeys(places), _READ_BATCH):
            marks = ",".join(["(?, ?)"] * len(batch))
            with self._connection() as connection:
                fetched = connection.execute(
                    f"WITH wanted (kind, key) AS (VALUES {marks}) SELECT entry.kind, entry.key, value, version "
                    "FROM wanted CROSS JOIN entry ON entry.kind = wanted.kind AND entry.key = wanted.key "
                    "WHERE expires IS NULL OR expires > ?",
                    (*(part for place in batch for part in place), self._clock())).fetchall()
            rows |= {(kind, key): Row(value, version) for kind, key, value, version in fetched}
        return rows

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        now = self._clock()
        with self._transaction() as connection:
            row = connection.execute("SELECT version, expires FROM entry WHERE kind = ? AND key = ?",
                                       (kind, key)).fetchone()
            there = row[0] if row and (row[1] is None or row[1] > now) else 0
            if version is not None and version != there:
                raise Conflict(f"{kind} {key} was changed by another writer")
            connection.execute("INSERT INTO entry (kind, key, value, version, expires) VALUES (?, ?, ?, ?, ?) "
                               "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, "
                               "version = excluded.version, expires = excluded.expires",
                               (kind, key, check_value(value), new_version(), expires))
            if expires is not None:         # who writes what ends takes away what has ended
                connection.execute("DELETE FROM entry WHERE expires <= ?", (now,))

    def delete(self, kind: str, *keys: str) -> None:
        if not keys:
            return
        with self._transaction() as connection:
            for batch in in_batches(keys, 500):
                marks = ",".join("?" * len(batch))
                connection.execute(f"DELETE FROM entry WHERE kind = ? AND key IN ({marks})", (kind, *batch))

    def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, Row]]:
        low, end, after = max(prefix, start), end_of(prefix) or b"", ">="       # every blob comes after every text
        while True:                         # in pages, so that no reader holds the log open between two rows
            with self._connection() as connection:
                page = connection.execute(
                    f"SELECT key, value, version FROM entry WHERE kind = ? AND key {after} ? AND key < ? "
                    "AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT 500",
                    (kind, low, end, self._clock())).fetchall()
            for key, value, version in page:
                yield key, Row(value, version)
            if len(page) < 500:
                return
            low, after = page[-1][0], ">"

    @contextmanager
    def moment(self) -> Generator[Moment]:
        """As long as it is open, the log grows by what others write."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT 1 FROM entry LIMIT 1").fetchone()    # from here on nothing moves
                yield _Moment(connection, self._clock())
            finally:
                connection.execute("ROLLBACK")

    def write(self, entries: Sequence[Entry]) -> None:
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO entry (kind, key, value, version, expires) VALUES (?, ?, ?, ?, ?)",
                [entry._replace(value=check_value(entry.value)) for entry in entries])

    def scrub(self) -> None:
        """Drop expired rows, rewrite the file and empty the log. Waits for other processes for a few seconds.

        secure_delete alone is not enough: where rows move between pages, SQLite leaves copies in a page's free part.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM entry WHERE expires <= ?", (self._clock(),))
        with self._connection() as connection:
            try:
                connection.execute("VACUUM")
            except sqlite3.OperationalError as problem:         # locked by another program, or no room on the disk
                raise self._unscrubbed(f"could not be rewritten ({problem}), so it") from None
            until = time.monotonic() + _BUSY_SECONDS
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > until:
                    raise self._unscrubbed("is being read, so its log")
                time.sleep(0.05)

    def _unscrubbed(self, why: str) -> Internal:
        return Internal(f"Done, but {self.path} {why} still holds the removed bytes. The next command that removes "
                        "something erases them.")

    def close(self) -> None:
        """Those in use are closed when they are given back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    def _prepare(self) -> None:
        try:
            files.check_owner(self.path, "TWOCLOUD_STORE")
            files.make_folder(self.path.parent)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._connection() as connection:              # a reader needs no lock
                version = self._version(connection)
            if version == 0:
                with self._transaction() as connection:
                    if self._version(connection) == 0:
                        for statement in _SCHEMA:
                            connection.execute(statement)
                        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (OSError, sqlite3.Error) as problem:
            raise SettingsError(f"TWOCLOUD_STORE: {self.path} cannot be used: {problem}.") from None
        except StoreBusy as busy:
            raise SettingsError(f"TWOCLOUD_STORE: {busy.text}") from None

    def _version(self, connection: sqlite3.Connection) -> int:
        """Of the schema; 0: the file is empty. Raises SettingsError."""
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != _APPLICATION_ID and (owner or version or tables):
            raise SettingsError(f"TWOCLOUD_STORE: {self.path} belongs to another program. Name another file.")
        if version not in (0, SCHEMA_VERSION):
            raise SettingsError(f"TWOCLOUD_STORE: {self.path} has schema version {version}, "
                                f"this program knows {SCHEMA_VERSION}. Use the version that wrote it.")
        return version

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        """A connection that may write. Raises StoreBusy if another program holds the lock for too long."""
        with self._connection() as connection:
            writing = self._begin(connection)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:                   # a full disk has ended it
                    connection.execute("ROLLBACK")
                raise
            finally:
                writing.release()

    def _until(self) -> float:
        """When a write that meets another program's lock now gives up."""
        now, seconds = time.monotonic(), patience()
        known = now - self._blocked < _BLOCKED_SECONDS
        return now if known and seconds <= BESIDE_SECONDS else now + seconds

    def _begin(self, connection: sqlite3.Connection) -> threading.Lock:
        """Begin to write, with this process's lock, which is returned. It is not held while another program's is
        waited for, so that a patient write keeps no other one waiting."""
        until, pause, writing = 0.0, 0.001, self._writing
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                writing.acquire()
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    return writing
                except sqlite3.OperationalError as problem:
                    writing.release()
                    if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                until = until or self._until()
                if time.monotonic() + pause > until:
                    self._blocked = time.monotonic()
                    raise StoreBusy(f"Another program holds the write lock of {self.path}, so nothing was written. "
                                    "Retry when it has finished.")
                time.sleep(pause)
                pause = min(pause * 2, 0.01)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(_BUSY_SECONDS * 1000)}")

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        """One that nobody else uses meanwhile. They are kept: threads come and go with each request. Raises StoreBusy
        with what SQLite says."""
        with self._lock:
            if self._pid != os.getpid():
                self._inherited, self._idle, self._pid = self._idle, [], os.getpid()
                self._writing = threading.Lock()
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except sqlite3.Error as problem:
            raise StoreBusy(f"{self.path} cannot be used: {problem}.") from None
        finally:
            with self._lock:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        return connection


class _Moment:
    """Reads within one transaction."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self._now = now

    def count(self) -> int:
        return self._connection.execute("SELECT count(*) FROM entry WHERE expires IS NULL OR expires > ?",
                                        (self._now,)).fetchone()[0]

    def walk(self) -> Iterator[Entry]:
        for row in self._connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE expires IS NULL OR expires > ? "
                                            "ORDER BY kind, key", (self._now,)):
            yield Entry(*row)

    def fetch(self, places: Sequence[Place]) -> list[Entry]:
        entries: list[Entry] = []
        for kind, key in places:
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE kind = ? AND key = ? "
                                           "AND (expires IS NULL OR expires > ?)", (kind, key, self._now)).fetchone()
            entries += [Entry(*row)] if row else []
        return entries
