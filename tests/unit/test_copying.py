"""`twocloud store copy`: the same rows, whatever breaks it off; a store in use is left alone."""

import base64
import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from moto import mock_aws

from chalicelib import parties
from chalicelib.access import accounts, copying
from chalicelib.access.copying import Count
from chalicelib.access.sealing import KmsSealer, LocalSealer, Sealer
from chalicelib.errors import Conflict, Internal
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import LARGEST, Entry, Store
from tests import ROOT
from tests.canaries import secret
from tests.fixtures import AWS, START, TABLE, Clock

KINDS = ("account", "user", "token", "snapshot", "chunk")


def rows(store: Store) -> dict[tuple[str, str], tuple[bytes, int | None]]:
    with store.moment() as there:
        return {(it.kind, it.key): (it.value, it.expires) for it in there.walk() if it.kind != "copy"}


def last(counts: Iterator[Count]) -> Count:
    *_, counted = counts
    return counted


def fill(store: Store, count: int, now: float = START) -> None:
    dice = random.Random(7)
    store.write([Entry(KINDS[n % 5] if n % 5 else "user", f"t{n:06}/é", dice.randbytes(dice.randrange(1, 300)), n + 1,
                       int(now) + 1000 + n if n % 3 == 0 else None) for n in range(count)])


