"""What callers see, sentence by sentence, and the same of all three targets (`tests/targets.py`).

A case is written once. Where a target is known to answer otherwise, DIFFERENCES says how and why, and the case must
fail there in just this way: one that works after all, or fails otherwise, fails the run.
"""

import base64
import dataclasses
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chalicelib import parties
from chalicelib.access import users
from chalicelib.http import api
from chalicelib.simulators.fleet import Fleet, Machines
from deploy.gateway import Gateway, Pool
from tests import canaries
from tests.aws.deployed import ROOT, here, here_for_ministack, stack, task  # noqa: F401
from tests.targets import TARGETS, Answer, Target, basic, targets  # noqa: F401

pytestmark = pytest.mark.timeout(600)
TEN = ["instance_name", "instance_id", "cpu_num", "mem_size", "disk_size", "lan_ip_set", "wan_ip_set", "status",
       "create_at", "update_at"]
MORE = ["party", "tenant_id", "region", "zone", "project_id", "instance_type", "party_status", "lan_ipv6_set",
        "wan_ipv6_set", "tags", "seen_at", "account", "image_id", "image_name", "os", "vpc_id", "subnet_id",
        "security_group_set", "key_name", "charge_type", "expires_at", "host_id", "console_url"]


@dataclass(frozen=True, slots=True)
class Difference:
    """On `target` the case fails with a text that `pattern` finds. `why` stands in docs/deploy.md."""

    target: str
    case: str
    pattern: str
    why: str


_RENAMED = ("the gateway had cached the policy: the handler refuses, and the gateway renames its `WWW-Authenticate`; "
            "status and body hold")
_UNKNOWN = "the gateway knows no such method on any path and answers 404"
DIFFERENCES = (
    Difference("runtime", "a revoked token is refused on the next request", "WWW-Authenticate is None", _RENAMED),
    Difference("runtime", "a disabled user's token is refused on the next request", "WWW-Authenticate is None",
               _RENAMED),
    Difference("runtime", "a token that expires is refused on the next request", "WWW-Authenticate is None", _RENAMED),
    Difference("runtime", "methods that HTTP does not know are 405", "^404 ", _UNKNOWN),
    Difference("ministack", "methods that HTTP does not know are 405", "^404 ", _UNKNOWN),
    Difference("ministack", "gzip, if the caller accepts it", "Content-Encoding is None",
               "MiniStack does not compress; on AWS the gateway does"),
    Difference("ministack", "a link leads to the requested path", "instead of http",
               "MiniStack passes the function a path without its own prefix, `/_aws/execute-api/ID`"),
)


# ---------------------------------------------------------------- the cases

CASES: dict[str, Callable[[Target], None]] = {}


def case(sentence: str) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    def keep(check: Callable[[Target], None]) -> Callable[[Target], None]:
        assert sentence not in CASES
        CASES[sentence] = check
        return check

    return keep


def error(answer: Answer, status: int, word: str, parameter: str | None = None) -> str:
    assert answer.status == status, f"{answer.status} {answer.body[:200]!r} instead of {status} {word}"
    body = answer.json
    assert body["error"] == word, f"{body['error']} instead of {word}"
    assert parameter is None or body["parameter"] == parameter, f"{body['parameter']} instead of {parameter}"
    if status == 401:
        shown = answer.headers.get("www-authenticate")
        assert shown == api.CHALLENGE, f"WWW-Authenticate is {shown}"
    assert ("retry-after" in answer.headers) == (status in (429,
                                                            503)), f"Retry-After is {answer.headers.get('retry-after')}"
    assert status not in (429, 503) or re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    return body["msg"]


def good(answer: Answer, rows: int | None = None) -> Any:
    assert answer.status == 200, f"{answer.status} {answer.body[:200]!r}"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert list(body)[:3] == ["code", "msg", "vm_servers"]
    assert body["code"] == 200
    assert rows is None or len(body["vm_servers"]) == rows, f"{len(body['vm_servers'])} servers"
    return body


