"""Snapshots, parts of one list, several sources, changes."""

import dataclasses
import re
import time
from urllib.parse import urlsplit

from chalicelib.simulators.fleet import Fleet, Machines
from tests.http.contract.cases import MORE, TEN, case, error, good, gz, new_tenant
from tests.targets import Target


@case("parts of one list, though the fleet changes between them")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    both = f"party=qcloud,aws&tenant_id={tenant}&region=gz,us-east-1"
    fleet = target.qcloud.fleets["ap-guangzhou"]
    target.account(tenant, "aws")
    try:
        for query in (gz(tenant), both):
            whole = target.ask(query, token)
            name = whole.headers["x-list-id"]
            assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
            target.qcloud.fleets["ap-guangzhou"] = Fleet(7)
            assert target.ask(query, token).headers["x-list-id"] != name
            before = target.qcloud.count()
            ids, page = list[str](), target.ask(f"{query}&list={name}&f=1&t=9&max_age=0", token)
            assert page.headers["cache-status"] == "twocloud; hit"
            assert page.headers["x-total-count"] == str(len(whole.ids))
            while True:
                assert page.headers["x-list-id"] == name
                ids += page.ids
                link = re.search(r'<([^>]*)>; rel="next"', page.headers.get("link", ""))
                if not link:
                    break
                assert f"list={name}" in link[1]
                page = target.ask(urlsplit(link[1]).query, token)
            assert ids == whole.ids
            csv = target.ask(f"{query}&list={name}&format=csv&f=2&t=3", token).body.decode()
            assert [line.split(",")[1] for line in csv.splitlines()[1:]] == whole.ids[1:3]
            assert target.qcloud.count() == before
            target.qcloud.fleets["ap-guangzhou"] = fleet
    finally:
        target.qcloud.fleets["ap-guangzhou"] = fleet


@case("a list that is not kept, or not this query's, is 409")
def _(target: Target) -> None:
    (tenant, token), (other, others) = new_tenant(target), new_tenant(target)
    name = target.ask(gz(tenant), token).headers["x-list-id"]
    several = target.ask(f"party=all&tenant_id={tenant}&region=gz", token).headers["x-list-id"]
    target.ask(gz(other), others)
    before = target.qcloud.count()
    for query, who in ((gz(tenant, "&list=x"), token), (gz(tenant, f"&list={several}"), token),
                       (gz(other, f"&list={name}"), others),
                       (f"party=all&tenant_id={tenant}&region=gz&list={name}", token),
                       (f"party=all&tenant_id={other}&region=gz&list={several}", others),
                       (f"party=all&tenant_id={tenant}&region=ap-shanghai&list={several}", token)):
        error(target.ask(query, who), 409, "list_changed")
    for query, who in ((gz(tenant, f"&list={name}"), others), (gz(other, "&list=x"), token)):
        error(target.ask(query, who), 403, "forbidden")
    for value in ("", "a" * 65, "a.b", "%C3%A9", "a%20"):
        error(target.ask(gz(tenant, f"&list={value}"), token), 400, "invalid_parameter", "list")
    assert target.qcloud.count() == before


@case("the first page whose caller accepts a snapshot makes one")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    page = target.ask(gz(tenant, "&f=1&t=10&max_age=600"), token)
    assert "cache-status" not in page.headers
    before = target.qcloud.count()
    for more in ("&f=1&t=10", "&f=11&t=20", ""):
        kept = target.ask(gz(tenant, f"{more}&max_age=600"), token)
        assert kept.headers["cache-status"] == "twocloud; hit"
        assert kept.headers["x-list-id"] == page.headers["x-list-id"]
    assert target.qcloud.count() == before


@case("a snapshot fresh enough serves, and says so")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    live = target.ask(gz(tenant), token)
    assert "age" not in live.headers
    assert "cache-status" not in live.headers
    before = target.qcloud.count()
    for more, headers in (("&max_age=600", {}), ("", {"Cache_Control": "max-age=600"}),
                          ("", {"Cache_Control": "only-if-cached"})):
        kept = target.ask(gz(tenant, more), token, **headers)
        assert kept.body == live.body
        assert kept.headers["cache-status"] == "twocloud; hit"
        assert kept.headers["age"].isdecimal()
    assert target.qcloud.count() == before
    good(target.ask(gz(tenant, "&max_age=0"), token), 25)
    assert target.qcloud.count() > before


@case("if the party fails the stale snapshot is served, marked")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    live = good(target.ask(gz(tenant), token), 25)
    target.qcloud.fail("500")
    stale = target.ask(gz(tenant), token)
    body = good(stale, 25)
    assert stale.headers["cache-status"] == "twocloud; hit; detail=party_error"
    assert stale.headers["age"].isdecimal()
    assert body["msg"]
    assert body["vm_servers"] == live["vm_servers"]
    for written in ("csv", "ndjson", "prometheus", "ansible"):
        assert target.ask(gz(tenant, f"&format={written}"),
                          token).headers["cache-status"] == "twocloud; hit; detail=party_error"
    error(target.ask(gz(tenant, "&on_error=fail"), token), 502, "party_error")