@pytest.fixture
def other(store: Store, tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    made = SqliteStore(f"{tmp_path}/other.db", clock)
    yield made
    made.close()


# a thousand rows take moto seconds; MiniStack is the other DynamoDB
SLOW_ON_MOTO = pytest.mark.parametrize(
    "store", ["sqlite", "ministack", pytest.param("moto", marks=pytest.mark.slow)], indirect=True)


# ---------------------------------------------------------------- what a copy is

def test_write_and_moment(store: Store, clock: Clock) -> None:
    entries = [Entry("k", f"{n:03}", bytes([n % 256]) * n, n + 1, int(clock()) + 5 if n % 2 else None)
               for n in range(130)]
    store.write(entries)
    store.write([])
    with store.moment() as there:
        assert sorted(there.walk()) == entries
        assert there.count() in (130, None)
        assert sorted(there.fetch([("k", f"{n:03}") for n in range(130)] + [("k", "x"), ("x", "001")])) == entries
        assert list(there.fetch([])) == []
    row = store.get("k", "007")
    assert row
    assert row.version == 8
    clock.forward(5)
    with store.moment() as there:
        assert sorted(there.walk()) == entries[::2]
        assert list(there.fetch([("k", "001")])) == []
    # DynamoDB gives 16 MB at once
    store.write([Entry("big", f"{n:02}", bytes([n]) * 370_000, 1, None) for n in range(50)])
    with store.moment() as there:
        values = sorted(there.fetch([("big", f"{n:02}") for n in range(50)]))
    assert [(it.key, it.value[0], len(it.value)) for it in values] == [(f"{n:02}", n, 370_000) for n in range(50)]
    with pytest.raises(ValueError, match="exceeds the limit"):
        store.write([Entry("k", "a", b"x" * (LARGEST + 1), 1, None)])


@SLOW_ON_MOTO
def test_there_and_back(store: Store, other: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    fill(other, 1100)
    other.put("token", "ended", b"x", expires=int(clock()))
    for kind in ("lease", "rate"):
        other.put(kind, "l", b"x", expires=int(clock()) + 60)
    counted = last(copying.copy(other, "other", store))
    assert counted == Count(rows=1100, written=1100)
    assert rows(store) == {place: it for place, it in rows(other).items() if place[0] not in ("lease", "rate")}
    back = SqliteStore(f"{tmp_path}/back.db", clock)
    assert last(copying.copy(store, "store", back)).written == 1100
    assert rows(back) == rows(store)
    back.close()


@SLOW_ON_MOTO
def test_run_again_it_takes_over_what_changed(store: Store, other: SqliteStore) -> None:
    fill(other, 900)
    last(copying.copy(other, "other", store))
    assert last(copying.copy(other, "other", store)) == Count(rows=900)
    other.put("user", "new", b"1")
    other.put("user", "t000005/é", b"changed")
    other.delete("user", "t000000/é")
    other.delete("token", "t000002/é")                          # revoked: must not live on
    assert last(copying.copy(other, "other", store)) == Count(rows=899, written=2, removed=2)
    assert rows(store) == rows(other)


def test_a_store_in_use_is_left_alone(store: Store, other: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    fill(other, 10)
    store.put("user", "theirs", b"1")
    with pytest.raises(Conflict, match="already holds rows"):
        last(copying.copy(other, "other", store))
    assert rows(store) == {("user", "theirs"): (b"1", None)}
    store.delete("user", "theirs")
    last(copying.copy(other, "other", store))
    with pytest.raises(Conflict, match="a copy of other"):
        last(copying.copy(other, "another", store))
    other.delete("token", "t000002/é")
    store.put("user", "t000001/é", b"written by a service")
    before = rows(store)
    with pytest.raises(Conflict, match="in use"):
        last(copying.copy(other, "other", store))
    assert rows(store) == before


def test_who_writes_to_the_copy_meanwhile_is_found_out(store: Store, other: SqliteStore) -> None:
    fill(other, 900)
    with pytest.raises(Conflict, match="in use"):
        for counted in copying.copy(other, "other", store):
            if counted.rows == 400:
                store.put("chunk", "t000004/é", b"written by a service")


def test_a_write_that_was_lost_is_told(store: Store, other: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(other, 50)
    real = type(store).write
    monkeypatch.setattr(type(store), "write", lambda self, entries: real(self, [
        it._replace(value=b"?") if it.key == "t000007/é" else it for it in entries if it.key != "t000003/é"]))
    assert last(copying.copy(other, "other", store)).different == 2


def test_from_sqlite_it_is_one_moment(tmp_path: Path, clock: Clock) -> None:
    """Two rows that a writer always changes together (SQLite's transactions are single rows: the first, then the
    second)."""
    source, target = (SqliteStore(f"{tmp_path}/{name}.db", clock) for name in ("a", "b"))
    fill(source, 3000)
    source.put("zz", "second", b"0")
    source.put("aa", "first", b"0")
    stopped = threading.Event()

    def write() -> None:
        n = 0
        while not stopped.is_set():
            n += 1
            source.put("zz", "second", b"%d" % n)               # read last, written first
            source.put("aa", "first", b"%d" % n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(5):
            while (row := source.get("aa", "first")) is None or int(row.value) < 3 * n:
                pass
            counted = last(copying.copy(source, "a", target))
            assert counted.rows == 3002
            assert not counted.different
            first, second = target.get("aa", "first"), target.get("zz", "second")
            assert first
            assert second
            assert int(second.value) - int(first.value) in (0, 1)
    finally:
        stopped.set()
        writer.join()
        source.close()
        target.close()


# ---------------------------------------------------------------- what breaks it off

class _Broken(Exception):
    pass


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fault_at_each_call_of_either_store(store: Store, other: SqliteStore,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun again, it ends right."""
    fill(other, 900)
    for nth in range(60):
        calls = 0
        for kind in (*KINDS, "copy"):
            store.delete(kind, *[key for key, _ in store.list(kind)])
        originals = {(kind, name): getattr(kind, name) for kind in (type(store), type(other))
                     for name in ("get", "put", "delete", "write", "moment")}

        def failing(original: Callable[..., Any], nth: int = nth) -> Any:
            def call(*args: Any, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > nth:
                    raise _Broken
                return original(*args, **more)

            return call

        with monkeypatch.context() as patch:
            for (kind, name), original in originals.items():
                patch.setattr(kind, name, failing(original))
            try:
                last(copying.copy(other, "other", store))
                done = True
            except _Broken:
                done = False
        assert last(copying.copy(other, "other", store)).different == 0, nth
        assert rows(store) == rows(other), nth
        if done:
            assert nth > 5
            return
    raise AssertionError("never done")


def _copy_files(source: str, target: str) -> None:
    last(copying.copy(SqliteStore(source, time.time), "a", SqliteStore(target, time.time)))


@pytest.mark.slow
@pytest.mark.parametrize("copies", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_kill_9_at_random(tmp_path: Path, copies: int) -> None:
    source = SqliteStore(f"{tmp_path}/a.db", time.time)
    fill(source, 30_000, time.time())
    context, dice, halves = multiprocessing.get_context("fork"), random.Random(3), 0
    for n in range(3 * copies):
        path = tmp_path / f"b{n % copies}.db"                   # each copy is broken off three times
        copier = context.Process(target=_copy_files, args=(f"{tmp_path}/a.db", str(path)))
        copier.start()
        time.sleep(dice.random() * 0.8)
        assert copier.pid
        os.kill(copier.pid, signal.SIGKILL)
        copier.join()
        if path.exists():
            there = SqliteStore(str(path), time.time)
            halves += 0 < len(rows(there)) < 30_000
            there.close()
    assert halves >= 3 * copies // 5                                # it was hit in the middle
    for n in range(copies):
        target = SqliteStore(f"{tmp_path}/b{n}.db", time.time)
        assert last(copying.copy(source, "a", target)).different == 0
        assert rows(target) == rows(source)
        target.close()
    source.close()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), [(20_000, 4_500), pytest.param(100_000, 900, marks=pytest.mark.slow)])
def test_many_rows_in_bounded_memory(tmp_path: Path, count: int, size: int) -> None:
    source = SqliteStore(f"{tmp_path}/a.db", time.time)
    for n in range(20):
        source.write([Entry("chunk", f"{n}/{m}", bytes(size) + b"%d" % m, 1, None) for m in range(count // 20)])
    source.close()
    code = ("import resource, sys, time; from chalicelib.access import accounts, copying; from "
            "chalicelib.storage.sqlite import SqliteStore\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
            "a, b = (SqliteStore(path, time.time) for path in sys.argv[1:])\n"
            "before = peak(); *_, told = copying.copy(a, 'a', b); print(told.rows, told.written, told.different,"
            " peak() - before)")
    done = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/a.db", f"{tmp_path}/b.db"], capture_output=True,
                          text=True,
                          cwd=ROOT, check=True)
    total, written, different, grown = map(int, done.stdout.split())
    assert (total, written, different) == (count, count, 0)
    assert grown < 40                                           # MiB; the rows are 90


# ---------------------------------------------------------------- credentials

@contextmanager
def kms() -> Iterator[KmsSealer]:
    with mock_aws():
        client = boto3.client("kms", **AWS)
        yield KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client)


def put(store: Store, sealer: Sealer, tenant: str, name: str = "default", **credentials: str) -> accounts.AccountRow:
    made = accounts.check(tenant, parties.load("qcloud"), {"secret_id": "AKID", **credentials}, project=None,
                          regions=("gz",), deep=False, endpoint=None, local=False, name=name)
    return accounts.put(store, sealer, made, START, replace=True)


def test_accounts_are_sealed_for_where_they_go(tmp_path: Path, clock: Clock) -> None:
    source, keys = SqliteStore(f"{tmp_path}/a.db", clock), {n: secret("moved") for n in range(30)}
    mine = LocalSealer.of_file(tmp_path / "key")
    for n, key in keys.items():
        put(source, mine, str(n), secret_key=key)
    with kms() as theirs:
        client = boto3.client("dynamodb", **AWS)
        client.create_table(TableName="t", **TABLE)
        target = DynamoStore("t", clock, client)
        assert last(copying.copy(source, "a", target, (mine, theirs))).written == 30
        for n, key in keys.items():
            assert accounts.load(target, lambda: theirs, str(n), "qcloud", local=False).credentials["secret_key"] == key
        kept, there = accounts.find(source, "7", "qcloud"), accounts.find(target, "7", "qcloud")
        assert there == msgspec.structs.replace(kept, sealed=there.sealed, key=theirs.name)
        assert kept.key == mine.name
        assert last(copying.copy(source, "a", target, (mine, theirs))) == Count(rows=30)       # none is sealed twice
        keys[3] = secret("rotated")
        put(source, mine, "3", secret_key=keys[3])
        accounts.remove(source, "4", "qcloud")
        assert last(copying.copy(source, "a", target, (mine, theirs))) == Count(rows=29, written=1, removed=1)
        assert accounts.load(target, lambda: theirs, "3", "qcloud", local=False).credentials["secret_key"] == keys[3]
        assert {key for key, _ in target.list("copy")} == {"begun",
                                                           *(f"account/{n}/qcloud" for n in range(30) if n != 4)}
    source.close()


NAMES = ("default", "prod", "prod.eu")


@pytest.mark.sample(4)
@pytest.mark.parametrize("kinds", ["file file", "file kms", "kms file", "kms kms"])
def test_accounts_of_every_name_are_sealed_once_wherever_a_copy_breaks_off(
        kinds: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SqliteStore(f"{tmp_path}/a.db", clock)
    with kms() as theirs:
        client: Any = theirs._client
        old, new = (LocalSealer.of_file(tmp_path / f"key{n}") if kind == "file" else
                    KmsSealer(client.create_key()["KeyMetadata"]["KeyId"], client)
                    for n, kind in enumerate(kinds.split()))
        keys = {name: secret(f"moved-{name}") for name in NAMES}
        for name, key in keys.items():
            put(source, old, "t", name, secret_key=key)
        for nth in range(9):                    # the first copy breaks off at its nth write
            target = SqliteStore(f"{tmp_path}/{nth}.db", clock)
            real, countdown = SqliteStore.write, [nth]

            def write(self: SqliteStore, entries: Any, real: Any = real, countdown: list[int] = countdown) -> None:
                for entry in entries:
                    countdown[0] -= 1
                    if countdown[0] < 0:
                        raise _Broken
                    real(self, [entry])

            with monkeypatch.context() as patch, contextlib.suppress(_Broken):
                patch.setattr(SqliteStore, "write", write)
                last(copying.copy(source, "a", target, (old, new)))
            before = {place: value for place, (value, _) in rows(target).items() if place[0] in accounts.KINDS}
            noted = {key for key, _ in target.list("copy")}
            assert last(copying.copy(source, "a", target, (old, new))).different == 0
            after = rows(target)
            assert all(after[place][0] == value for place, value in before.items() if "/".join(place) in noted)
            assert {key for key, _ in target.list("copy")} == {
                "begun", "account/t/qcloud", "named/t/qcloud@prod", "named/t/qcloud@prod.eu"}
            for name, key in keys.items():
                row = accounts.find(target, "t", "qcloud", name)
                assert row.key == new.name
                assert accounts.load(target, lambda: new, "t", "qcloud", name, local=False).credentials[
                    "secret_key"] == key
            assert last(copying.copy(source, "a", target, (old, new))).written == 0
            target.close()
        target = SqliteStore(f"{tmp_path}/8.db", clock)
        keys["prod"] = secret("moved-again")
        put(source, old, "t", "prod", secret_key=keys["prod"])
        accounts.remove(source, "t", "qcloud", "prod.eu")
        counted = last(copying.copy(source, "a", target, (old, new)))
        assert (counted.written, counted.removed, counted.different) == (2, 1, 0)  # the account, its tenant's names
        assert accounts.load(target, lambda: new, "t", "qcloud", "prod", local=False).credentials[
            "secret_key"] == keys["prod"]
        assert {key for key, _ in target.list("copy")} == {"begun", "account/t/qcloud", "named/t/qcloud@prod"}
        target.close()
    source.close()


@pytest.mark.parametrize("place", [("account", "t/qcloud"), ("named", "t/qcloud@prod")])
@pytest.mark.parametrize("value", [b"", b"{", b"[]", None], ids=str)
def test_a_damaged_account_is_named_and_a_copy_without_keys_takes_it_along(
        place: tuple[str, str], value: bytes | None, tmp_path: Path, clock: Clock) -> None:
    source, target, other = (SqliteStore(f"{tmp_path}/{name}.db", clock) for name in "abc")
    mine = LocalSealer.of_file(tmp_path / "key")
    for name in ("default", "prod"):
        put(source, mine, "t", name, secret_key=secret("damaged"))
        put(source, mine, "9", name, secret_key=secret("damaged"))
    foreign = source.get(place[0], place[1].replace("t/", "9/"))
    assert foreign
    source.put(*place, foreign.value if value is None else value)
    with pytest.raises(Internal, match=f"Account row {place[1]} in the store"):
        last(copying.copy(source, "a", target, (mine, LocalSealer.of_file(tmp_path / "new"))))
    assert last(copying.copy(source, "a", other)).different == 0
    assert rows(other) == rows(source)
    for store in (source, target, other):
        store.close()


def test_an_account_that_cannot_be_sealed_is_named(tmp_path: Path, clock: Clock) -> None:
    source, target = (SqliteStore(f"{tmp_path}/{name}.db", clock) for name in ("a", "b"))
    mine = LocalSealer.of_file(tmp_path / "key")
    put(source, mine, "ok", secret_key=secret("ok"))
    put(source, mine, "huge", secret_key="x" * 5000)
    with kms() as theirs, pytest.raises(Internal, match="Account huge qcloud: The credentials are too long"):
        last(copying.copy(source, "a", target, (mine, theirs)))
    with pytest.raises(Internal, match=r"Account (huge|ok) qcloud: .*another key"):     # at once
        last(copying.copy(source, "a", target, (LocalSealer.of_file(tmp_path / "wrong"), mine)))


# ---------------------------------------------------------------- the command

def twocloud(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TWOCLOUD_", "AWS_"))}
    return subprocess.run([sys.executable, "-m", "chalicelib", *arguments], capture_output=True, text=True, cwd=folder,
                          timeout=120,
                          env={**clean, "PYTHONPATH": str(ROOT), **environment})


def test_the_command(tmp_path: Path) -> None:
    source, key = SqliteStore(f"{tmp_path}/a.db", time.time), secret("command")
    put(source, LocalSealer.of_file(tmp_path / "key"), "123", secret_key=key)
    fill(source, 100, time.time())
    mine = {"TWOCLOUD_KEY": f"file:{tmp_path}/key"}
    done = twocloud("store", "copy", "sqlite:///a.db", "sqlite:///b.db", "--to-key", "file:new", "-o", "json",
                    folder=tmp_path, **mine)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"rows": 101, "written": 101, "different": 0, "removed": 0}, done.stderr
    assert "101 rows, 101 of them written now" in done.stderr
    assert '"what":"store copy"' in done.stderr
    for text in (key, base64.b64encode(key.encode()).decode()[:-4]):
        assert text not in done.stdout + done.stderr
    there = SqliteStore(f"{tmp_path}/b.db", time.time)
    assert accounts.load(there, lambda: LocalSealer.of_file(tmp_path / "new"), "123", "qcloud",
                         local=False).credentials["secret_key"] == key
    assert not (tmp_path / ".twocloud").exists()                # the store of the settings has no part in it
    done = twocloud("store", "copy", f"sqlite:///{tmp_path}/a.db", "sqlite:///b.db", "--to-key", "file:new",
                    folder=tmp_path, **mine)
    assert done.returncode == 0
    assert "0 of them written now" in done.stderr
    there.put("user", "t000001/é", b"in use")
    for arguments, code, words in (
            (("sqlite:///a.db", "sqlite:///b.db", "--to-key", "file:new"), 4, "in use"),
            (("sqlite:///a.db", "sqlite:///a.db"), 2, "same store"),
            (("sqlite:///none.db", "sqlite:///c.db"), 2, "no store"),
            (("sqlite:///a.db", "dynamodb://table"), 2, "--to-key"),
            (("a.db", "sqlite:///c.db"), 2, "sqlite:///PATH"),
            (("sqlite:///a.db", "sqlite:///c.db", "--to-key", "x"), 2, "kms:KEY")):
        done = twocloud("store", "copy", *arguments, folder=tmp_path, **mine)
        assert (done.returncode, words in done.stderr) == (code, True), (arguments, done.stderr)
    assert not (tmp_path / "none.db").exists()
    assert not (tmp_path / "c.db").exists()
    done = twocloud("store", "copy", "sqlite:///a.db", "sqlite:///c.db", "--to-key", "file:new", folder=tmp_path,
                    TWOCLOUD_KEY="file:gone")
    assert done.returncode == 2
    assert "gone" in done.stderr
    assert not (tmp_path / "gone").exists()


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    source = SqliteStore(f"{tmp_path}/a.db", time.time)
    fill(source, 1000, time.time())
    done = subprocess.run(["script", "-qec",
                           f"{sys.executable} -m chalicelib store copy sqlite:///{tmp_path}/a.db sqlite:///"
                           f"{tmp_path}/b.db",
                           "/dev/null"], capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env={**os.environ, "TERM": "xterm"})
    assert done.returncode == 0, done.stdout
    assert "1000/1000" in done.stdout.replace(" ", ""), done.stdout
