"""Answers as bytes: the seed's record, units, zones, what is unknown; a golden file that only grows (P14); the other
formats to the byte, read back by their readers, with whatever a machine may be called."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.errors import InvalidParameter, PartyDenied, PartyThrottled, TooLarge, TwocloudError
from chalicelib.fleet.many_sources import Answer, Inventory, SourceResult
from chalicelib.fleet.query import parse
from chalicelib.http import formats
from chalicelib.http.formats import ansible, lines, prometheus
from chalicelib.http.formats.words import unique
from chalicelib.model import PREPAID, Server, Source, Status
from tests import ROOT

UTC_ZONE = ZoneInfo("UTC")
QUERY = [("party", "qcloud"), ("tenant_id", "123"), ("region", "gz")]
SEED = Server(id="ins-u23j34j2", name="hehe", cpu=8, memory_mib=16384, disk_gib=20,
              lan_ipv4=("192.168.0.2", "192.168.0.3"),
              wan_ipv4=("122.22.3.45", "122.22.3.46"), status=Status.ACTIVE, party_status="RUNNING",
              created_at=datetime(2014, 7, 29, 15, 8, 39, tzinfo=UTC),
              updated_at=datetime(2014, 8, 5, 17, 37, 56, tzinfo=UTC))


EVERY = msgspec.structs.replace(
    SEED, zone="ap-guangzhou-6", instance_type="S5.LARGE8", image_id="img-eb30mz89", image_name="CentOS 7.2 64位",
    os="linux", vpc_id="vpc-m57eq3rq", subnet_id="subnet-prsqxopj", security_groups=("sg-efil73jd", "sg-b4e0xrm7"),
    key_name="skey-2qbzpz8b", charge_type=PREPAID, expires_at=datetime(2026, 10, 1, 15, 59, 59, tzinfo=UTC),
    host_id="host-8pz1jwjt", console_url="https://console.cloud.tencent.com/cvm/instance/detail?rid=1&id=ins-u23j34j2")


def answer(*servers: Server) -> Answer:
    return Answer(Source("123", "qcloud", "ap-guangzhou"), list(servers), len(servers),
                  datetime(2026, 9, 21, tzinfo=UTC).timestamp())


def body(*servers: Server, view: str = "basic", zone: str = "UTC") -> bytes:
    listing = answer(*servers)
    query = parse([("party", "qcloud"), ("tenant_id", "123"), ("region", "gz"), ("view", view)])
    return formats.list_json(formats.body(Inventory([SourceResult(listing.source, listing)], listing.total), query,
                                          ZoneInfo(zone)))


def test_the_seeds_own_sample_to_the_byte() -> None:
    sample = ('{"code": 200, "msg": "", "vm_servers": [{"instance_name": "hehe", "instance_id": "ins-u23j34j2",'
              ' "cpu_num": 8, '
              '"mem_size": 16, "disk_size": 20, "lan_ip_set": "192.168.0.2,192.168.0.3", "wan_ip_set": "122.22.3.45,'
              '122.22.3.46", '
              '"status": "ACTIVE", "create_at": "2014-07-29 15:08:39", "update_at": "2014-08-05 17:37:56"}]}')
    assert body(SEED) == json.dumps(json.loads(sample), separators=(",", ":")).encode()


def test_fields_are_only_added() -> None:
    """The golden file holds every field of the contract in its order; a new one may only come behind."""
    golden = json.loads((ROOT / "tests/golden.json").read_text())
    for view, fields in golden.items():
        names = list(json.loads(body(SEED, view=view))["vm_servers"][0])
        assert names[:len(fields)] == fields


def test_a_client_of_2016_works_unchanged() -> None:
    """What a program written against the API document of 2016 does with the answer."""
    document = json.loads(body(SEED, Server(id="i-2", name="", status=Status.BUILD)))
    if document["code"] != 200:
        raise AssertionError(document["msg"])
    lines = []
    for vm in document["vm_servers"]:
        lan, wan = vm["lan_ip_set"].split(","), vm["wan_ip_set"].split(",")
        lines.append(f"{vm['instance_name']} {vm['instance_id']} {vm['cpu_num']} {lan[0]} {wan[0]} {vm['status']}")
    assert lines == ["hehe ins-u23j34j2 8 192.168.0.2 122.22.3.45 ACTIVE", " i-2 None   BUILD"]


def test_what_is_unknown_stays_null_or_empty() -> None:
    row = json.loads(body(Server(id="i", name=""), view="full"))["vm_servers"][0]
    for field in ("cpu_num", "mem_size", "disk_size", "create_at", "update_at"):
        assert row[field] is None
    for field in ("instance_name", "lan_ip_set", "wan_ip_set", "zone", "project_id", "instance_type", "party_status",
                  "lan_ipv6_set"):
        assert row[field] == ""
    assert row["status"] == "UNKNOWN"
    assert row["tags"] == {}


@pytest.mark.parametrize(("mib", "gb"), [(0, 0), (1, 1), (512, 1), (1024, 1), (1025, 2), (16384, 16), (None, None)])
def test_memory_is_rounded_up(mib: int | None, gb: int | None) -> None:
    assert json.loads(body(Server(id="i", name="", memory_mib=mib)))["vm_servers"][0]["mem_size"] == gb


def test_zones() -> None:
    row = json.loads(body(SEED, zone="Asia/Shanghai", view="full"))["vm_servers"][0]
    assert (row["create_at"], row["update_at"], row["seen_at"]) == ("2014-07-29 23:08:39", "2014-08-06 01:37:56",
                                                                    "2026-09-21 08:00:00")
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
    assert json.loads(body(Server(id="i", name=name, tags={name: name}),
                           view="full"))["vm_servers"][0]["instance_name"] == name


def test_errors_have_no_servers() -> None:
    for error in (InvalidParameter("t", "bad"), PartyDenied("x"), PartyThrottled("x", retry_after=3),
                  TwocloudError("inside")):
        document = json.loads(formats.error_json(error, "r"))
        assert "vm_servers" not in document
        assert document["request_id"] == "r"
        assert "inside" not in document["msg"]


@pytest.mark.parametrize(("seconds", "expected"), [(None, 5), (0, 5), (0.2, 1), (3, 3), (21_600, 3600)])
def test_our_retry_after(seconds: float | None, expected: int) -> None:
    assert formats.retry_after(PartyThrottled(retry_after=seconds)) == expected


def test_size_is_measured_as_lambda_carries_it() -> None:
    for text in ('{"a":"b"}', "\\", "é", "plain", "a,b\r\n", "".join(map(chr, range(128))), "团队\u2028\U0001f600"):
        assert formats.carried(text.encode()) == len(json.dumps(text, ensure_ascii=False).encode()) - 2
    rows = [formats.BasicRow(*(["x" * 100] * 2), 1, 1, 1, *(["y"] * 5)) for _ in range(30_000)]
    whole = formats.list_json(rows)
    with pytest.raises(TooLarge) as large:
        formats.check_size(whole, formats.ListBody(200, "", [*rows]), parse(QUERY))
    fits = int(str(large.value.text).split("t=")[1].split(" ")[0])
    formats.check_size(formats.list_json(rows[:fits]), formats.ListBody(200, "", [*rows[:fits]]), parse(QUERY))
    assert formats.carried(formats.list_json(rows[:fits])) > 0.99 * formats.LARGEST_ANSWER


@pytest.mark.parametrize("sources", [1, 1000, 60_000])
def test_the_range_that_fits_leaves_room_for_the_sources(sources: int) -> None:
    rows: list[formats.BasicRow] = [formats.BasicRow(*(["x" * 100] * 2), 1, 1, 1, *(["y"] * 5)) for _ in range(30_000)]
    made = formats.ListBody(200, "", rows, complete=True, sources=[formats.SourceRow(
        "qcloud", "ap-guangzhou", "ok", 30, 5, "", "", f"tenant-{n}", "default") for n in range(sources)])
    with pytest.raises(TooLarge) as large:
        formats.check_size(formats.list_json(made), made, parse(QUERY))
    if sources == 60_000:
        assert "Name fewer tenants" in large.value.text
        return
    fits = int(large.value.text.split("t=")[1].split(" ")[0])
    part = msgspec.structs.replace(made, vm_servers=rows[:fits])
    formats.check_size(formats.list_json(part), part, parse(QUERY))
    assert formats.carried(formats.list_json(part)) > 0.99 * formats.LARGEST_ANSWER


def test_no_range_is_said_to_fit_beside_too_many_that_vanished() -> None:
    row = formats.VanishedRow("i-1", "x" * 100, "qcloud", "ap-guangzhou", "2026-09-21 00:00:00", "2026-09-21 00:00:00",
                              "123", "default")
    made = formats.ListBody(200, "", [], vanished=[row] * 30_000)
    with pytest.raises(TooLarge, match="later changed_since"):
        formats.check_size(formats.list_json(made), made, parse(QUERY))


def test_five_thousand_full_records_fit() -> None:
    """With every field filled. The command, the console and the plugin read parts of 4,000."""
    full = msgspec.structs.replace(EVERY, tags={"team": "blue"})
    rows = [*formats.rows(answer(*[full] * 5000), "full", UTC_ZONE)]
    formats.check_size(formats.list_json(rows), formats.ListBody(200, "", [*rows]), parse(QUERY))


# ---------------------------------------------------------------- the other formats

def written(*servers: Server, query: str, source: Source | None = None) -> formats.Written:
    """What `query` (its format, view, …) makes of these servers of one source."""
    parsed = parse([*QUERY, *(tuple(pair.split("=")) for pair in query.split("&"))])     # type: ignore[misc]
    listing = Answer(source or Source("123", "qcloud", "ap-guangzhou"), list(servers), len(servers),
                     datetime(2026, 9, 21, tzinfo=UTC).timestamp())
    return formats.write(Inventory([SourceResult(listing.source, listing)], listing.total), parsed, UTC_ZONE)


FULL = msgspec.structs.replace(SEED, zone="ap-guangzhou-6", project_id="7", instance_type="S5.LARGE8",
                               lan_ipv6=("fd00::1",),
                               tags={"team": "blue", "cost-center": "9", "团队": "蓝"})
BARE = Server(id="i-2", name="")
HEAD = "instance_name,instance_id,cpu_num,mem_size,disk_size,lan_ip_set,wan_ip_set,status,create_at,update_at"
HOSTILE = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "＋1", "－1", "＠x", "'=x", 'a"b', "a,b", "a\r\nb", "",
           " =x", "a=b",
           "\x00", "\ufeffx", "名", '"', "{{ 1 }}", "\u2028", "a;=cmd|' /C calc'!A0;b", "a\t@x", "a|+1", "a,-1", "a;b",
           "a\n=1", "a\r=1",
           "a\u2028=1", "a\x85=1", "a; \u3000=1", "\ufeff=1", "\x00=1", '";"=1', '"=1', 'a;""=1', "\u00a0＝1",
           "\u22121",
           ";;;=", "﹦1", "a;\u200b-"]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(HOSTILE)
tags = st.dictionaries(st.sampled_from(["a-b", "a.b", "a_b", "a_b_2", "A_b", "__ansible_vault", "_", "", "团队", "1"])
                       | names, names, max_size=6)


def test_csv_to_the_byte() -> None:
    assert written(SEED, BARE, query="format=csv").body.decode() == (
        f'{HEAD}\r\nhehe,ins-u23j34j2,8,16,20,"192.168.0.2,192.168.0.3","122.22.3.45,122.22.3.46",ACTIVE,'
        f'2014-07-29 15:08:39,'
        '2014-08-05 17:37:56\r\n,i-2,,,,,,UNKNOWN,,\r\n')
    assert written(query="format=csv").body.decode() == f"{HEAD}\r\n"
    full = written(FULL, query="format=csv&view=full").body.decode().split("\r\n")
    assert (
        full[0]
        == f"{HEAD},party,tenant_id,region,zone,project_id,instance_type,party_status,lan_ipv6_set,wan_ipv6_set,"
           f"tags,seen_at,account,image_id,image_name,os,vpc_id,subnet_id,security_group_set,key_name,charge_type,"
           f"expires_at,host_id,console_url"
    )
    assert full[1].endswith(',qcloud,123,ap-guangzhou,ap-guangzhou-6,7,S5.LARGE8,RUNNING,fd00::1,,'
                            '"{""cost-center"":""9"",""team"":""blue"",""团队"":""蓝""}",2026-09-21 00:00:00,default'
                            ',,,,,,,,,,,')
    full = written(EVERY, query="format=csv&view=full").body.decode().split("\r\n")
    assert full[1].endswith(
        ',default,img-eb30mz89,CentOS 7.2 64位,linux,vpc-m57eq3rq,subnet-prsqxopj,"sg-efil73jd,sg-b4e0xrm7",'
        'skey-2qbzpz8b,prepaid,2026-10-01 15:59:59,host-8pz1jwjt,'
        'https://console.cloud.tencent.com/cvm/instance/detail?rid=1&id=ins-u23j34j2')


@pytest.mark.parametrize(("name", "shown"), [
    ("=1+1", "'=1+1"), (" =x", " '=x"), ("\tx", "'\tx"), ("\t=x", "'\t'=x"), ("a=b-c+d@e", "a=b-c+d@e"),
    ("a;=cmd|' /C calc'!A0;b", "a;'=cmd|' /C calc'!A0;b"),
    ("a\r\n-1", "a\r\n'-1"), ("'=x", "'=x"), ("web-1; db-2", "web-1; db-2"), ("＝1", "'＝1"), ("", ""),
    ('a|"@x', "a|\"'@x")])
def test_what_could_be_a_formula_is_marked(name: str, shown: str) -> None:
    row = next(
        csv.DictReader(io.StringIO(written(Server(id="i", name=name), query="format=csv").body.decode(), newline="")))
    assert row["instance_name"] == shown
    assert row["instance_id"] == "i"


SIGN = re.compile(r"[=+\-@＝＋－＠﹢﹣﹦﹫\u2212]")
BLANK = "".join(chr(code) for code in range(0x3001) if not chr(code).isprintable() or chr(code).isspace()
                or code == 0xad) + '\ufeff"'


def cells(text: str, separator: str) -> Iterator[str]:
    """As programs read it that split at `separator`: those that know quotes, and those that do not."""
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
        yield from row
    for line in re.split(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", text):
        yield from line.split(separator)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_no_cell_is_a_formula(separator: str) -> None:
    """Whatever a program splits at, whatever it trims: every text field and every tag, in both views."""
    texts = [*HOSTILE, *(f"x{separator}{hostile}" for hostile in HOSTILE)]
    servers = [Server(**{field.name: text for field in msgspec.structs.fields(Server) if field.type is str},
                      tags={text: text, "a": f"{text};"})
               for text in texts]
    for query in ("format=csv", "format=csv&view=full"):
        text = written(*servers, query=query).body.decode()
        assert not [cell for cell in cells(text, separator) if SIGN.match(cell.lstrip(BLANK))]
    table = b"".join(
        lines.table(["name", "more"], [{"name": text, "more": [text, {text: 1}]} for text in texts])).decode()
    assert not [cell for cell in cells(table, separator) if SIGN.match(cell.lstrip(BLANK))]


def test_a_long_cell_takes_no_time() -> None:
    """A mark is looked for once at each place, not once for each blank before it."""
    texts = [";" * 200_000 + " " * 200_000, (";" + " " * 50) * 10_000, '"' * 400_000]
    for text in texts:
        assert len(b"".join(lines.table(["a"], [{"a": text}]))) >= len(text)


@given(st.lists(st.builds(lambda number, name, tags: Server(id=f"i{number}", name=name, tags=tags), st.integers(0, 3),
                          names, tags), max_size=5))
def test_csv_and_ndjson_say_what_json_says(servers: list[Server]) -> None:
    """Read back by the readers that everybody has: every record, every field."""
    whole = json.loads(body(*servers, view="full"))["vm_servers"]
    rows = list(csv.DictReader(io.StringIO(written(*servers, query="format=csv&view=full").body.decode(), newline=""),
                               strict=True))
    assert len(rows) == len(whole)
    for row, record in zip(rows, whole, strict=True):
        assert list(row) == list(record)
        assert json.loads(row["tags"]) == record["tags"]
        for key in record.keys() - {"tags"}:
            shown = "" if record[key] is None else str(record[key])
            assert row[key].replace("'", "") == shown.replace("'", "")
    file = written(*servers, query="format=ndjson&view=full").body
    assert [json.loads(line) for line in file.split(b"\n")[:-1]] == whole
    assert (not file or file.endswith(b"\n"))


def test_ndjson_to_the_byte() -> None:
    assert written(BARE, BARE, query="format=ndjson").body == 2 * (
        b'{"instance_name":"","instance_id":"i-2","cpu_num":null,"mem_size":null,"disk_size":null,"lan_ip_set":"",'
        b'"wan_ip_set":"",'
        b'"status":"UNKNOWN","create_at":null,"update_at":null}\n')
    assert written(query="format=ndjson").body == b""


def test_prometheus_to_the_byte() -> None:
    assert written(FULL, query="format=prometheus&port=9100").body.decode() == (
        '[{"targets":["192.168.0.2:9100"],"labels":{"__meta_twocloud_instance_name":"hehe",'
        '"__meta_twocloud_instance_id":"ins-u23j34j2",'
        '"__meta_twocloud_cpu_num":"8","__meta_twocloud_mem_size":"16","__meta_twocloud_disk_size":"20",'
        '"__meta_twocloud_lan_ip_set":"192.168.0.2,192.168.0.3","__meta_twocloud_wan_ip_set":"122.22.3.45,122.22.3.46",'
        '"__meta_twocloud_status":"ACTIVE","__meta_twocloud_create_at":"2014-07-29 15:08:39",'
        '"__meta_twocloud_update_at":"2014-08-05 17:37:56",'
        '"__meta_twocloud_party":"qcloud","__meta_twocloud_tenant_id":"123","__meta_twocloud_region":"ap-guangzhou",'
        '"__meta_twocloud_zone":"ap-guangzhou-6","__meta_twocloud_project_id":"7",'
        '"__meta_twocloud_instance_type":"S5.LARGE8",'
        '"__meta_twocloud_party_status":"RUNNING","__meta_twocloud_lan_ipv6_set":"fd00::1",'
        '"__meta_twocloud_account":"default","__meta_twocloud_tag_team":"blue",'
        '"__meta_twocloud_tag_cost_center":"9","__meta_twocloud_tag_u56e2u961f":"蓝"}}]')
    assert written(query="format=prometheus").body == b"[]"


@pytest.mark.parametrize(("server", "query", "targets"), [
    (SEED, "", ["192.168.0.2"]), (SEED, "&address=wan", ["122.22.3.45"]),
    (SEED, "&address=wan&port=1", ["122.22.3.45:1"]),
    (Server(id="i", name="", lan_ipv6=("fd00::1", "fd00::2")), "", ["[fd00::1]"]),
    (Server(id="i", name="", lan_ipv6=("fd00::1",)), "&port=65535", ["[fd00::1]:65535"]),
    (Server(id="i", name="", lan_ipv6=("fd00::1",), lan_ipv4=("10.0.0.1",)), "", ["10.0.0.1"]),
    (Server(id="i", name="", lan_ipv4=("10.0.0.1",)), "&address=wan", []), (BARE, "", []),
])
def test_targets(server: Server, query: str, targets: list[str]) -> None:
    """A server without such an address is no target, and is counted."""
    file = written(server, query=f"format=prometheus{query}")
    assert [target for group in json.loads(file.body) for target in group["targets"]] == targets
    assert file.without_address == 1 - len(targets)
    assert written(server, query="format=ansible").without_address is None


@given(st.lists(st.builds(lambda name, tags, zone, lan: Server(id="i", name=name, tags=tags, zone=zone, lan_ipv4=lan),
                          names, tags, names, st.sampled_from([(), ("10.0.0.1",)])), max_size=4))
def test_prometheus_takes_it(servers: list[Server]) -> None:
    """Its own rules: exactly two keys, legal names, nothing but strings. No tag is lost."""
    file = written(*servers, query="format=prometheus")
    groups = json.loads(file.body)
    shown = [server for server in servers if server.lan_ipv4]
    assert len(groups) == len(shown)
    assert file.without_address == len(servers) - len(shown)
    for group, server in zip(groups, shown, strict=True):
        assert set(group) == {"targets", "labels"}
        assert group["targets"] == ["10.0.0.1"]
        for name, value in group["labels"].items():
            assert re.fullmatch(r"__meta_twocloud_[a-zA-Z0-9_]*", name)
            assert isinstance(value, str)
            assert value
        named = [value for name, value in group["labels"].items() if name.startswith("__meta_twocloud_tag_")]
        assert sorted(named) == sorted(value for value in server.tags.values() if value)


def test_tags_that_meet_in_one_label() -> None:
    """A legal name is its own; the others follow in their order, whatever order the party has."""
    expected = {"a_b": "3", "a_b_2": "4", "a_b_3": "1", "a_b_4": "2"}
    for order in (["a-b", "a.b", "a_b", "a_b_2"], ["a_b_2", "a_b", "a.b", "a-b"]):
        values = {"a-b": "1", "a.b": "2", "a_b": "3", "a_b_2": "4"}
        assert prometheus.tag_names({key: values[key] for key in order}) == expected


def test_thousands_of_names_that_meet_take_no_time() -> None:
    """Counted, and not timed: how often a name is looked for."""
    looked = 0

    class Taken(dict[str, str]):
        def __contains__(self, name: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(name)

    taken, last = Taken(), dict[str, int]()
    for number in range(5000):
        name = unique("a_b", taken, last)
        taken[name] = str(number)
    assert list(taken)[:3] == ["a_b", "a_b_2", "a_b_3"]
    assert len(taken) == 5000
    assert looked < 3 * 5000


def test_labels_stay_while_the_server_does() -> None:
    """`seen_at` would make each refresh of Prometheus a change."""
    groups = json.loads(written(FULL, query="format=prometheus").body)
    assert "__meta_twocloud_seen_at" not in groups[0]["labels"]


def inventory_of(*servers: Server, source: Source | None = None) -> dict[str, Any]:
    return json.loads(written(*servers, query="format=ansible", source=source).body)


def test_ansible_to_the_byte() -> None:
    assert written(BARE, query="format=ansible").body.decode() == (
        '{"_meta":{"hostvars":{"i-2":{"twocloud_instance_name":"","twocloud_instance_id":"i-2","twocloud_cpu_num":null,'
        '"twocloud_mem_size":null,'
        '"twocloud_disk_size":null,"twocloud_lan_ip_set":"","twocloud_wan_ip_set":"","twocloud_status":"UNKNOWN",'
        '"twocloud_create_at":null,'
        '"twocloud_update_at":null,"twocloud_party":"qcloud","twocloud_tenant_id":"123",'
        '"twocloud_region":"ap-guangzhou","twocloud_zone":"",'
        '"twocloud_project_id":"","twocloud_instance_type":"","twocloud_party_status":"","twocloud_lan_ipv6_set":"",'
        '"twocloud_wan_ipv6_set":"",'
        '"twocloud_seen_at":"2026-09-21 00:00:00","twocloud_account":"default",'
        '"twocloud_image_id":null,"twocloud_image_name":null,"twocloud_os":null,"twocloud_vpc_id":null,'
        '"twocloud_subnet_id":null,"twocloud_security_group_set":null,"twocloud_key_name":null,'
        '"twocloud_charge_type":null,"twocloud_expires_at":null,"twocloud_host_id":null,"twocloud_console_url":null,'
        '"twocloud_tags":{}}}},'
        '"all":{"children":["party_qcloud",'
        '"region_ap_guangzhou",'
        '"status_UNKNOWN"]},"party_qcloud":{"hosts":["i-2"]},"region_ap_guangzhou":{"hosts":["i-2"]},'
        '"status_UNKNOWN":{"hosts":["i-2"]}}')
    assert written(query="format=ansible").body == b'{"_meta":{"hostvars":{}},"all":{"children":[]}}'


def test_what_a_full_record_says_of_image_network_and_payment() -> None:
    """In the order of the contract; times in the deployment's zone; no group is "", which null is not."""
    record = json.loads(body(EVERY, view="full", zone="Asia/Shanghai"))["vm_servers"][0]
    assert list(record.items())[21:] == [
        ("account", "default"), ("image_id", "img-eb30mz89"), ("image_name", "CentOS 7.2 64位"), ("os", "linux"),
        ("vpc_id", "vpc-m57eq3rq"), ("subnet_id", "subnet-prsqxopj"), ("security_group_set", "sg-efil73jd,sg-b4e0xrm7"),
        ("key_name", "skey-2qbzpz8b"), ("charge_type", "prepaid"), ("expires_at", "2026-10-01 23:59:59"),
        ("host_id", "host-8pz1jwjt"),
        ("console_url", "https://console.cloud.tencent.com/cvm/instance/detail?rid=1&id=ins-u23j34j2")]
    none, unsaid = json.loads(body(msgspec.structs.replace(BARE, security_groups=()), BARE, view="full"))["vm_servers"]
    assert none["security_group_set"] == ""
    assert list(unsaid.values())[22:] == [None] * 11
    (target,) = json.loads(written(EVERY, query="format=prometheus").body)
    assert target["labels"]["__meta_twocloud_expires_at"] == "2026-10-01 15:59:59"
    (target,) = json.loads(written(SEED, query="format=prometheus").body)
    assert not [name for name in target["labels"] if "image" in name or "expires" in name]


