"""Changes that say what and when: event by event, over HTTP, from the snapshots alone."""

import base64
import csv
import dataclasses
import io
import json
import random
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.errors import InvalidParameter, TooLarge
from chalicelib.fleet import changes, changes_query
from chalicelib.http import formats, openapi
from chalicelib.http.formats import events
from chalicelib.http.formats.rows import FullRow, full_rows
from chalicelib.model import Server, Source, Status, Window
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from chalicelib.storage import snapshots
from chalicelib.storage.sqlite import SqliteStore
from chalicelib.storage.store import Entry, Store
from tests import ROOT
from tests.fixtures import GZ, START, App, Clock
from tests.http.test_serve import error
from tests.unit.test_fleet import fleet, put  # noqa: F401
from tests.unit.test_scale import Counting

PATH = "/twocloud/changes"
SOURCE = Source("123", "qcloud", "ap-guangzhou")
POOL = Fleet(40, "pool")
MONTH = 30 * 86_400
SCHEMA = {"$ref": "#/components/schemas/ChangesBody", "components": json.loads(openapi.document())["components"]}
QCLOUD = "tenant_id=123&party=qcloud&region=gz"


def machine(n: int, **more: Any) -> Machine:
    return dataclasses.replace(POOL[n], state="running", **more)


def ident(n: int) -> str:
    return f"ins-{POOL[n].key}"


def at(unix: float) -> str:
    return quote(instant(unix))


