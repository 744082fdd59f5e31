"""Changes over HTTP: what and when, of which sources, for whom."""

import csv
import dataclasses
import io
import json
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import jsonschema
import msgspec
import pytest

from chalicelib import parties
from chalicelib.access import accounts
from chalicelib.errors import InvalidParameter
from chalicelib.fleet import changes_query
from chalicelib.model import Window
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from tests.fixtures import GZ, App
from tests.http.test_serve import error
from tests.unit.test_events import SCHEMA, instant
from tests.unit.test_fleet import fleet, put
from tests.unit.test_scale import Counting

__all__ = ["fleet"]

PATH = "/twocloud/changes"
POOL = Fleet(40, "pool")
QCLOUD = "tenant_id=123&party=qcloud&region=gz"


def machine(n: int, **more: Any) -> Machine:
    return dataclasses.replace(POOL[n], state="running", **more)


def ident(n: int) -> str:
    return f"ins-{POOL[n].key}"


def at(unix: float) -> str:
    return quote(instant(unix))


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


# ---------------------------------------------------------------- one source

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

def test_all_sources_in_one_order(fleet: App) -> None:
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


def test_the_token_decides(fleet: App) -> None:
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


def test_several_tenants_and_named_accounts(fleet: App) -> None:
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


def test_a_source_that_was_never_listed_says_so(fleet: App) -> None:
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


# ---------------------------------------------------------------- what it costs

def test_what_a_query_costs(fleet: App) -> None:
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