def test_ansibles_groups_and_addresses() -> None:
    inventory = inventory_of(FULL)
    assert [name for name in inventory if name not in ("_meta", "all")] == [
        "party_qcloud", "project_7", "region_ap_guangzhou", "status_ACTIVE", "tag_cost_center_9", "tag_team_blue",
        "tag_u56e2u961f_u84dd", "zone_ap_guangzhou_6"]
    assert inventory["_meta"]["hostvars"]["hehe"]["ansible_host"] == "122.22.3.45"
    inventory = inventory_of(msgspec.structs.replace(FULL, tags={"a-b": "1", "a.b": "1", "c": ""}))
    assert (inventory["tag_a_b_1"], inventory["tag_c"]) == ({"hosts": ["hehe"]}, {"hosts": ["hehe"]})
    for server, address in ((Server(id="i", name="x", lan_ipv4=("10.0.0.1",), wan_ipv6=("2001:db8::1",)), "10.0.0.1"),
                            (Server(id="i", name="x", lan_ipv6=("fd00::1",), wan_ipv6=("2001:db8::1",)), "2001:db8::1"),
                            (BARE, None)):
        (host,) = inventory_of(server)["_meta"]["hostvars"].values()
        assert host.get("ansible_host") == address
        assert ("ansible_host" in host) == (address is not None)