def gz(tenant: str, more: str = "") -> str:
    return f"party=qcloud&tenant_id={tenant}&region=gz{more}"


def new_tenant(target: Target, *of: str) -> tuple[str, str]:
    """A tenant, and a token for it."""
    tenant = target.tenant(*of)
    return tenant, target.token(tenant)


# -------------------------------- parameters

REFUSED = {
    "a parameter that must be there is missing": [
        ("party", "tenant_id=T&region=gz"), ("tenant_id", "party=qcloud&region=gz"),
        ("region", "party=qcloud&tenant_id=T"), ("party", "")],
    "parameters that nobody knows are refused": [
        ("x", "S&x=1"), ("Party", "S&Party=qcloud"), ("limit", "S&limit=10"), ("offset", "S&offset=0"), ("F", "S&F=1"),
        ("?", "S&=1")],
    "repeated parameters are refused": [
        ("party", "S&party=qcloud"), ("tenant_id", "S&tenant_id=T"), ("region", "S&region=ap-shanghai"),
        ("f", "S&f=1&f=1"), ("view", "S&view=full&view=basic")],
    "a tenant is 1 to 64 of certain characters": [
        ("tenant_id", f"party=qcloud&region=gz&tenant_id={value}") for value in
        ("", "a" * 65, "a%20b", "a/b", "a%00", "%E7%A7%9F", "%EF%BC%91", "a%0A", "a,", "a,all",
         "*", "%ff", "a%2Bb", "a+b")],
    "numbers are plain ASCII digits": [
        (name, f"S&{name}={value}") for name in ("f", "t") for value in
        ("", "0", "-1", "%2B1", "+1", "01", "1.0", "1e3", "10000000", "99999999999999999999", "%EF%BC%91", "%D9%A5",
         "1_0", "%201", "1%20", "1%0A", "0x1", "a", "%C2%B2")],
    "f is not after t": [("t", "S&f=2&t=1"), ("t", "S&t=9&f=10")],
    "a party is one of those known": [
        ("party", f"tenant_id=T&region=gz&party={value}")
        for value in ("", "nobody", "QCLOUD", "qcloud%20", "..%2Faws", "q%EF%BD%83loud", "qcloud;aws", "*", "qcloud,",
                      "qcloud,nobody", "qcloud,qcloud,x")],
    "a region is one label": [
        ("region", f"party=qcloud&tenant_id=T&region={value}") for value in
        ("", "evil.com/", "x%40evil.com", "a.b", "GZ%20", "%2e%2e", "a" * 100, "gz,", "gz%00", "gz%0d%0aX:1", "-",
         "%E5%B9%BF")],
    "an alias belongs to one party": [("region", "party=aws&tenant_id=T&region=gz")],
    "choices are what they are": [
        ("format", "S&format=xml"), ("format", "S&format="), ("format", "S&format=JSON"), ("view", "S&view=all"),
        ("view", "S&view="), ("status", "S&status=active"),
        ("status", "S&status=ACTIVE,"), ("status", "S&status=ACTIVE,all"),
        ("status", "S&status="), ("on_error", "S&on_error=ignore"),
        ("on_error", "S&on_error=")],
    "port and address belong to prometheus": [
        ("port", "S&port=80"), ("address", "S&address=wan"), ("port", "S&format=csv&port=80"),
        ("port", "S&format=prometheus&port=0"),
        ("port", "S&format=prometheus&port=65536"), ("port", "S&format=prometheus&port=08"),
        ("address", "S&format=prometheus&address=ipv6")],
    "prometheus and ansible are whole lists": [
        ("f", "S&format=prometheus&f=1"), ("t", "S&format=prometheus&t=1"), ("f", "S&format=ansible&f=1"),
        ("t", "S&format=ansible&t=9")],
    "an address is exact": [("ip", f"S&ip={value}") for value in ("", "10.0.0", "1.2.3.4/32", "256.1.1.1", "01.2.3.4",
                                                                  "10.0.0.1,10.0.0.2", "x")],
    "a name is not empty": [("name", "S&name="), ("name", f"S&name={'x' * 129}"), ("name", "S&name=a%00b")],
    "max_age is seconds": [("max_age", f"S&max_age={value}")
                           for value in ("", "-1", "1.5", "00", "10000000", "1h", "%EF%BC%91")],
    "changed_since is an RFC 3339 time": [
        ("changed_since", f"S&changed_since={value}") for value in
        ("", "yesterday", "2026-09-21", "1790000000", "2026-13-01T00:00:00Z", "2026-09-21T00:00:00",
         "2026-09-21T00:00:00Z%0A")],
    "a time before the history is refused": [("changed_since", "S&changed_since=2001-01-01T00:00:00Z")],
    "partial needs several sources": [("on_error", "S&on_error=partial")],
    "formats that are never partial": [
        ("on_error", f"party=qcloud,aws&tenant_id=T&region=all&on_error=partial&format={written}")
        for written in ("csv", "prometheus", "ansible")],
    "broken escapes are no way in": [("tenant_id", "party=qcloud&region=gz&tenant_id=%zz"), ("name", "S&name=%00"),
                                     ("party", "party=%&tenant_id=T&region=gz")],
}


