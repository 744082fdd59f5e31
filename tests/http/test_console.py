"""The console in a real Chromium, against the API over HTTP with simulator clouds behind it."""

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import yaml

from chalicelib.access import accounts, tokens, users
from chalicelib.http import console
from chalicelib.simulators.fleet import Fleet, Machine, Machines, seed_machine
from tests import ROOT, browser
from tests.fixtures import App, Clock
from tests.http.test_me import put

SOURCES = ROOT / "chalicelib/http/console"
PHONE = {"width": 360, "height": 740}
CHOOSER = "#choose-form:not([hidden])"
LISTED = "#place table, #place .instead:not(.loading)"
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "web\u202egnp.exe", "zero\u200bwidth",
           "=1+1", "a,\"b\"\r\nc",
           "{{ lookup('pipe', 'id') }}", "服务器-一", "", "javascript:alert(3)")


@pytest.fixture
def clock() -> Clock:
    """The browser has the real time, so the app has it too."""
    return Clock(float(int(time.time())))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@dataclass
class Reader:
    """Somebody at a browser. `requests`: the addresses of all; `faults`: what the page's log complained about."""

    page: Any
    url: str
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def goes(self, fragment: str = "") -> "Reader":
        self.page.goto(f"{self.url}/twocloud/{fragment}")
        return self

    def signs_in(self, token: str, tenant: str = "123", fragment: str = "", keep: bool = False,
                 wait: str = LISTED) -> "Reader":
        """`tenant`: the one to choose if the token opens several."""
        self.goes(fragment)
        self.page.fill("#token", token)
        self.page.set_checked("#keep", keep)
        self.page.click("#signin-form button")
        self.page.wait_for_selector(f"{CHOOSER}, :is({wait})")
        if self.page.is_visible(CHOOSER):
            self.page.select_option("#choose-tenant", tenant)
            self.page.click("#choose-form button[type=submit]")
            self.page.wait_for_selector(wait)
        return self

    def searches(self, text: str) -> "Reader":
        self.page.fill("#search", text)
        return self

    def column(self, name: str) -> list[str]:
        """What the cells show; of clouds and regions, which are shown by their names, the codes."""
        return self.page.eval_on_selector_all(
            f"#place tbody td.c-{name}",
            "all => all.map(one => one.querySelector('[data-code]')?.dataset.code"
            " ?? (one.querySelector('.open') ?? one).innerText.trim())")

    def kinds(self) -> list[str]:
        """The states that are shown, each a picture of its own."""
        return self.page.eval_on_selector_all("[data-kind]", "all => all.map(one => one.dataset.kind)")

    def text(self) -> str:
        return self.page.inner_text("body")

    def refreshes(self) -> "Reader":
        with self.page.expect_response(lambda answer: "/servers?" in answer.url):
            self.page.click("#refresh")
        self.until("document.querySelector('#asof').ariaBusy === 'false'")
        return self

    def saves(self, form: str) -> bytes:
        with self.page.expect_download() as download:
            self.page.click(f'[data-format="{form}"]')
        return Path(download.value.path()).read_bytes()

    def until(self, expression: str) -> None:
        """Asked from here: waiting inside the page would need `eval`, which its policy forbids."""
        ends = time.monotonic() + 30
        while not self.page.evaluate(expression):
            assert time.monotonic() < ends, expression
            self.page.wait_for_timeout(30)

    def wide(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth")


Opens = Callable[..., Reader]


@pytest.fixture
def opens(engine: Any, served: App) -> Iterator[Opens]:
    """Opens a page as a new reader: nothing may be asked of another host, nothing may be complained about."""
    readers: list[Reader] = []

    def open_(**options: Any) -> Reader:
        context = engine.new_context(**{"locale": "en-GB", "timezone_id": "UTC",
                                          "viewport": {"width": 1300, "height": 850}, **options})
        context.set_default_timeout(20_000)
        if engine.browser_type.name == "chromium":              # Firefox asks nobody to write
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
        reader = Reader(context.new_page(), served.url)
        reader.page.on("request", lambda request: reader.requests.append(request.url))
        reader.page.on("pageerror", lambda error: reader.faults.append(str(error)))
        reader.page.on("dialog", lambda dialog: (reader.faults.append("dialog"), dialog.dismiss()))
        reader.page.on("console", lambda line: reader.faults.append(line.text) if line.type == "error"
                       and "status of" not in line.text else None)
        readers.append(reader)
        return reader

    yield open_
    for reader in readers:
        assert "tc_" not in reader.page.evaluate(
            "location.href + document.cookie + JSON.stringify([history.state, localStorage])")
        reader.page.context.close()
        assert reader.faults == []
        assert {url.split("/twocloud")[0] for url in reader.requests
                if not url.startswith(("data:", "blob:"))} <= {served.url}
        assert not any("tc_" in url for url in reader.requests)


def machines(app: App, *fleet: Machine, party: str = "qcloud") -> None:
    """The app has only these, in one region."""
    for name, cloud in app.clouds.items():
        for region in cloud.fleets:         # type: ignore[attr-defined]
            cloud.fleets[region] = Machines()                   # type: ignore[attr-defined]
        if name == party:
            cloud.fleets[next(iter(cloud.fleets))] = Machines(fleet)    # type: ignore[attr-defined]


def named(*names: str) -> list[Machine]:
    return [replace(seed_machine(), number=n, key=f"key{n:05}", name=name) for n, name in enumerate(names)]


# ---------------------------------------------------------------- what is served

@pytest.mark.parametrize(("path", "name"), [("/twocloud/", "console.html"), ("/twocloud", "console.html"),
                                            ("/twocloud/docs", "reference.html")])
def test_the_policy_names_the_hashes_of_what_is_served(served: App, path: str, name: str) -> None:
    answer = served.get("", token="", path=path)
    text, headers = answer.content.decode(), answer.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert len(answer.content) < 150_000
    assert answer.content == console.page(name).body

    def digest(tag: str) -> str:
        (inside,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    assert policy == {"default-src": "'none'", "script-src": digest("script"), "style-src": digest("style"),
                      "connect-src": "'self'",
                      "img-src": "data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
                      "require-trusted-types-for": "'script'", "trusted-types": "'none'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "private, no-cache"
    again = served.get("", token="", path=path, headers={"If-None-Match": headers["ETag"]})
    assert again.status_code == 304
    assert not again.content
    assert again.headers["Content-Security-Policy"] == headers["Content-Security-Policy"]
    assert served.get("x=1", token="", path=path).status_code == served.get("", token="", path=path,
                                                                            method="HEAD").status_code == 200


def test_no_page_names_another_host_or_makes_markup_of_text() -> None:
    for name in ("console.html", "reference.html"):
        text = console.page(name).body.decode()
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|localStorage|"
            r"\.cookie", text)
        markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\s(style|on\w+)=", markup)
        assert len(re.findall("<script|<style", text)) == 2


def test_every_source_is_in_a_page() -> None:
    used = {name for names in (*console._SCRIPTS.values(), *console._STYLES.values()) for name in names}
    assert used == {path.name for path in SOURCES.iterdir() if path.suffix in (".js", ".css")}


def test_both_languages_say_everything() -> None:
    english, chinese = (SOURCES / "texts.js").read_text().partition("\n};")[0].split("\n  zh: {")
    keys = {language: set(re.findall(r"[{,\s](\w+): \"", text))
            for language, text in (("en", english), ("zh", chinese))}
    plain = {language: {re.sub("_(one|other)$", "", key) for key in names} for language, names in keys.items()}
    assert plain["en"] == plain["zh"]
    assert len(plain["en"]) > 120
    scripts = "".join(path.read_text() for path in SOURCES.iterdir() if path.suffix in (".js", ".html")
                      and path.name != "texts.js")
    used = set(re.findall(r"\bt\(\"(\w+)\"", scripts)) | set(re.findall(r"data-(?:t|label|hint)=\"(\w+)\"", scripts))
    assert used <= plain["en"], used - plain["en"]
    # nothing is said that nobody uses
    assert {key for key in plain["en"] if key.removeprefix("form_") not in scripts} <= {"name", "other"}


# ---------------------------------------------------------------- signing in

def test_a_fleet_is_shown_and_nothing_is_left_behind(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    assert "287 servers" in reader.text().replace("\n", " ")
    assert len(reader.column("server")) == 50
    assert set(reader.column("party")) == {"aws", "qcloud"}
    page = reader.page
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.hash]") == [
        0, 0, "", ""]
    assert page.evaluate("JSON.stringify(history.state)") == "null"
    assert page.input_value("#token") == ""
    assert served.token not in page.content()
    page.reload()
    assert page.is_visible("#signin-form")
    assert not page.is_visible("#fleet")


@pytest.mark.slow
def test_the_token_is_kept_for_the_tab_only_if_that_is_wanted(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, keep=True)
    page = reader.page
    page.reload()
    page.wait_for_selector("#place table")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert "tc_" not in page.url
    page.click("#signout")
    assert page.evaluate("sessionStorage.length") == 0
    assert not page.is_visible("#fleet")
    assert "hehe" not in page.content()
    page.reload()
    assert page.is_visible("#signin-form")


def test_a_token_that_is_refused_is_forgotten(served: App, opens: Opens) -> None:
    wrong = served.issue(served.user("bob", tenants=("123",)))
    tokens.revoke_all(served.deployment.store, "bob")
    reader = opens().signs_in(wrong, keep=True, wait="#signin-problem:not([hidden])")
    assert "refused" in reader.page.inner_text("#signin-problem")
    assert reader.page.evaluate("sessionStorage.length") == 0
    reader = opens().signs_in("tc_short", wait="#signin-problem:not([hidden])")
    assert not any("/servers" in url for url in reader.requests)                # a form that cannot be is not even sent


def test_a_token_that_is_revoked_in_use_clears_the_screen(served: App, opens: Opens) -> None:
    mine = served.issue(served.user("bob", tenants=("123",)))
    reader = opens().signs_in(mine, keep=True)
    tokens.revoke_all(served.deployment.store, "bob")
    reader.page.click("#refresh")
    reader.page.wait_for_selector("#signin-problem:not([hidden])")
    assert "ins-" not in reader.page.content()
    assert reader.page.evaluate("sessionStorage.length") == 0


# ---------------------------------------------------------------- the tenants of a token

def two_tenants(app: App) -> str:
    """A token for tenants 123 and 7. Tenant 7 has the 12 servers of aws too."""
    aws = app.clouds["aws"]
    ((key_id, secret),) = aws.keys.items()  # type: ignore[attr-defined]
    app.account("aws", {"access_key_id": key_id, "secret_access_key": secret}, aws.url, "7")
    return app.issue(app.user("bob", ("123", "7", "foreign")))


@pytest.mark.slow
def test_a_token_for_one_tenant_needs_no_choice(served: App, opens: Opens) -> None:
    put(served, "7", "aws")
    reader = opens().goes()
    assert reader.page.evaluate("document.activeElement.id") == "token"
    reader.page.fill("#token", served.token)
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("#place table")
    assert reader.page.locator("#tenant option").all_inner_texts() == ["tenant 123"]
    assert [url.rpartition("/")[2].partition("?")[0] for url in reader.requests] == ["", "me", "servers", "parties"]


@pytest.mark.slow
def test_the_tenant_is_chosen_and_changed_without_signing_out(served: App, opens: Opens) -> None:
    reader = opens().goes()
    page = reader.page
    token = two_tenants(served)
    page.fill("#token", token)
    page.click("#signin-form button")
    page.wait_for_selector(CHOOSER)
    assert page.locator("#choose-tenant option").all_inner_texts() == ["all tenants (2)", "tenant 123", "tenant 7"]
    assert page.evaluate("document.activeElement.id") == "choose-tenant"
    assert page.input_value("#token") == ""
    assert not any("/servers" in url for url in reader.requests)
    page.click("#choose-form button[type=submit]")
    page.wait_for_selector("#place table")
    assert "299 servers" in reader.text().replace("\n", " ")
    assert set(reader.column("tenantColumn")) <= {"123", "7"}
    page.click('[data-facet="tenant"] [data-value="7"]')
    assert reader.column("tenantColumn") == ["7"] * 12
    page.click("#place tbody tr >> nth=0 >> .open")
    page.wait_for_selector("#drawer[open]")
    assert "7" in page.locator("#drawer dd code").all_inner_texts()
    page.keyboard.press("Escape")
    page.click("#share")
    assert "tenant_id=7" in page.inner_text("#sheet .command >> nth=0")
    page.keyboard.press("Escape")
    reader.searches("")
    page.select_option("#tenant", "7")
    reader.until("document.querySelectorAll('th.c-tenantColumn').length === 0 "
                 "&& document.querySelectorAll('#place tbody tr').length === 12")
    assert page.title() == "tenant:7 · tenant 7 · twocloud"      # a bookmark is called by its filters
    assert page.is_hidden("#signin")
    assert "tenant=" not in page.url


def test_servers_of_two_tenants_are_never_mixed_up(served: App, opens: Opens) -> None:
    """Both list the same machines through their own accounts: each row opens its own details."""
    reader = opens().signs_in(two_tenants(served), tenant="all", fragment="#q=party:aws&sort=id")
    page = reader.page
    owners = reader.column("tenantColumn")
    assert sorted(owners) == ["123"] * 12 + ["7"] * 12
    for row in (0, 1):
        page.click(f"#place tbody tr >> nth={row} >> .open")
        page.wait_for_selector("#drawer[open]")
        fields = dict(zip(page.locator("#drawer .fields dt").all_inner_texts(),
                          page.locator("#drawer .fields dd > span:first-child").all_inner_texts(), strict=False))
        assert fields["Tenant"] == owners[row]
        page.keyboard.press("Escape")
    served.clouds["aws"].fail("401")
    reader.refreshes()
    page.click("#sources")
    names = page.locator("#sheet tr.stale th").all_inner_texts()
    assert {name.partition(" Amazon EC2")[0] for name in names} == {"123", "7"}


@pytest.mark.slow
def test_a_link_to_a_tenant_that_the_token_does_not_open_offers_the_others(served: App, opens: Opens) -> None:
    """Whether the tenant exists changes nothing."""
    put(served, "8", "aws")
    texts = []
    for tenant in ("8", "9"):
        reader = opens().goes(f"#tenant={tenant}")
        reader.page.fill("#token", served.token)
        reader.page.click("#signin-form button")
        reader.page.wait_for_selector(CHOOSER)
        texts.append(reader.page.inner_text(CHOOSER).replace(f"tenant {tenant}", "tenant ID"))
        assert not any("/servers" in url for url in reader.requests)
        reader.page.click("#choose-form button[type=submit]")
        reader.page.wait_for_selector("#place table")
        assert reader.page.input_value("#tenant") == "123"
    assert texts[0] == texts[1]
    assert "opens no account of tenant ID" in texts[0]


@pytest.mark.slow
def test_a_token_without_tenants_and_a_server_that_is_down(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.issue(served.user("bob", ("7",))), wait="#signin-problem:not([hidden])", keep=True)
    assert "opens no tenant" in reader.page.inner_text("#signin-problem")
    assert reader.page.evaluate("sessionStorage.length") == 0
    reader.page.route("**/me", lambda route: route.abort("connectionrefused"))
    reader.signs_in(served.token, wait="#signin-problem:not([hidden])")
    assert "cannot be reached" in reader.page.inner_text("#signin-problem")
    reader.faults.clear()
    reader.page.unroute("**/me")
    reader.page.click("#signin-form button")                    # the token is still there
    reader.page.wait_for_selector("#place table")


@pytest.mark.slow
def test_a_kept_token_keeps_its_tenant_and_offers_the_others(served: App, opens: Opens) -> None:
    reader = opens().signs_in(two_tenants(served), tenant="7", keep=True)
    reader.page.reload()
    reader.page.wait_for_selector("#place table")
    reader.until("document.querySelectorAll('#tenant option').length === 3")
    assert reader.page.input_value("#tenant") == "7"
    reader.page.select_option("#tenant", "123")
    reader.until("document.title.startsWith('tenant 123')")
    reader.page.reload()
    reader.until("document.title.startsWith('tenant 123')")


@pytest.mark.slow
def test_what_the_token_opens_is_offered_though_it_has_no_servers(served: App, opens: Opens) -> None:
    put(served, "123", "aws", "empty", regions=("eu-west-1",))  # nothing listens there: what it has is not known
    reader = opens().signs_in(served.token)
    assert reader.page.locator('[data-facet="account"] [data-value]').all_inner_texts() == ["empty\n?", "default\n287"]
    assert reader.page.locator('#suggestions option[value="account:empty"]').count() == 1
    assert reader.page.locator('#suggestions option[value="region:eu-west-1"]').count() == 1
    reader.searches("account:default ")
    assert len(reader.column("server")) == 50
    reader.page.click("#share")
    assert "account=default" in reader.page.inner_text("#sheet .command >> nth=0")


# ---------------------------------------------------------------- search, order, address

def test_search_chips_and_back(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    page = reader.page
    page.click('[data-facet="party"] [data-value="aws"]')
    assert reader.column("party") == ["aws"] * 12
    assert page.url.endswith("#q=party:aws")
    reader.searches("web")
    names = reader.column("server")
    assert names
    assert all("web" in name for name in names)
    assert len(names) < 12
    page.click('[data-facet="party"] [data-value="qcloud"]')                    # the same key twice: either
    assert set(reader.column("party")) == {"aws", "qcloud"}
    assert "web" in page.url
    page.go_back()
    assert reader.column("server") == names
    assert page.input_value("#search") == "web"
    page.go_back()
    assert "287 servers" in reader.text().replace("\n", " ")
    reader.searches("status:SHUTOFF ")
    assert set(reader.column("status")) == {"SHUTOFF"}
    assert page.input_value("#search") == ""
    assert "status:SHUTOFF" in page.url
    page.keyboard.press("Backspace")
    assert "SHUTOFF" not in page.url


SEARCHES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "name:hehe": lambda row: "hehe" in row["instance_name"],
    "cpu:>8": lambda row: row["cpu_num"] > 8,
    "mem:<=2": lambda row: row["mem_size"] <= 2,
    "-party:qcloud": lambda row: row["party"] != "qcloud",
    "region:us-*": lambda row: row["region"].startswith("us-"),
    "ip:10.0.0.0/28": lambda row: any(int(ip.rpartition(".")[2]) < 16 for ip in row["lan_ip_set"].split(",")
                                      if ip.startswith("10.0.0.")),
    "ip:192.168.0.3": lambda row: "192.168.0.3" in row["lan_ip_set"].split(","),
    "tag:role=web": lambda row: row["tags"].get("role") == "web",
    "wan: ip:122.*": lambda row: False,
    "status:active cpu:16": lambda row: row["status"] == "ACTIVE" and row["cpu_num"] == 16,
    "10.0.0.2": lambda row: "10.0.0.2" in row["lan_ip_set"].split(","),
}


@pytest.mark.slow
def test_search_finds_what_it_says(served: App, opens: Opens) -> None:
    """One page for all searches; Escape clears what was searched for."""
    reader = opens().signs_in(served.token, fragment="#columns=server,id")
    rows = served.get("party=all&tenant_id=123&region=all&max_age=9999").json()["vm_servers"]
    for text, fits in SEARCHES.items():
        reader.page.fill("#search", text)
        reader.page.press("#search", "Enter")
        expected = [row["instance_id"] for row in rows if fits(row)]
        assert reader.column("id") == expected[:50], text
        assert len(expected) < len(rows), text
        reader.page.press("#search", "Escape")
        assert reader.column("id") == [row["instance_id"] for row in rows][:50], text


@pytest.mark.slow
def test_columns_sort_naturally_and_addresses_as_numbers(served: App, opens: Opens) -> None:
    machines(served, *[replace(one, lan=(address,), cpu=cpu) for one, address, cpu in zip(
        named("web-10", "web-9", "Web-1", ""), ("10.0.0.10", "10.0.0.9", "9.255.0.1", "10.0.1.0"), (2, 16, 4, 1),
        strict=True)])
    reader = opens().signs_in(served.token)
    page = reader.page

    def sorts(column: str) -> list[str]:
        page.click(f"th.c-{column} .head")
        return reader.column(column)

    assert sorts("server") == ["Web-1", "web-9", "web-10", "(no name)"]
    assert page.get_attribute("th.c-server", "aria-sort") == "ascending"
    assert sorts("server") == ["web-10", "web-9", "Web-1", "(no name)"]
    assert "sort=-server" in page.url
    assert sorts("lan") == ["9.255.0.1", "10.0.0.9", "10.0.0.10", "10.0.1.0"]
    assert sorts("cpu") == ["1", "2", "4", "16"]
    assert page.locator("[aria-sort]").count() == 1


def test_a_link_holds_the_view_and_a_server_has_one(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#q=party:aws&sort=-lan&columns=server,lan&tenant=123")
    page = reader.page
    assert len(reader.column("lan")) == 12
    assert page.locator("#place th").count() == 2
    reader.page.click("#place tbody tr >> nth=3 >> .open")
    page.wait_for_selector("#drawer[open]")
    name, link = page.inner_text("#drawer-title"), page.get_attribute("#drawer footer [data-copy]", "data-copy")
    page.go_back()
    assert not page.is_visible("#drawer")
    assert "server=" not in page.url
    other = opens()
    other.page.goto(link)
    several = served.issue(served.user("bob", ("123", "7")))    # the link holds the tenant, so nobody is asked
    put(served, "7", "aws")
    other.page.fill("#token", several)
    other.page.click("#signin-form button")
    other.page.wait_for_selector("#drawer[open]")
    assert other.page.input_value("#tenant") == "123"
    assert other.page.inner_text("#drawer-title") == name
    assert "tc_" not in link


@pytest.mark.slow
def test_columns_are_chosen_and_kept_in_the_address(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    page = reader.page
    page.click("#choose-columns")
    page.check('#sheet input[value="zone"]')
    page.uncheck('#sheet input[value="created"]')
    page.keyboard.press("Escape")
    assert page.locator("th.c-zone").count() == 1
    assert page.locator("th.c-created").count() == 0
    assert "zone" in page.url
    page.click("#share")
    assert "columns=" in page.inner_text("#sheet")


def opens_and_closes_the_second(reader: Reader) -> None:
    """By keys alone, from the search field; afterwards the focus is on its row again."""
    page, press = reader.page, reader.page.keyboard.press
    press("ArrowDown")
    press("ArrowDown")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == reader.column("server")[1]
    press("Enter")
    page.wait_for_selector("#drawer[open]")
    assert page.inner_text("#drawer-title") == focused
    press("Escape")
    page.wait_for_selector("#drawer", state="hidden")
    assert page.evaluate("document.activeElement.textContent") == focused


def test_it_can_be_used_with_the_keyboard_alone(served: App, opens: Opens) -> None:
    reader = opens().goes()
    page, press = reader.page, reader.page.keyboard.press
    page.keyboard.type(served.token)        # the cursor is there
    press("Enter")
    page.wait_for_selector("#place table")
    press("/")
    page.keyboard.type("party:aws web")
    press("Enter")
    names = reader.column("server")
    assert page.url.endswith("q=party:aws+web")
    press("Escape")
    assert page.evaluate("document.activeElement.id") != "search"
    press("/")
    page.keyboard.type("party:aws ")
    opens_and_closes_the_second(reader)
    assert names
    press("?")
    assert page.is_visible("#sheet[open]")
    assert page.inner_text("#live")


@pytest.mark.slow
def test_a_click_copies(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    reader.page.click("#place tbody tr >> nth=0 >> td.c-lan .copy")
    reader.page.wait_for_selector("#toast:not(:empty)")
    assert reader.page.evaluate("navigator.clipboard.readText()") == reader.column("lan")[0].split(" ")[0]
    assert not reader.page.is_visible("#drawer")


# ---------------------------------------------------------------- hostile names

def test_names_are_text_and_hidden_signs_are_spelled_out(served: App, opens: Opens) -> None:
    machines(served, *[replace(one, tags={"<b>x</b>": "javascript:alert(1)", "site": "https://example.com/?q=<i>"})
                       for one in named(*HOSTILE)])
    reader = opens().signs_in(served.token, fragment="#columns=server,id,tags")
    page = reader.page
    shown = reader.column("server")
    assert shown[0] == HOSTILE[0]
    assert shown[2] == r"web\u{202e}gnp.exe"
    assert shown[3] == r"zero\u{200b}width"
    assert shown[8] == "(no name)"
    assert page.locator("#place img, #place b, #place i, #place script").count() == 0
    assert page.locator("#place tbody td.c-server bdi").count() == len(HOSTILE) - 1
    for n in (0, 2):
        page.click(f"#place tbody tr >> nth={n} >> .open")
        page.wait_for_selector("#drawer[open]")
        if n == 2:
            assert r"web\u{202e}gnp.exe" in page.inner_text("#drawer .spelled")
        assert page.locator("#drawer img, #drawer b, #drawer i").count() == 0
        (link,) = page.locator("#drawer dd a").all()            # https alone becomes a link, and tells nothing of us
        assert link.get_attribute("href").startswith("https://example.com")
        assert link.get_attribute("rel") == "noopener noreferrer"
        page.keyboard.press("Escape")
    reader.searches('name:"<img src=x onerror=alert(1)>" ')
    assert len(reader.column("server")) == 1
    assert page.locator("#chips img").count() == 0


def test_what_gets_into_the_page_does_not_run(served: App, opens: Opens) -> None:
    """The policy holds where our own care would not: trusted types, no inline code, no other host."""
    reader, stopped = opens().signs_in(served.token), []
    reader.page.on("requestfailed", lambda request: stopped.append((request.url, request.failure)))
    tried = reader.page.evaluate("""async () => {
        const tried = [], attempt = (name, act) => { try { act(); tried.push(name); } catch {} };
        attempt("markup", () => { document.body.innerHTML += "<b>x</b>"; });
        attempt("insert", () => document.body.insertAdjacentHTML("beforeend", "<b>x</b>"));
        attempt("source", () => {
            const made = document.createElement("script"); made.src = "https://example.com/x.js";
            document.body.append(made);
        });
        try { await fetch("https://example.com/"); tried.push("fetch"); } catch {}
        const image = new Image();
        image.src = "https://example.com/leak.png";
        await new Promise((done) => { image.onerror = image.onload = done; });
        return tried; }""")
    assert tried == []
    assert all("Content Security Policy" in fault or "Trusted" in fault or "Fetch API" in fault
               for fault in reader.faults)
    assert reader.faults
    assert ("https://example.com/leak.png", "csp") in stopped
    assert {why for _, why in stopped} == {"csp"}
    reader.faults.clear()
    reader.requests = [url for url in reader.requests if url not in dict(stopped)]


def test_another_site_cannot_frame_it(served: App, opens: Opens, engine: Any) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f'<iframe src="{served.url}/twocloud/"></iframe>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    context = engine.new_context()
    page, messages = context.new_page(), []
    page.on("console", lambda line: messages.append(line.text))
    page.goto(f"http://localhost:{other.server_address[1]}/")
    page.wait_for_timeout(300)
    assert any("frame-ancestors" in line for line in messages)
    assert all(frame.query_selector("#token") is None for frame in page.frames)
    context.close()
    other.shutdown()
    other.server_close()


# ---------------------------------------------------------------- exports

FORMS = {"csv": "", "json": "", "ndjson": "", "prometheus": "&port=9100&address=wan", "ansible": ""}


def test_an_export_is_what_the_api_writes(served: App, opens: Opens) -> None:
    every = [replace(one, tags={"a-b": "1", "a.b": "2", "名": "值", "__ansible_x": "{{ y }}", "empty": ""} if n % 2
                     else {}, cpu=n + 1, wan=one.wan if n % 3 else (),
                     lan=(f"10.0.0.{n}",), state="stopped" if n < 4 else "running")
             for n, one in enumerate(named(*HOSTILE, "twice", "twice", "all"))]
    machines(served, *every)
    query = "party=all&tenant_id=123&region=all&max_age=9999"
    served.get(query)                       # both read the list that is kept from now on
    reader = opens().signs_in(served.token)

    def saved(forms: Iterable[str]) -> dict[str, bytes]:
        reader.page.click("#share")
        reader.page.fill("#port", "9100")
        reader.page.select_option("#address", "wan")
        files = {form: reader.saves(form) for form in forms}
        reader.page.keyboard.press("Escape")
        return files

    whole = {form: served.get(f"{query}&format={form}{more}" + ("&on_error=partial" if form == "json" else ""))
             for form, more in FORMS.items()}
    for form, content in saved(FORMS).items():
        assert whole[form].status_code == 200, form
        assert content == whole[form].content, form
    reader.searches("status:SHUTOFF ")
    for form, content in saved(FORMS.keys() - {"json"}).items():                # in JSON the counts stay the whole's
        part = served.get(f"{query}&format={form}{FORMS[form]}&status=SHUTOFF")
        assert content == part.content, form
        assert content != whole[form].content, form


@pytest.mark.slow
def test_the_command_gives_what_is_shown(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#q=party:aws+status:SHUTOFF+-name:web")
    reader.page.click("#share")
    curl, command = reader.page.locator("#sheet .command pre").all_inner_texts()[:2]
    assert "$TWOCLOUD_TOKEN" in curl
    assert "tc_" not in reader.page.inner_text("#sheet")
    query = re.search(r"servers\?([^']+)'", curl)[1]            # type: ignore[index]
    reader.page.fill("#port", "70000")
    reader.page.click('[data-format="prometheus"]')             # the API would refuse it, and so nothing is saved
    assert reader.page.evaluate("document.activeElement.id") == "port"
    assert query == "party=aws&tenant_id=123&region=all&on_error=partial&status=SHUTOFF"
    assert (
        command
        == f"twocloud servers --url {served.url} --party aws --tenant 123 --region all --on-error partial "
           f"--status SHUTOFF"
    )
    assert served.get(query).status_code == 200
    assert "-name:web" in reader.page.inner_text("#sheet")


# ---------------------------------------------------------------- honest states

def test_a_cloud_that_fails_is_named_and_no_format_hides_it(served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["partial"]
    assert "Amazon EC2" in reader.page.inner_text("#notices")
    assert reader.page.get_attribute("#notices bdi", "title") == "aws"
    assert "party_unavailable" in reader.page.inner_text("#notices")
    assert set(reader.column("party")) == {"qcloud"}
    reader.page.click("#share")
    assert reader.page.locator("[data-format]:disabled").count() == 4           # json has room to say it
    body = json.loads(reader.saves("json"))
    assert body["complete"] is False
    assert any(one["state"] == "failed" for one in body["sources"])
    reader.page.keyboard.press("Escape")
    reader.searches("party:qcloud ")
    reader.page.click("#share")
    # the one that failed could add nothing here
    assert reader.page.locator("[data-format]:disabled").count() == 0


@pytest.mark.slow
def test_an_old_list_is_marked_with_its_age(served: App, opens: Opens) -> None:
    served.get("party=all&tenant_id=123&region=all")
    served.clock.forward(3 * 3600)
    served.clouds["aws"].fail("503")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["stale"]
    assert "3 hours ago" in reader.page.inner_text("#notices")
    assert "party_unavailable" in reader.page.inner_text("#notices")
    assert "as of 3 hours ago" in reader.page.inner_text("#asof")
    assert reader.page.locator("tr.old").count() == 12
    assert reader.page.locator("tr:not(.old) td.c-party:has-text('aws')").count() == 0
    reader.page.click("#sources")
    old = reader.page.locator("#sheet tr.stale th").all_inner_texts()
    assert old
    assert all(name.startswith("Amazon EC2 ") for name in old)
    assert "party_unavailable" in reader.page.inner_text("#sheet")


def test_no_answer_at_all_is_not_an_empty_fleet(served: App, opens: Opens) -> None:
    for cloud in served.clouds.values():
        cloud.fail("reset")
    reader = opens().signs_in(served.token)
    assert reader.kinds() == ["offline"]
    assert "No cloud answered" in reader.text()
    assert "No servers" not in reader.text()


def test_empty_missing_forbidden_and_nothing_found_look_different(served: App, opens: Opens) -> None:
    store = served.deployment.store
    narrowed = opens().signs_in(served.issue(served.user("bob", ("123",))))
    users.change(store, "bob", lambda user: msgspec.structs.replace(user, tenants=("7",)))
    assert narrowed.refreshes().kinds() == ["forbidden"]
    put(served, "8", "aws")
    removed = opens().signs_in(served.issue(served.user("eve", ("8",))), wait="#place .instead:not(.loading)")
    accounts.remove(store, "8", "aws")
    assert removed.refreshes().kinds() == ["missing"]
    assert "tenant 8" in removed.text()
    reader = opens().signs_in(served.token)
    reader.searches("no such thing")
    assert reader.kinds() == ["noMatch"]
    reader.page.click("#place .instead button")
    assert len(reader.column("server")) == 50
    machines(served)
    reader.refreshes()
    assert reader.kinds() == ["empty"]
    assert "tenant 123" in reader.text()


def test_a_server_that_is_down_leaves_the_last_list_with_its_time(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    reader.page.route("**/servers?*", lambda route: route.abort("connectionrefused"))
    reader.page.click("#refresh")
    reader.page.wait_for_selector('[data-kind="offline"]')
    assert len(reader.column("server")) == 50
    assert "The list below is the one of" in reader.text()
    reader.faults.clear()


@pytest.mark.slow
def test_the_gateways_throttle_is_waited_for(served: App, opens: Opens) -> None:
    definition = yaml.safe_load(
        (ROOT / "chalicelib/packaging/merge.yaml").read_text())["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    body = definition["x-amazon-apigateway-gateway-responses"]["THROTTLED"]["responseTemplates"]["application/json"]
    reader = opens()
    reader.page.route("**/servers?*", lambda route: route.fulfill(
        status=429, body=body, headers={"Content-Type": "application/json", "Retry-After": "1"}), times=1)
    reader.signs_in(served.token)
    assert reader.kinds() == ["throttled"]
    assert "Too many requests" in reader.text()
    reader.page.wait_for_selector("#place table")               # tried again, by itself
    assert reader.kinds() == []


@pytest.mark.slow
def test_loading_is_shown_and_a_late_answer_is_dropped(served: App, opens: Opens) -> None:
    for cloud in served.clouds.values():
        cloud.latency = 1.5
    reader = opens().signs_in(served.token, wait='[data-kind="loading"]')
    assert "Querying every cloud" in reader.text()
    reader.page.wait_for_selector("#place table", timeout=40_000)
    reader.page.evaluate("""() => {         // the next answer is held back, and can no longer be called off
        const real = window.fetch;
        let held = false;
        window.fetch = async (url, options) => {
            if (held) return real(url, options);
            held = true;
            const answer = await real(url, { ...options, signal: undefined });
            await new Promise((done) => { window.letGo = done; });
            window.wasLate = true;
            return answer;
        };
    }""")
    for cloud in served.clouds.values():
        cloud.latency = 0
    reader.page.click("#refresh")
    reader.until("Boolean(window.letGo)")
    machines(served, *named("the-only-one"))
    reader.page.click("#refresh")
    reader.until("document.querySelectorAll('#place tbody tr').length === 1")
    reader.page.evaluate("window.letGo()")
    reader.until("window.wasLate")
    reader.page.wait_for_timeout(100)
    assert reader.column("server") == ["the-only-one"]


@pytest.mark.slow
def test_refreshing_goes_on_until_it_is_paused(served: App, opens: Opens) -> None:
    reader = opens()
    reader.page.clock.install()
    reader.signs_in(served.token)
    count = lambda: sum("/servers?" in url for url in reader.requests)  # noqa: E731
    assert count() == 1
    with reader.page.expect_response(lambda answer: "max_age=300" in answer.url):
        reader.page.clock.run_for(62_000)
    reader.page.click("#pause")
    before = count()
    reader.page.clock.run_for(200_000)
    assert count() == before == 2
    assert "paused" in reader.page.inner_text("#asof")


# ---------------------------------------------------------------- times, sizes

@pytest.mark.sample(3)
@pytest.mark.parametrize(("zone", "here"), [("Asia/Shanghai", "America/New_York"),
                                            ("America/St_Johns", "Pacific/Auckland")])
def test_times_are_right_in_every_zone(served: App, opens: Opens, zone: str, here: str) -> None:
    # it is frozen
    served.change_settings(timezone=ZoneInfo(zone))
    made = datetime.fromtimestamp(served.clock.now, UTC) - timedelta(hours=3, seconds=5)
    machines(served, *[replace(one, created=made) for one in named("web")])
    reader = opens(timezone_id=here).signs_in(served.token)
    assert reader.column("created") == ["3 hours ago"]
    title = reader.page.get_attribute("td.c-created time", "title")
    assert made.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") in title


def long_rows(size: int) -> list[Machine]:
    fleet = Fleet(size)
    return [replace(fleet[n], tags={**fleet[n].tags, "note": "x" * 150}) for n in range(size)]


@pytest.mark.slow
def test_ten_thousand_servers(served: App, opens: Opens) -> None:
    """More than one answer carries, so it is asked for in parts; a page of rows is in the document, never all."""
    served.clouds["qcloud"].fleets["ap-guangzhou"] = Machines(long_rows(10_000))      # type: ignore[attr-defined]
    served.clouds["qcloud"].rates.clear()   # type: ignore[attr-defined]
    reader = opens().goes()
    reader.page.context.set_default_timeout(100_000)
    reader.signs_in(served.token)
    assert "10,262 servers" in reader.text().replace("\n", " ")
    assert len(reader.column("server")) == 50
    assert any("f=4001" in url for url in reader.requests)
    times = measured(reader)
    assert times["10,000"] < 40 * times["100"] + 0.1            # it would be 100 times if every row were drawn
    reader.page.click("#page-after")
    assert "51–100" in reader.page.inner_text("#page-text")
    assert "page=2" in reader.page.url


def measured(reader: Reader) -> dict[str, float]:
    """Seconds from a letter in the search to the rows being laid out: over all servers, and over a hundred."""
    filters = """(text) => { const box = document.querySelector("#search"), began = performance.now();
        box.value = text; box.dispatchEvent(new Event("input")); document.body.offsetHeight;
        return performance.now() - began; }"""

    def median() -> float:
        return sorted(reader.page.evaluate(filters, text)
                      for text in ("w", "we", "web", "web-1", "web-12") * 3)[7] / 1000

    milliseconds = {"10,000": median()}
    reader.page.evaluate(filters, "")
    reader.page.evaluate("window.scrollTo(0, 0)")
    milliseconds["100"] = reader.page.evaluate(filters, "nothing at all") / 1000 + 0.002
    reader.page.evaluate(filters, "")
    return milliseconds


# ---------------------------------------------------------------- the API's reference

@pytest.mark.slow
def test_the_reference_shows_every_operation_and_parameter(served: App, opens: Opens) -> None:
    document = served.get("", token="", path="/twocloud/openapi.json").json()
    reader = opens()
    reader.page.goto(f"{served.url}/twocloud/docs")
    reader.page.wait_for_selector(".operation")
    text = reader.text()
    for path, methods in document["paths"].items():
        assert path in text, path
        for operation in methods.values():
            if "get" not in methods or operation is not methods.get("head"):
                assert operation["summary"] in text
                for parameter in operation.get("parameters", []):
                    assert parameter["description"].split("`")[0][:60].strip() in text, parameter["name"]
    identifiers = Counter(reader.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)"))
    for name in document["components"]["schemas"]:
        assert identifiers[f"schema-{name}"] == 1, name
    targets = set(reader.page.eval_on_selector_all("a[href^='#']",
                                                   "all => all.map(one => one.getAttribute('href').slice(1))"))
    assert targets
    assert targets <= identifiers.keys()
    assert violations(reader) == []


@pytest.mark.slow
def test_the_reference_in_the_dark_on_a_phone(served: App, opens: Opens) -> None:
    dark = opens(color_scheme="dark", viewport=PHONE)
    dark.page.goto(f"{served.url}/twocloud/docs")
    dark.page.wait_for_selector(".operation")
    assert violations(dark) == []
    assert dark.wide() <= PHONE["width"]


# ---------------------------------------------------------------- for everybody

def violations(reader: Reader) -> list[str]:
    if not reader.page.evaluate("'axe' in window"):
        reader.page.evaluate(browser.axe())                     # by the debugger's own door, which no policy closes
    report = reader.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}" for one in report["violations"]
            for node in one["nodes"]]


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["en-GB", pytest.param("zh-CN", marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_in_any_state(served: App, opens: Opens, scheme: str, locale: str) -> None:
    machines(served, *[replace(one, tags={"site": "https://example.com/"}, state=state) for one, state in zip(
        named(*HOSTILE), ["running", "stopped", "pending", "starting"] * 3, strict=False)])
    served.get("party=aws&tenant_id=123&region=all")            # aws has a snapshot, which then ages
    served.get("party=all&tenant_id=123&region=all")
    reader = opens(color_scheme=scheme, locale=locale, reduced_motion="reduce").goes()
    page = reader.page
    assert page.get_attribute("html", "lang") == ("zh-CN" if locale == "zh-CN" else "en")
    assert violations(reader) == []
    reader.signs_in(served.token)
    assert violations(reader) == []
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")    # this once in the other colours, too
    assert violations(reader) == []
    page.emulate_media(color_scheme=scheme)
    for opener in ("#place tbody tr >> nth=2", "#share", "#choose-columns", "#keys", "#sources"):
        page.click(opener)
        page.wait_for_selector("dialog[open]")
        page.wait_for_timeout(50)
        assert violations(reader) == [], opener
        page.keyboard.press("Escape")
    page.click("#view-changes")
    page.wait_for_selector("#place .instead.empty")             # test_console_changes.py has changes
    assert violations(reader) == []
    page.click("#view-fleet")
    reader.searches("nothing like it")
    assert violations(reader) == []
    reader.searches("")
    served.clock.forward(7200)
    served.clouds["qcloud"].fail("503")
    served.clouds["aws"].fail("401")
    with page.expect_response(lambda answer: "/servers?" in answer.url):
        page.click("#refresh")
    page.wait_for_selector('[data-kind="stale"]')
    assert violations(reader) == []
    page.click("#signout")
    put(served, "7", "aws")
    reader.goes()
    page.fill("#token", served.issue(served.user("bob", ("123", "7"))))
    page.click("#signin-form button")
    page.wait_for_selector(CHOOSER)
    assert violations(reader) == []
    page.click("#choose-form button[type=submit]")
    page.wait_for_selector(LISTED)
    assert page.input_value("#tenant") == "all"
    assert violations(reader) == []
    page.select_option("#tenant", "123")
    reader.until("document.title.includes(' 123 ') && !document.querySelector('[data-kind=loading]')")
    users.change(served.deployment.store, "bob", lambda user: msgspec.structs.replace(user, tenants=("8",)))
    reader.refreshes()
    assert reader.kinds() == ["forbidden"]
    assert violations(reader) == []


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True},
                                     {"viewport": {"width": 650, "height": 425}, "device_scale_factor": 2}])
def test_a_phone_and_two_hundred_per_cent_need_no_sideways_scrolling(served: App, opens: Opens,
                                                                     options: dict[str, Any]) -> None:
    machines(served, *named(*HOSTILE, "a-very-long-name-" * 12))
    served.clouds["aws"].fail("reset")
    reader = opens(**options)
    width = options["viewport"]["width"]
    assert reader.goes().wide() <= width
    reader.signs_in(served.token)
    assert reader.wide() <= width
    assert reader.column("server")
    reader.page.click("#facets-fold summary")
    assert reader.wide() <= width
    for opener in ("#share", "#choose-columns", "#sources", "#place tbody tr >> nth=10"):
        reader.page.click(opener)
        reader.page.wait_for_selector("dialog[open]")
        assert reader.wide() <= width, opener
        assert reader.page.evaluate("document.querySelector('dialog[open]').scrollWidth <= innerWidth"), opener
        reader.page.keyboard.press("Escape")
    assert violations(reader) == []


@pytest.mark.slow
def test_the_language_is_the_readers_and_can_be_changed(served: App, opens: Opens) -> None:
    reader = opens(locale="zh-CN").signs_in(served.token)
    assert "台服务器" in reader.text()
    assert reader.column("created")[0].endswith("前")
    reader.page.click("#language")
    assert "Sign out" in reader.text()
    assert "lang=en" in reader.page.url
