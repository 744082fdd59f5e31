"""The store for several machines: one table of a PostgreSQL database, shared by all processes that use it.

Every write is one statement and is there when it returns. A connection that broke is replaced and the statement sent
again: each can be. What the server does not answer in time is given up here, whatever it is stuck in. On hosts other
than this machine TLS is used and the server's certificate checked, unless the URL's `sslmode` says otherwise.
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, LiteralString, TypeVar

import psycopg
import psycopg_pool
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import Conflict, SettingsError, StoreBusy, StoreConnectionBroken
from ..route import is_loopback
from .store import Entry, Moment, Place, Row, check_value, end_of, in_batches, new_version, patience, read_patience

T = TypeVar("T")
SCHEMA_VERSION = 1
_SCHEMA: tuple[LiteralString, ...] = (
    'CREATE TABLE twocloud (kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, value bytea NOT NULL, '
    "version bigint NOT NULL, expires bigint, PRIMARY KEY (kind, key))",
    "CREATE INDEX twocloud_expiring ON twocloud (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE twocloud_schema (version integer NOT NULL)",
    "INSERT INTO twocloud_schema VALUES (1)",
)
_LOCK = 0x74776F63                          # of who makes the tables
_DEFAULTS = {"application_name": "twocloud", "connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 5,
             "keepalives_count": 3, "tcp_user_timeout": 10_000}
_CONNECTIONS = 10                           # of one process; PostgreSQL takes 100 in all by default
_READ_BATCH = 1000                          # rows of one statement
_PAGE = 500                                 # rows of a list that are read at a time
_READ_SECONDS = 5.0                         # that a read waits
_CANCEL_SECONDS = 0.5
_WALK_SECONDS = 3600.0                      # that a copy may take
_SWEEP_SECONDS = 60.0                       # between two removals of what has expired, of one process
_PASSES = ("40001", "40P01")                # serialization failure, deadlock: sent again at once


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """`until`: when what it waits for is given up (time.monotonic)."""

    until: float = inf

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        remaining = max(0.001, min(self.until - time.monotonic(), timeout or inf))
        return super().wait(gen, interval, None if remaining == inf else remaining)


class PostgresStore:
    """`url`: libpq's. Raises SettingsError if the database cannot be used."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)     # its lines are not ours
        self._clock = clock
        self._lock = threading.Lock()
        self._swept = 0.0
        self._options = _options(url)
        self._host = self._options.get("host") or self._options.get("hostaddr") or "this machine"
        self._prepare()
        self._pool, self._pid = self._connected(), os.getpid()

    def get(self, kind: str, key: str) -> Row | None:
        return self.get_many([(kind, key)]).get((kind, key))

    def get_many(self, places: Sequence[Place]) -> dict[Place, Row]:
        rows = dict[Place, Row]()
        for batch in in_batches(dict.fromkeys(places), _READ_BATCH):
            part = self._read(lambda connection, batch=batch: _rows_at(connection, batch, self._clock()))
            rows |= {(entry.kind, entry.key): Row(entry.value, entry.version) for entry in part}
        return rows

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None,
            expires: int | None = None) -> None:
        made, now, tries = new_version(), self._clock(), 0
        row = (kind, key, check_value(value), made, expires)

        def put(connection: _Connection) -> None:
            nonlocal tries
            tries += 1
            if version:
                done = connection.execute("UPDATE twocloud SET value = %s, version = %s, expires = %s "
                                          "WHERE kind = %s AND key = %s AND version = %s "
                                          "AND (expires IS NULL OR expires > %s)",
                                          (*row[2:], kind, key, version, now))
            elif version == 0:
                done = connection.execute(_INSERT + " WHERE twocloud.expires <= %s", (*row, now))
            else:
                done = connection.execute(_INSERT, row)
            if done.rowcount == 0:
                # the connection may have broken after the server had written what was sent first
                mine = tries > 1 and connection.execute(
                    "SELECT 1 FROM twocloud WHERE kind = %s AND key = %s AND version = %s", (kind, key, made))
                if not (mine and mine.fetchone()):
                    raise Conflict(f"{kind} {key} was changed by another writer")

        self._write(put)
        if expires is not None:             # who writes what ends takes away what has ended
            self._sweep()

    def delete(self, kind: str, *keys: str) -> None:
        for batch in in_batches(sorted(keys), _READ_BATCH):
            self._write(lambda connection, batch=batch: connection.execute(
                "DELETE FROM twocloud WHERE kind = %s AND key = ANY(%s)", (kind, batch)))

    def list(self, kind: str, prefix: str = "", start: str = "") -> Iterator[tuple[str, Row]]:
        low, end, query = max(prefix, start), end_of(prefix), _LIST_FROM
        while True:                         # in pages, so that no connection is held between two rows
            page = self._read(lambda connection, query=query, low=low: connection.execute(
                query, (kind, low, end, end, self._clock(), _PAGE), binary=True).fetchall())
            for key, value, version in page:
                yield key, Row(value, version)
            if len(page) < _PAGE:
                return
            low, query = page[-1][0], _LIST_AFTER

    @contextmanager
    def moment(self) -> Generator[Moment]:
        self._pool.check()                  # what is read in one transaction cannot be sent again on another connection
        with self._one(_WALK_SECONDS) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield _Moment(connection, self._clock())

    def write(self, entries: Sequence[Entry]) -> None:
        rows = sorted(entry._replace(value=check_value(entry.value)) for entry in entries)

        def write(connection: _Connection) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_INSERT, rows)

        self._write(write)

    def scrub(self) -> None:
        """Remove expired rows. PostgreSQL itself reuses the room of removed rows when it vacuums the table, and keeps
        its write-ahead log as long as it is set to."""
        self._write(lambda connection: connection.execute("DELETE FROM twocloud WHERE expires <= %s",
                                                          (self._clock(),)))

    def close(self) -> None:
        self._pool.close(timeout=1.0)

    def _sweep(self) -> None:
        """Some of what has expired; rows that others are removing are left to them."""
        with self._lock:
            if time.monotonic() - self._swept < _SWEEP_SECONDS:
                return
            self._swept = time.monotonic()
        with suppress(StoreBusy):
            self._write(lambda connection: connection.execute(
                "DELETE FROM twocloud WHERE (kind, key) IN (SELECT kind, key FROM twocloud WHERE expires <= %s "
                "LIMIT 1000 FOR UPDATE SKIP LOCKED)", (self._clock(),)))

    # ------------------------------------------------------------ connections

    def _read(self, work: Callable[[_Connection], T]) -> T:
        return self._run(work, read_patience(_READ_SECONDS))

    def _write(self, work: Callable[[_Connection], T]) -> T:
        return self._run(work, patience())

    def _run(self, work: Callable[[_Connection], T], seconds: float) -> T:
        """What `work` gives; again on another connection if this one broke. Raises StoreBusy, Conflict."""
        until = time.monotonic() + seconds
        while True:
            try:
                with self._one(until - time.monotonic()) as connection:
                    return work(connection)
            except StoreConnectionBroken:
                if time.monotonic() >= until:
                    raise
                time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    @contextmanager
    def _one(self, seconds: float) -> Generator[_Connection]:
        """A connection of the pool, for so long at most. Raises StoreConnectionBroken, StoreBusy."""
        if self._pid != os.getpid():        # a forked child must neither use nor close its parent's connections
            with self._lock:
                if self._pid != os.getpid():
                    self._pool, self._pid = self._connected(), os.getpid()
        until = time.monotonic() + seconds
        try:
            with self._pool.connection(timeout=max(0.01, seconds)) as connection:
                connection.until = until
                try:
                    yield connection
                except psycopg.Error as problem:
                    again = connection.broken or problem.sqlstate in _PASSES
                    late = time.monotonic() >= until
                    connection.until = inf
                    if late:                # or it is done after what is written next
                        with suppress(psycopg.Error):
                            connection.cancel_safe(timeout=_CANCEL_SECONDS)
                    if late or isinstance(problem, psycopg.errors.ReadOnlySqlTransaction):
                        connection.close()  # a server that became a standby stays one
                    raise (StoreConnectionBroken if again else StoreBusy)(self._text(problem, late)) from None
                finally:
                    connection.until = inf
        except psycopg_pool.PoolTimeout:
            raise StoreBusy(f"No connection to PostgreSQL at {self._host} within {seconds:.0f} s. Is it running, and "
                            "does it take enough connections?") from None
        except psycopg_pool.PoolClosed:
            raise StoreBusy("The store is closed.") from None

    def _text(self, problem: psycopg.Error, late: bool) -> str:
        if late:
            return f"PostgreSQL at {self._host} did not answer in time."
        if isinstance(problem, psycopg.errors.ReadOnlySqlTransaction):
            return (f"PostgreSQL at {self._host} is read-only. After a failover, name all hosts in TWOCLOUD_STORE with "
                    "target_session_attrs=read-write.")
        first = str(problem).strip().partition("\n")[0]
        return f"PostgreSQL at {self._host}: {first or type(problem).__name__}"

    def _connected(self) -> "psycopg_pool.ConnectionPool[_Connection]":
        return psycopg_pool.ConnectionPool(
            make_conninfo("", **self._options), connection_class=_Connection, kwargs={
                "autocommit": True, "prepare_threshold": None},         # PgBouncer may stand in between
            min_size=1, max_size=_CONNECTIONS, max_idle=120.0, reconnect_timeout=60.0, num_workers=2, open=True,
            name="twocloud-store")

    # ------------------------------------------------------------ tables

    def _prepare(self) -> None:
        try:
            with _Connection.connect(make_conninfo("", **self._options), autocommit=True) as connection:
                encoding = connection.info.parameter_status("server_encoding")
                if encoding != "UTF8":
                    raise SettingsError(f"TWOCLOUD_STORE: the database's encoding is {encoding}. Make one with UTF8.")
                with connection.transaction():          # PgBouncer in statement mode refuses it here, not later
                    if (version := _schema(connection)) is None:
                        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                        if (version := _schema(connection)) is None:
                            for statement in _SCHEMA:
                                connection.execute(statement)
                            version = SCHEMA_VERSION
        except psycopg.Error as problem:
            raise SettingsError(f"TWOCLOUD_STORE: {_reason(problem, self._options)}") from None
        if version != SCHEMA_VERSION:
            raise SettingsError(f"TWOCLOUD_STORE: the database has schema version {version}, this program knows "
                                f"{SCHEMA_VERSION}. Use the version that wrote it.")


