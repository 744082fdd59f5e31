"""Many changes: what they take in the store, how many calls, and what an answer carries of them."""

import random
import tracemalloc
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec import structs

from chalicelib.errors import TooLarge
from chalicelib.fleet import changes, changes_query
from chalicelib.http import formats
from chalicelib.http.formats import events
from chalicelib.model import Server, Source, Status
from chalicelib.storage import snapshots
from chalicelib.storage.store import Entry, Store
from tests import ROOT
from tests.fixtures import START
from tests.unit.test_events import FULL, MONTH, SOURCE, Log, instant, log
from tests.unit.test_scale import Counting

__all__ = ["log"]


def day(log: Log, size: int, listings: int, changed: int, at: float) -> list[tuple[str, bytes]]:
    """The rows of a day: so many changes of a fleet, spread over its listings; a tenth each came and went."""
    dice = random.Random(1)
    every = {n: Server(id=f"i-{dice.getrandbits(68):017x}", name=f"prod-web-{n:05}", cpu=4, memory_mib=16_384,
                       disk_gib=100, lan_ipv4=(f"10.{n // 62_500}.{n // 250 % 250}.{n % 250}",), status=Status.ACTIVE,
                       party_status="running", tags={"Name": f"prod-web-{n:05}", "team": "shop"}) for n in range(size)}
    before = len(list(log.store.list("change")))
    for n in range(listings):
        took = dice.sample(range(size), changed // listings + (n < changed % listings))
        old, new = [], []
        for which in took:
            server, what = every[which], dice.random()
            if what > 0.1:
                old.append(server)
            if what < 0.2 or what > 0.3:
                stopped = server.status == Status.ACTIVE
                status, word = (Status.SHUTOFF, "stopped") if stopped else (Status.ACTIVE, "running")
                new.append(msgspec.structs.replace(server, status=status, party_status=word,
                                                   wan_ipv4=() if stopped else (f"8.8.{n % 250}.8",)))
                every[which] = new[-1]
        when = at + n * 86_400 / listings
        change = msgspec.structs.replace(snapshots._compare(old, new, when, when - 300), revision="0123456789abcdef")
        snapshots._record(log.store, SOURCE, change, f"{n + 1:012x}-{n:012x}", MONTH)
    return [(key, row.value) for key, row in list(log.store.list("change"))[before:]]


@pytest.mark.parametrize(("listings", "megabytes"), [(288, 3.4), (96, 1.7), (24, 1.0)])
def test_a_month_of_a_large_fleet_is_small(log: Log, listings: int, megabytes: float) -> None:
    """10,000 servers, 1,000 changes a day (a status, a word and an address each), listed every 5, 15, 60 minutes: far
    below 100 MB, as docs/scale.md says. 60 bytes a row are the store's own."""
    rows = day(log, 10_000, listings, 1000, START)
    assert len(rows) == listings
    size = 30 * sum(60 + len(key) + len(value) for key, value in rows)
    assert 0.8 * megabytes < size / 1e6 < 1.2 * megabytes
    assert f"| {30 * listings:,} | {megabytes} MB |" in (ROOT / "docs/scale.md").read_text()


def test_a_month_is_one_query(log: Log) -> None:
    """Nor does an hour of it read the month, and an unchanged refresh writes its head alone."""
    now = START + MONTH - 900
    rows = [(key.split("/"), value) for key, value in day(log, 10_000, 288, 1000, START)]
    for n in range(1, 30):
        log.store.write([Entry("change", "/".join((
            *key[:3], f"{float(key[3]) + n * 86_400:017.6f}", f"{n}{key[4]}".replace("-", f"-{n}"), key[5])),
            value, n, int(now) + MONTH) for key, value in rows])
    log.save([FULL], now)
    counting = Counting(log.store)
    log.store = counting                    # type: ignore[assignment]
    head = snapshots.find(log.store, SOURCE, "r")
    assert head
    heads = {SOURCE: msgspec.structs.replace(head, revision="0123456789abcdef")}
    counting.operations.clear()
    counting.reads = 0
    logged = snapshots.change_rows(counting, heads, START - 1)
    assert counting.operations == ["list change"]
    assert len(logged) == 30 * 288
    of_the_month, counting.reads = counting.reads, 0
    assert len(snapshots.change_rows(counting, heads, now - 3600)) == 14
    assert counting.reads < of_the_month / 100
    history = changes.History([changes.SourceHistory(SOURCE, heads[SOURCE])], logged, changes_query.KINDS)
    body = log.written(history, "f=15000&t=15099")
    assert len(body["changes"]) == 100
    assert body["sources"][0]["count"] == 30_000
    counting.operations.clear()
    assert log.save([FULL], now + 60)
    assert counting.operations == ["get snapshot", "put snapshot"]


def test_many_sources_of_a_tenant_are_one_query(log: Log) -> None:
    sources = [Source("123", "qcloud", f"r-{n:03}") for n in range(100)]
    for source in (*sources, Source("1234", "qcloud", "r-000"), Source("9", "qcloud", "r-000")):
        log.save([FULL], START, source)
        log.save([FULL, msgspec.structs.replace(FULL, id="i-2")], START + 1, source)
    expected = log.events(START, *sources)
    assert [event["region"] for event in expected] == [source.region for source in sources]
    counting = Counting(log.store)
    heads = {it: head for it in sources if (head := snapshots.find(log.store, it, "r"))}
    counting.operations.clear()
    assert len(snapshots.change_rows(counting, heads, START)) == 100
    assert counting.operations == ["list change"]
    some = dict(list(heads.items())[:16])
    counting.operations.clear()
    assert len(snapshots.change_rows(counting, some, START)) == 16
    assert counting.operations == ["list change"] * 16


def test_every_store_reads_the_same_rows(store: Store) -> None:
    """By source and by tenant, from a time on: SQLite, DynamoDB in this process and as a server."""
    sources = [*(Source("123", "qcloud", f"r-{n:02}") for n in range(9)), *(
        Source("123", "aws", f"r-{n:02}", "default" if n % 2 else f"named:{n}") for n in range(9)),
        Source("1234", "qcloud", "r-00"), Source("12", "qcloud", "r-00")]
    heads = dict[Source, snapshots.Head]()
    for source in sources:
        for n in range(3):
            head = snapshots.save(store, source, "r", [FULL, msgspec.structs.replace(FULL, id=f"i-{n}", cpu=n)][:n],
                                  START + n, history=MONTH)
            assert head
            heads[source] = head
    for chosen in (sources, sources[:3], sources[8:12], sources[:18]):
        for since in (START - 1, START, START + 1, START + 2):
            rows = snapshots.change_rows(store, {source: heads[source] for source in chosen}, since)
            assert [(row.at, row.source) for row in rows] == [
                (f"{START + n:.6f}", source) for n in (1, 2) if START + n > since
                for source in sorted(chosen, key=lambda it: it.order)]


def test_what_fits_leaves_room_for_the_sources(log: Log) -> None:
    """And where they alone are too long, no range is said to fit."""
    log.save([FULL], START)
    log.save([structs.replace(FULL, id=f"i-{n}") for n in range(200)], START + 1)
    log.save([FULL], START + 2)
    alone = log.history(START - 1)
    (it,) = alone.sources
    sources = [structs.replace(it, source=structs.replace(it.source, account=f"a{n}")) for n in range(100)]
    history = structs.replace(alone, sources=[it, *sources])
    most = 60_000
    with pytest.raises(TooLarge) as refused:
        log.written(history, "", most)
    fits = int(refused.value.text.rsplit("t=", 1)[1].split()[0])
    query = changes_query.parse_changes([("tenant_id", "123"), ("since", "2026-09-21T00:00:00Z"), ("t", str(fits))])
    body = events.write_changes(history, query, ZoneInfo("UTC"), log.clock(), most).body
    assert 0.9 * most < formats.carried(body) <= most
    with pytest.raises(TooLarge, match="Name fewer tenants"):
        log.written(history, "t=1", 20_000)


@pytest.mark.sample(3)
@pytest.mark.parametrize("thousands", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_a_hundred_thousand_changes_are_read_in_parts(log: Log, thousands: int) -> None:
    """Memory holds the stored rows and a part; the whole does not fit one answer, which says what does."""
    dice = random.Random(1)
    entries = []
    for n in range(thousands):
        names = {f"i-{dice.getrandbits(68):017x}": f"web-{n}-{m}" for m in range(1000)}
        change = snapshots.Change(at=START + n, changed=dict.fromkeys(names, ("status",)), names=names, revision="r",
                                  values=dict.fromkeys(names, (("ACTIVE", "SHUTOFF"),)))
        (value,) = snapshots._parts(change)
        key = f"{snapshots.key_of(SOURCE)}/{START + n:017.6f}/{n + 1:x}-{n:x}/0000"
        entries.append(Entry("change", key, value, 1, int(START) + MONTH))
    log.store.write(entries)
    log.save([FULL], START + 999)
    history = log.history(START - 1)
    tracemalloc.start()
    body = log.written(history, "f=20001&t=20100", formats.LARGEST_ANSWER)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(body["changes"]) == 100
    assert body["changes"][0]["at"] == instant(START + 20)
    assert body["sources"][0]["count"] == thousands * 1000
    assert peak < 20_000_000, peak
    with pytest.raises(TooLarge, match=r"Request a range: f=1&t=\d+ fits") as refused:
        log.written(history, "", formats.LARGEST_ANSWER)
    fits = int(refused.value.text.rsplit("t=", 1)[1].split()[0])
    assert len(log.written(history, f"f=1&t={fits}", formats.LARGEST_ANSWER)["changes"]) == fits
    assert fits > 10_000
