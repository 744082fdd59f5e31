"""Paths and methods, and the answers beside servers, changes and tokens."""

import re

from prometheus_client.parser import text_string_to_metric_families

from chalicelib import parties
from tests.http.contract.cases import case, error, good, gz, new_tenant
from tests.targets import Target


@case("unknown paths")
def _(target: Target) -> None:
    token = target.token()
    for path in ("/twocloud/nothing", "/twocloud/servers/1", "/TWOCLOUD/servers", "/twocloud/servers.json",
                 "/twocloud/%2e%2e/servers", "/favicon.ico"):
        for shown in (None, token):
            error(target.ask("", shown, path=path), 404, "not_found")
    assert target.ask("", None, "HEAD", "/twocloud/nothing").status == 404
    root = target.ask("", None, path="/")
    if target.name == "serve":
        assert (root.status, root.headers["location"]) == (302, "twocloud/")
    else:
        error(root, 404, "not_found")


@case("other methods are 405 with Allow, and need no token")
def _(target: Target) -> None:
    for path, allow in (("servers", "GET, HEAD"), ("tokens", "POST, DELETE"), ("health", "GET, HEAD"),
                        ("openapi.json", "GET, HEAD"), ("parties", "GET, HEAD"), ("me", "GET, HEAD")):
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(allow.split(", ")):
            answer = target.ask("", None, method, f"/twocloud/{path}", body=b"")
            error(answer, 405, "method_not_allowed")
            assert answer.headers.get("allow") == allow, f"Allow is {answer.headers.get('allow')}"
    head = target.ask("", None, "HEAD", "/twocloud/tokens")
    assert (head.status, head.headers.get("allow"), head.body) == (405, "POST, DELETE", b"")


@case("methods that HTTP does not know are 405")
def _(target: Target) -> None:
    error(target.ask("", None, "PROPFIND", body=b""), 405, "method_not_allowed")


@case("health and the description need no token and tell no tenant")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for path in ("/twocloud/health", "/twocloud/openapi.json"):
        answer = target.ask("", path=path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert tenant.encode() not in answer.body
        error(target.ask("x=1", path=path), 400, "invalid_parameter", "x")
        assert target.ask("", token, path=path).status == 200
    assert target.ask("", path="/twocloud/openapi.json").json["openapi"].startswith("3.1")
    assert target.ask("", path="/twocloud/health").json["code"] == 200


@case("parties need a token")
def _(target: Target) -> None:
    error(target.ask("", path="/twocloud/parties"), 401, "unauthorized")
    body = target.ask("", target.token(), path="/twocloud/parties").json
    assert list(body)[:2] == ["code", "msg"]
    assert [party["name"] for party in body["parties"]] == list(parties.names())
    (shown,) = (party for party in body["parties"] if party["name"] == "qcloud")
    assert "gz" in shown["regions"]["ap-guangzhou"]
    assert shown["credentials"]
    assert shown["title"]


@case("me shows what a token opens, and nothing else")
def _(target: Target) -> None:
    tenant, other, foreign = target.tenant("qcloud", "aws"), target.tenant(), target.tenant()
    user = target.user(tenant, other)
    answer = target.ask("", target.issue(user), path="/twocloud/me")
    body = answer.json
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert list(body) == ["code", "msg", "user", "token_id", "expires_at", "tenants", "parties", "regions", "accounts"]
    assert (body["user"], body["tenants"]) == (user.name, sorted((tenant, other)))
    assert (body["parties"], body["regions"]) == (None, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["expires_at"])
    regions = {"qcloud": ["ap-guangzhou", "ap-shanghai"], "aws": ["us-east-1"]}
    assert body["accounts"] == [
        {"tenant_id": owner, "party": party, "account": "default", "regions": regions[party], "discovered_by": None}
        for owner, party in sorted(((tenant, "aws"), (tenant, "qcloud"), (other, "qcloud")))]
    assert foreign.encode() not in answer.body
    assert all(secret.encode() not in answer.body for keys in target.keys.values() for secret in keys.values())
    narrow = target.ask("", target.issue(user, tenants=(tenant,), parties=("qcloud",), regions=("gz",)),
                        path="/twocloud/me").json
    assert (narrow["tenants"], narrow["parties"], narrow["regions"]) == ([tenant], ["qcloud"], ["gz"])
    assert [(it["party"], it["regions"]) for it in narrow["accounts"]] == [("qcloud", ["ap-guangzhou"])]
    head = target.ask("", target.issue(user), "HEAD", "/twocloud/me")
    assert (head.status, head.body) == (200, b"")
    error(target.ask("", path="/twocloud/me"), 401, "unauthorized")
    error(target.ask("x=1", target.issue(user), path="/twocloud/me"), 400, "invalid_parameter", "x")


@case("me shows foreign tenants, missing ones and those without an account alike")
def _(target: Target) -> None:
    target.tenant()
    bodies = [target.ask("", target.token(*names), path="/twocloud/me").json for names in ((), ("bare",), ("gone",))]
    assert [(body["tenants"], body["accounts"]) for body in bodies] == [([], [])] * 3


@case("metrics show the sources that a token opens, in the format that is asked for")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    foreign = target.tenant()
    for shown in (tenant, foreign):
        good(target.ask(gz(shown), target.token(shown)), 25)
    before = target.qcloud.count()
    answer = target.ask("", token, path="/twocloud/metrics")
    assert answer.status == 200, f"{answer.status} {answer.body[:200]!r}"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    counters = {(sample.name, *sorted(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(answer.body.decode()) for sample in family.samples}
    of_gz = (("account", "default"), ("party", "qcloud"), ("region", "ap-guangzhou"))
    assert counters["twocloud_source_up", *of_gz, ("tenant_id", tenant)] == 1
    assert counters["twocloud_source_up", *of_gz[:2], ("region", "ap-shanghai"), ("tenant_id", tenant)] == 0
    assert sum(value for (name, *labels), value in counters.items()
               if name == "twocloud_servers" and ("tenant_id", tenant) in labels) == 25
    assert foreign.encode() not in answer.body
    assert any(name.startswith("twocloud_http_") for name, *_ in counters) == (target.name == "serve")
    assert target.qcloud.count() == before, "a party was called"
    newer = target.ask("", token, path="/twocloud/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert newer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert newer.body.endswith(b"# EOF\n")
    head = target.ask("", token, "HEAD", "/twocloud/metrics")
    assert (head.status, head.headers["content-type"], head.body) == (200, answer.headers["content-type"], b"")
    error(target.ask("", path="/twocloud/metrics"), 401, "unauthorized")
    error(target.ask("tenant_id=1", token, path="/twocloud/metrics"), 400, "invalid_parameter", "tenant_id")
    error(target.ask("", token, "POST", "/twocloud/metrics"), 405, "method_not_allowed")