@pytest.mark.parametrize(("servers", "hosts"), [
    ([("web", "1"), ("db", "2")], ["web", "db"]),
    ([("web", "1"), ("web", "2"), ("db", "3")], ["1", "2", "db"]),
    ([("2", "1"), ("web", "2")], ["1", "web"]),                                 # called what another one is
    ([("1", "1"), ("", "2")], ["1", "2"]),
    ([("a b", "1"), ("a:b", "2"), ("!a", "3"), ("a,b", "4"), ("-x", "5"), ("~x", "6"), ("a/b", "7"), ("x\n", "8")],
     list("12345678")),
    ([("localhost", "1"), ("LocalHost", "2"), ("127.0.0.1", "3"), ("::1", "4"), ("all", "5"), ("ungrouped", "6"),
      ("tag_x", "7")], list("1234567")),
    ([("名-1", "1"), ("{{x}}", "2")], ["名-1", "2"]),
    ([("web", "1"), ("db", "1")], ["web", "db"]), ([("", "1"), ("", "1")], ["qcloud.gz.1", "qcloud.gz.1_2"]),
    ([("qcloud.gz.1", "2"), ("", "1"), ("", "1")], ["2", "qcloud.gz.1", "qcloud.gz.1_2"]),
    ([("", "a b"), ("", "a/b")], ["qcloud.gz.a_b", "qcloud.gz.a_b_2"]), ([("x" * 254, "1")], ["1"]),
])
def test_names_of_hosts(servers: list[tuple[str, str]], hosts: list[str]) -> None:
    source = Source("123", "qcloud", "gz")
    assert ansible.host_names([(source, Server(id=key, name=name)) for name, key in servers]) == hosts