def refused(rows: list[tuple[str, str]]) -> Callable[[Target], None]:
    def check(target: Target) -> None:
        tenant, token = new_tenant(target)
        before = target.qcloud.count() + target.aws.count()
        for parameter, query in rows:
            path = query.replace("S&", gz("T") + "&", 1).replace("tenant_id=T", f"tenant_id={tenant}")
            try:
                error(target.ask(path, token), 400, "invalid_parameter", parameter)
            except AssertionError as wrong:
                raise AssertionError(f"{query}: {wrong}") from wrong
        assert target.qcloud.count() + target.aws.count() == before, "a party was called"

    return check


for _sentence, _rows in REFUSED.items():
    case(_sentence)(refused(_rows))


@case("token and password in the query are refused and not repeated")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for name in ("token", "password"):
        answer = target.ask(gz(tenant, f"&{name}={token}"), token)
        error(answer, 400, "invalid_parameter", name)


# -------------------------------- the list

@case("the seed's request")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    answer = target.ask(gz(tenant, "&f=1&t=10"), token)
    body = good(answer, 10)
    assert list(body) == ["code", "msg", "vm_servers"]
    assert body["msg"] == ""
    assert answer.headers["x-total-count"] == "25"
    assert answer.headers["cache-control"] == "private, no-cache"
    for row in body["vm_servers"]:
        assert list(row) == TEN
        assert all(isinstance(row[name], int) for name in ("cpu_num", "mem_size", "disk_size"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["create_at"])
        assert " " not in row["lan_ip_set"]


@case("the full view adds its fields")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    row = good(target.ask(gz(tenant, "&view=full&t=1"), token), 1)["vm_servers"][0]
    assert list(row) == TEN + MORE
    assert (row["party"], row["tenant_id"], row["region"]) == ("qcloud", tenant, "ap-guangzhou")
    assert isinstance(row["tags"], dict)


@case("ranges join to the whole, and beyond the end is an empty list")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    whole = target.ask(gz(tenant), token)
    rows = good(whole, 25)["vm_servers"]
    assert [row for at in (1, 11, 21) for row in good(target.ask(gz(tenant, f"&f={at}&t={at + 9}"),
                                                                 token))["vm_servers"]] == rows
    assert good(target.ask(gz(tenant, "&f=20"), token))["vm_servers"] == rows[19:]
    assert good(target.ask(gz(tenant, "&t=3"), token))["vm_servers"] == rows[:3]
    beyond = target.ask(gz(tenant, "&f=26&t=9999999"), token)
    good(beyond, 0)
    assert beyond.headers["x-total-count"] == "25"


@case("the same state gives the same bytes")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    one, two = (target.ask(gz(tenant), token) for _ in range(2))
    assert one.status == 200
    assert one.body == two.body
    assert one.headers["etag"] == two.headers["etag"]
    assert one.headers["x-request-id"] != two.headers["x-request-id"]


@case("links lead on and back, and only if a range was asked for")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    assert "link" not in target.ask(gz(tenant), token).headers
    ids: list[str] = []
    query = gz(tenant, "&t=10")
    while query:
        answer = target.ask(query, token)
        ids += [row["instance_id"] for row in good(answer)["vm_servers"]]
        match = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("link", ""))
        query = urlsplit(match[1]).query if match else ""
    assert ids == target.ask(gz(tenant), token).ids
    assert 'rel="prev"' in target.ask(gz(tenant, "&f=21&t=30"), token).headers["link"]


