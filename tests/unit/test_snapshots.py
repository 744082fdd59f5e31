"""Snapshots, on every store: whole or not at all, chunks before the head, the newer wins, what changed."""

import multiprocessing
import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import SnapshotReplaced
from chalicelib.model import Server, Source, Status, Window
from chalicelib.storage import snapshots
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import LARGEST, Store
from tests.fixtures import START, Clock

SOURCE = Source("123", "qcloud", "ap-guangzhou")
OTHERS = [Source("123", "qcloud", "ap-guangzhou-open"), Source("1", "qcloud", "ap-guangzhou"),
          Source("123", "aws", "us-east-1")]
MONTH = 30 * 86_400


def server(n: int, **more: Any) -> Server:
    made = {"cpu": 2, "memory_mib": 4096, "disk_gib": 50, "lan_ipv4": (f"10.0.{n // 250}.{n % 250}",),
            "status": Status.ACTIVE,
            "party_status": "RUNNING", "created_at": datetime(2024, 1, 1, tzinfo=UTC), "tags": {"n": str(n)}}
    return Server(id=f"i-{n}", name=f"web-{n} 名", **{**made, **more})


def servers(count: int) -> list[Server]:
    return [server(n) for n in range(count)]


def save(store: Store, listed: list[Server], at: float = START, revision: str = "r",
         source: Source = SOURCE) -> snapshots.Head | None:
    return snapshots.save(store, source, revision, listed, at, history=MONTH)


def whole(store: Store, revision: str = "r", source: Source = SOURCE) -> list[Server] | None:
    head = snapshots.find(store, source, revision)
    return None if head is None else snapshots.read(store, source, head)


# ---------------------------------------------------------------- keeping

@pytest.mark.parametrize("count", [0, 1, 399, 400, 401, 2345])
def test_what_is_kept_is_read_back(store: Store, count: int) -> None:
    listed = servers(count)
    head = save(store, listed)
    assert head
    assert head.total == count
    assert head.seen_at == START
    assert whole(store) == listed
    assert all(whole(store, source=other) is None for other in OTHERS)


def test_a_window_reads_only_its_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = servers(2000)
    head = save(store, listed)
    assert head
    read: list[str] = []
    get_many = type(store).get_many
    monkeypatch.setattr(type(store), "get_many", lambda self, places: read.extend(places) or get_many(self, places))
    for first, last, chunks in ((1, 10, 1), (395, 405, 2), (1999, None, 1), (2000, 2000, 1), (2001, 2010, 0),
                                (1, 1200, 3)):
        read.clear()
        assert snapshots.read(store, SOURCE, head, Window(first, last)) == listed[first - 1:last]
        assert len(read) == chunks, (first, last)


def test_the_same_list_again_is_one_small_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(store, servers(900))
    written: list[int] = []
    put = type(store).put
    monkeypatch.setattr(type(store), "put", lambda self, kind, key, value, **more: written.append(len(value)) or put(
        self, kind, key, value, **more))
    again = save(store, servers(900), START + 300)
    assert first
    assert again
    assert len(written) == 1
    assert written[0] < 1000
    assert (again.seen_at, again.generation, again.serial != first.serial) == (START + 300, first.generation, True)
    assert list(store.list("change")) == []


def test_another_list_takes_the_place_of_the_old_one(store: Store) -> None:
    save(store, servers(900))
    save(store, servers(20), START + 1)
    assert whole(store) == servers(20)
    save(store, servers(20), START + 1 + 600)
    assert len(list(store.list("chunk"))) == 4                  # the old one is readable for ten minutes
    save(store, servers(20), START + 1 + 901)
    assert whole(store) == servers(20)
    assert len(list(store.list("chunk"))) == 1                  # nothing of the old one is left


def test_the_newer_listing_wins(store: Store) -> None:
    assert save(store, servers(5), START + 10)
    assert save(store, servers(4), START + 9) is None           # it began before
    assert whole(store) == servers(5)
    assert list(store.list("change")) == []
    assert len(list(store.list("chunk"))) == 1


def test_a_listing_that_was_overtaken_while_it_wrote_leaves_nothing(store: Store,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, servers(5))
    put = type(store).put

    def overtaken(self: Store, kind: str, key: str, value: bytes, **more: Any) -> None:
        if kind == "snapshot" and more.get("version"):
            monkeypatch.setattr(type(store), "put", put)
            save(store, servers(6), START + 2)
        put(self, kind, key, value, **more)

    monkeypatch.setattr(type(store), "put", overtaken)
    assert save(store, servers(3), START + 1) is None
    assert whole(store) == servers(6)
    head = snapshots.find(store, SOURCE, "r")
    assert head
    assert {key.split("/")[3] for key, _ in store.list("chunk")} == {
        head.generation, *(kept.generation for kept in head.kept)}              # of that of three nothing is left
    assert [kept.total for kept in head.kept] == [5]
    assert [change.vanished for change in snapshots.changes(store, SOURCE, 0)] == [()]      # nobody is gone


