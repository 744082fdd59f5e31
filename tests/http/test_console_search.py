"""The console's search, order, columns and addresses; the keyboard."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.fixtures import App
from tests.http.reader import Opens, clock, engine, machines, named, opens, opens_and_closes_the_second
from tests.http.test_me import put

__all__ = ["clock", "engine", "opens"]


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
