"""The list: its fields, ranges, links, filters and formats, and what HTTP knows of it."""

import gzip
import re
from urllib.parse import urljoin, urlsplit

from tests.http.contract.cases import MORE, TEN, case, error, good, gz, new_tenant
from tests.targets import Target


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