_LIST_FROM: LiteralString = (
    "SELECT key, value, version FROM twocloud WHERE kind = %s AND key >= %s AND (%s::text IS NULL OR key < %s) "
    "AND (expires IS NULL OR expires > %s) ORDER BY key LIMIT %s")
_LIST_AFTER: LiteralString = _LIST_FROM.replace(">= %s", "> %s")
_INSERT: LiteralString = (
    "INSERT INTO twocloud (kind, key, value, version, expires) VALUES (%s, %s, %s, %s, %s) ON CONFLICT (kind, key) "
    "DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires")


def _schema(connection: _Connection) -> int | None:
    """The version of the tables that are there; None: there are none."""
    tables = connection.execute("SELECT relname FROM pg_class WHERE relname IN ('twocloud', 'twocloud_schema') "
                                "AND pg_table_is_visible(oid)").fetchall()
    if not tables:
        return None
    if len(tables) == 1:
        raise SettingsError("TWOCLOUD_STORE: the database has a table of this name that belongs to another program. "
                            "Name another database.")
    row = connection.execute("SELECT version FROM twocloud_schema").fetchone()
    return row[0] if row else 0


def _options(url: str) -> dict[str, Any]:
    """What libpq is given. Raises SettingsError."""
    try:
        named = conninfo_to_dict(url)
    except psycopg.ProgrammingError as problem:
        first = str(problem).strip().partition("\n")[0]
        raise SettingsError(f"TWOCLOUD_STORE is not a URL that PostgreSQL's library reads: {first}") from None
    set_outside = {it.keyword.decode(): it.val.decode() for it in pq.Conninfo.get_defaults() if it.val}
    hosts = f"{named.get('host') or named.get('hostaddr') or set_outside.get('host', '')}".split(",")
    near = all(not host or host.startswith(("/", "@")) or is_loopback(host) for host in hosts)
    checked = {} if near or set_outside.get("sslmode") != "prefer" else {"sslmode": "verify-full"}
    if checked and "sslmode" not in named and not named.get("sslrootcert", set_outside.get("sslrootcert")):
        checked["sslrootcert"] = "system"
    return {**_DEFAULTS, **checked, **named}


