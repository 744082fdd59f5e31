"""The table's layout of 0.1.0, which kept all chunks and changes under one partition key: read, migrated by what is
written, and never a shorter list, whichever of the two versions reads what the other wrote."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chalicelib.errors import SnapshotReplaced
from chalicelib.model import Server, Source
from chalicelib.storage import dynamodb, snapshots
from chalicelib.storage.dynamodb import DynamoStore
from tests.fixtures import START, TABLE, Clock

SOURCES = [Source("a", "qcloud", "ap-guangzhou"), Source("a", "qcloud", "ap-guangzhou", "b"),
           Source("a.b", "aws", "us-east-1")]
HISTORY = 9_999_999


@pytest.fixture
def store(server_client: Any, clock: Clock, request: pytest.FixtureRequest) -> Iterator[DynamoStore]:
    name = f"layout-{abs(hash(request.node.name)) % 10**9}"
    server_client.create_table(TableName=name, **TABLE)
    yield DynamoStore(name, clock, server_client)
    server_client.delete_table(TableName=name)


@contextmanager
def as_0_1_0() -> Iterator[None]:
    """No kind is spread: that is all by which the layouts differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamodb, "_SPREAD", ())
        yield


def fleet(size: int, cpu: int = 1) -> list[Server]:
    return [Server(id=f"i-{n:04}", name=f"web-{n}", cpu=cpu) for n in range(size)]


def list_(store: DynamoStore, size: int, at: float, cpu: int = 1) -> None:
    for source in SOURCES:
        snapshots.save(store, source, "r", fleet(size, cpu), at, history=HISTORY)


def read(store: DynamoStore, source: Source) -> list[Server]:
    head = snapshots.find(store, source, "r")
    assert head
    return snapshots.read(store, source, head)


def partitions(store: DynamoStore) -> dict[str, set[str]]:
    """The partition keys of each kind that is spread."""
    pages: Any = store._client.get_paginator("scan").paginate(TableName=store.table)
    keys = [item.pk.S for page in pages for item in page["Items"]]
    return {kind: {key for key in keys if key.partition("/")[0] == kind} for kind in ("chunk", "change")}


def test_rows_of_the_old_layout_are_found_changed_and_removed(store: DynamoStore) -> None:
    with as_0_1_0():
        list_(store, 900, START)
        list_(store, 901, START + 60)
        before = {kind: list(store.list(kind, "a/")) for kind in ("chunk", "change")}
    assert partitions(store) == {"chunk": {"chunk"}, "change": {"change"}}
    for source in SOURCES:
        assert read(store, source) == fleet(901)
        assert [change.appeared for change in snapshots.changes(store, source, START)] == [("i-0900",)]
    assert {kind: list(store.list(kind, "a/")) for kind in before} == before
    for kind, rows in before.items():
        assert [store.get(kind, key) for key, _ in rows] == [row for _, row in rows]
        assert store.get_many([(kind, key) for key, _ in rows]) == {(kind, key): row for key, row in rows}
        assert list(store.list(kind, "a/", rows[1][0])) == rows[1:]
        keys = [key for key, _ in store.list(kind)]
        assert keys == sorted(keys, key=str.encode)
        assert {key.partition("/")[0] for key in keys} == {"a", "a.b"}

    list_(store, 902, START + 120)              # now both layouts hold something of each source
    assert all(len(partition) > 1 for partition in partitions(store).values())
    for source in SOURCES:
        assert read(store, source) == fleet(902)
        assert [change.at for change in snapshots.changes(store, source, START)] == [START + 60, START + 120]
    rows = snapshots.change_rows(store, dict(snapshots.heads(store)), START)
    assert [(row.source, row.at) for row in rows] == sorted(
        ((source, f"{START + seconds:017.6f}") for source in SOURCES for seconds in (60, 120)),
        key=lambda it: (it[1], it[0].order))
    snapshots.forget_account(store, "a", "qcloud", "b")
    assert {key.split("/")[1] for kind in ("chunk", "change") for key, _ in store.list(kind, "a/")} == {"qcloud"}
    snapshots.forget_tenant(store, "a")
    with store.moment() as there:
        assert {it.key.partition("/")[0] for it in there.walk()} == {"a.b"}


def test_lists_kept_long_enough_leave_the_old_partition(store: DynamoStore) -> None:
    with as_0_1_0():
        list_(store, 900, START)
    list_(store, 901, START + 60)
    list_(store, 902, START + 60 + 901)         # the list of the old layout is over now
    assert "chunk" not in partitions(store)["chunk"]


def test_the_earlier_version_never_reads_a_shorter_list(store: DynamoStore) -> None:
    """It does not find the chunks, so there is no snapshot for it; its own next list is read by both."""
    list_(store, 900, START)
    with as_0_1_0():
        for source in SOURCES:
            with pytest.raises(SnapshotReplaced):
                read(store, source)
        list_(store, 901, START + 60)
        assert [read(store, source) for source in SOURCES] == [fleet(901)] * 3
    assert [read(store, source) for source in SOURCES] == [fleet(901)] * 3


def test_readers_see_whole_lists_while_versions_take_turns(store: DynamoStore) -> None:
    source, wrong, reads, done = SOURCES[1], list[Any](), list[int](), threading.Event()
    snapshots.save(store, source, "r", fleet(450), START, history=HISTORY)

    def follow() -> None:
        while not done.is_set():
            try:
                servers = read(store, source)
            except SnapshotReplaced:
                continue
            reads.append(len(servers))
            if servers != fleet(len(servers), cpu=len(servers)) and servers != fleet(450):
                wrong.append(servers)

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for n in range(1, 9):
            size, at = 450 + n, START + 60 * n
            if n % 2:
                snapshots.save(store, source, "r", fleet(size, cpu=size), at, history=HISTORY)
            else:                               # what the earlier version wrote: rows under the kind alone
                head_before = snapshots.find(store, source, "r")
                snapshots.save(OldLayout(store), source, "r", fleet(size, cpu=size), at, history=HISTORY)
                assert snapshots.find(store, source, "r") != head_before
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert len(set(reads)) > 1


class OldLayout:
    """The same table, to which chunks and changes are written as 0.1.0 does, while others read as this version does."""

    def __init__(self, store: DynamoStore) -> None:
        self._store = store

    def put(self, kind: str, key: str, value: bytes, *, version: int | None = None, expires: int | None = None) -> None:
        if kind not in ("chunk", "change"):
            self._store.put(kind, key, value, version=version, expires=expires)
            return
        item: Any = {"pk": {"S": kind}, "sk": {"S": key}, "value": {"B": value}, "version": {"N": "1"},
                     **({"expires": {"N": str(expires)}} if expires else {})}
        self._store._client.put_item(TableName=self._store.table, Item=item)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