def test_a_large_record_is_cut_into_small_chunks(store: Store) -> None:
    dice = random.Random(1)
    listed = [server(n, tags={str(k): dice.randbytes(128).hex() for k in range(40)}) for n in range(200)]
    assert save(store, listed)
    assert whole(store) == listed
    assert all(len(row.value) < LARGEST for _, row in store.list("chunk"))
    assert len(list(store.list("chunk"))) > 3


def test_a_hundred_thousand_servers(tmp_path: Path, clock: Clock) -> None:
    store = SqliteStore(f"{tmp_path}/many.db", clock)
    listed = servers(100_000)
    head = save(store, listed)
    assert head
    assert snapshots.read(store, SOURCE, head, Window(99_991, None)) == listed[-10:]
    assert save(store, [*listed[:50_000], *listed[50_001:]], START + 1)
    assert [v.id for c in snapshots.changes(store, SOURCE, START) for v in c.vanished] == ["i-50000"]
    assert whole(store) == [*listed[:50_000], *listed[50_001:]]
    store.close()


# ---------------------------------------------------------------- what counts as none

def test_another_accounts_list_is_none(store: Store) -> None:
    save(store, servers(3), revision="old")
    assert snapshots.find(store, SOURCE, "new") is None
    assert save(store, servers(2), START + 1, revision="new")
    assert list(store.list("change")) == []                     # other credentials: nothing to compare with
    assert len(list(store.list("chunk"))) == 1


@pytest.mark.parametrize("damage", [b"", b"\x00", b"junk", msgspec.msgpack.encode({"version": 2, "more": "fields"}),
                                    msgspec.msgpack.encode({"version": 1}), msgspec.msgpack.encode([1]), b"\xc1" * 50])
def test_a_damaged_or_newer_head_is_none_and_the_next_list_replaces_it(store: Store, damage: bytes) -> None:
    save(store, servers(3))
    store.put("snapshot", snapshots.key_of(SOURCE), damage)
    assert whole(store) is None
    assert list(snapshots.heads(store)) == []
    assert save(store, servers(4), START + 1)
    assert whole(store) == servers(4)


@pytest.mark.parametrize("damage", [None, b"", b"junk"])
def test_a_damaged_or_missing_chunk_is_found_out(store: Store, damage: bytes | None) -> None:
    head = save(store, servers(900))
    assert head
    key = [key for key, _ in store.list("chunk")][1]
    if damage is None:
        store.delete("chunk", key)
    else:
        store.put("chunk", key, damage)
    with pytest.raises(SnapshotReplaced):
        whole(store)
    with pytest.raises(SnapshotReplaced):
        snapshots.read(store, SOURCE, head, Window(500, 501))
    assert snapshots.read(store, SOURCE, head, Window(1, 2)) == servers(2)
    assert save(store, servers(901), START + 1)
    assert whole(store) == servers(901)
    assert list(store.list("change")) == []


def test_what_is_forgotten_is_gone(store: Store) -> None:
    for source in (SOURCE, *OTHERS):
        save(store, servers(401), source=source)
        save(store, servers(400), START + 1, source=source)
    snapshots.forget(store, SOURCE)
    assert whole(store) is None
    assert whole(store, source=OTHERS[0]) == servers(400)
    snapshots.forget_account(store, "123", "qcloud")
    assert whole(store, source=OTHERS[0]) is None
    assert {key.split("/")[0] for kind in ("snapshot", "chunk", "change")
            for key, _ in store.list(kind)} == {"1", "123"}
    assert not [key for kind in ("snapshot", "chunk", "change") for key, _ in store.list(kind, "123/qcloud/")]
    assert whole(store, source=OTHERS[1]) == servers(400) == whole(store, source=OTHERS[2])


# ---------------------------------------------------------------- what changed

def test_what_appeared_changed_and_vanished(store: Store) -> None:
    save(store, servers(5))
    after = [server(0), server(1, status=Status.SHUTOFF, party_status="STOPPED"), server(3), server(4, cpu=4),
             server(9)]
    head = save(store, after, START + 60)
    (change,) = snapshots.changes(store, SOURCE, START)
    assert (change.at, change.appeared) == (START + 60, ("i-9",))
    assert change.changed == {"i-1": ("status", "party_status"), "i-4": ("cpu",)}
    assert change.vanished == (snapshots.Vanished(id="i-2", name="web-2 名", seen_at=START, vanished_at=START + 60),)
    assert snapshots.changes(store, SOURCE, START + 60) == []
    assert snapshots.marks(store, SOURCE, head) == {"i-1": START + 60, "i-4": START + 60}
    head = save(store, [server(0), server(1), server(9)], START + 120)
    assert snapshots.marks(store, SOURCE, head) == {"i-1": START + 120}         # and no mark of who is gone
    assert len(snapshots.changes(store, SOURCE, START)) == 2


