"""One suite for every store: SQLite, DynamoDB emulated in this process (moto) and by a server (MiniStack)."""

import multiprocessing
import os
import re
import sqlite3
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from chalicelib.errors import Conflict, SettingsError, StoreBusy
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import LARGEST, Entry, Row, Store, open_store
from tests.fixtures import AWS, START, TABLE, Clock

# ---------------------------------------------------------------- the protocol

def test_what_is_put_is_there_and_what_is_deleted_is_not(store: Store) -> None:
    assert store.get("user", "ann") is None
    store.put("user", "ann", b"\x00\xffone")
    row = store.get("user", "ann")
    assert row
    assert row.value == b"\x00\xffone"
    assert row.version
    store.put("user", "ann", b"two")
    again = store.get("user", "ann")
    assert again
    assert again.value == b"two"
    assert again.version != row.version
    assert store.get("token", "ann") is None
    store.delete("user", "ann", "nobody")
    assert store.get("user", "ann") is None
    store.delete("user")


def test_many_rows_of_several_kinds_are_read_at_once(store: Store, clock: Clock) -> None:
    places = [("k", f"{n:03}") for n in range(250)]
    for kind, key in places:
        store.put(kind, key, key.encode())
    store.put("other", "007", b"bond")
    store.put("k", "ends", b"1", expires=int(clock()) + 60)
    wanted = [("other", "007"), *places, ("k", "ends"), ("k", "nobody"), ("none", "007"), ("k", "001")]
    rows = store.get_many(wanted)
    assert rows == {place: store.get(*place) for place in [("other", "007"), *places, ("k", "ends")]}
    clock.forward(60)
    assert store.get_many([("k", "ends"), ("k", "nobody")]) == {}
    assert store.get_many([]) == {}


def test_many_rows_of_many_megabytes_are_read_whole(store: Store) -> None:
    """More than the 16 MB that one BatchGetItem gives."""
    places = [("big", f"{n:02}") for n in range(60)]
    for n, (kind, key) in enumerate(places):
        store.put(kind, key, bytes([n]) * 300_000)
    rows = store.get_many(places)
    assert [(rows[place].value[0], len(rows[place].value)) for place in places] == [(n, 300_000) for n in range(60)]


def test_conditions(store: Store) -> None:
    store.put("k", "a", b"1", version=0)
    with pytest.raises(Conflict):
        store.put("k", "a", b"2", version=0)
    row = store.get("k", "a")
    assert row
    store.put("k", "a", b"3", version=row.version)
    with pytest.raises(Conflict):
        store.put("k", "a", b"4", version=row.version)
    with pytest.raises(Conflict):
        store.put("k", "missing", b"5", version=row.version)
    assert (entry := store.get("k", "a"))
    assert entry.value == b"3"
    store.delete("k", "a")
    store.put("k", "a", b"6", version=0)
    with pytest.raises(Conflict):           # made again: not the row that was read
        store.put("k", "a", b"7", version=row.version)


def test_an_expired_row_is_gone_at_its_second(store: Store, clock: Clock) -> None:
    end = int(clock()) + 60
    store.put("k", "a", b"1", expires=end)
    store.put("k", "b", b"1")
    row = store.get("k", "a")
    clock.now = end - 0.001
    assert store.get("k", "a") == row
    assert [key for key, _ in store.list("k")] == ["a", "b"]
    clock.now = end
    assert row
    assert store.get("k", "a") is None
    assert [key for key, _ in store.list("k")] == ["b"]
    with pytest.raises(Conflict):
        store.put("k", "a", b"2", version=row.version)
    store.put("k", "a", b"3", version=0)
    assert (entry := store.get("k", "a"))
    assert entry.value == b"3"


def test_a_write_without_an_end_takes_the_end_away(store: Store, clock: Clock) -> None:
    store.put("k", "a", b"1", expires=int(clock()) + 1)
    store.put("k", "a", b"2")
    clock.forward(100)
    assert store.get("k", "a")