@case("a link leads to the requested path")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    (to,) = re.findall(r'<([^>]+)>; rel="next"', target.ask(gz(tenant, "&t=10"), token).headers["link"])
    there, url = urljoin(f"{target.url}/twocloud/servers",
                         to), f"{target.url}/twocloud/servers?{gz(tenant, '&f=11&t=20')}"
    assert there == url, f"{there} instead of {url}"


@case("not changed is 304")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    first = target.ask(gz(tenant), token)
    for shown in (first.headers["etag"], first.headers["etag"].removeprefix("W/"), f'"x", {first.headers["etag"]}',
                  "*"):
        again = target.ask(gz(tenant), token, If_None_Match=shown)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert target.ask(gz(tenant), token, If_None_Match='W/"x"').status == 200
    assert target.ask(gz(tenant, "&view=full"), token, If_None_Match=first.headers["etag"]).status == 200


@case("gzip, if the caller accepts it")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    plain = target.ask(gz(tenant), token)
    packed = target.ask(gz(tenant), token, Accept_Encoding="gzip, deflate")
    assert "content-encoding" not in plain.headers
    assert packed.headers.get(
        "content-encoding") == "gzip", f"Content-Encoding is {packed.headers.get('content-encoding')}"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["etag"] == plain.headers["etag"]


@case("gzip is not forced on those who refuse it")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    assert "content-encoding" not in target.ask(gz(tenant), token, Accept_Encoding="identity").headers
    good(target.ask(gz(tenant), token, Accept_Encoding="br"), 25)


