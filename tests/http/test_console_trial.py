"""Fifteen tasks with the demo's clouds, as an SRE, a buyer and somebody on call with a phone would do them: by visible
names, with no more clicks than docs/console.md says."""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests import ROOT
from tests.http.console_pictures import PHONE, Demo, served

LAPTOP = {"viewport": {"width": 1440, "height": 900}}
EVERYTHING = {"party": "all", "tenant_id": "all", "region": "all", "on_error": "partial", "max_age": "9999"}
pytestmark = pytest.mark.slow


def servers_of(demo: Demo) -> list[dict[str, Any]]:
    return requests.get(f"{demo.url}/twocloud/servers", EVERYTHING, auth=(demo.token, ""), timeout=60).json()[
        "vm_servers"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with served(tmp_path_factory.mktemp("trial")) as made:
        yield made


@dataclass
class Person:
    """Somebody who knows only what is visible. A choice in a list counts as two clicks; so does a tap as one."""

    page: Any
    demo: Demo
    clicks: int = 0
    typed: int = 0
    faults: list[str] = field(default_factory=list)

    def clicks_on(self, role: str, name: str | re.Pattern[str], within: Any = None, *, exact: bool = False) -> None:
        self.clicks += 1
        (within or self.page).get_by_role(role, name=name, exact=exact).first.click()

    def chooses(self, name: str, label: str) -> None:
        self.clicks += 2
        self.page.get_by_label(name, exact=True).filter(visible=True).select_option(label=label)

    def types(self, text: str) -> None:
        """Into the search, which a click or `/` leads to."""
        self.clicks += 1
        self.typed += len(text)
        box = self.page.get_by_role("combobox", name="Search")
        box.click()
        box.press_sequentially(text)

    def filters_by(self, name: str) -> None:
        self.clicks_on("button", re.compile(name), self.page.get_by_role("navigation", name="Filters and counts"))

    def sees(self, text: str | re.Pattern[str], within: str = "body") -> None:
        """On this screen, without scrolling."""
        place = self.page.locator(within).get_by_text(text).filter(visible=True).first
        place.wait_for()
        box = place.bounding_box()
        assert box["y"] + box["height"] <= self.page.viewport_size["height"], text

    def downloads(self, name: str) -> str:
        with self.page.expect_download() as download:
            self.clicks_on("button", name, exact=True)
        return download.value.path().read_text()

    def clipboard(self) -> str:
        self.page.get_by_text(re.compile("^Copied ")).first.wait_for()
        return self.page.evaluate("navigator.clipboard.readText()")

    def row(self, name: str) -> list[str]:
        cells = self.page.get_by_role("region", name="Servers by").get_by_role("row").filter(has_text=name)
        return cells.first.get_by_role("cell").all_inner_texts()


def numbers(text: str) -> int:
    return int(re.sub(r"\D", "", text))


# ---------------------------------------------------------------- an SRE at a laptop

def an_address(one: Person) -> None:
    one.types("10.0.0.7")
    addresses = one.page.locator("#place tbody td:is(.c-lan, .c-wan)").all_inner_texts()
    assert sum(text.startswith("10.0.0.7") for text in addresses) > 1
    assert not any(re.match(r"10\.0\.0\.7\d", text) for text in addresses)


def what_fails(one: Person) -> None:
    one.sees("The cloud cannot be reached.", "#notices")
    one.sees("Amazon EC2", "#notices")
    one.sees(re.compile("as of"), "#notices")


def ssh(one: Person) -> None:
    one.types("tag:role=web ")
    one.filters_by("ACTIVE")
    one.clicks_on("button", "Copy addresses")
    one.clicks_on("button", "ssh config")
    rows = [row for row in servers_of(one.demo) if row["tags"].get("role") == "web" and row["status"] == "ACTIVE"]
    assert one.clipboard().count("Host ") == sum(bool(row["lan_ip_set"] or row["lan_ipv6_set"]) for row in rows) > 9


def since_yesterday(one: Person) -> None:
    one.clicks_on("button", "Changes", exact=True)
    one.sees("Changed", "#place ol")
    one.filters_by("Tencent Cloud CVM")
    shown = numbers(one.page.get_by_role("button", name=re.compile("^All ")).inner_text())
    bar = one.page.get_by_role("navigation", name="Filters and counts").get_by_role(
        "button", name=re.compile("Tencent Cloud CVM"))
    assert numbers(bar.inner_text()) == shown
    one.sees("→", "#place ol")


def a_link(one: Person) -> None:
    one.filters_by("Amazon EC2")
    one.clicks_on("button", "Export")
    one.clicks_on("button", re.compile(r"^Copy http.*#"))
    assert "party:aws" in one.clipboard()


# ---------------------------------------------------------------- a buyer

def by_cloud(one: Person) -> None:
    one.clicks_on("button", re.compile(r"^\d+ more"), one.page.locator("#matrix"))
    rows = servers_of(one.demo)
    for party, title in (("qcloud", "Tencent Cloud CVM"), ("hetzner", "Hetzner Cloud"), ("aws", "Amazon EC2")):
        those = [row for row in rows if row["party"] == party]
        assert list(map(numbers, one.row(title)[:2])) == [len(those), sum(row["cpu_num"] for row in those)]


def ending(one: Person) -> None:
    one.sees(re.compile(r"\d+ ends? within 30 days"), "#summary")


def stopped_and_paid(one: Person) -> None:
    one.filters_by("SHUTOFF")
    one.chooses("Rows of the matrix", "Charged")
    rows = [row for row in servers_of(one.demo) if row["status"] == "SHUTOFF"]
    assert numbers(one.row("prepaid")[0]) == sum(row["charge_type"] == "prepaid" for row in rows) > 0


def bill(one: Person) -> None:
    one.chooses("Group by", "Account")
    one.clicks_on("button", "Export")
    lines = list(csv.DictReader(one.downloads("csv").splitlines()))
    accounts = [line["account"] for line in lines]
    assert len(lines) == len(servers_of(one.demo))
    assert [name for n, name in enumerate(accounts) if name != accounts[n - 1]] == sorted(set(accounts))


def types(one: Person) -> None:
    one.chooses("Rows of the matrix", "Type")
    one.sees("S5.LARGE8", "#matrix")


# ---------------------------------------------------------------- on call, with a phone

def signs_in(one: Person) -> None:
    page = one.page
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token", exact=True).fill(one.demo.token)         # pasted
    one.clicks_on("button", "Show the servers")
    one.clicks_on("button", "Show the servers", page.locator("#choose-form"))
    page.get_by_role("table").first.wait_for()


def the_alert(one: Person) -> None:
    one.types("web-17")
    one.clicks_on("link", "web-17")


def runs(one: Person) -> None:
    the_alert(one)
    one.sees("ACTIVE", "#drawer")
    one.sees(re.compile("^as of "), "#drawer")


def own_console(one: Person) -> None:
    the_alert(one)
    link = one.page.get_by_role("link", name="Open in the cloud's console")
    assert link.get_attribute("href").startswith("https://")
    one.clicks += 1
    link.click(trial=True)


def another_tenant(one: Person) -> None:
    one.chooses("Tenant", "tenant 456")
    one.page.get_by_text(re.compile("^49")).first.wait_for()
    one.sees("49", "#summary")


TASKS: list[tuple[str, str, Callable[[Person], None]]] = [
    ("SRE", "find the servers with an address", an_address),
    ("SRE", "see which sources fail, and why", what_fails),
    ("SRE", "copy the running web servers as `ssh` config", ssh),
    ("SRE", "see what changed at one cloud since yesterday", since_yesterday),
    ("SRE", "send a colleague the view of one cloud", a_link),
    ("buyer", "count servers and vCPUs by cloud", by_cloud),
    ("buyer", "count the servers that end within 30 days", ending),
    ("buyer", "count the stopped servers that are prepaid", stopped_and_paid),
    ("buyer", "export all servers by account as CSV", bill),
    ("buyer", "see which types are used most", types),
    ("on call", "sign in and choose a tenant", signs_in),
    ("on call", "find the server that an alert names", the_alert),
    ("on call", "see whether it runs, and how old that is", runs),
    ("on call", "open it in the cloud's own console", own_console),
    ("on call", "change the tenant", another_tenant),
]


@pytest.mark.parametrize(("who", "task", "does"), TASKS, ids=[does.__name__ for _, _, does in TASKS])
def test_a_task_takes_no_more_clicks_than_the_docs_say(shown: Demo, who: str, task: str,
                                                       does: Callable[[Person], None]) -> None:
    page_text = (ROOT / "docs/console.md").read_text()
    (most,) = re.findall(rf"^\| {who} \| {re.escape(task)} \| (\d+) \|$", page_text, re.MULTILINE)
    context = shown.engine.new_context(locale="en-GB", timezone_id="UTC", reduced_motion="reduce",
                                       **(PHONE if who == "on call" else LAPTOP))
    context.set_default_timeout(10_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=shown.url)
    page = context.new_page()
    one = Person(page, shown)
    page.on("pageerror", lambda error: one.faults.append(str(error)))
    page.goto(f"{shown.url}/twocloud/")
    page.fill("#token", shown.token)
    page.click("#signin-go")
    page.get_by_label("Tenant", exact=True).filter(visible=True).select_option("123" if who == "on call" else "all")
    page.click("#choose-form button[type=submit]")
    page.wait_for_selector("#place table")
    try:
        if does is what_fails:
            for cloud in shown.clouds["aws"]:
                cloud.fail("reset")
            page.get_by_role("button", name="Refresh").click()
            page.wait_for_selector("#notices [data-kind]")
        does(one)
        assert one.faults == []
        assert one.clicks == int(most)
    finally:
        for cloud in shown.clouds["aws"]:
            cloud.plans.clear()
        context.close()
