"""The API over real HTTP: the answer, its headers, ranges, filters, and every error of the table."""

import base64
import csv
import gzip
import io
import json
import re
import socket
import threading
import time
from urllib.parse import quote, urlencode, urljoin, urlsplit

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib import parties
from chalicelib.errors import TwocloudError
from chalicelib.http import serve
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.simulators.faults import FAULTS
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import FEW, GZ, US, App
from tests.unit.test_errors import tree

TEN = ["instance_name", "instance_id", "cpu_num", "mem_size", "disk_size", "lan_ip_set", "wan_ip_set", "status",
       "create_at", "update_at"]
MORE = ["party", "tenant_id", "region", "zone", "project_id", "instance_type", "party_status", "lan_ipv6_set",
        "wan_ipv6_set", "tags", "seen_at", "account", "image_id", "image_name", "os", "vpc_id", "subnet_id",
        "security_group_set", "key_name", "charge_type", "expires_at", "host_id", "console_url"]


def error(answer: requests.Response, status: int, word: str, parameter: str | None = None) -> str:
    """Check an error's whole shape; its text."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    expected = ["code", "msg", "error", *(["parameter"] if parameter else []), "request_id"]
    assert list(body) == expected
    assert (body["code"], body["error"], body.get("parameter")) == (status, word, parameter)
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert "vm_servers" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    common(answer)
    return body["msg"]


def common(answer: requests.Response) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Authorization, Accept-Encoding"
    if answer.status_code not in (204, 304):
        assert answer.headers["Content-Type"] == "application/json"


# ---------------------------------------------------------------- the answer

def test_the_seeds_own_request(served: App) -> None:
    answer = served.get("party=qcloud&tenant_id=123&region=gz&f=1&t=10")
    assert answer.status_code == 200
    common(answer)
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["X-Total-Count"] == "25"
    body = answer.json()
    assert list(body) == ["code", "msg", "vm_servers"]
    assert (body["code"], body["msg"], len(body["vm_servers"])) == (200, "", 10)
    for row in body["vm_servers"]:
        assert list(row) == TEN
        assert isinstance(row["cpu_num"], int)
        assert isinstance(row["mem_size"], int)
        assert isinstance(row["disk_size"], int)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["create_at"])
    assert served.clouds["qcloud"].count() == 1             # ten records, one call


def test_the_full_view_adds_fields_at_the_end(served: App) -> None:
    row = served.get(f"{US}&view=full&t=1").json()["vm_servers"][0]
    assert list(row) == TEN + MORE
    assert (row["party"], row["tenant_id"], row["region"]) == ("aws", "123", "us-east-1")
    assert row["seen_at"] == "2026-09-21 14:13:20"
    assert row["tags"]["Name"] == row["instance_name"]
    assert served.get(f"{GZ}&view=full&t=1").json()["vm_servers"][0]["region"] == "ap-guangzhou"


def test_the_address_alone_leads_to_the_console(served: App) -> None:
    """By a relative link, which also works behind a proxy that strips a prefix. Nothing else is at the root."""
    for method in ("GET", "HEAD"):
        answer = requests.request(method, f"{served.url}/", timeout=30, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (302, "twocloud/")
        assert answer.headers["X-Request-Id"]
    console = requests.get(f"{served.url}/", timeout=30)
    assert console.url == f"{served.url}/twocloud/"
    assert console.headers["Content-Type"].startswith("text/html")
    assert requests.post(f"{served.url}/", timeout=30).status_code in (404, 405)
    assert requests.get(f"{served.url}/twocloud", timeout=30).status_code == 200


@pytest.mark.parametrize("source", [GZ, US])
def test_pages_join_to_exactly_the_whole(served: App, source: str) -> None:
    whole = served.get(source).json()["vm_servers"]
    for size in (1, 3, 10, 24, 25, 100):
        joined = []
        for first in range(1, len(whole) + 2, size):
            joined += served.get(f"{source}&f={first}&t={first + size - 1}").json()["vm_servers"]
        assert joined == whole
    assert served.get(f"{source}&f=5").json()["vm_servers"] == whole[4:]
    assert served.get(f"{source}&t=5").json()["vm_servers"] == whole[:5]
    beyond = served.get(f"{source}&f=1000&t=1001")
    assert (beyond.status_code, beyond.json()["vm_servers"],
            beyond.headers["X-Total-Count"]) == (200, [], str(len(whole)))


@pytest.mark.parametrize("source", [GZ, US])
def test_the_same_state_gives_the_same_bytes(served: App, source: str) -> None:
    first, second = served.get(source), served.get(source)
    assert first.content == second.content
    assert first.headers["ETag"] == second.headers["ETag"]


def test_links_lead_through_the_list_and_back(served: App) -> None:
    assert "Link" not in served.get(GZ).headers
    rows, url = [], f"{served.url}/twocloud/servers?{GZ}&f=1&t=10&view=full"
    while url:
        answer = served.get(urlsplit(url).query)
        rows += answer.json()["vm_servers"]
        url = urljoin(url, answer.links["next"]["url"]) if "next" in answer.links else ""
    assert len(rows) == 25
    assert rows[0]["party"] == "qcloud"
    back = served.get(f"{GZ}&f=21&t=30").links
    assert "next" not in back
    assert back["prev"]["url"].endswith("&f=11&t=20")
    assert served.get(f"{GZ}&f=3&t=5").links["prev"]["url"].endswith("&f=1&t=2")
    assert "prev" not in served.get(f"{GZ}&t=5").links
    assert served.get(f"{GZ}&f=100&t=110").links["prev"]["url"].endswith("&f=15&t=25")
    assert served.get(f"{GZ}&name=web%26f%3D9&t=1").json()["vm_servers"] == []


def test_links_keep_what_was_asked(served: App) -> None:
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(50)              # type: ignore[attr-defined]
    answer = served.get(f"{GZ}&t=1&status=ACTIVE&name=E&max_age=0&on_error=fail")
    assert answer.links["next"]["url"] == (
        "/twocloud/servers?party=qcloud&tenant_id=123&region=gz&status=ACTIVE&name=E&max_age=0&on_error=fail"
        f"&list={answer.headers['X-List-Id']}&f=2&t=2")             # a filter reads the whole list, which is kept


@pytest.mark.parametrize("view", ["basic", "full"])
def test_not_changed_is_304(served: App, view: str) -> None:
    first = served.get(f"{GZ}&view={view}")
    served.clock.forward(60)                                # seen a minute later, the same list
    for header in (first.headers["ETag"], first.headers["ETag"].removeprefix("W/"), f'"x", {first.headers["ETag"]}',
                   "*"):
        again = served.get(f"{GZ}&view={view}", headers={"If-None-Match": header})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert again.headers["X-Total-Count"] == "25"
        common(again)
    assert served.get(f"{GZ}&view={view}", headers={"If-None-Match": '"x"'}).status_code == 200
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(24)              # type: ignore[attr-defined]
    changed = served.get(f"{GZ}&view={view}", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_gzip_on_demand(served: App) -> None:
    plain = served.get(GZ, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    for accepted in ("gzip", "br, gzip;q=0.5", "*"):
        packed = served.session.get(f"{served.url}/twocloud/servers?{GZ}", headers={"Accept-Encoding": accepted},
                                    auth=(served.token, ""), stream=True, timeout=9)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["ETag"] == plain.headers["ETag"]
        assert gzip.decompress(packed.raw.read(decode_content=False)) == plain.content
    assert "Content-Encoding" not in served.get(GZ, headers={"Accept-Encoding": "gzip;q=0, br"}).headers
    assert "Content-Encoding" not in served.get(f"{GZ}&t=1", headers={"Accept-Encoding": "gzip"}).headers


def test_head_is_get_without_the_body(served: App) -> None:
    get, head = served.get(GZ), served.get(GZ, method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Length", "ETag", "X-Total-Count", "Content-Type"):
        assert head.headers[name] == get.headers[name]
    refused = served.get("party=qcloud", method="HEAD")
    assert (refused.status_code, refused.content) == (400, b"")
    assert served.session.get(f"{served.url}/twocloud/health", timeout=9).status_code == 200    # the connection lives


def test_filters(served: App) -> None:
    whole = served.get(f"{GZ}&view=full").json()["vm_servers"]
    one = whole[7]
    for query, kept in (
        (f"status={one['status']}", lambda r: r["status"] == one["status"]),
        ("name=E", lambda r: "e" in r["instance_name"]),
        (f"ip={one['lan_ip_set'].split(',')[0]}", lambda r: one["lan_ip_set"].split(",")[0] in r["lan_ip_set"].split(
            ",")),
        ("status=ACTIVE&name=we", lambda r: r["status"] == "ACTIVE" and "we" in r["instance_name"]),
        ("status=PAUSED", lambda r: False),
    ):
        expected = [r for r in whole if kept(r)]
        answer = served.get(f"{GZ}&view=full&{query}")
        assert answer.json()["vm_servers"] == expected
        assert answer.headers["X-Total-Count"] == str(len(expected))
        assert served.get(f"{GZ}&view=full&{query}&f=2&t=3").json()["vm_servers"] == expected[1:3]


# ---------------------------------------------------------------- the other formats

FORMATS = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson", "prometheus": "application/json",
           "ansible": "application/json"}


def shown_by(answer: requests.Response, written: str) -> list[str]:
    """The ids of the servers that an answer holds."""
    if written == "csv":
        return [row["instance_id"] for row in csv.DictReader(io.StringIO(answer.content.decode(), newline=""))]
    if written == "ndjson":
        return [json.loads(line)["instance_id"] for line in answer.content.splitlines()]
    if written == "prometheus":
        return [group["labels"]["__meta_twocloud_instance_id"] for group in answer.json()]
    return [host["twocloud_instance_id"] for host in answer.json()["_meta"]["hostvars"].values()]


@pytest.mark.parametrize("written", FORMATS)
def test_every_format_is_the_same_list_with_the_same_headers(served: App, written: str) -> None:
    whole = served.get(f"{GZ}&view=full")
    answer = served.get(f"{GZ}&format={written}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == FORMATS[written]
    ids = [row["instance_id"] for row in whole.json()["vm_servers"]]
    assert sorted(shown_by(answer, written)) == sorted(ids)
    assert (written == "ansible" or shown_by(answer, written) == ids)
    assert answer.headers["X-Total-Count"] == "25"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["ETag"] != whole.headers["ETag"]
    assert "Link" not in answer.headers
    assert answer.headers.get("X-Without-Address") == ("0" if written == "prometheus" else None)
    assert served.get(f"{GZ}&format={written}").content == answer.content
    served.clock.forward(60)
    again = served.get(f"{GZ}&format={written}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    get, head = served.get(f"{GZ}&format={written}&max_age=900"), served.get(f"{GZ}&format={written}&max_age=900",
                                                                             method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert get.headers["Age"] == "0"
    for name in ("Content-Length", "ETag", "X-Total-Count", "Content-Type", "Age", "Cache-Status"):
        assert head.headers[name] == get.headers[name]
    packed = served.session.get(f"{served.url}/twocloud/servers?{GZ}&format={written}&max_age=900",
                                auth=(served.token, ""),
                                headers={"Accept-Encoding": "gzip"}, stream=True, timeout=9)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.raw.read(decode_content=False)) == get.content


@pytest.mark.parametrize("written", FORMATS)
def test_in_every_format_an_error_is_an_error(served: App, written: str) -> None:
    """JSON with its status: Prometheus keeps its targets on a 5xx, and drops them on an empty list."""
    error(served.get(f"{GZ}&format={written}", token=""), 401, "unauthorized")
    error(served.get(f"{GZ}&format={written}&x=1"), 400, "invalid_parameter", "x")
    error(served.get(f"party=qcloud&tenant_id=7&region=gz&format={written}"), 403, "forbidden")
    served.clouds["qcloud"].fail("503")
    error(served.get(f"{GZ}&format={written}"), 503, "party_unavailable")
    error(served.get(f"party=qcloud,aws&tenant_id=123&region=gz,us-east-1&format={written}"), 503, "party_unavailable")


@pytest.mark.parametrize("written", FORMATS)
def test_an_old_list_is_marked_in_the_headers(served: App, written: str) -> None:
    first = served.get(f"{GZ}&format={written}")
    served.clock.forward(90)
    served.clouds["qcloud"].fail("503")
    old = served.get(f"{GZ}&format={written}")
    assert (old.headers["Age"], old.headers["Cache-Status"]) == ("90", "twocloud; hit; detail=party_unavailable")
    assert shown_by(old, written) == shown_by(first, written)
    error(served.get(f"{GZ}&format={written}&on_error=fail"), 503, "party_unavailable")


@pytest.mark.parametrize("written", ["csv", "ndjson"])
def test_ranges_and_links_in_lines(served: App, written: str) -> None:
    whole, rows, url = served.get(
        GZ).json()["vm_servers"], [], f"{served.url}/twocloud/servers?{GZ}&format={written}&f=1&t=10"
    while url:
        answer = served.get(urlsplit(url).query)
        assert answer.headers["Content-Type"] == FORMATS[written]
        rows += shown_by(answer, written)
        url = urljoin(url, answer.links["next"]["url"]) if "next" in answer.links else ""
    assert rows == [row["instance_id"] for row in whole]
    assert shown_by(served.get(f"{GZ}&format={written}&f=1000"), written) == []


@pytest.mark.parametrize("written", FORMATS)
def test_several_sources_in_every_format(served: App, written: str) -> None:
    both = "party=qcloud,aws&tenant_id=123&region=gz,us-east-1"
    expected = sorted(row["instance_id"] for row in served.get(both).json()["vm_servers"])
    answer = served.get(f"{both}&format={written}")
    assert len(expected) == 37
    assert sorted(shown_by(answer, written)) == expected
    if written in ("csv", "ndjson"):        # the view follows `view`, full if there are several
        first = answer.content.splitlines()[0].decode()
        assert (first.split(",") if written == "csv" else list(json.loads(first))) == TEN + MORE
        first = served.get(f"{both}&format={written}&view=basic").content.splitlines()[0].decode()
        assert (first.split(",") if written == "csv" else list(json.loads(first))) == TEN


def test_servers_without_an_address_are_counted(served: App) -> None:
    whole = served.get(GZ).json()["vm_servers"]
    answer = served.get(f"{GZ}&format=prometheus&address=wan&port=9100")
    assert [group["targets"] for group in answer.json()] == [[f"{row['wan_ip_set'].split(',')[0]}:9100"]
                                                             for row in whole if row["wan_ip_set"]]
    missing = sum(not row["wan_ip_set"] for row in whole)
    assert answer.headers["X-Without-Address"] == str(missing)
    assert 0 < missing < 25
    assert answer.headers["X-Total-Count"] == "25"


# ---------------------------------------------------------------- errors, in the order of the table

BAD = [
    ("", "party"), ("party=qcloud", "tenant_id"), ("party=qcloud&tenant_id=123", "region"),
    (f"{GZ}&color=red", "color"), (f"{GZ}&f=1&f=2", "f"), (f"{GZ}&party=qcloud", "party"),
    ("party=nocloud&tenant_id=123&region=gz", "party"), ("party=QCLOUD&tenant_id=123&region=gz", "party"),
    ("party=%EF%BD%91cloud&tenant_id=123&region=gz", "party"), ("party=qcloud,&tenant_id=123&region=gz", "party"),
    ("party=qcloud,nocloud&tenant_id=123&region=gz", "party"), ("party=all,qcloud&tenant_id=123&region=gz", "party"),
    ("party=qcloud,all&tenant_id=123&region=gz", "party"), ("party=qcloud&tenant_id=123&region=all,gz", "region"),
    ("party=qcloud&tenant_id=123&region=gz,all", "region"),
    ("party=qcloud,aws&tenant_id=123&region=us-east-1,all,gz", "region"),
    ("party=qcloud,aws&tenant_id=123&region=mars", "region"), ("party=qcloud&tenant_id=123&region=gz,", "region"),
    ("party=&tenant_id=123&region=gz", "party"), ("party=qcloud%0A&tenant_id=123&region=gz", "party"),
    ("party=qcloud&tenant_id=&region=gz", "tenant_id"), ("party=qcloud&tenant_id=a/b&region=gz", "tenant_id"),
    ("party=qcloud&tenant_id=%00&region=gz", "tenant_id"), ("party=qcloud&tenant_id=%ff&region=gz", "tenant_id"),
    (f"party=qcloud&tenant_id={'1' * 65}&region=gz", "tenant_id"),
    ("party=qcloud&tenant_id=%D9%A1%D9%A2%D9%A3&region=gz", "tenant_id"),
    ("party=qcloud&tenant_id=123&region=", "region"), ("party=qcloud&tenant_id=123&region=evil.com/", "region"),
    ("party=qcloud&tenant_id=123&region=x@evil.com", "region"),
    ("party=qcloud&tenant_id=123&region=evil.com", "region"),
    ("party=qcloud&tenant_id=123&region=GZ", "region"), ("party=aws&tenant_id=123&region=gz", "region"),
    ("party=aws&tenant_id=123&region=us-east-1.evil", "region"),
    ("party=qcloud&tenant_id=123&region=gz&region=sh", "region"),
    *((f"{GZ}&{name}={value}", name) for name in ("f", "t") for value in (
        "0", "-1", "+1", "01", "1.0", "1e3", "", "%201", "1%20", "1%0A", "%EF%BC%91", "%D9%A1", "1_0", "0x1",
        "12345678",
        "NaN", "9" * 5000, "null", "%C2%B2")),
    (f"{GZ}&f=3&t=2", "t"), (f"{GZ}&format=xml", "format"), (f"{GZ}&format=CSV", "format"), (f"{GZ}&view=all", "view"),
    (f"{GZ}&status=active", "status"), (f"{GZ}&status=", "status"), (f"{GZ}&name=", "name"), (f"{GZ}&name=%00", "name"),
    (f"{GZ}&name=%ff", "name"), (f"{GZ}&name={'x' * 129}", "name"), (f"{GZ}&ip=1.2.3", "ip"), (f"{GZ}&ip=127.1", "ip"),
    (f"{GZ}&ip=010.0.0.1", "ip"), (f"{GZ}&ip=fe80::1%25eth0", "ip"), (f"{GZ}&ip=10.0.0.0/8", "ip"),
    (f"{GZ}&max_age=-1", "max_age"), (f"{GZ}&max_age=1s", "max_age"), (f"{GZ}&on_error=ignore", "on_error"),
    (f"{GZ}&on_error=partial", "on_error"), (f"{GZ}&%00=1", "?"), (f"{GZ}&%3Cscript%3E=1", "?"), (f"{GZ}&=1", "?"),
    (f"{GZ}&F=1", "F"), (f"{GZ}&f%20=1", "?"), (f"{GZ}&t[]=1", "t[]"),
    *((f"{GZ}{chosen}&{name}={value}", name) for name, value in (("port", "80"), ("address", "wan"))
      for chosen in ("", "&format=json", "&format=csv", "&format=ndjson", "&format=ansible")),
    *((f"{GZ}&format=prometheus&{name}={value}", name) for name, value in (
        ("port", "0"), ("port", "65536"), ("port", "080"), ("port", ""), ("port", "http"), ("address", "LAN"),
        ("address", ""),
        ("address", "10.0.0.1"), ("address", "lan,wan"))),
    *((f"{GZ}&format={chosen}&{name}=1", name) for chosen in ("prometheus", "ansible") for name in ("f", "t")),
    *((f"{GZ}&format={chosen}&changed_since=2026-09-20T00:00:00Z", "format")
      for chosen in ("csv", "ndjson", "prometheus", "ansible")),
    *((f"party=qcloud,aws&tenant_id=123&region=all&format={chosen}&on_error=partial", "on_error")
      for chosen in ("csv", "ndjson", "prometheus", "ansible")),
    *((f"{GZ}&changed_since={time}", "changed_since") for time in (
        "2026-01-01T00:00:00Z", "yesterday", "2026-09-21", "2026-09-21T00:00:00", "2026-13-01T00:00:00Z", "0", "",
        "2026-09-21T00:00:00+00:00", "%D9%A2026-09-21T00:00:00Z", "0001-01-01T00:00:00%2B23:59",
        "2026-09-21T00:00:00Z%0A")),
]


@pytest.mark.parametrize(("query", "parameter"), BAD, ids=[f"{n}-{p}" for n, (_, p) in enumerate(BAD)])
def test_bad_parameters(served: App, query: str, parameter: str) -> None:
    text = error(served.get(query), 400, "invalid_parameter", parameter)
    assert "evil" not in text
    assert "script" not in text
    assert not served.clouds["qcloud"].calls
    assert not served.clouds["aws"].calls


@pytest.mark.parametrize("name", ["party", "tenant_id", "region", "f", "t", "format", "view", "status", "name", "ip",
                                  "changed_since",
                                  "max_age", "on_error", "x"])
def test_a_value_that_is_no_utf_8_is_refused_by_its_name(served: App, name: str) -> None:
    """Not read as another character: `?x=%ff` used to arrive as U+FFFD."""
    for value in ("%ff", "a%C3", "%ED%A0%80", "%C0%AF", "%EF%BF%BD"):
        query = "&".join(part for part in GZ.split("&") if not part.startswith(f"{name}="))
        assert "UTF-8" in error(served.get(f"{query}&{name}={value}"), 400, "invalid_parameter", name)
    assert not served.clouds["qcloud"].calls
    error(served.get("x=%ff", path="/twocloud/health"), 400, "invalid_parameter", "x")
    assert served.get(f"{GZ}&name=h%c3%a9").status_code == 200


def test_credentials_in_the_query_are_refused_and_not_repeated(served: App) -> None:
    for name in ("token", "password"):      # not by `get`: the test's own client would log the URL
        head, _, body = raw(served, f"GET /twocloud/servers?{GZ}&{name}={served.token} HTTP/1.1\r\nHost: x\r\n"
                                    f"Authorization: Bearer {served.token}\r\n\r\n".encode()).partition(b"\r\n\r\n")
        assert b" 400 " in head
        assert json.loads(body)["parameter"] == name
        assert served.token.encode() not in head + body


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def test_every_bad_credential_gets_one_identical_401(served: App) -> None:
    good = served.token
    other = ("0" if good[-1] != "0" else "1")
    bodies = set()
    for header in (
        None, "", "Basic", "Basic ", "Bearer", "Bearer ", "Digest abc", "basic", good, f"Token {good}",
        basic(good[:-1] + other + ":"), basic("tc_" + "x" * 36 + ":"), basic(good), basic(f":{good}"), basic(""),
        basic(f" {good}:"), basic(f"{good} :"), basic(f"{good.upper()}:"), basic(b"\xff\xfe:"), basic("\u00e9:x"),
        f"Basic {base64.b64encode((good + ':').encode()).decode().rstrip('=')}x", f"Basic !{basic(good + ':')[6:]}",
        basic(good + ":")[:-1], f"Bearer {good}x", f"Bearer {good} {good}", f"Bearer tc_{'0' * 36}",
        f"Bearer {'a' * 5000}",
        basic("ann:password"), f"{basic(good + ':')}, {basic(good + ':')}", f"Basic\t{basic(good + ':')[6:]}",
    ):
        headers = {} if header is None else {"Authorization": header}
        answer = served.get(GZ, token="", headers=headers)
        error(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="twocloud", charset="UTF-8"'
        bodies.add(re.sub(r'"request_id":"[^"]+"', "", answer.text))
    assert len(bodies) == 1
    assert not served.clouds["qcloud"].calls


def test_non_canonical_base64_is_refused(served: App) -> None:
    """Two spellings of the last bits mean the same bytes; only one is right."""
    for password in ("", "x", "xx"):
        right = basic(f"{served.token}:{password}")[6:]
        if not right.endswith("="):
            continue
        at = len(right.rstrip("=")) - 1
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        wrong = right[:at] + alphabet[alphabet.index(right[at]) + 1] + right[at + 1:]
        assert base64.b64decode(wrong) == base64.b64decode(right)
        assert served.get(GZ, token="", headers={"Authorization": f"Basic {wrong}"}).status_code == 401
        assert served.get(GZ, token="", headers={"Authorization": f"Basic {right}"}).status_code == 200


def test_ways_to_show_a_token(served: App) -> None:
    for header in (basic(f"{served.token}:anything"), basic(f"{served.token}:"), basic(f"{served.token}:a:b"),
                   f"Bearer {served.token}", f"bearer {served.token}", f"BASIC {basic(served.token + ':')[6:]}",
                   f"Bearer   {served.token}"):
        assert served.get(GZ, token="", headers={"Authorization": header}).status_code == 200


def test_401_comes_before_400_before_403_before_404(served: App) -> None:
    narrow = served.issue(served.user("bob", tenants=("7",)))
    error(served.get("f=0", token=""), 401, "unauthorized")
    error(served.get("party=qcloud&tenant_id=123&region=gz&f=0", token=narrow), 400, "invalid_parameter", "f")
    error(served.get("party=aws&tenant_id=123&region=gz", token=narrow), 400, "invalid_parameter", "region")
    error(served.get(GZ, token=narrow), 403, "forbidden")
    error(served.get("party=qcloud&tenant_id=7&region=gz", token=narrow), 404, "account_not_found")


def test_foreign_and_missing_tenants_look_alike(served: App) -> None:
    narrow = served.issue(served.user("bob", tenants=("7",)))
    texts = {re.sub(r'"request_id":"[^"]+"', "", served.get(query, token=narrow).text)
             for query in (GZ, US, "party=qcloud&tenant_id=nobody&region=gz", "party=qcloud&tenant_id=07&region=gz")}
    assert len(texts) == 1


def test_other_paths_and_methods(served: App) -> None:
    for path in ("/twocloudx", "/twocloud/nothing", "/twocloud/console.html", "/twocloud/servers/1",
                 "/TWOCLOUD/servers", "/twocloud/%73ervers2",
                 "//twocloud/x", "/twocloud/servers%00"):
        error(served.get("", path=path), 404, "not_found")
        error(served.get("", path=path, token=""), 404, "not_found")
    for path, allow in (("/twocloud/servers", "GET, HEAD"), ("/twocloud/tokens", "POST, DELETE"),
                        ("/twocloud/health", "GET, HEAD"), ("/twocloud/openapi.json", "GET, HEAD"),
                        ("/twocloud/parties", "GET, HEAD"), ("/twocloud", "GET, HEAD"), ("/twocloud/", "GET, HEAD"),
                        ("/twocloud/docs", "GET, HEAD")):
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND",
                       "FOO"} - set(allow.split(", ")):
            answer = served.get(GZ, path=path, method=method, token="")
            error(answer, 405, "method_not_allowed")
            assert answer.headers["Allow"] == allow
    assert served.get(GZ, path="/twocloud/servers/").status_code == 200


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "504", "401", "403", "404", "cut body", "reset", "html"])
@pytest.mark.parametrize("party", ["qcloud", "aws"])
def test_party_errors(served: App, party: str, fault: str) -> None:
    served.clouds[party].fail(fault)
    word = FAULTS[fault][1]
    status = {"party_denied": 502, "party_malformed": 502, "party_error": 502, "party_throttled": 503,
              "party_unavailable": 503, "party_timeout": 504}[word or ""]
    answer = served.get(GZ if party == "qcloud" else US)
    error(answer, status, word or "")
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "sorry" not in answer.text
    assert "Hotel" not in answer.text


def test_the_party_does_not_know_the_region(served: App) -> None:
    error(served.get("party=qcloud&tenant_id=123&region=ap-nowhere"), 400, "invalid_parameter", "region")


def test_too_large(served: App) -> None:
    served.clouds["qcloud"].rates.clear()                                   # type: ignore[attr-defined]
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Fleet(20)              # type: ignore[attr-defined]
    long = "x" * 400_000
    for n in range(20):
        row = served.clouds["qcloud"]._row(Fleet(20)[n], "ap-guangzhou")    # type: ignore[attr-defined]
        served.clouds["qcloud"].rows[n] = {**row, "InstanceName": long}     # type: ignore[attr-defined]
    text = error(served.get(GZ), 413, "too_large")
    match = re.search(r"f=(\d+)&t=(\d+)", text)
    assert match
    fits = served.get(f"{GZ}&{match[0]}")
    assert fits.status_code == 200
    assert len(fits.json()["vm_servers"]) == int(match[2]) == 15
    assert re.search(r"f=4&t=18 fits", error(served.get(f"{GZ}&f=4"), 413, "too_large"))
    for written in ("csv", "ndjson"):
        assert re.search(r"f=4&t=18 fits", error(served.get(f"{GZ}&f=4&format={written}"), 413, "too_large"))
        assert served.get(f"{GZ}&f=4&t=18&format={written}").content.count(b"\n") == 15 + (written == "csv")
    for written in ("prometheus", "ansible"):
        assert "whole list" in error(served.get(f"{GZ}&format={written}"), 413, "too_large")


@pytest.mark.parametrize("kind", sorted(tree(), key=lambda kind: kind.__name__))
def test_the_status_line_of_every_error_has_its_word(served: App, monkeypatch: pytest.MonkeyPatch,
                                                     kind: type[TwocloudError]) -> None:
    """As RFC 9110 names it; programs and people read the line, too."""
    failure = kind.__new__(kind)
    failure.__dict__.update(parameter="f", retry_after=1, party_code="", hint="", http_status=None)
    failure.args = ("text",)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("chalicelib.http.api.many_sources.answer", fail)
    answer = served.get(GZ)
    assert answer.reason == WORDS[answer.status_code]


WORDS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
         409: "Conflict", 413: "Content Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
         502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}


def test_our_own_fault_shows_nothing(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"secret inside {served.token}")

    monkeypatch.setattr("chalicelib.http.api.parse_query", broken)
    answer = served.get(GZ)
    error(answer, 500, "internal")
    assert "secret" not in answer.text


# ---------------------------------------------------------------- the wire

def raw(served: App, data: bytes) -> bytes:
    where = urlsplit(served.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(("data", "status"), [
    (b"GET / HTTP/1.1\r\nHost: x\r\nbroken header line\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET /twocloud/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 400),
    (b"GET /twocloud/health HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    (b"POST /twocloud/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"POST /twocloud/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
])
def test_what_is_no_proper_http_gets_our_envelope(served: App, data: bytes, status: int) -> None:
    head, _, body = raw(served, data).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == str(status).encode()
    envelope = json.loads(body)
    assert envelope["code"] == status
    assert envelope["error"] in ("invalid_parameter", "too_large")
    assert envelope["request_id"]


def test_pipelined_and_kept_alive(served: App) -> None:
    one = b"GET /twocloud/health HTTP/1.1\r\nHost: x\r\n\r\n"
    assert raw(served, one * 3 + b"HEAD /twocloud/health HTTP/1.1\r\nHost: x\r\n\r\n"
               + one).count(b"HTTP/1.1 200 OK") == 5


def test_a_server_that_is_woken_by_another_while_it_is_closed(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may run what ends it before the one who closes it has written to its pipe."""
    server = serve.Server(app.deployment, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    assert requests.get(f"http://{server.address}/twocloud/health", timeout=9).status_code == 200
    trigger = server._listener.trigger
    pull = trigger._physical_pull

    def late() -> None:
        pull()                              # another's
        time.sleep(0.3)
        pull()

    monkeypatch.setattr(trigger, "_physical_pull", late)
    server.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_closed_server_leaves_no_thread(app: App) -> None:
    before = threading.active_count()
    server = serve.Server(app.deployment, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    assert threading.active_count() >= before + FEW.requests
    server.close()
    thread.join(10)
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() <= before


# ---------------------------------------------------------------- open paths, parties

def test_health_and_openapi_need_no_token_and_tell_no_tenant(served: App) -> None:
    for path in ("/twocloud/health", "/twocloud/openapi.json"):
        answer = served.get("", path=path, token="")
        assert answer.status_code == 200
        common(answer)
        error(served.get("x=1", path=path, token=""), 400, "invalid_parameter", "x")
    assert served.get("", path="/twocloud/openapi.json").json()["openapi"].startswith("3.1")


def test_parties(served: App) -> None:
    error(served.get("", path="/twocloud/parties", token=""), 401, "unauthorized")
    by_name = {party["name"]: party for party in served.get("", path="/twocloud/parties").json()["parties"]}
    assert list(by_name) == list(parties.names())
    assert {"aws", "qcloud", "azure", "hetzner"} <= by_name.keys()
    assert "gz" in by_name["qcloud"]["regions"]["ap-guangzhou"]
    assert by_name["qcloud"]["region_names"]["ap-guangzhou"] == "South China (Guangzhou)"
    assert by_name["aws"]["region_names"]["us-east-1"] == "US East (N. Virginia)"
    assert by_name["huaweicloud"]["region_names"]["cn-north-4"] == "CN North-Beijing4"
    assert by_name["huaweicloud"]["region_names_zh"]["cn-north-4"] == "华北-北京四"
    assert by_name["hetzner"]["region_names"]["fsn1"] == "Falkenstein"
    assert by_name["hetzner"]["region_names_zh"] == {}
    assert by_name["openstack"]["region_names"] == {}
    assert by_name["qcloud"]["credentials"] == [["secret_id", "secret_key", "token?"]]


def test_one_tenant_many_threads_never_mix(served: App) -> None:
    """Two tenants with different clouds, asked at once many times: each sees its own, whatever the thread."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.fixtures import qcloud_keys
    keys = qcloud_keys()
    with Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(3, "other")}, limited=False) as other:
        served.clouds["qcloud"].rates.clear()                               # type: ignore[attr-defined]
        served.account("qcloud", keys, other.url, tenant="7")
        bob = served.issue(served.user("bob", tenants=("7",)))
        mine = served.get(GZ).json()
        his = served.get("party=qcloud&tenant_id=7&region=gz", token=bob).json()
        assert mine != his

        def ask(n: int) -> bool:
            auth = (served.token if n % 2 else bob, "")
            tenant = "123" if n % 2 else "7"
            answer = requests.get(f"{served.url}/twocloud/servers?party=qcloud&tenant_id={tenant}&region=gz", auth=auth,
                                  timeout=30)
            return answer.json() == (mine if n % 2 else his)

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(60)))


# ---------------------------------------------------------------- whatever comes

@settings(max_examples=150)
@given(query=st.binary(max_size=60) | st.text(max_size=30).map(lambda text: quote(text).encode())
       | st.lists(st.tuples(st.sampled_from(["party", "tenant_id", "region", "f", "t", "view", "name", "ip", "status",
                                             "x"]),
                            st.text(max_size=8)), max_size=6).map(lambda pairs: urlencode(pairs).encode()),
       name=st.sampled_from([b"Authorization", b"Accept-Encoding", b"If-None-Match", b"Content-Type", b"Host",
                             b"Cookie", b"X-Forwarded-Host",
                             b"Accept", b"Range", b"Expect", b"Content-Length", b"Transfer-Encoding", b"Connection",
                             b"X-HTTP-Method-Override"]),
       value=st.binary(max_size=40), shown=st.booleans())
@example(query=b"", name=b"Content-Length", value=b"1", shown=False)
def test_any_query_and_header_gets_a_proper_answer(served: App, query: bytes, name: bytes, value: bytes,
                                                   shown: bool) -> None:
    """Never a 500, never a hang, always our envelope; a party is called only for a list that is then given."""
    clean = query.translate(None, b" \r\n\t#") if b" " in query or b"\n" in query else query
    clean = bytes(b for b in clean if b > 32 and b != 127 and b != 35)
    value = value.replace(b"\r", b"").replace(b"\n", b"")
    head = b"GET /twocloud/servers?" + clean + b" HTTP/1.1\r\nHost: x\r\n"
    head += b"Authorization: Bearer " + served.token.encode() + b"\r\n" if shown and name != b"Authorization" else b""
    before = served.clouds["qcloud"].count() + served.clouds["aws"].count()
    answer = raw(served, head + name + b": " + value + b"\r\n\r\n")
    if not answer and name == b"Content-Length" and value.strip().isdigit():
        return                              # the rest of the request never came
    first, _, rest = answer.partition(b"\r\n\r\n")
    status = int(first.split(b" ")[1])
    if status == 100:
        status = int(rest.split(b" ")[1]) if rest.startswith(b"HTTP") else 400
        rest = rest.partition(b"\r\n\r\n")[2]
    assert status in (200, 304, 400, 401, 403, 404, 413), answer[:300]
    if b"content-encoding: gzip" in first.lower():
        rest = gzip.decompress(rest)
    if status != 304 and rest:
        body = json.loads(rest)
        assert body["code"] == status
        assert ("vm_servers" in body) == (status == 200)
        assert served.token not in rest.decode()
    if status >= 400:
        assert served.clouds["qcloud"].count() + served.clouds["aws"].count() == before