def test_list_by_prefix_in_order(store: Store) -> None:
    keys = ["a", "a/1", "a/10", "a/2", "a0", "b/1", "a/~", "a/é", "A/1", "a%b", "a_b", "a/中"]
    for key in keys:
        store.put("k", key, key.encode())
    store.put("other", "a/1", b"x")
    assert [key for key, _ in store.list("k")] == sorted(keys, key=str.encode)
    assert [key for key, _ in store.list("k", "a/")] == ["a/1", "a/10", "a/2", "a/~", "a/é", "a/中"]
    assert [key for key, _ in store.list("k", "a%")] == ["a%b"]
    assert list(store.list("k", "zz")) == []
    assert list(store.list("none")) == []
    assert all(row.value == key.encode() for key, row in store.list("k"))


@settings(max_examples=60)
@given(prefix=st.text("aA/0\ud7ff\ue000\U0010ffff", max_size=3), start=st.text("aA/0\ue000\U0010ffff", max_size=4),
       keys=st.sets(st.text("aA/0\ud7ff\ue000\U0010ffff", min_size=1, max_size=4), max_size=12))
def test_a_list_begins_at_a_key_and_ends_with_its_prefix(store: Store, prefix: str, start: str, keys: set[str]) -> None:
    for key in keys:
        store.put("range", key, b"x")
    try:
        expected = sorted((key for key in keys if key.startswith(prefix) and key >= start), key=str.encode)
        assert [key for key, _ in store.list("range", prefix, start)] == expected
    finally:
        store.delete("range", *keys)


@pytest.mark.sample(3)
def test_lists_of_several_megabytes_and_many_rows(store: Store) -> None:
    """DynamoDB hands out pages of 1 MB; SQLite's list is read in pages of 500 rows."""
    for n in range(12):
        store.put("big", f"{n:02}", bytes([n]) * 250_000)
    rows = list(store.list("big"))
    assert [(key, row.value[0], len(row.value)) for key, row in rows] == [(f"{n:02}", n, 250_000) for n in range(12)]
    for n in range(620):
        store.put("many", f"{n:04}", b"x")
    assert [key for key, _ in store.list("many")] == [f"{n:04}" for n in range(620)]
    store.delete("many", *(f"{n:04}" for n in range(600)), "0001")
    assert [key for key, _ in store.list("many")] == [f"{n:04}" for n in range(600, 620)]


def test_the_largest_row(store: Store) -> None:
    store.put("k", "a", b"x" * LARGEST)
    assert (row := store.get("k", "a"))
    assert len(row.value) == LARGEST
    with pytest.raises(ValueError, match="exceeds the limit"):
        store.put("k", "a", b"x" * (LARGEST + 1))


def test_of_many_writers_one_wins_each_round(store: Store, request: pytest.FixtureRequest) -> None:
    """Threads add to a number by conditional writes: no step is lost. (moto in process takes one thread alone.)"""
    count = 1 if "moto" in request.node.name else 8
    store.put("k", "n", b"0")

    def add(times: int) -> None:
        for _ in range(times):
            while True:
                row = store.get("k", "n")
                assert row
                try:
                    store.put("k", "n", str(int(row.value) + 1).encode(), version=row.version)
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=add, args=(5,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (entry := store.get("k", "n"))
    assert entry.value == str(5 * count).encode()


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from(["put", "new", "delete", "later"]), st.sampled_from("abc"),
                                st.binary(max_size=5), st.none() | st.integers(1, 5)), max_size=25))
def test_any_sequence_does_what_a_dict_would(store: Store, clock: Clock, steps: list[Any]) -> None:
    store.delete("h", *"abc")
    model: dict[str, tuple[bytes, float]] = {}
    for what, key, value, ends in steps:
        expires = int(clock()) + ends if ends else None
        alive = {k for k, (_, until) in model.items() if until > clock()}
        if what == "put":
            store.put("h", key, value, expires=expires)
            model[key] = value, expires or float("inf")
        elif what == "new":
            try:
                store.put("h", key, value, version=0, expires=expires)
                assert key not in alive
                model[key] = value, expires or float("inf")
            except Conflict:
                assert key in alive
        elif what == "delete":
            store.delete("h", key)
            model.pop(key, None)
        else:
            clock.forward(1)
        expected = {k: v for k, (v, until) in model.items() if until > clock()}
        assert {k: row.value for k, row in store.list("h")} == expected


