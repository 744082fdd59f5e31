"""PostgreSQL as a server in trouble: restarted, frozen, read-only, full of connections, gone, or not whom it seems."""

import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from chalicelib.errors import Conflict, SettingsError, StoreBusy
from chalicelib.simulators import tls
from chalicelib.storage import postgres, store
from chalicelib.storage.postgres import PostgresStore
from chalicelib.storage.store import Entry, open_store
from tests.fixtures import Clock
from tests.postgres import Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Not that of other tests: it is restarted, frozen and filled."""
    with Postgres("max_connections=12") as made:
        yield made


@pytest.fixture
def kept(server: Postgres, clock: Clock) -> Iterator[PostgresStore]:
    server.run("DROP TABLE IF EXISTS twocloud, twocloud_schema")
    made = PostgresStore(server.url, clock)
    yield made
    made.close()


# ---------------------------------------------------------------- the server fails

@pytest.mark.sample(2)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_loses_nothing_and_the_next_read_and_write_work(kept: PostgresStore, server: Postgres,
                                                                  how: signal.Signals) -> None:
    kept.put("k", "a", b"1")
    server.stop(how)
    server.start()
    row = kept.get("k", "a")
    assert row
    server.stop(how)
    server.start()
    kept.put("k", "a", b"2", version=row.version)
    assert [row.value for _, row in kept.list("k")] == [b"2"]


@pytest.mark.slow
def test_writers_that_count_under_restarts_miss_and_repeat_nothing(kept: PostgresStore, server: Postgres,
                                                                   clock: Clock) -> None:
    """Each write that returned is there, and each that is there was counted once."""
    stopped, done = threading.Event(), list[int]()

    def count(own: PostgresStore) -> None:
        written = 0
        while not stopped.is_set():
            try:
                row = own.get("k", "n")
                own.put("k", "n", str(int(row.value if row else 0) + 1).encode(), version=row.version if row else 0)
                written += 1
            except (Conflict, StoreBusy):
                time.sleep(0.01)
        done.append(written)

    other = PostgresStore(server.url, clock)
    writers = [threading.Thread(target=count, args=(own,)) for own in (kept, kept, other)]
    for writer in writers:
        writer.start()
    for how in (signal.SIGINT, signal.SIGQUIT):
        time.sleep(0.5)
        server.stop(how)
        server.start()
    time.sleep(1.5)
    stopped.set()
    for writer in writers:
        writer.join(30)
    other.close()
    assert (row := kept.get("k", "n"))
    assert len(done) == 3
    assert int(row.value) == sum(done) > 10


def test_a_server_that_is_gone_or_frozen_costs_so_long_and_no_longer(kept: PostgresStore, server: Postgres,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_READ_SECONDS", 0.5)
    kept.put("k", "a", b"1")
    for broken, mended in ((lambda: server.freeze(), lambda: server.freeze(False)), (server.stop, server.start)):
        broken()
        started = time.monotonic()
        with pytest.raises(StoreBusy, match=r"PostgreSQL at 127.0.0.1"):
            kept.get("k", "a")
        monkeypatch.setattr(postgres, "_READ_SECONDS", 60.0)
        with store.within(time.monotonic() + 0.5), pytest.raises(StoreBusy):
            kept.get("k", "a")              # a read ends with its request, too
        with store.within(time.monotonic() + 0.5), pytest.raises(StoreBusy):
            kept.put("k", "a", b"2")
        with store.beside(), pytest.raises(StoreBusy):
            kept.put("k", "a", b"3")
        assert time.monotonic() - started < 20
        mended()
        monkeypatch.setattr(postgres, "_READ_SECONDS", 30.0)
        assert kept.get("k", "a")
        monkeypatch.setattr(postgres, "_READ_SECONDS", 0.5)


def test_a_write_that_meets_a_lock_waits_so_long_and_no_longer(kept: PostgresStore, server: Postgres) -> None:
    kept.put("k", "a", b"1")
    with psycopg.connect(server.url) as other:
        other.execute("UPDATE twocloud SET value = 'x' WHERE key = 'a'")
        with store.within(time.monotonic() + 0.4), pytest.raises(StoreBusy, match="did not answer in time"):
            kept.put("k", "a", b"2")
        other.rollback()
    kept.put("k", "a", b"3")
    assert (row := kept.get("k", "a"))
    assert row.value == b"3"


def test_a_write_that_was_done_before_the_connection_broke_is_no_conflict(
        kept: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken = postgres._Connection.execute, list[str]()

    def execute(connection: psycopg.Connection[object], query: object, *rest: object, **more: object) -> object:
        done = real(connection, query, *rest, **more)           # type: ignore[arg-type, call-overload]
        if str(query).startswith(("INSERT", "UPDATE")) and len(broken) < times:
            broken.append(str(query))
            connection.pgconn.finish()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(postgres._Connection, "execute", execute)
    times = 1
    kept.put("k", "a", b"1", version=0)
    row = kept.get("k", "a")
    assert row
    times = 2
    kept.put("k", "a", b"2", version=row.version)
    with pytest.raises(Conflict):
        kept.put("k", "a", b"3", version=row.version)
    times = 3
    with pytest.raises(Conflict):           # somebody else's row, found after the first try
        kept.put("k", "a", b"4", version=0)
    assert len(broken) == 3


def test_a_read_only_server_says_so(kept: PostgresStore, server: Postgres,
                                    caplog: pytest.LogCaptureFixture) -> None:
    kept.put("k", "a", b"1")
    server.run("ALTER DATABASE twocloud SET default_transaction_read_only = on")
    try:
        server.stop()
        server.start()
        assert kept.get("k", "a")
        with store.within(time.monotonic() + 2), pytest.raises(StoreBusy, match=r"is read-only.*target_session_attrs"):
            kept.put("k", "a", b"2")
    finally:
        server.run("ALTER DATABASE twocloud RESET default_transaction_read_only", "postgres")
        server.stop()
        server.start()
    kept.put("k", "a", b"3")
    assert (row := kept.get("k", "a"))
    assert row.value == b"3"
    assert [record.name for record in caplog.records if record.name.startswith("psycopg")] == []


def test_more_callers_than_connections_wait_and_more_connections_than_the_server_has_are_refused(
        kept: PostgresStore, server: Postgres, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put("k", "a", b"1")
    results = list[object]()
    threads = [threading.Thread(target=lambda: results.append(kept.get("k", "a"))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 50
    assert None not in results
    others = list[psycopg.Connection[tuple[object, ...]]]()
    try:
        with pytest.raises(psycopg.OperationalError):
            while True:
                others.append(psycopg.connect(server.url))
        with pytest.raises(SettingsError, match=r"too many clients|remaining connection slots"):
            PostgresStore(server.url, clock)
    finally:
        for other in others:
            other.close()


def test_a_moment_does_not_move(kept: PostgresStore) -> None:
    kept.write([Entry("k", f"{n:04}", b"1", n + 1, None) for n in range(1200)])
    with kept.moment() as there:
        assert there.count() == 1200
        walk = there.walk()
        first = next(walk)
        kept.delete("k", "0700")
        kept.put("k", "0800", b"2")
        assert [first, *walk] == [Entry("k", f"{n:04}", b"1", n + 1, None) for n in range(1200)]
        assert [entry.value for entry in there.fetch([("k", "0700"), ("k", "0800"), ("k", "none")])] == [b"1", b"1"]
    assert kept.get("k", "0700") is None


def test_what_has_expired_goes_without_anybody_asking(kept: PostgresStore, server: Postgres, clock: Clock) -> None:
    kept.put("k", "a", b"1", expires=int(clock()) + 5)
    clock.forward(10)
    kept._swept = 0.0
    kept.put("k", "b", b"1", expires=int(clock()) + 5)
    assert server.run("SELECT key FROM twocloud") == "b"
    clock.forward(10)
    kept.scrub()
    assert server.run("SELECT count(*) FROM twocloud") == "0"


# ---------------------------------------------------------------- which database

def test_a_database_of_another_program_or_version_is_left_alone(server: Postgres, clock: Clock) -> None:
    server.run("DROP TABLE IF EXISTS twocloud, twocloud_schema; CREATE TABLE twocloud (a int)")
    with pytest.raises(SettingsError, match="another program"):
        PostgresStore(server.url, clock)
    server.run("DROP TABLE twocloud")
    PostgresStore(server.url, clock).close()
    server.run("UPDATE twocloud_schema SET version = 7")
    with pytest.raises(SettingsError, match="schema version 7, this program knows 1"):
        PostgresStore(server.url, clock)
    server.run("DROP TABLE twocloud, twocloud_schema")
    server.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(SettingsError, match="encoding is LATIN1"):
        PostgresStore(f"{server.url.rpartition('/')[0]}/latin", clock)


def test_processes_that_come_first_at_the_same_time_make_one_schema(server: Postgres, clock: Clock) -> None:
    server.run("DROP TABLE IF EXISTS twocloud, twocloud_schema")
    failures = list[Exception]()

    def come() -> None:
        try:
            PostgresStore(server.url, clock).close()
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert server.run("SELECT version FROM twocloud_schema") == "1"


@pytest.mark.parametrize(("url", "why"), [
    ("postgresql://127.0.0.1:1/x?connect_timeout=2", "refused"),
    ("postgresql://user:hunter2@127.0.0.1:1/x?nonsense=1", "invalid URI query parameter"),
    ("postgresql://127.0.0.1:port/x", "invalid port number|invalid integer"),
])
def test_a_database_that_cannot_be_used_is_one_clear_line(clock: Clock, url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as failed:
        open_store(url, clock)
    assert "\n" not in failed.value.text
    assert failed.value.text.startswith("TWOCLOUD_STORE")
    assert "hunter2" not in failed.value.text


@pytest.mark.parametrize(("url", "without"), [
    ("postgresql://ann:hunter2@db.example.com/two", "postgresql://ann@db.example.com/two"),
    ("postgres://ann@db.example.com/two?password=hunter2&sslmode=require",
     "postgres://ann@db.example.com/two?sslmode=require"),
    ("postgresql://ann@db.example.com/two?sslmode=require&password=hunter2",
     "postgresql://ann@db.example.com/two?sslmode=require"),
    ("postgresql://ann@db.example.com/two?sslpassword=hunter2", "postgresql://ann@db.example.com/two"),
    ("sqlite:///a", "sqlite:///a"), ("dynamodb://table", "dynamodb://table")])
def test_a_password_is_not_shown(url: str, without: str) -> None:
    assert store.shown(url) == without


def test_without_the_extra_the_store_says_which(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setitem(sys.modules, "chalicelib.storage.postgres", None)
    with pytest.raises(SettingsError, match=r"run .*pip install -e \"\.\[postgres\]\""):
        open_store("postgresql://db.example.com/x", clock)


# ---------------------------------------------------------------- TLS

@pytest.mark.parametrize(("url", "sslmode", "authorities"), [
    ("postgresql://db.example.com/x", "verify-full", "system"),
    ("postgresql://127.0.0.1,db.example.com/x", "verify-full", "system"),
    ("postgresql://db.example.com/x?sslrootcert=/ca.pem", "verify-full", "/ca.pem"),
    ("postgresql://db.example.com/x?sslmode=disable", "disable", None),
    ("postgresql://127.0.0.1/x", None, None),
    ("postgresql:///x?host=/run/postgresql", None, None)])
def test_hosts_of_the_network_must_show_their_certificate_unless_the_url_says_otherwise(
        url: str, sslmode: str | None, authorities: str | None) -> None:
    options = postgres._options(url)
    assert (options.get("sslmode"), options.get("sslrootcert")) == (sslmode, authorities)


@contextmanager
def behind_tls(server: Postgres, pem: str, key: str) -> Generator[int]:
    """The port of what speaks TLS for a server that was built without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)

    def relay(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                caller, _ = listening.accept()
                assert caller.recv(8)[4:] == (80877103).to_bytes(4, "big")      # SSLRequest
                caller.sendall(b"S")
                with suppress(OSError):
                    secure = context.wrap_socket(caller, server_side=True)
                    there = socket.create_connection(("127.0.0.1", server.port))
                    for pair in ((secure, there), (there, secure)):
                        threading.Thread(target=relay, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]


def test_tls_is_verified(server: Postgres, clock: Clock, tmp_path: Path) -> None:
    server.run("DROP TABLE IF EXISTS twocloud, twocloud_schema")
    pem, key = tls.certificate(tmp_path)
    with behind_tls(server, pem, key) as port:
        url = server.url.replace(str(server.port), str(port))
        made = open_store(f"{url}?sslmode=verify-full&sslrootcert={pem}", clock)
        made.put("k", "a", b"1")
        made.close()
        with pytest.raises(SettingsError, match=r"certificate verify failed.*sslrootcert=FILE"):
            open_store(f"{url}?sslmode=verify-full&sslrootcert=system", clock)
        with pytest.raises(SettingsError, match="does not match host name"):
            open_store(f"{url.replace('127.0.0.1', 'db.example.com')}?sslrootcert={pem}&hostaddr=127.0.0.1", clock)