@given(st.lists(st.builds(lambda name, key, tags: Server(id=key, name=name, tags=tags),
                          st.sampled_from(["web", "db", "1", "i-1", "party_qcloud", "localhost",
                                           "qcloud.ap-guangzhou.1"]) | names,
                          st.sampled_from(["1", "2", "i-1", "i-2", "web", "a b"]), tags), max_size=8))
def test_ansible_takes_it(servers: list[Server]) -> None:
    """One host for each server, of its own variables; every host of a group is there, every group is a child of all."""
    inventory = inventory_of(*servers)
    hosts = inventory.pop("_meta")["hostvars"]
    children = inventory.pop("all")["children"]
    assert len(hosts) == len(servers)
    assert children == list(inventory)
    assert not set(hosts) & set(inventory)
    assert sorted(vars["twocloud_instance_id"] for vars in hosts.values()) == sorted(server.id for server in servers)
    assert all(re.fullmatch(r"\w[\w.-]*", name) for name in hosts)
    for name, group in inventory.items():
        assert re.fullmatch(r"[a-z]+_[A-Za-z0-9_]*", name)
        assert set(group) == {"hosts"}
        assert set(group["hosts"]) <= set(hosts)
        assert len(group["hosts"]) == len(set(group["hosts"])) > 0
    for host, server in zip(ansible.host_names([(Source("123", "qcloud", "ap-guangzhou"), server)
                                                for server in servers]), servers, strict=True):
        assert len(hosts[host]["twocloud_tags"]) == len(server.tags)
        assert sum(host in group["hosts"] for group in inventory.values()) >= 3