@case("several sources, in order, with their states")
def _(target: Target) -> None:
    tenant, token = new_tenant(target, "qcloud", "aws")
    for query in (f"party=all&tenant_id={tenant}&region=all", f"party=qcloud,aws&tenant_id={tenant}&region=all"):
        body = good(target.ask(query, token), 37)
        assert list(body) == ["code", "msg", "vm_servers", "complete", "sources"]
        assert body["complete"] is True
        assert [(it["party"], it["region"], it["state"], it["count"]) for it in body["sources"]] == [
            ("aws", "us-east-1", "ok", 5), ("qcloud", "ap-guangzhou", "ok", 25), ("qcloud", "ap-shanghai", "ok", 7)]
        assert all(list(it) == ["party", "region", "state", "count", "age", "error", "msg", "tenant_id",
                                "account"] for it in body["sources"])
        assert list(body["vm_servers"][0]) == TEN + MORE
        assert [(row["party"], row["region"]) for row in body["vm_servers"]] == sorted(
            (row["party"], row["region"]) for row in body["vm_servers"])
    page = good(target.ask(f"party=all&tenant_id={tenant}&region=all&f=5&t=7&view=basic", token), 3)
    assert [row["instance_id"] for row in page["vm_servers"]] == [row["instance_id"] for row in body["vm_servers"]][4:7]
    assert list(page["vm_servers"][0]) == TEN
    one = good(target.ask(f"party=qcloud&tenant_id={tenant}&region=gz,ap-shanghai", token), 32)
    assert len(one["sources"]) == 2


@case("a source that fails: the whole, or the others")
def _(target: Target) -> None:
    tenant, token = new_tenant(target, "qcloud", "aws")
    target.aws.fail("500")
    query = f"party=all&tenant_id={tenant}&region=all"
    error(target.ask(query, token), 502, "party_error")
    error(target.ask(f"{query}&on_error=fail", token), 502, "party_error")
    body = good(target.ask(f"{query}&on_error=partial", token), 32)
    assert body["complete"] is False
    assert body["msg"]
    (failed,) = (it for it in body["sources"] if it["state"] == "failed")
    assert (failed["party"], failed["region"], failed["error"], failed["count"]
            or 0) == ("aws", "us-east-1", "party_error", 0)
    assert failed["msg"]
    error(target.ask(f"{query}&format=csv", token), 502, "party_error")


@case("a stale source is marked among the others")
def _(target: Target) -> None:
    tenant, token = new_tenant(target, "qcloud", "aws")
    query = f"party=all&tenant_id={tenant}&region=all"
    good(target.ask(query, token), 37)
    target.aws.fail("500")
    answer = target.ask(query, token)
    body = good(answer, 37)
    assert {it["party"]: it["state"] for it in body["sources"]} == {"aws": "stale", "qcloud": "ok"}
    assert body["msg"]
    assert "detail=party_error" in answer.headers["cache-status"]


@case("what changed and what vanished")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    query = f"party=qcloud&tenant_id={tenant}&region=ap-shanghai"
    before = target.ask(query, token)
    good(before, 7)
    time.sleep(1.1)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    target.qcloud.fleets["ap-shanghai"] = Fleet(6, "sh")
    try:
        good(target.ask(query, token), 6)
        body = good(target.ask(f"{query}&changed_since={since}", token))
    finally:
        target.qcloud.fleets["ap-shanghai"] = Fleet(7, "sh")
    (gone,) = body["vanished"]
    assert list(gone) == ["instance_id", "instance_name", "party", "region", "seen_at", "vanished_at", "tenant_id",
                          "account"]
    assert gone["instance_id"] == before.ids[-1]
    assert gone["party"] == "qcloud"
    assert body["vm_servers"] == []


@case("each change with its time, and what it was before")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    query = f"party=qcloud&tenant_id={tenant}&region=ap-shanghai"
    since = f"tenant_id={tenant}&since={time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() - 60))}"
    never = target.ask(since, token, path="/twocloud/changes")
    assert never.status == 200, f"{never.status} {never.body[:200]!r}"
    assert {source["state"] for source in never.json["sources"]} == {"failed"}
    before = good(target.ask(f"{query}&view=full", token), 7)["vm_servers"]
    machines = list(Fleet(7, "sh"))
    target.qcloud.fleets["ap-shanghai"] = Machines([dataclasses.replace(machines[0], name="renamed"), *machines[1:6]])
    try:
        good(target.ask(query, token), 6)
    finally:
        target.qcloud.fleets["ap-shanghai"] = Fleet(7, "sh")
    calls = target.qcloud.count()
    answer = target.ask(since, token, path="/twocloud/changes")
    assert answer.status == 200, f"{answer.status} {answer.body[:200]!r}"
    body = answer.json
    assert list(body)[:3] == ["code", "msg", "changes"]
    changed, vanished = body["changes"]
    assert list(changed) == ["at", "kind", "tenant_id", "party", "account", "region", "instance_id", "instance_name",
                             "fields"]
    assert list(vanished) == list(changed)[:-1]
    assert changed["fields"] == {"instance_name": [before[0]["instance_name"], "renamed"]}
    assert (changed["kind"], changed["instance_id"]) == ("changed", before[0]["instance_id"])
    assert (vanished["kind"], vanished["instance_id"]) == ("vanished", before[6]["instance_id"])
    assert answer.headers["x-total-count"] == "2"
    last = target.ask(f"{since}&f=2&t=2&kind=changed,vanished", token, path="/twocloud/changes")
    assert last.json["changes"] == [vanished]
    assert 'rel="prev"' in last.headers["link"]
    assert target.ask(since, token, path="/twocloud/changes", If_None_Match=answer.headers["etag"]).status == 304
    assert target.qcloud.count() == calls, "a party was called"
    error(target.ask(since, target.token("other"), path="/twocloud/changes"), 403, "forbidden")
    error(target.ask(since, path="/twocloud/changes"), 401, "unauthorized")
    error(target.ask(f"tenant_id={tenant}", token, path="/twocloud/changes"), 400, "invalid_parameter", "since")
    error(target.ask(f"tenant_id={tenant}&since=2001-01-01T00:00:00Z", token, path="/twocloud/changes"), 400,
          "invalid_parameter", "since")