def _reason(problem: psycopg.Error, options: Mapping[str, Any]) -> str:
    text = " ".join(str(problem).split())
    if "SSL" in text or "certificate" in text:
        text += (" Name the authority with sslrootcert=FILE in the URL; on a network that you trust, sslmode=disable "
                 "goes without TLS.")
    if "statement pooling mode" in text:
        text += " PgBouncer's pool_mode must be session or transaction."
    password = str(options.get("password") or "")
    return text.replace(password, "…") if password else text


def _rows_at(connection: _Connection, places: Sequence[Place], now: float) -> list[Entry]:
    kinds, keys = zip(*places, strict=True)
    return [Entry(*row) for row in connection.execute(
        "SELECT kind, key, value, version, expires FROM unnest(%s::text[], %s::text[]) AS wanted (kind, key) "
        "JOIN twocloud USING (kind, key) WHERE expires IS NULL OR expires > %s",
        (list(kinds), list(keys), now), binary=True)]


class _Moment:
    """Reads within one transaction."""

    def __init__(self, connection: _Connection, now: float) -> None:
        self._connection = connection
        self._now = now

    def count(self) -> int:
        row = self._connection.execute("SELECT count(*) FROM twocloud WHERE expires IS NULL OR expires > %s",
                                       (self._now,)).fetchone()
        return row[0] if row else 0

    def walk(self) -> Iterator[Entry]:
        with self._connection.cursor("walk", binary=True) as cursor:
            cursor.itersize = _PAGE
            cursor.execute("SELECT kind, key, value, version, expires FROM twocloud "
                           "WHERE expires IS NULL OR expires > %s ORDER BY kind, key", (self._now,))
            for row in cursor:
                yield Entry(*row)

    def fetch(self, places: Sequence[Place]) -> list[Entry]:
        return [entry for batch in in_batches(places, _READ_BATCH)
                for entry in _rows_at(self._connection, batch, self._now)]
