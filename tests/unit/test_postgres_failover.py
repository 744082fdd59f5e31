"""PostgreSQL with a standby, behind PgBouncer, on a full disk, and of the newest version."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chalicelib.errors import Conflict, SettingsError, StoreBusy
from chalicelib.storage import store
from chalicelib.storage.postgres import PostgresStore
from chalicelib.storage.store import Entry
from tests import ROOT
from tests.fixtures import Clock
from tests.postgres import Postgres


def both(one: Postgres, other: Postgres, more: str = "?target_session_attrs=read-write") -> str:
    return f"postgresql://twocloud@127.0.0.1:{one.port},127.0.0.1:{other.port}/twocloud{more}"


# ---------------------------------------------------------------- a standby

@pytest.fixture
def primary() -> Iterator[Postgres]:
    with Postgres() as made:
        yield made


@pytest.fixture
def standby(primary: Postgres) -> Iterator[Postgres]:
    with Postgres(primary=primary) as made:
        yield made


@pytest.mark.slow
def test_a_failover_under_writers_misses_and_repeats_nothing(primary: Postgres, standby: Postgres,
                                                             clock: Clock) -> None:
    """The primary dies, its standby is promoted: each write that returned is there, and was counted once."""
    stopped, written = threading.Event(), [0, 0]
    stores = [PostgresStore(both(primary, standby), clock) for _ in written]

    def count(number: int) -> None:
        own = stores[number]
        while not stopped.is_set():
            try:
                row = own.get("k", str(number))
                own.put("k", str(number), str(int(row.value if row else 0) + 1).encode(),
                        version=row.version if row else 0)
                written[number] += 1
            except (Conflict, StoreBusy):
                time.sleep(0.01)

    writers = [threading.Thread(target=count, args=(number,)) for number in range(len(written))]
    for writer in writers:
        writer.start()
    until = time.monotonic() + 30
    while min(written) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    primary.stop(signal.SIGQUIT)
    standby.promote()
    before = list(written)
    while any(now < then + 5 for now, then in zip(written, before, strict=True)) and time.monotonic() < until:
        time.sleep(0.01)
    stopped.set()
    for writer in writers:
        writer.join(30)
    rows = [stores[0].get("k", str(number)) for number in range(len(written))]
    for own in stores:
        own.close()
    assert [int(row.value) for row in rows if row] == written
    assert all(now >= then + 5 for now, then in zip(written, before, strict=True))


@pytest.mark.slow
def test_a_standby_alone_reads_and_says_why_it_does_not_write(primary: Postgres, standby: Postgres,
                                                              clock: Clock) -> None:
    first = PostgresStore(primary.url, clock)
    first.put("k", "a", b"1")
    first.close()
    alone = PostgresStore(standby.url, clock)
    until = time.monotonic() + 30
    while not (row := alone.get("k", "a")) and time.monotonic() < until:
        time.sleep(0.05)                    # it commits here before it can be read here
    assert row
    with store.within(time.monotonic() + 2), pytest.raises(StoreBusy, match=r"is read-only.*target_session_attrs"):
        alone.put("k", "a", b"2")
    alone.close()
    primary.stop()
    with pytest.raises(SettingsError, match="session is read-only"):
        PostgresStore(both(primary, standby), clock)


# ---------------------------------------------------------------- PgBouncer

@contextmanager
def pgbouncer(server: Postgres, mode: str, folder: Path) -> Generator[str]:
    """The URL of a PgBouncer before that server."""
    packages = ROOT / ".tools/postgres/debian"
    program = packages / "usr/sbin/pgbouncer"
    if not program.exists():
        pytest.skip("not on this machine: PgBouncer (Debian's package; rm -r .tools/postgres to try again)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = server.folder / mode            # where who runs PostgreSQL can write
    place.mkdir()
    (place / "users").write_text('"twocloud" ""\n')
    (place / "ini").write_text(
        f"[databases]\ntwocloud = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {place}/users\npool_mode = {mode}\n"
        f"default_pool_size = {3 if mode == 'transaction' else 30}\nunix_socket_dir =\n")
    account = server.account()
    with (place / "log").open("wb") as log, subprocess.Popen(
            [program, str(place / "ini")], stdout=log, stderr=log, **account,
            env={"LD_LIBRARY_PATH": ":".join(map(str, packages.glob("usr/lib/*-linux-gnu")))}) as process:
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > until or process.poll() is not None:
                        raise RuntimeError((place / "log").read_text()) from None
                    time.sleep(0.05)
            yield f"postgresql://twocloud@127.0.0.1:{port}/twocloud"
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(place)


@pytest.mark.sample(2)
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_behind_pgbouncer_all_is_as_without(primary: Postgres, clock: Clock, tmp_path: Path, mode: str) -> None:
    with pgbouncer(primary, mode, tmp_path) as url:
        kept, other = PostgresStore(url, clock), PostgresStore(url, clock)
        rows = [Entry("k", f"{n:04}", b"1", n + 1, None) for n in range(1200)]
        kept.write(rows)
        with kept.moment() as there:
            walk = there.walk()
            first = next(walk)
            other.delete("k", "0700")
            assert [first, *walk] == rows
        assert [key for key, _ in other.list("k", "07")] == [f"07{n:02}" for n in range(1, 100)]
        threads = [threading.Thread(target=own.put, args=("k", f"new-{n}", b"2"))
                   for n in range(20) for own in (kept, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(list(kept.list("k", "new-"))) == 20
        row = kept.get("k", "new-0")
        assert row
        other.put("k", "new-0", b"3", version=row.version)
        with pytest.raises(Conflict):
            kept.put("k", "new-0", b"4", version=row.version)
        primary.stop(signal.SIGQUIT)
        primary.start()
        kept.put("k", "after", b"5")
        assert other.get("k", "after")
        kept.close()
        other.close()


def test_pgbouncers_statement_mode_is_refused_at_the_start(primary: Postgres, clock: Clock, tmp_path: Path) -> None:
    PostgresStore(primary.url, clock).close()
    with pgbouncer(primary, "statement", tmp_path) as url, pytest.raises(
            SettingsError, match="pool_mode must be session or transaction"):
        PostgresStore(url, clock)


# ---------------------------------------------------------------- a full disk

@pytest.mark.slow
def test_a_full_disk_fails_writes_and_says_so_and_loses_nothing(clock: Clock) -> None:
    with Postgres("max_wal_size=4MB", "min_wal_size=2MB", disk=120) as server:
        kept = PostgresStore(server.url, clock)
        kept.put("k", "before", b"1")
        ballast = server.folder / "data/ballast"
        usage = shutil.disk_usage(server.folder / "data")
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, usage.free - 6 * 1024 * 1024)
        texts, written = set[str](), 0
        until = time.monotonic() + 60
        while not texts and time.monotonic() < until:
            try:
                with store.within(time.monotonic() + 5):
                    kept.put("k", f"{written:05}", os.urandom(100_000))
                written += 1
            except StoreBusy as problem:
                texts.add(str(problem))
        assert any("No space left on device" in text or "connection" in text for text in texts), texts
        ballast.unlink()
        if server.process and server.process.poll() is not None:       # its log could not be written: it ended itself
            server.start()
        kept.put("k", "after", b"2")
        assert len(list(kept.list("k", "0"))) == written
        assert kept.get("k", "before")
        kept.close()


# ---------------------------------------------------------------- versions

@pytest.mark.slow
def test_the_newest_version_too(clock: Clock) -> None:
    with Postgres(version=18) as server:
        kept = PostgresStore(server.url, clock)
        kept.write([Entry("k", f"{n:04}", b"1", n + 1, int(clock()) + 5) for n in range(1200)])
        server.stop(signal.SIGQUIT)
        server.start()
        with kept.moment() as there:
            assert there.count() == len(list(there.walk())) == 1200
        clock.forward(10)
        kept.scrub()
        assert server.run("SELECT count(*) FROM twocloud") == "0"
        kept.close()