def instant(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def list_it(app: App, machines: list[Machine], query: str = GZ, region: str = "ap-guangzhou") -> None:
    cloud: Any = app.clouds["qcloud"]
    cloud.fleets[region] = Machines(machines)
    assert app.get(f"{query}&max_age=0").status_code == 200


def ask(app: App, query: str, **more: Any) -> dict[str, Any]:
    answer = app.get(query, path=PATH, **more)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    jsonschema.validate(body, SCHEMA)
    assert list(body) == ["code", "msg", "changes", "sources"]
    return body


# ---------------------------------------------------------------- over HTTP

def test_what_and_when(served: App) -> None:
    list_it(served, [machine(n) for n in range(4)])
    began = served.clock()
    served.clock.forward(60.5)
    list_it(served, [machine(0), dataclasses.replace(machine(1), state="stopped"), machine(3, cpu=99), machine(9)])
    served.clock.forward(60)
    list_it(served, [machine(0, name="renamed"), dataclasses.replace(machine(1), state="stopped"), machine(3, cpu=99)])
    served.clock.forward(7)
    calls = served.clouds["qcloud"].count()
    body = ask(served, f"{QCLOUD}&since={at(began)}")
    assert served.clouds["qcloud"].count() == calls
    where = {"tenant_id": "123", "party": "qcloud", "account": "default", "region": "ap-guangzhou"}

    def event(seconds: float, kind: str, n: int, name: str = "", **fields: Any) -> dict[str, Any]:
        return {"at": instant(began + seconds), "kind": kind, **where, "instance_id": ident(n),
                "instance_name": name or POOL[n].name, **({"fields": fields} if fields else {})}

    was = POOL[3].cpu
    expected = [
        *sorted([event(60.5, "changed", 1, status=["ACTIVE", "SHUTOFF"], party_status=["RUNNING", "STOPPED"]),
                 event(60.5, "changed", 3, cpu_num=[was, 99])], key=lambda row: row["instance_id"]),
        event(60.5, "appeared", 9), event(60.5, "vanished", 2),
        event(120.5, "changed", 0, "renamed", instance_name=[POOL[0].name, "renamed"]), event(120.5, "vanished", 9)]
    assert body["changes"] == expected
    assert list(body["changes"][0]) == ["at", "kind", "tenant_id", "party", "account", "region", "instance_id",
                                        "instance_name", "fields"]
    assert body["sources"] == [{"party": "qcloud", "region": "ap-guangzhou", "state": "ok", "count": 6, "age": 7,
                                "error": "", "msg": "", "tenant_id": "123", "account": "default",
                                "since": instant(began)}]
    assert body["msg"] == ""
    # the time of an event leads on from it
    assert ask(served, f"{QCLOUD}&since={quote(expected[0]['at'])}")["changes"] == expected[4:]
    assert ask(served, f"{QCLOUD}&since={at(began + 60.499999)}")["changes"] == expected
    assert ask(served, f"{QCLOUD}&since={quote(expected[-1]['at'])}")["changes"] == []
    assert ask(served, f"{QCLOUD}&since=2999-01-01T00:00:00Z")["changes"] == []
    for kinds in ("appeared", "changed,vanished", "vanished,appeared,changed", "all"):
        wanted = changes_query.KINDS if kinds == "all" else kinds.split(",")
        assert ask(served, f"{QCLOUD}&since={at(began)}&kind={kinds}")["changes"] == [
            row for row in expected if row["kind"] in wanted]


def test_parts_join_to_the_whole(served: App) -> None:
    list_it(served, [machine(n) for n in range(9)])
    since = f"{QCLOUD}&since={at(served.clock())}"
    for n in range(1, 8):
        served.clock.forward(10)
        list_it(served, [machine(m, cpu=100 + n) for m in range(n, 9)])
    whole = ask(served, since)["changes"]
    assert len(whole) == sum(1 + 9 - n for n in range(1, 8))
    for size in (1, 4, 100):
        joined, url, pages = [], f"{since}&f=1&t={size}", 0
        while url:
            answer = served.get(url, path=PATH)
            assert answer.headers["X-Total-Count"] == str(len(whole))
            joined += answer.json()["changes"]
            nexts = [part for part in answer.headers.get("Link", "").split(", ") if 'rel="next"' in part]
            url = nexts[0].split("?", 1)[1].split(">")[0] if nexts else ""
            assert not nexts or nexts[0].startswith(f"<{PATH}?tenant_id=123") or nexts[0].startswith(f"<{PATH}?party")
            pages += 1
        assert joined == whole
        assert pages == -(-len(whole) // size)
    assert ask(served, f"{since}&f=999")["changes"] == []
    assert "Link" not in served.get(since, path=PATH).headers
    assert ask(served, f"{since}&f=3&kind=vanished")["changes"] == [
        row for row in whole if row["kind"] == "vanished"][2:]


def test_headers(served: App) -> None:
    list_it(served, [machine(0)])
    since = f"{QCLOUD}&since={at(served.clock())}"
    served.clock.forward(5)
    answer = served.get(since, path=PATH)
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Age"] == "5"
    assert answer.headers["Cache-Status"] == "twocloud; hit"
    assert answer.headers["X-Total-Count"] == "0"
    tag = answer.headers["ETag"]
    served.clock.forward(5)
    assert served.get(GZ).status_code == 200
    assert served.get(since, path=PATH, headers={"If-None-Match": tag}).status_code == 304
    assert served.get(since, path=PATH, method="HEAD").headers["ETag"] == tag
    list_it(served, [machine(0, cpu=77)])
    fresh = served.get(since, path=PATH, headers={"If-None-Match": tag})
    assert fresh.status_code == 200
    assert fresh.headers["X-Total-Count"] == "1"


def test_other_formats(served: App) -> None:
    list_it(served, [machine(0), machine(1)])
    since = f"{QCLOUD}&since={at(served.clock())}"
    served.clock.forward(5)
    list_it(served, [machine(0, name="=cmd|x"), machine(2)])
    expected = ask(served, since)["changes"]
    answer = served.get(f"{since}&format=ndjson", path=PATH)
    assert [json.loads(line) for line in answer.text.splitlines()] == expected
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    answer = served.get(f"{since}&format=csv", path=PATH)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert list(lines[0]) == ["at", "kind", "tenant_id", "party", "account", "region", "instance_id", "instance_name",
                              "fields"]
    assert [line["kind"] for line in lines] == ["changed", "appeared", "vanished"]
    assert lines[0]["instance_name"] == "'=cmd|x"               # no formula
    assert json.loads(lines[0]["fields"]) == {"instance_name": [POOL[0].name, "=cmd|x"]}
    assert lines[1]["fields"] == ""
    part = served.get(f"{since}&format=csv&f=2&t=2", path=PATH)
    assert part.text.splitlines() == [answer.text.splitlines()[0], answer.text.splitlines()[2]]
    assert 'rel="next"' in part.headers["Link"]
    assert "format=csv" in part.headers["Link"]


@pytest.mark.parametrize(("query", "parameter"), [
    ("tenant_id=123", "since"), ("since=2026-09-21T00:00:00Z", "tenant_id"), ("", "since"),
    ("S&since=2026-09-21T00:00:00Z", "since"), ("S&kind=gone", "kind"), ("S&kind=", "kind"),
    ("S&kind=all,appeared", "kind"), ("S&f=0", "f"), ("S&f=3&t=2", "t"), ("S&format=prometheus", "format"),
    ("S&format=ansible", "format"), ("S&view=full", "view"), ("S&max_age=0", "max_age"),
    ("S&on_error=stale", "on_error"),
    ("S&changed_since=2026-09-21T00:00:00Z", "changed_since"), ("S&party=nobody", "party"), ("S&token=x", "token"),
    ("S&party=aws&region=gz", "region"), ("S&status=ACTIVE", "status"), ("tenant_id=123&since=yesterday", "since"),
    ("tenant_id=123&since=2026-09-21", "since"), ("tenant_id=123&since=2001-01-01T00:00:00Z", "since"),
    ("tenant_id=a%00&since=2026-09-21T00:00:00Z", "tenant_id"), ("S&tenant_id=123", "tenant_id"), ("S&x=1", "x"),
    ("S&party=all,aws", "party"), ("S&region=%ff", "region")])
def test_bad_parameters(served: App, query: str, parameter: str) -> None:
    whole = query.replace("S&", "tenant_id=123&since=2026-09-21T00:00:00Z&", 1)
    text = error(served.get(whole, path=PATH), 400, "invalid_parameter", parameter)
    assert "changed_since" not in text or parameter == "changed_since"
    assert not any(cloud.count() for cloud in served.clouds.values())


def test_the_parameters_without_those_of_lists() -> None:
    names = [parameter.name for parameter in changes_query.PARAMETERS]
    assert {"tenant_id", "party", "region", "f", "t", "since", "kind", "format"} <= set(names)
    assert {parameter.name for parameter in changes_query.PARAMETERS if parameter.required} == {"tenant_id", "since"}
    parsed = changes_query.parse_changes([("tenant_id", "123"), ("since", "2026-09-21T00:00:00Z")])
    assert (parsed.parties, parsed.regions, parsed.kinds, parsed.window) == (None, None, None, Window())
    assert parsed.parameters == {"tenant_id": "123", "since": "2026-09-21T00:00:00Z"}
    with pytest.raises(InvalidParameter):
        changes_query.parse_changes([])


# ---------------------------------------------------------------- several sources, rights

def test_all_sources_in_one_order(fleet: App) -> None:           # noqa: F811
    cloud: Any = fleet.clouds["qcloud"]
    cloud.fleets |= {"ap-guangzhou": Machines([machine(0), machine(1)]), "ap-shanghai": Machines([machine(2)])}
    fleet.get("party=all&tenant_id=123&region=all")
    began = fleet.clock()
    fleet.clock.forward(60)
    cloud.fleets |= {"ap-guangzhou": Machines([machine(0)]), "ap-shanghai": Machines([machine(2), machine(3)])}
    fleet.clouds["aws"].fleets["us-east-1"] = Fleet(11)          # type: ignore[attr-defined]
    fleet.get("party=all&tenant_id=123&region=all&max_age=0")
    fleet.clock.forward(60)
    list_it(fleet, [machine(0), machine(5)])
    calls = sum(cloud.count() for cloud in fleet.clouds.values())
    body = ask(fleet, f"tenant_id=123&since={at(began)}")
    assert calls == sum(cloud.count() for cloud in fleet.clouds.values())
    assert [(row["at"], row["party"], row["region"], row["kind"]) for row in body["changes"]] == [
        (instant(began + 60), "aws", "us-east-1", "vanished"),
        (instant(began + 60), "qcloud", "ap-guangzhou", "vanished"),
        (instant(began + 60), "qcloud", "ap-shanghai", "appeared"),
        (instant(began + 120), "qcloud", "ap-guangzhou", "appeared")]
    assert [(row["region"], row["state"], row["count"]) for row in body["sources"]] == [
        ("eu-west-1", "ok", 0), ("us-east-1", "ok", 1), ("ap-guangzhou", "ok", 2), ("ap-shanghai", "ok", 1)]
    of_aws = ask(fleet, f"tenant_id=123&since={at(began)}&party=aws")["changes"]
    assert {row["region"] for row in of_aws} == {"us-east-1"}
    two = ask(fleet, f"tenant_id=123&since={at(began)}&region=sh,us-east-1")
    assert [row["region"] for row in two["sources"]] == ["us-east-1", "ap-shanghai"]


def test_the_token_decides(fleet: App) -> None:                  # noqa: F811
    fleet.get("party=all&tenant_id=123&region=all")
    began = fleet.clock()
    fleet.clock.forward(60)
    cloud: Any = fleet.clouds["qcloud"]
    cloud.fleets |= {"ap-guangzhou": Machines([machine(0)]), "ap-shanghai": Machines([machine(2)])}
    fleet.get("party=all&tenant_id=123&region=all&max_age=0")
    token = fleet.issue(fleet.user("eve", parties=("qcloud",), regions=("sh",)))
    body = ask(fleet, f"tenant_id=123&since={at(began)}", token=token)
    assert {row["region"] for row in body["changes"]} == {"ap-shanghai"}
    assert [row["region"] for row in body["sources"]] == ["ap-shanghai"]
    assert body["changes"] == ask(fleet, f"tenant_id=123&since={at(began)}&party=qcloud&region=ap-shanghai")["changes"]
    refusals = [fleet.get(f"{query}&since={at(began)}", path=PATH, token=token) for query in (
        "tenant_id=123&party=aws", "tenant_id=123&party=qcloud&region=gz", "tenant_id=9", "tenant_id=nobody",
        "tenant_id=123&region=gz,sh&party=qcloud", "tenant_id=9&party=qcloud&region=sh")]
    texts = {error(answer, 403, "forbidden") for answer in refusals}
    assert len(texts) == 1                  # whether or not it exists
    error(fleet.get(f"tenant_id=123&since={at(began)}", path=PATH, token=""), 401, "unauthorized")
    error(fleet.get("x=1", path=PATH, token="tc_x"), 401, "unauthorized")
    error(fleet.get(f"tenant_id=123&since={at(began)}&party=gcp&region=all", path=PATH), 404, "account_not_found")
    error(fleet.get("tenant_id=123&party=gcp&since=x", path=PATH, token=token), 400, "invalid_parameter", "since")


def test_several_tenants_and_named_accounts(fleet: App) -> None:                 # noqa: F811
    """Two tenants, one of them with two accounts at a party: what the token covers of each, in their order."""
    second = accounts.check("123", parties.load("qcloud"), dict(zip(("secret_id", "secret_key"), next(iter(
        fleet.clouds["qcloud"].keys.items())), strict=True)), project=None, regions=("ap-shanghai",),     # type: ignore[attr-defined]
        deep=False, endpoint=fleet.clouds["qcloud"].url, local=True, name="second")
    accounts.put(fleet.deployment.store, fleet.deployment.sealer(), second, fleet.clock())
    put(fleet, "qcloud", ("ap-shanghai",), "456")
    token = fleet.issue(fleet.user("eve", ("123", "456", "789")))
    fleet.get("party=all&tenant_id=all&region=all&max_age=0", token=token)
    began = fleet.clock()
    fleet.clock.forward(60)
    fleet.clouds["qcloud"].fleets["ap-shanghai"] = Machines([machine(2)])        # type: ignore[attr-defined]
    fleet.get("party=all&tenant_id=all&region=all&max_age=0", token=token)
    calls = fleet.clouds["qcloud"].count()

    def where(query: str, token: str | None = token) -> list[tuple[str, str]]:
        body = ask(fleet, f"{query}&since={at(began)}&kind=appeared", token=token)
        assert [(row["tenant_id"], row["account"]) for row in body["sources"] if row["count"]] == [
            (row["tenant_id"], row["account"]) for row in body["changes"]]
        return [(row["tenant_id"], row["account"]) for row in body["changes"]]

    assert where("tenant_id=all") == [("123", "default"), ("123", "second"), ("456", "default")]
    assert where("tenant_id=456,123") == where("tenant_id=all")
    assert where("tenant_id=123&account=second") == [("123", "second")]
    assert where("tenant_id=all&account=second") == [("123", "second")]
    assert where("tenant_id=456") == [("456", "default")]
    assert where("tenant_id=all", None) == [("123", "default"), ("123", "second")]
    assert calls == fleet.clouds["qcloud"].count()
    error(fleet.get(f"tenant_id=123,456&since={at(began)}", path=PATH), 403, "forbidden")
    error(fleet.get(f"tenant_id=123&party=qcloud&account=third&since={at(began)}", path=PATH), 404, "account_not_found")
    error(fleet.get(f"tenant_id=789&since={at(began)}", path=PATH, token=token), 404, "account_not_found")
    error(fleet.get(f"tenant_id=all,123&since={at(began)}", path=PATH), 400, "invalid_parameter", "tenant_id")


def test_a_source_that_was_never_listed_says_so(fleet: App) -> None:             # noqa: F811
    list_it(fleet, [machine(0)])
    began = fleet.clock()
    fleet.clock.forward(9)
    answer = fleet.get(f"tenant_id=123&since={at(began)}", path=PATH)
    body = answer.json()
    assert [(row["region"], row["state"], row["count"], row["age"], row["error"]) for row in body["sources"]] == [
        ("eu-west-1", "failed", None, None, "not_found"), ("us-east-1", "failed", None, None, "not_found"),
        ("ap-guangzhou", "ok", 0, 9, ""), ("ap-shanghai", "failed", None, None, "not_found")]
    assert "3 sources were never listed" in body["msg"]
    assert answer.headers["Cache-Status"] == "twocloud; hit; detail=not_found"
    one = ask(fleet, f"tenant_id=123&party=aws&region=us-east-1&since={at(began)}")
    assert one["changes"] == []
    assert one["msg"] == "aws us-east-1: never listed, so no changes of it are known."
    assert not fleet.clouds["aws"].count()


def test_an_account_whose_regions_nobody_listed(served: App) -> None:
    """Neither does the query list them: the sources are those that have snapshots."""
    list_it(served, [machine(0)])
    began = served.clock()
    served.clock.forward(9)
    list_it(served, [machine(1)])
    calls = served.clouds["qcloud"].count()
    body = ask(served, f"tenant_id=123&since={at(began)}")
    assert served.clouds["qcloud"].count() == calls
    assert not served.clouds["aws"].count()
    assert len(body["changes"]) == 2
    assert [(row["party"], row["region"], row["state"]) for row in body["sources"]] == [
        ("aws", "all", "failed"), ("qcloud", "ap-guangzhou", "ok")]


def test_a_source_whose_last_listing_failed_is_stale(served: App) -> None:
    list_it(served, [machine(0), machine(1)])
    began = served.clock()
    served.clock.forward(60)
    list_it(served, [machine(0)])
    served.clouds["qcloud"].fail("403")
    served.clock.forward(30)
    served.get(GZ)
    answer = served.get(f"{QCLOUD}&since={at(began)}", path=PATH)
    body = answer.json()
    assert [row["kind"] for row in body["changes"]] == ["vanished"]
    assert [(row["state"], row["error"], row["age"]) for row in body["sources"]] == [("stale", "party_denied", 30)]
    assert "its snapshot of 30 s ago" in body["msg"]
    assert answer.headers["Cache-Status"] == "twocloud; hit; detail=party_denied"
    served.clouds["qcloud"].forget()
    list_it(served, [machine(0)])
    assert [row["state"] for row in ask(served, f"{QCLOUD}&since={at(began)}")["sources"]] == ["ok"]


def test_the_earlier_life_of_an_account_is_never_shown(served: App) -> None:
    list_it(served, [machine(0)])
    began = served.clock()
    served.clock.forward(60)
    list_it(served, [machine(1)])
    rows = list(served.deployment.store.list("change"))
    assert len(ask(served, f"{QCLOUD}&since={at(began)}")["changes"]) == 2
    put(served, "qcloud", ("ap-guangzhou",))
    for key, row in rows:                   # a late writer, or a removal that was killed
        served.deployment.store.put("change", key, row.value)
    assert ask(served, f"{QCLOUD}&since={at(began)}")["changes"] == []
    served.clock.forward(60)
    list_it(served, [machine(0)])           # the first list of the new account is no change
    assert ask(served, f"{QCLOUD}&since={at(began)}")["changes"] == []
    served.clock.forward(60)
    list_it(served, [machine(0), machine(2)])
    assert [row["kind"] for row in ask(served, f"{QCLOUD}&since={at(began)}")["changes"]] == ["appeared"]


def test_times_are_shown_in_the_deployments_zone(served: App) -> None:
    served.change_settings(timezone=ZoneInfo("Asia/Shanghai"))
    list_it(served, [machine(0)])
    began = served.clock()
    before = served.get(f"{GZ}&view=full&max_age=99").json()["vm_servers"][0]["create_at"]
    served.clock.forward(60)
    list_it(served, [machine(0, created=POOL[1].created)])
    after = served.get(f"{GZ}&view=full&max_age=99").json()["vm_servers"][0]["create_at"]
    (event,) = ask(served, f"{QCLOUD}&since={at(began)}")["changes"]
    assert event["fields"] == {"create_at": [before, after]}
    assert event["at"] == instant(began + 60)


# ---------------------------------------------------------------- without HTTP

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


# ---------------------------------------------------------------- what it costs

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


def test_what_a_query_costs(fleet: App) -> None:         # noqa: F811
    fleet.get("party=all&tenant_id=123&region=all")
    began = fleet.clock()
    fleet.clock.forward(60)
    list_it(fleet, [machine(0)])
    counting = Counting(fleet.deployment.store)
    msgspec.structs.force_setattr(fleet.deployment, "store", counting)
    one, several = f"{QCLOUD}&since={at(began)}", f"tenant_id=123&since={at(began)}"
    for query, lists in ((one, 1), (several, 4)):
        counting.operations.clear()
        assert ask(fleet, query)["changes"]
        assert counting.operations.count("list change") == lists
        assert not [it for it in counting.operations if it.startswith(("put", "delete"))]
        assert len(counting.operations) <= lists + 5, counting.operations