def test_the_partys_own_time_of_change_alone_is_no_change(store: Store) -> None:
    save(store, [server(1, updated_at=datetime(2026, 1, 1, tzinfo=UTC))])
    head = save(store, [server(1, updated_at=datetime(2026, 1, 2, tzinfo=UTC))], START + 1)
    assert list(store.list("change")) == []
    assert snapshots.marks(store, SOURCE, head) == {}
    assert whole(store) == [server(1, updated_at=datetime(2026, 1, 2, tzinfo=UTC))]


def test_changes_end(store: Store, clock: Clock) -> None:
    save(store, servers(2))
    save(store, servers(1), START + 60)
    clock.now = START + 60 + MONTH - 1
    assert len(snapshots.changes(store, SOURCE, START)) == 1
    clock.now = START + 60 + MONTH + 1
    assert snapshots.changes(store, SOURCE, START) == []


states = st.lists(st.dictionaries(st.integers(0, 12), st.sampled_from([1, 2]), max_size=13), min_size=1, max_size=6)


@settings(max_examples=60)
@given(states, st.integers(0, 6), st.randoms())
def test_changes_against_a_plain_model(tmp_path: Path, fleets: list[dict[int, int]], since: int,
                                       dice: random.Random) -> None:
    """Whatever a fleet does, and whatever listing is written twice or late: the changes since any of the listings lead
    from what it was to what it is."""
    store = SqliteStore(f"{tmp_path}/{time.monotonic_ns()}.db", lambda: START)
    lists = [[server(n, cpu=cpu) for n, cpu in sorted(fleet.items())] for fleet in fleets]
    for at, listed in enumerate(lists):
        save(store, listed, START + at)
        if dice.random() < 0.5:             # a message that comes twice, and an old one that comes late
            late = dice.randrange(at + 1)
            save(store, lists[late], START + late)
    since = min(since, len(lists) - 1)
    before, now = fleets[since], fleets[-1]
    since_then = snapshots.changes(store, SOURCE, START + since)
    touched = {key for change in since_then
               for key in (*change.appeared, *change.changed, *(v.id for v in change.vanished))}
    assert {f"i-{n}" for n in before.keys() | now.keys() if before.get(n) != now.get(n)} <= touched
    assert whole(store) == lists[-1]
    state = set(before)
    for change in since_then:
        state = (state - {int(v.id[2:]) for v in change.vanished}) | {int(key[2:]) for key in change.appeared}
    assert state == set(now)
    store.close()


# ---------------------------------------------------------------- P9: killed in the middle

def _write_for_ever(path: str) -> None:
    store = SqliteStore(path, time.time)
    dice, parent = random.Random(os.getpid()), os.getppid()
    while os.getppid() == parent:           # or a test run that is killed leaves it behind
        listed = servers(dice.choice([0, 5, 900, 1300]))
        snapshots.save(store, SOURCE, "r", listed, time.time(), history=MONTH)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9(tmp_path: Path, kills: int) -> None:
    """Whenever the writer dies, a reader sees one whole list, and the next writer goes on."""
    path, context = f"{tmp_path}/store.db", multiprocessing.get_context("fork")
    reader = SqliteStore(path, time.time)
    dice, count = random.Random(5), 0
    for _ in range(kills):
        writer = context.Process(target=_write_for_ever, args=(path,))
        writer.start()
        until = time.monotonic() + 20
        before = snapshots.find(reader, SOURCE, "r")
        while (head := snapshots.find(reader, SOURCE, "r")) is None or (before and head.serial == before.serial):
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(dice.random() * 0.05)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        head = snapshots.find(reader, SOURCE, "r")
        assert head
        assert snapshots.read(reader, SOURCE, head) == servers(head.total)
        count += 1
    assert count == kills
    reader.close()


class _Broken(Exception):
    pass


def test_a_fault_at_each_call_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that breaks off anywhere leaves the old list or the new one; the next one heals it."""
    old, new = servers(900), servers(450)
    for nth in range(40):
        snapshots.forget(store, SOURCE)
        save(store, old)
        calls = 0
        originals = {name: getattr(type(store), name) for name in ("get", "put", "delete", "list")}

        def failing(name: str, originals: dict[str, Any] = originals, nth: int = nth) -> Any:
            def call(self: Store, *args: Any, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > nth:
                    raise _Broken
                return originals[name](self, *args, **more)

            return call

        with monkeypatch.context() as patch:
            for name in originals:
                patch.setattr(type(store), name, failing(name))
            try:
                save(store, new, START + 1)
                done = True
            except _Broken:
                done = False
        assert whole(store) in (old, new), nth
        assert save(store, new, START + 2)
        assert whole(store) == new
        if done:
            return
    raise AssertionError("never done")
