"""Answers as bytes: the seed's record, units, zones, what is unknown; a golden file that only grows (P14)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import formats
from chalicelib.errors import InvalidParameter, PartyDenied, PartyThrottled, TooLarge, TwocloudError
from chalicelib.inventory import Answer, Fleet, Part
from chalicelib.model import Server, Source, Status
from chalicelib.query import parse

UTC_ZONE = ZoneInfo("UTC")
SEED = Server(id="ins-u23j34j2", name="hehe", cpu=8, memory_mib=16384, disk_gib=20, lan_ipv4=("192.168.0.2", "192.168.0.3"),
              wan_ipv4=("122.22.3.45", "122.22.3.46"), status=Status.ACTIVE, party_status="RUNNING",
              created_at=datetime(2014, 7, 29, 15, 8, 39, tzinfo=UTC), updated_at=datetime(2014, 8, 5, 17, 37, 56, tzinfo=UTC))


def answer(*servers: Server) -> Answer:
    return Answer(Source("123", "qcloud", "ap-guangzhou"), list(servers), len(servers), datetime(2026, 9, 21, tzinfo=UTC))


def body(*servers: Server, view: str = "basic", zone: str = "UTC") -> bytes:
    given = answer(*servers)
    asked = parse([("party", "qcloud"), ("tenant_id", "123"), ("region", "gz"), ("view", view)])
    return formats.list_json(formats.body(Fleet([Part(given.source, given)], given.total), asked, ZoneInfo(zone)))


def test_the_seeds_own_sample_to_the_byte() -> None:
    sample = ('{"code": 200, "msg": "", "vm_servers": [{"instance_name": "hehe", "instance_id": "ins-u23j34j2", "cpu_num": 8, '
              '"mem_size": 16, "disk_size": 20, "lan_ip_set": "192.168.0.2,192.168.0.3", "wan_ip_set": "122.22.3.45,122.22.3.46", '
              '"status": "ACTIVE", "create_at": "2014-07-29 15:08:39", "update_at": "2014-08-05 17:37:56"}]}')
    assert body(SEED) == json.dumps(json.loads(sample), separators=(",", ":")).encode()


def test_fields_are_only_added() -> None:
    """The golden file holds every field of the contract in its order; a new one may only come behind."""
    golden = json.loads((Path(__file__).parent / "golden.json").read_text())
    for view, fields in golden.items():
        found = list(json.loads(body(SEED, view=view))["vm_servers"][0])
        assert found[:len(fields)] == fields


def test_a_client_of_2016_works_unchanged() -> None:
    """What a program written against the API document of 2016 does with the answer."""
    said = json.loads(body(SEED, Server(id="i-2", name="", status=Status.BUILD)))
    if said["code"] != 200:
        raise AssertionError(said["msg"])
    lines = []
    for vm in said["vm_servers"]:
        lan, wan = vm["lan_ip_set"].split(","), vm["wan_ip_set"].split(",")
        lines.append(f"{vm['instance_name']} {vm['instance_id']} {vm['cpu_num']} {lan[0]} {wan[0]} {vm['status']}")
    assert lines == ["hehe ins-u23j34j2 8 192.168.0.2 122.22.3.45 ACTIVE", " i-2 None   BUILD"]


def test_what_is_unknown_stays_null_or_empty() -> None:
    row = json.loads(body(Server(id="i", name=""), view="full"))["vm_servers"][0]
    for field in ("cpu_num", "mem_size", "disk_size", "create_at", "update_at"):
        assert row[field] is None
    for field in ("instance_name", "lan_ip_set", "wan_ip_set", "zone", "project_id", "instance_type", "party_status", "lan_ipv6_set"):
        assert row[field] == ""
    assert row["status"] == "UNKNOWN" and row["tags"] == {}


@pytest.mark.parametrize(("mib", "gb"), [(0, 0), (1, 1), (512, 1), (1024, 1), (1025, 2), (16384, 16), (None, None)])
def test_memory_is_rounded_up(mib: int | None, gb: int | None) -> None:
    assert json.loads(body(Server(id="i", name="", memory_mib=mib)))["vm_servers"][0]["mem_size"] == gb


def test_zones() -> None:
    row = json.loads(body(SEED, zone="Asia/Shanghai", view="full"))["vm_servers"][0]
    assert (row["create_at"], row["update_at"], row["seen_at"]) == ("2014-07-29 23:08:39", "2014-08-06 01:37:56", "2026-09-21 08:00:00")
    row = json.loads(body(SEED, zone="America/New_York"))["vm_servers"][0]
    assert row["create_at"] == "2014-07-29 11:08:39"


def test_without_a_time_of_update_it_is_the_time_of_creation() -> None:
    row = json.loads(body(msgspec.structs.replace(SEED, updated_at=None)))["vm_servers"][0]
    assert row["update_at"] == row["create_at"] == "2014-07-29 15:08:39"


def test_times_at_the_edge_of_the_calendar() -> None:
    for time in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)):
        for zone in ("America/New_York", "Asia/Shanghai", "UTC"):
            shown = json.loads(body(Server(id="i", name="", created_at=time), zone=zone))["vm_servers"][0]["create_at"]
            assert shown is None or len(shown) == 19


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_comes_out_as_it_is(name: str) -> None:
    assert json.loads(body(Server(id="i", name=name, tags={name: name}), view="full"))["vm_servers"][0]["instance_name"] == name


def test_errors_have_no_servers() -> None:
    for error in (InvalidParameter("t", "bad"), PartyDenied("x"), PartyThrottled("x", retry_after=3), TwocloudError("inside")):
        found = json.loads(formats.error_json(error, "r"))
        assert "vm_servers" not in found and found["request_id"] == "r" and "inside" not in found["msg"]


@pytest.mark.parametrize(("asked", "told"), [(None, 5), (0, 5), (0.2, 1), (3, 3), (21_600, 3600)])
def test_our_retry_after(asked: float | None, told: int) -> None:
    assert formats.retry_after(PartyThrottled(retry_after=asked)) == told


def test_size_is_measured_as_lambda_carries_it() -> None:
    for text in ('{"a":"b"}', "\\", "é", "plain"):
        assert formats.carried(text.encode()) == len(json.dumps(text, ensure_ascii=False).encode()) - 2
    rows = [formats.BasicRow(*(["x" * 100] * 2), 1, 1, 1, *(["y"] * 5)) for _ in range(30_000)]
    whole = formats.list_json(rows)
    with pytest.raises(TooLarge) as large:
        formats.check_size(whole, rows, 1)
    fits = int(str(large.value.text).split("t=")[1].split(" ")[0])
    formats.check_size(formats.list_json(rows[:fits]), rows[:fits], 1)
    assert formats.carried(formats.list_json(rows[:fits])) > 0.99 * formats.LARGEST_ANSWER


def test_ten_thousand_full_records_fit() -> None:
    full = msgspec.structs.replace(SEED, tags={"team": "blue"}, zone="ap-guangzhou-6", instance_type="S5.LARGE8")
    rows = formats.rows(answer(*[full] * 10_000), "full", UTC_ZONE)
    formats.check_size(formats.list_json(rows), rows, 1)