# ---------------------------------------------------------------- SQLite alone

def _hammer(path: str, name: str, times: int) -> None:
    store = SqliteStore(path, lambda: 0.0)
    for n in range(times):
        store.put("k", f"{name}/{n}", b"x" * 500, version=0)
        while True:
            row = store.get("k", "shared")
            try:
                store.put("k", "shared", str(int(row.value if row else 0) + 1).encode(), version=row.version if row
                          else 0)
                break
            except Conflict:
                continue


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = f"{tmp_path}/store.db"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(path, str(n), 40)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = SqliteStore(path, lambda: 0.0)
    assert len(list(store.list("k"))) == 161
    assert (row := store.get("k", "shared"))
    assert row.value == b"160"


def test_a_forked_child_opens_its_own_connection(tmp_path: Path) -> None:
    store = SqliteStore(f"{tmp_path}/store.db", lambda: 0.0)
    store.put("k", "parent", b"1")
    child = os.fork()
    if child == 0:
        store.put("k", "child", b"2")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [key for key, _ in store.list("k")] == ["child", "parent"]


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        SqliteStore(f"{tmp_path}/new/store.db", lambda: 0.0).put("k", "a", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "new").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_full_disk_is_named_and_what_was_written_before_stays(tmp_path: Path, clock: Clock,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite ends the transaction by itself then."""
    path, real = tmp_path / "store.db", SqliteStore._connect

    def full(self: SqliteStore) -> sqlite3.Connection:
        connection = real(self)
        connection.execute("PRAGMA max_page_count = 12")
        return connection

    monkeypatch.setattr(SqliteStore, "_connect", full)
    store = SqliteStore(str(path), clock)
    store.put("k", "a", b"1")
    for write in (lambda: store.put("k", "b", b"x" * 100_000),
                  lambda: store.put("k", "a", b"x" * 100_000),
                  lambda: store.write([Entry("k", "a", b"2", 1, None), Entry("k", "b", b"x" * 100_000, 1, None)])):
        with pytest.raises(StoreBusy, match=rf"^{re.escape(str(path))} cannot be used: database or disk is full\.$"):
            write()
        assert [(key, row.value) for key, row in store.list("k")] == [("a", b"1")]
    store.put("k", "b", b"2")               # there is room for this
    store.close()


def test_a_damaged_file_is_named(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(str(path), clock)
    for n in range(40):
        store.put("k", f"{n:02}", b"x" * 1000)
    store.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    store = SqliteStore(str(path), clock)
    for verb in (lambda: store.get("k", "01"), lambda: store.get_many([("k", "01")]), lambda: list(store.list("k")),
                 lambda: store.put("k", "01", b"1"), lambda: store.delete("k", "01"),
                 lambda: store.write([Entry("k", "01", b"1", 1, None)])):
        with pytest.raises(StoreBusy, match=rf"^{re.escape(str(path))} cannot be used: .*malformed\.$"):
            verb()
    store.close()


def test_scrub_leaves_no_byte_of_what_was_deleted(tmp_path: Path) -> None:
    store = SqliteStore(f"{tmp_path}/store.db", lambda: 100.0)
    for n in range(300):
        store.put("account", f"tenant-to-forget/{n}", b"sealed-to-forget" * 60)
    store.put("account", "kept", b"kept")
    store.put("token", "old", b"ended-to-forget", expires=50)
    reader = sqlite3.connect(f"{tmp_path}/store.db")        # somebody else has the file open
    reader.execute("SELECT count(*) FROM entry").fetchone()
    store.delete("account", *(f"tenant-to-forget/{n}" for n in range(300)))
    store.scrub()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"to-forget" not in content
    assert b"kept" in content
    reader.close()


def test_foreign_and_newer_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(str(path), lambda: 0.0).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsError, match="schema version 99"):
        SqliteStore(str(path), lambda: 0.0)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(SettingsError, match="another program"):
        SqliteStore(str(foreign), lambda: 0.0)
    with sqlite3.connect(foreign) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    text = tmp_path / "text.db"
    text.write_text("not a database " * 100)
    with pytest.raises(SettingsError, match="cannot be used"):
        SqliteStore(str(text), lambda: 0.0)
    with pytest.raises(SettingsError, match="cannot be used"):
        SqliteStore("/proc/nowhere/store.db", lambda: 0.0)


def test_relative_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///below/store.db", lambda: 0.0).close()
    assert (tmp_path / "below/store.db").exists()
    open_store(f"sqlite:///{tmp_path}/absolute.db", lambda: 0.0).close()
    assert (tmp_path / "absolute.db").exists()


# ---------------------------------------------------------------- DynamoDB alone

def test_unprocessed_deletes_are_sent_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled table takes some deletes of a batch and hands the others back."""
    monkeypatch.setattr("chalicelib.storage.dynamodb.time.sleep", lambda seconds: None)
    with mock_aws():
        client = boto3.client("dynamodb", **AWS)
        client.create_table(TableName="t", **TABLE)
        store = DynamoStore("t", clock, client)
        for n in range(60):
            store.put("k", f"{n:02}", b"x")
        real = client.batch_write_item
        sizes: list[int] = []

        def throttled(RequestItems: dict[str, list[Any]]) -> dict[str, Any]:
            batch = RequestItems["t"]
            sizes.append(len(batch))
            real(RequestItems={"t": batch[:7]})
            return {"UnprocessedItems": {"t": batch[7:]} if batch[7:] else {}}

        monkeypatch.setattr(client, "batch_write_item", throttled)
        store.delete("k", *(f"{n:02}" for n in range(60)))
        assert sizes == [25, 18, 11, 4, 25, 18, 11, 4, 10, 3]
        assert list(store.list("k")) == []


def test_items_are_read_as_botocore_reads_them(clock: Clock) -> None:
    with mock_aws():
        plain = boto3.client("dynamodb", **AWS)
        plain.create_table(TableName="t", **TABLE)
        store = DynamoStore("t", clock, boto3.client("dynamodb", **AWS))
        for n in range(150):
            store.put("a", f"é\"{n:03}", bytes(range(n)), expires=int(START) + n if n % 2 else None)
        plain.put_item(TableName="t", Item={"pk": {"S": "a"}, "sk": {"S": "é\"999"}, "value": {"B": b"9"},
                                            "version": {"N": "9"}, "expires": {"N": f"{START + 5:.1f}"},
                                            "of": {"L": [{"NULL": True}]}})
        theirs = [Entry(item["pk"]["S"], item["sk"]["S"], item["value"].get("B", b""), int(item["version"]["N"]),
                        int(float(item["expires"]["N"])) if "expires" in item else None)
                  for item in plain.scan(TableName="t")["Items"] if "expires" not in item
                  or float(item["expires"]["N"]) > clock()]
        rows = {entry.key: Row(entry.value, entry.version) for entry in theirs}
        assert sorted(store.walk(), key=str) == sorted(theirs, key=str)
        assert sorted(store.fetch([("a", key) for key in rows]), key=str) == sorted(theirs, key=str)
        assert dict(store.list("a")) == rows
        assert {key: store.get("a", key) for key in rows} == rows


def test_reads_are_consistent(clock: Clock) -> None:
    with mock_aws():
        client = boto3.client("dynamodb", **AWS)
        client.create_table(TableName="t", **TABLE)
        calls: list[dict[str, Any]] = []
        client.meta.events.register("provide-client-params.dynamodb", lambda params, **_: calls.append(params))
        store = DynamoStore("t", clock, client)
        store.get("k", "a")
        list(store.list("k"))
        assert [params["ConsistentRead"] for params in calls] == [True, True]