def test_no_name_is_run_as_a_template() -> None:
    """Ansible would run it on the machine that runs the playbook."""
    evil = "{{ lookup('pipe', 'id') }}"
    inventory = inventory_of(Server(id="i", name=evil, zone="{% x %}",
                                    tags={"a": evil, "__ansible_vault": "x", "b": "a:b c"}))
    host = inventory["_meta"]["hostvars"]["i"]
    assert host["twocloud_instance_name"] == {"__ansible_unsafe": evil}
    assert host["twocloud_zone"] == {"__ansible_unsafe": "{% x %}"}
    assert host["twocloud_tags"] == {"a": {"__ansible_unsafe": evil}, "___ansible_vault": "x", "b": "a:b c"}
    assert json.dumps(inventory).count("{{") == json.dumps(inventory).count("__ansible_unsafe\": \"{{")


@pytest.mark.sample(5)
@pytest.mark.parametrize("query", [
    "format=csv", "format=ndjson", "format=prometheus", "format=ansible",
    pytest.param("format=csv&view=full", marks=pytest.mark.slow)])
def test_a_list_that_is_too_long_is_never_all_held(query: str) -> None:
    servers = [msgspec.structs.replace(FULL, id=f"i-{number}", name="x" * 100) for number in range(40_000)]
    tracemalloc.start()
    with pytest.raises(TooLarge) as large:
        written(*servers, query=query)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    text = str(large.value.text)
    if "format=csv" in query or "ndjson" in query:
        fits = int(text.split("t=")[1].split(" ")[0])
        assert 0.99 * formats.LARGEST_ANSWER < formats.carried(written(*servers[:fits],
                                                                       query=query).body) <= formats.LARGEST_ANSWER
    else:
        assert "f=" not in text
        assert "whole list" in text


@pytest.mark.parametrize("query", ["format=csv", "format=csv&view=full", "format=ndjson&view=full", "format=prometheus",
                                   "format=prometheus&port=1", "format=prometheus&address=wan", "format=ansible"])
def test_tags_of_answers(query: str) -> None:
    """One for each state of the list; seen later it is the same."""
    def tag(server: Server, day: int = 21, query: str = query) -> str:
        parsed = parse([*QUERY, *(tuple(pair.split("=")) for pair in query.split("&"))])     # type: ignore[misc]
        listing = Answer(Source("123", "qcloud", "ap-guangzhou"), [server], 1,
                         datetime(2026, 9, day, tzinfo=UTC).timestamp())
        return formats.write(Inventory([SourceResult(listing.source, listing)], 1), parsed, UTC_ZONE).etag

    assert tag(FULL) == tag(FULL, day=22) != tag(msgspec.structs.replace(FULL, status=Status.SHUTOFF))
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag(FULL))
    assert tag(FULL) != tag(FULL, query="format=json")
