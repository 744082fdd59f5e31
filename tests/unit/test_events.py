"""Changes that say what and when: event by event, from the snapshots alone."""

import base64
import dataclasses
import json
import random
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.fleet import changes, changes_query
from chalicelib.http import openapi
from chalicelib.http.formats import events
from chalicelib.http.formats.rows import FullRow, full_rows
from chalicelib.model import Server, Source, Status
from chalicelib.storage import snapshots
from chalicelib.storage.sqlite import SqliteStore
from tests import ROOT
from tests.fixtures import START, Clock

SOURCE = Source("123", "qcloud", "ap-guangzhou")
MONTH = 30 * 86_400
SCHEMA = {"$ref": "#/components/schemas/ChangesBody", "components": json.loads(openapi.document())["components"]}


def instant(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclasses.dataclass
class Log:
    """A source's lists in a store of its own, and its events."""

    store: SqliteStore
    clock: Clock

    def save(self, listed: list[Server], at: float, source: Source = SOURCE, revision: str = "r") -> Any:
        return snapshots.save(self.store, source, revision, listed, at, history=MONTH)

    def history(self, since: float, *sources: Source, kinds: tuple[str, ...] = changes_query.KINDS) -> changes.History:
        heads = {it: head for it in sources or (SOURCE,) if (head := snapshots.find(self.store, it, "r"))}
        return changes.History([changes.SourceHistory(it, head) for it, head in heads.items()],
                               snapshots.change_rows(self.store, heads, since), kinds)

    def events(self, since: float, *sources: Source) -> list[dict[str, Any]]:
        return self.written(self.history(since, *sources))["changes"]

    def written(self, history: changes.History, more: str = "", most: int | None = None,
                zone: str = "UTC") -> dict[str, Any]:
        query = changes_query.parse_changes([("tenant_id", "123"), ("since", "2026-09-21T00:00:00Z"), *(
            tuple(pair.split("=")) for pair in more.split("&") if pair)])        # type: ignore[misc]
        body = events.write_changes(history, query, ZoneInfo(zone), self.clock(), most).body
        answer = json.loads(body)
        jsonschema.validate({**answer, "changes": answer["changes"][:3]}, SCHEMA)  # of thousands it takes a minute
        return answer


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    made = Log(SqliteStore(f"{tmp_path}/log.db", clock), clock)
    yield made
    made.store.close()


FULL = Server(id="i-1", name="a", cpu=1, memory_mib=512, disk_gib=10, lan_ipv4=("10.0.0.1",), wan_ipv4=("8.8.8.8",),
              lan_ipv6=("fd00::1",), wan_ipv6=("2001:db8::1",), status=Status.ACTIVE, party_status="RUNNING",
              created_at=datetime(2024, 1, 1, tzinfo=UTC), zone="z1", project_id="p1", instance_type="t1",
              tags={"a": "1"})
OTHER: dict[str, Any] = {
    "name": "b", "cpu": None, "memory_mib": 4096, "disk_gib": 0, "lan_ipv4": (), "wan_ipv4": ("8.8.8.8", "8.8.4.4"),
    "lan_ipv6": (), "wan_ipv6": (), "status": Status.UNKNOWN, "party_status": "", "created_at": None, "zone": "",
    "project_id": "p2", "instance_type": "t2", "tags": {"a": "1", "b": "é"},
    "image_id": "img-1", "image_name": "一", "os": "linux", "vpc_id": "vpc-1", "subnet_id": "net-1",
    "security_groups": ("sg-1", "sg-2"), "key_name": "ann", "charge_type": "prepaid",
    "expires_at": datetime(2026, 12, 31, 23, 30, tzinfo=UTC), "host_id": "node-7"}


def test_every_field_is_shown_as_in_a_list(log: Log) -> None:
    """Each field alone and all at once, there and back: what the rows of the list show, under their names."""
    assert OTHER.keys() == {*Server.__struct_fields__} - {"id", "updated_at", "console_url"}
    lists = [FULL, *(msgspec.structs.replace(FULL, **{name: value}) for name, value in OTHER.items()),
             msgspec.structs.replace(FULL, **OTHER)]
    answer = events.Answer(SOURCE, [FULL], 1, 0.0)
    for n, server in enumerate(lists[1:]):
        log.save([FULL], START + 4 * n)
        log.save([server], START + 4 * n + 1)
        log.save([FULL], START + 4 * n + 2)
        there, back = log.events(START + 4 * n)
        for zone in ("UTC", "Asia/Shanghai"):
            before, after = (next(full_rows(msgspec.structs.replace(answer, servers=[it]), ZoneInfo(zone)))
                             for it in (FULL, server))
            expected = {name: [getattr(before, name), getattr(after, name)] for name in FullRow.__struct_fields__
                        if name != "update_at" and getattr(before, name) != getattr(after, name)}
            written = log.written(log.history(START + 4 * n), zone=zone)["changes"]
            assert written[0]["fields"] == expected
            assert len(expected) == (len(OTHER) if server is lists[-1] else 1)
        assert there["instance_name"] == server.name
        assert back["fields"] == {name: pair[::-1] for name, pair in there["fields"].items()}
        assert there["fields"].keys() == events._unknown(
            OTHER if server is lists[-1] else [list(OTHER)[n]]).keys()           # the names that rows of 0.1.0 get


def test_what_no_field_shows_is_no_event(log: Log) -> None:
    log.save([FULL], START)
    log.save([msgspec.structs.replace(FULL, memory_mib=513)], START + 1)
    moment = datetime(2024, 1, 1, 0, 0, 0, 9, UTC)
    log.save([msgspec.structs.replace(FULL, memory_mib=513, created_at=moment)], START + 2)
    assert log.events(START) == []
    log.save([msgspec.structs.replace(FULL, memory_mib=1025, cpu=2)], START + 3)
    (event,) = log.events(START)
    assert event["fields"] == {"cpu_num": [1, 2], "mem_size": [1, 2]}
    assert log.written(log.history(START))["sources"][0]["count"] == 1


NEW_FIELDS = {"image_id": "img-1", "security_groups": ("sg-1",), "charge_type": "prepaid", "cpu": 4,
              "expires_at": datetime(2026, 12, 1, tzinfo=UTC), "console_url": "https://console.example/i-1"}


def writer_is(log: Log, version: str) -> None:
    """As if that version had written the last list."""
    head = snapshots.find(log.store, SOURCE, "r")
    assert head
    kind, key = snapshots.place_of(SOURCE)
    log.store.put(kind, key, msgspec.msgpack.encode(msgspec.structs.replace(head, writer=version)),
                  expires=head.expires)


@pytest.mark.parametrize("version", ["", "0.0.9", "99.0.0"])
def test_what_only_another_version_reads_has_not_changed(log: Log, version: str) -> None:
    """A list that it wrote lacks a value, or this one's does: neither an upgrade nor the way back changes a fleet."""
    bare = msgspec.structs.replace(FULL, cpu=None)
    log.save([bare], START)
    writer_is(log, version)
    log.save([msgspec.structs.replace(bare, **NEW_FIELDS)], START + 1)
    writer_is(log, version)
    head = log.save([bare], START + 2)
    assert log.events(START - 1) == []
    assert snapshots.marks(log.store, SOURCE, head) == {}       # which `update_at` comes from


def test_what_changed_beside_an_upgrade_is_told(log: Log) -> None:
    log.save([msgspec.structs.replace(FULL, image_id="img-1")], START)
    writer_is(log, "")
    there = msgspec.structs.replace(FULL, status=Status.SHUTOFF, image_id="img-2", key_name="ann")
    log.save([there, msgspec.structs.replace(there, id="i-2")], START + 1)
    changed, appeared = log.events(START)
    assert changed["fields"] == {"status": [FULL.status, "SHUTOFF"], "image_id": ["img-1", "img-2"]}
    assert appeared["instance_id"] == "i-2"
    log.save([msgspec.structs.replace(there, key_name=None)], START + 2)        # by one version: compared again
    assert log.events(START + 1)[0]["fields"] == {"key_name": ["ann", None]}


def test_a_list_that_an_upgrade_did_not_change_is_of_the_new_version(log: Log) -> None:
    log.save([FULL], START)
    writer_is(log, "")
    log.save([FULL], START + 1)
    log.save([msgspec.structs.replace(FULL, host_id="node-7")], START + 2)
    assert log.events(START)[0]["fields"] == {"host_id": [None, "node-7"]}


def test_the_new_fields_change_under_their_names(log: Log) -> None:
    """But a page in the party's console is no property of the server."""
    log.save([msgspec.structs.replace(FULL, **NEW_FIELDS)], START)
    later = NEW_FIELDS | {"security_groups": (), "expires_at": datetime(2027, 1, 1, tzinfo=UTC)}
    log.save([msgspec.structs.replace(FULL, **later)], START + 1)
    (event,) = log.events(START)
    assert event["fields"] == {"security_group_set": ["sg-1", ""],
                               "expires_at": ["2026-12-01 00:00:00", "2027-01-01 00:00:00"]}
    log.save([msgspec.structs.replace(FULL, **later | {"console_url": "https://new.example/i-1"})], START + 2)
    assert log.events(START + 1) == []


def test_what_0_1_0_recorded_is_told(log: Log) -> None:
    """The rows of that version as it wrote them."""
    old = json.loads((ROOT / "tests/rows/0.1.0.json").read_text())
    for kind, key, value, _ in old["rows"]:
        log.store.put(kind, key, base64.b64decode(value))
    (key,) = (key for kind, key, *_ in old["rows"] if kind == "snapshot")
    source = snapshots.source_of_key(key)
    (source, head), = [it for it in snapshots.heads(log.store) if it[0] == source]
    history = changes.History([changes.SourceHistory(source, head)],
                              snapshots.change_rows(log.store, {source: head}, head.since), changes_query.KINDS)
    changed, vanished = log.written(history)["changes"]
    assert (changed["instance_id"], changed["fields"]) == ("ins-0001", {"cpu_num": [None, None]})
    assert (vanished["kind"], vanished["instance_id"], vanished["instance_name"]) == ("vanished", "ins-0449", "web-449")


def test_rows_of_0_1_0_have_names_of_fields_alone(log: Log) -> None:
    head = log.save([FULL], START)
    old = {"at": START - 60, "appeared": ["i-1"], "changed": {"i-2": ["status", "memory_mib", "lan_ipv4"]},
           "vanished": [{"id": "i-3", "name": "c", "seen_at": START - 90, "vanished_at": START - 60}]}
    key = f"{snapshots.key_of(SOURCE)}/{START - 60:017.6f}/2ddc53ed/0000"
    log.store.put("change", key, zlib.compress(msgspec.msgpack.encode({**old, "revision": head.revision})))
    changed, appeared, vanished = log.events(START - 100)
    assert changed["fields"] == {"status": [None, None], "mem_size": [None, None], "lan_ip_set": [None, None]}
    assert changed["instance_name"] is None
    assert appeared["instance_name"] is None
    assert (vanished["instance_name"], vanished["at"]) == ("c", instant(START - 60))
    log.store.put("change", key, zlib.compress(msgspec.msgpack.encode(old)))     # and no revision: 0.1.0 wrote none
    assert log.events(START - 100) == []                        # it is from before this account was first listed


@pytest.mark.parametrize("value", [b"", b"x", b"\x78\x9c", "other", "shape"])
def test_a_damaged_row_is_logged_and_passed_over(log: Log, value: Any, capfd: pytest.CaptureFixture[str]) -> None:
    log.save([FULL], START)
    log.save([msgspec.structs.replace(FULL, cpu=9)], START + 1)
    log.save([], START + 2)
    made = {"other": zlib.compress(b"junk"), "shape": zlib.compress(msgspec.msgpack.encode({"at": "x"}))}
    (damaged, _), _ = log.store.list("change")
    log.store.put("change", damaged, made.get(value, value))
    log.store.put("change", f"{snapshots.key_of(SOURCE)}/what is this", made.get(value, value))
    assert [event["kind"] for event in log.events(START)] == ["vanished"]


def test_a_change_too_large_for_a_row_is_cut(log: Log) -> None:
    noise = random.Random(1)
    tags = [{f"k{n}": noise.randbytes(120).hex() for n in range(50)} for _ in range(120)]
    log.save([msgspec.structs.replace(FULL, id=f"i-{n:03}", tags=it) for n, it in enumerate(tags)], START)
    log.save([msgspec.structs.replace(FULL, id=f"i-{n:03}", tags=it) for n, it in enumerate(reversed(tags))], START + 1)
    assert len(list(log.store.list("change"))) > 4
    logged = log.events(START)
    assert [event["instance_id"] for event in logged] == [f"i-{n:03}" for n in range(120)]
    assert all(event["fields"] == {"tags": [tags[n], tags[119 - n]]} for n, event in enumerate(logged))
    huge = "".join(map(chr, (noise.randrange(0x4E00, 0x9FFF) for _ in range(300_000))))
    head = snapshots.find(log.store, SOURCE, "r")
    assert head
    change = snapshots.Change(at=START + 2, changed={"i-1": ("zone",)}, revision="r", names={"i-1": "a"},
                              values={"i-1": (("", huge),)})
    snapshots._record(log.store, SOURCE, change, "new-old", MONTH)
    assert log.events(START + 1)[-1]["fields"] == {"zone": [None, None]}


# ---------------------------------------------------------------- replayed, twice, late, killed

def server(n: int, look: tuple[int, int]) -> Server:
    cpu, status = look
    return Server(id=f"i-{n}", name=f"web-{n}", cpu=cpu, memory_mib=1024 * cpu,
                  status=(Status.ACTIVE, Status.SHUTOFF)[status])


def shown(listed: list[Server], source: Source = SOURCE) -> dict[str, dict[str, Any]]:
    answer = events.Answer(source, listed, len(listed), 0.0)
    return {row.instance_id: {"instance_name": row.instance_name, "cpu_num": row.cpu_num, "mem_size": row.mem_size,
                              "status": row.status} for row in full_rows(answer, ZoneInfo("UTC"))}


def replay(state: dict[str, dict[str, Any]], logged: list[dict[str, Any]], now: dict[str, dict[str, Any]]) -> None:
    """`now` tells what an event of a server that appeared cannot: how it looked. Its later changes are undone."""
    for n, event in enumerate(logged):
        key = event["instance_id"]
        if event["kind"] == "vanished":
            assert state.pop(key)["instance_name"] == event["instance_name"]
        elif event["kind"] == "appeared":
            assert key not in state
            state[key] = {"instance_name": event["instance_name"]}
            later = [other for other in logged[n + 1:] if other["instance_id"] == key]
            ends = [other for other in later if other["kind"] == "vanished"]
            if not ends and key in now:
                look = dict(now[key])
                for other in reversed(later):
                    look |= {name: before for name, (before, _) in other["fields"].items()}
                state[key] = look
        else:
            for name, (before, after) in event["fields"].items():
                assert before != after
                if name in state[key]:
                    assert state[key][name] == before
                state[key][name] = after


looks = st.tuples(st.sampled_from([1, 2]), st.sampled_from([0, 1]))
fleets = st.lists(st.dictionaries(st.integers(0, 6), looks, max_size=7), min_size=1, max_size=7)


class Killed(BaseException):
    pass


@settings(max_examples=80)
@given(fleets, st.integers(0, 6), st.randoms())
def test_events_lead_from_the_first_list_to_the_last(tmp_path: Path, fleets: list[dict[int, tuple[int, int]]],
                                                     since: int, dice: Any) -> None:
    """Whatever a fleet does, and whatever listing is written twice, comes late, or is killed at any of its writes: each
    change is told once, in its order."""
    log = Log(SqliteStore(f"{tmp_path}/{time.monotonic_ns()}.db", lambda: START), Clock())
    lists = [[server(n, look) for n, look in sorted(it.items())] for it in fleets]
    real = log.store.put

    def dying_at(writes: int) -> Any:
        remaining = iter(range(writes))

        def dying(kind: str, key: str, value: bytes, **more: Any) -> None:
            if next(remaining, None) is None:
                raise Killed
            real(kind, key, value, **more)

        return dying

    log.save(lists[0], START)
    for at, listed in enumerate(lists):
        for _ in range(dice.randrange(3)):  # other lists in between, which are killed before or while they are kept
            log.store.put = dying_at(dice.randrange(4))         # type: ignore[method-assign]
            before = snapshots.find(log.store, SOURCE, "r")
            try:
                log.save(dice.choice([listed, dice.choice(lists)]), START + at - 0.5 * dice.random())
            except Killed:
                pass
            else:
                if snapshots.find(log.store, SOURCE, "r") != before:
                    log.store.put = real    # type: ignore[method-assign]
                    break
        log.store.put = real                # type: ignore[method-assign]
        log.save(listed, START + at)
        if dice.random() < 0.5:
            log.save(lists[dice.randrange(at + 1)], START + dice.randrange(at + 1) - 0.9)
    since = min(since, len(lists) - 1)
    now = shown(lists[-1])
    state = shown(lists[since])
    replay(state, log.events(START + since), now)
    assert state == now
    log.store.close()


def test_listings_of_one_moment_are_told_in_their_order(log: Log) -> None:
    """A frozen clock, or two processes: the times are the same, each list was compared with the one before."""
    for n in range(12):
        log.save([server(0, (1, n % 2)), server(n, (1, 0))] if n else [server(0, (1, 0))], START)
    logged = log.events(START - 1)
    state = shown([server(0, (1, 0))])
    replay(state, logged, shown([server(0, (1, 1)), server(11, (1, 0))]))
    assert state == shown([server(0, (1, 1)), server(11, (1, 0))])
    assert len({event["at"] for event in logged}) == 1