@case("HEAD is GET without the body")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    get, head = target.ask(gz(tenant), token), target.ask(gz(tenant), token, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert all(head.headers[name] == get.headers[name]
               for name in ("etag", "x-total-count", "content-type", "cache-control"))
    for query, shown, status in (("party=qcloud", token, 400), (gz("nobody"), token, 403),
                                 (gz(tenant), "tc_wrong", 401)):
        answer = target.ask(query, shown, "HEAD")
        assert (answer.status, answer.body) == (status, b"")
    assert target.ask("", None, "HEAD", "/twocloud/health").status == 200


@case("filters choose, and ranges count what they keep")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    whole = good(target.ask(gz(tenant), token), 25)["vm_servers"]
    one = whole[7]
    for more, keep in ((f"status={one['status']}", lambda row: row["status"] == one["status"]),
                       ("name=E", lambda row: "e" in row["instance_name"].lower()),
                       (f"ip={one['lan_ip_set'].split(',')[0]}",
                        lambda row: one["lan_ip_set"].split(",")[0] in row["lan_ip_set"].split(",")),
                       ("status=PAUSED", lambda row: False)):
        kept = [row for row in whole if keep(row)]
        answer = target.ask(gz(tenant, f"&{more}"), token)
        assert good(answer)["vm_servers"] == kept
        assert answer.headers["x-total-count"] == str(len(kept))
        assert good(target.ask(gz(tenant, f"&{more}&f=2&t=3"), token))["vm_servers"] == kept[1:3]


@case("every format")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for written, media, sign in (("json", "application/json", b'{"code":200'),
                                 ("csv", "text/csv; charset=utf-8", b"instance_name,"),
                                 ("ndjson", "application/x-ndjson", b'{"instance_name"'),
                                 ("prometheus", "application/json", b"[{"),
                                 ("ansible", "application/json", b"{")):
        answer = target.ask(gz(tenant, f"&format={written}"), token)
        assert answer.status == 200, f"{written}: {answer.headers['content-type']}"
        assert answer.headers["content-type"] == media, f"{written}: {answer.headers['content-type']}"
        assert answer.body.startswith(sign), written
        assert answer.headers["x-total-count"] == "25", written
        assert answer.headers["etag"], written
        error(target.ask(gz("nobody", f"&format={written}"), token), 403, "forbidden")
    scraped = target.ask(gz(tenant, "&format=prometheus&port=9100&address=wan"), token).json
    assert all(each.endswith(":9100") for group in scraped for each in group["targets"])


@case("a path may end in a slash")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    good(target.ask(gz(tenant), token, path="/twocloud/servers/"), 25)


# -------------------------------- who may

@case("a token is shown in many ways")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    for header in (basic(token), basic(token, ""), basic(token, "a:b"), f"Bearer {token}", f"bearer {token}",
                   f"BEARER   {token}", basic(token).replace("Basic", "bASIC")):
        good(target.ask(gz(tenant, "&t=1"), Authorization=header), 1)


@case("every bad credential gets one 401")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    user = target.user(tenant)
    expired = target.issue(user, born=time.time() - 7200)
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    known = basic(token, "")[6:]
    ids = set()
    for header in (None, "", "Basic", "Basic ", "Bearer", "Digest abc", token, f"Token {token}", basic(changed),
                   basic("tc_" + "0" * 36), basic(""), basic(f" {token}"),
                   basic(token.upper()), basic(expired), basic(user.name), f"Bearer {token}x",
                   f"Bearer {token} {token}", f"Bearer {'a' * 5000}",
                   f"Basic !{known}", f"Basic {known.rstrip('=')}!",
                   f"Basic {base64.b64encode(token.encode()).decode()}", f"{basic(token)}, {basic(token)}",
                   "Basic \xff\xfe"):
        answer = target.ask(gz(tenant), **({} if header is None else {"Authorization": header}))
        try:
            error(answer, 401, "unauthorized")
        except AssertionError as wrong:
            raise AssertionError(f"{(header or '')[:12]}…: {wrong}") from wrong
        ids.add(answer.body.replace(answer.headers["x-request-id"].encode(), b""))
    assert len(ids) == 1, "not one body for all"


@case("base64 is read strictly")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for password in ("", "x", "xx"):
        right = basic(token, password)
        at = len(right.rstrip("=")) - 1
        if right.endswith("="):
            error(target.ask(gz(tenant), Authorization=right[:at] + alphabet[alphabet.index(right[at]) + 1]
                             + right[at + 1:]), 401, "unauthorized")


@case("401 before 400 before 403 before 404")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    empty = target.user("bare")
    error(target.ask("f=0"), 401, "unauthorized")
    error(target.ask(gz("foreign", "&f=0"), token), 400, "invalid_parameter", "f")
    error(target.ask(gz("foreign"), token), 403, "forbidden")
    error(target.ask(gz("bare"), target.issue(empty)), 404, "account_not_found")
    error(target.ask(f"party=aws&tenant_id={tenant}&region=us-east-1", token), 404, "account_not_found")


@case("what a token does not cover is one 403, whether or not it exists")
def _(target: Target) -> None:
    tenant, foreign = target.tenant("qcloud", "aws"), target.tenant()
    token = target.token(tenant, parties=("qcloud",), regions=("ap-guangzhou",))
    ids = set()
    for query in (gz(foreign), gz("nobody"), gz(f"0{tenant}"), gz(tenant.upper()),
                  f"party=aws&tenant_id={tenant}&region=us-east-1",
                  f"party=qcloud&tenant_id={tenant}&region=ap-shanghai",
                  f"party=qcloud,aws&tenant_id={tenant}&region=all",
                  f"party=qcloud&tenant_id={tenant}&region=gz,ap-shanghai"):
        answer = target.ask(query, token)
        error(answer, 403, "forbidden")
        ids.add(answer.body.replace(answer.headers["x-request-id"].encode(), b""))
    assert len(ids) == 1
    good(target.ask(gz(tenant), token), 25)                     # the limit covers the region under all its names
    assert {row["region"] for row in good(target.ask(f"party=all&tenant_id={tenant}&region=all", token),
                                          25)["vm_servers"]} == {"ap-guangzhou"}


@case("a user without tenants opens none")
def _(target: Target) -> None:
    error(target.ask(gz(target.tenant()), target.token()), 403, "forbidden")


@case("narrowing acts on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    token = target.issue(user)
    good(target.ask(gz(tenant), token))
    users.change(target.deployment.store, user.name, lambda it: msgspec.structs.replace(it, tenants=()))
    error(target.ask(gz(tenant), token), 403, "forbidden")


@case("a disabled user's token is refused on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    token = target.issue(user)
    good(target.ask(gz(tenant), token))
    users.change(target.deployment.store, user.name, lambda it: msgspec.structs.replace(it, disabled=True))
    error(target.ask(gz(tenant), token), 401, "unauthorized")


@case("a token that expires is refused on the next request")
def _(target: Target) -> None:
    tenant = target.tenant()
    token = target.issue(target.user(tenant), born=time.time() - 57, lifetime=60)
    good(target.ask(gz(tenant, "&t=1"), token))
    time.sleep(4)
    error(target.ask(gz(tenant, "&t=1"), token), 401, "unauthorized")


# -------------------------------- paths and methods

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


# -------------------------------- errors of parties

FAULTS = {"429": (503, "party_throttled"), "500": (502, "party_error"), "502": (503, "party_unavailable"),
          "503": (503, "party_unavailable"),
          "504": (503, "party_unavailable"), "401": (502, "party_denied"), "403": (502, "party_denied"),
          "cut body": (502, "party_malformed"),
          "reset": (503, "party_unavailable"), "html": (502, "party_malformed")}


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


@case("a party that fails has its word")
def _(target: Target) -> None:
    for fault, (status, word) in FAULTS.items():
        tenant, token = new_tenant(target)
        target.qcloud.fail(fault)
        try:
            error(target.ask(gz(tenant), token), status, word)
        except AssertionError as wrong:
            raise AssertionError(f"{fault}: {wrong}") from wrong
        target.qcloud.forget()


@case("a single failure is not seen")
def _(target: Target) -> None:
    for fault in ("500", "503", "reset", "429"):
        tenant, token = new_tenant(target)
        target.qcloud.fail(fault, nth=(1,))
        good(target.ask(gz(tenant), token), 25)
        target.qcloud.forget()


@case("credentials that the party refuses")
def _(target: Target) -> None:
    tenant = target.tenant(keys={"secret_id": "AKIDtest", "secret_key": canaries.secret("wrong")})
    error(target.ask(gz(tenant), target.token(tenant)), 502, "party_denied")


@case("a region that the party does not know")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    error(target.ask(f"party=qcloud&tenant_id={tenant}&region=ap-nowhere", token), 400, "invalid_parameter", "region")


@case("an answer that is too large says which range fits")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    fleet, rows = target.qcloud.fleets["ap-guangzhou"], target.qcloud.rows
    target.qcloud.rows = {n: {**target.qcloud._row(Fleet(20)[n], "ap-guangzhou"), "InstanceName": "x" * 400_000}
                          for n in range(20)}
    target.qcloud.fleets["ap-guangzhou"] = Fleet(20)
    try:
        match = re.search(r"f=(\d+)&t=(\d+)", error(target.ask(gz(tenant), token), 413, "too_large"))
        assert match
        good(target.ask(gz(tenant, f"&{match[0]}"), token), int(match[2]))
    finally:
        target.qcloud.fleets["ap-guangzhou"], target.qcloud.rows = fleet, rows


# -------------------------------- snapshots, several sources, changes

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


# -------------------------------- tokens

def post(target: Target, name: str, body: object = None, password: str = "password", **headers: str) -> Answer:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content_Type": "application/json"} if body is not None else {}
    return target.ask("", None, "POST", "/twocloud/tokens", raw,
                      **{"Authorization": basic(name, password), **sent, **headers})


@case("a password gives a token")
def _(target: Target) -> None:
    tenant = target.tenant()
    user = target.user(tenant)
    answer = post(target, user.name)
    assert answer.status == 200, f"{answer.status} {answer.body!r}"
    assert answer.headers["cache-control"] == "no-store", f"{answer.status} {answer.body!r}"
    body = answer.json
    token = canaries.watch(body["token"])
    assert list(body) == ["code", "msg", "token", "token_id", "duration", "expires_at"]
    assert (body["code"], body["msg"], body["duration"]) == (200, "", 600)
    assert re.fullmatch(r"tc_[0-9A-Za-z]{36}", token)
    assert body["expires_at"]
    good(target.ask(gz(tenant), token), 25)


@case("a token may be narrower than its user, never wider")
def _(target: Target) -> None:
    tenant = target.tenant("qcloud", "aws")
    user = target.user(tenant, "other", parties=("qcloud",))
    narrow = post(target, user.name, {"duration": 60, "tenants": [tenant], "parties": ["qcloud"],
                                      "regions": ["ap-shanghai"]})
    assert narrow.status == 200
    assert narrow.json["duration"] == 60
    token = canaries.watch(narrow.json["token"])
    error(target.ask(gz(tenant), token), 403, "forbidden")
    good(target.ask(f"party=qcloud&tenant_id={tenant}&region=ap-shanghai", token), 7)
    for wider in ({"tenants": ["foreign"]}, {"tenants": ["*"]}, {"parties": ["aws"]}):
        answer = post(target, user.name, wider)
        assert answer.status in (400, 403), f"{wider}: {answer.status}"
        assert wider == {"tenants": ["*"]} or error(answer, 403, "forbidden")


@case("the body of a request for a token has its form")
def _(target: Target) -> None:
    user = target.user("123")
    for parameter, body in (("x", {"x": 1}), ("duration", {"duration": 59}), ("duration", {"duration": 43_201}),
                            ("duration", {"duration": "60"}),
                            ("duration", {"duration": True}), ("tenants", {"tenants": []}),
                            ("tenants", {"tenants": "123"}), ("tenants", {"tenants": [1]}),
                            ("parties", {"parties": ["nobody"]}), ("body", b"{"), ("body", []), ("body", b"\xff"),
                            ("body", b"[" * 5000), ("body", 1)):
        try:
            error(post(target, user.name, body), 400, "invalid_parameter", parameter)
        except AssertionError as wrong:
            raise AssertionError(f"{str(body)[:30]}: {wrong}") from wrong
    error(post(target, user.name, {"tenants": ["x" * 64] * 400}), 413, "too_large")
    error(target.ask("x=1", None, "POST", "/twocloud/tokens", b"", Authorization=basic(user.name)), 400,
          "invalid_parameter", "x")


@case("a token is no way to a token, nor a password to a list")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    error(post(target, token), 401, "unauthorized")
    error(post(target, "x", Authorization=f"Bearer {token}"), 401, "unauthorized")
    error(target.ask(gz(tenant), Authorization=basic(target.user(tenant).name)), 401, "unauthorized")
    error(post(target, target.user(tenant).name, password="wrong"), 401, "unauthorized")
    error(target.ask("", None, "POST", "/twocloud/tokens", b""), 401, "unauthorized")


@case("after five wrong passwords in a minute the next try is 429")
def _(target: Target) -> None:
    user = target.user("123")
    for _ in range(5):
        error(post(target, user.name, password="wrong"), 401, "unauthorized")
    error(post(target, user.name), 429, "rate_limited")
    error(post(target, user.name, password="wrong"), 429, "rate_limited")


@case("a token revokes itself")
def _(target: Target) -> None:
    token = target.token()
    answer = target.ask("", token, "DELETE", "/twocloud/tokens")
    assert (answer.status, answer.body) == (204, b""), f"{answer.status} {answer.body!r}"


@case("a revoked token is refused on the next request")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    good(target.ask(gz(tenant), token), 25)
    assert target.ask("", token, "DELETE", "/twocloud/tokens").status == 204
    error(target.ask(gz(tenant), token), 401, "unauthorized")


@case("the status and body of a revoked token's 401 hold")
def _(target: Target) -> None:
    tenant, token = new_tenant(target)
    good(target.ask(gz(tenant), token), 25)
    assert target.ask("", token, "DELETE", "/twocloud/tokens").status == 204
    gone, unknown = target.ask(gz(tenant), token), target.ask(gz(tenant), "tc_unknown")
    assert gone.status == unknown.status == 401
    assert {**gone.json, "request_id": ""} == {**unknown.json, "request_id": ""}


# ---------------------------------------------------------------- the runs

# MiniStack answers slowly, and what is quick to ask of it is asked in tests/aws/test_stack.py
@pytest.fixture(params=["serve", pytest.param("runtime", marks=pytest.mark.sample(3)),
                        pytest.param("ministack", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest, targets: Callable[[str], Target]) -> Iterator[Target]:  # noqa: F811
    there = targets(request.param)
    yield there
    there.qcloud.forget()
    there.aws.forget()


@pytest.mark.parametrize("sentence", CASES)
def test_what_callers_see(target: Target, sentence: str) -> None:
    known = [it for it in DIFFERENCES if (it.target, it.case) == (target.name, sentence)]
    try:
        CASES[sentence](target)
    except AssertionError as wrong:
        if not any(re.search(it.pattern, str(wrong)) for it in known):
            raise
    else:
        assert not known, f"it works on {target.name} now: take it out of DIFFERENCES and docs/deploy.md"


@pytest.mark.slow
def test_a_cloud_that_hangs_is_given_up_in_time_on_all_three(targets: Callable[[str], Target]) -> None:  # noqa: F811
    def ask(name: str) -> float:
        target = targets(name)
        tenant, token = new_tenant(target)
        target.qcloud.fail("hang")
        started = time.monotonic()
        error(target.ask(gz(tenant), token), 504, "party_timeout")
        took = time.monotonic() - started
        target.qcloud.forget()
        return took

    for name in TARGETS:
        targets(name)
    with ThreadPoolExecutor() as pool:
        for took in pool.map(ask, TARGETS):
            assert took < 28, "the gateway waits for 29 s"


def test_what_the_gateway_refuses_by_itself(here: Path) -> None:            # noqa: F811
    """A flood, and a function that has no place left: the template's words, and no function is called."""
    template = json.loads((here / "template.json").read_text())
    gateway = Gateway(template, {"APIHandler": Pool(lambda: pytest.fail("started"), 0)}, limited=True)
    try:
        target = Target("gateway", gateway.url, None, None, None, {}, local=False)      # type: ignore[arg-type]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: target.ask(path="/twocloud/health"), range(200)))
        error(answers[0], 500, "internal")
        flooded = [answer for answer in answers if answer.status == 429]
        assert flooded
        assert {answer.status for answer in answers} == {500, 429}
        error(flooded[0], 429, "rate_limited")
    finally:
        gateway.close()


def test_the_page_names_every_difference() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    match = re.findall(r"^\| (serve|ministack|runtime) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert match == [(it.target, it.case, it.why) for it in DIFFERENCES]
    assert {it.case for it in DIFFERENCES} <= CASES.keys()
    assert {it.target for it in DIFFERENCES} <= set(TARGETS)
