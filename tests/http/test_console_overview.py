"""Signing in by password, and the console's answer to "what do we have?": totals, matrix, groups, facets, addresses,
and the details beside the table. In a real Chromium."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.canaries import secret
from tests.fixtures import App
from tests.http import long_fleet
from tests.http.reader import (
    CHOOSER,
    HOSTILE,
    LISTED,
    PHONE,
    Opens,
    Reader,
    clock,
    engine,
    machines,
    named,
    opens,
    two_tenants,
    violations,
)

__all__ = ["clock", "engine", "opens"]

QUERY = "party=all&tenant_id=123&region=all&max_age=9999"


def rows(served: App) -> list[dict[str, Any]]:
    return served.get(QUERY).json()["vm_servers"]


def changed(reader: Reader, change: Callable[[dict[str, Any]], None]) -> None:
    """The API's answers, as if the clouds had said something else."""
    def answer(route: Any) -> None:
        response = route.fetch()
        body = response.json()
        for row in body["vm_servers"]:
            change(row)
        route.fulfill(response=response, body=json.dumps(body))

    reader.page.route("**/servers?*", answer)


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


# ---------------------------------------------------------------- signing in

def enter(reader: Reader, user: str, password: str) -> None:
    reader.page.fill("#user", user)
    reader.page.fill("#password", password)
    reader.page.keyboard.press("Enter")


def test_a_password_is_sent_once_and_its_token_ends_with_the_session(served: App, opens: Opens) -> None:
    password = secret("console") + ":ü"
    served.user("bob", ("123",), password)
    reader = opens().goes()
    page, sent = reader.page, list[tuple[str, str, str]]()
    page.on("request", lambda request: sent.append((request.method, request.url.rpartition("/")[2].partition("?")[0],
                                                    request.headers.get("authorization", ""))))
    enter(reader, "bob", password)
    page.wait_for_selector("#place table")
    assert [(method, path) for method, path, _ in sent] == [("POST", "tokens"), ("GET", "me"), ("GET", "servers"),
                                                            ("GET", "parties")]
    assert sent[1][2] == sent[2][2] != sent[0][2]
    assert page.input_value("#password") == ""
    assert password not in page.content()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    headers = {"Authorization": sent[1][2]}
    assert served.session.get(f"{served.url}/twocloud/me", headers=headers).status_code == 200
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.click("#signout")
    assert served.session.get(f"{served.url}/twocloud/me", headers=headers).status_code == 401
    page.reload()
    assert page.is_visible("#signin-card")


@pytest.mark.slow
def test_a_session_by_password_is_kept_for_the_tab_if_that_is_wanted(served: App, opens: Opens) -> None:
    password = secret("console")
    two_tenants(served)
    served.user("carl", ("123", "7"), password)
    reader = opens().goes()
    page = reader.page
    page.check("#keep")
    enter(reader, "carl", password)
    page.wait_for_selector(CHOOSER)
    page.select_option("#choose-tenant", "7")
    page.click("#choose-form button[type=submit]")
    page.wait_for_selector(LISTED)
    page.reload()
    page.wait_for_selector(LISTED)
    assert page.input_value("#tenant") == "7"
    assert password not in page.evaluate("JSON.stringify(sessionStorage)")
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as ended:
        page.click("#signout")
    assert ended.value.status == 204
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.slow
def test_a_wrong_password_says_so_and_is_limited(served: App, opens: Opens) -> None:
    served.user("bob", ("123",), secret("console"))
    reader = opens().goes()
    page, texts = reader.page, []
    for _ in range(6):
        with page.expect_response(lambda answer: answer.url.endswith("/tokens")):
            enter(reader, "bob", "not it")
        page.wait_for_selector("#signin-problem:not([hidden])")
        reader.until("!document.querySelector('#password-go').disabled")
        texts.append(page.inner_text("#signin-problem"))
    assert "were refused" in texts[0]
    assert "Too many requests" in texts[-1]
    assert page.input_value("#user") == "bob"
    assert violations(reader) == []


# ---------------------------------------------------------------- what do we have

def matrix(reader: Reader) -> dict[str, list[str]]:
    """The cells by the row's value: servers, vCPUs, then the statuses by their heads."""
    return {row.get_attribute("data-row"): row.locator("td").all_inner_texts()
            for row in reader.page.locator("#matrix tbody tr").all()}


def test_totals_and_the_matrix_count_what_the_api_lists(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    page, every = reader.page, rows(served)
    totals = page.locator("#summary .number strong").all_inner_texts()
    assert [number(text) for text in totals[:2]] == [len(every), sum(row["cpu_num"] for row in every)]
    assert totals[2] == f"{sum(row['mem_size'] for row in every):,} GB"
    heads = page.locator("#matrix thead th").all_inner_texts()[3:]
    for party, cells in matrix(reader).items():
        those = [row for row in every if row["party"] == party]
        statuses = Counter(row["status"] for row in those)
        assert [number(cell) if cell != "·" else 0 for cell in cells] == [
            statuses.total(), sum(row["cpu_num"] for row in those), *(statuses[head.strip()] for head in heads)]
    assert matrix(reader).keys() == {"aws", "qcloud"}
    off = heads.index("SHUTOFF")
    page.click(f"#matrix tr[data-row=qcloud] td >> nth={off + 2} >> button")
    assert "q=party:qcloud+status:SHUTOFF" in page.url
    assert set(reader.column("status")) == {"SHUTOFF"}
    assert set(reader.column("party")) == {"qcloud"}
    page.click("#matrix tr[data-row=qcloud] td >> nth=0 >> button")             # the cloud's chip goes away again
    assert page.url.endswith("#q=status:SHUTOFF")


@pytest.mark.slow
@pytest.mark.parametrize(("by", "value_of"), [
    ("region", lambda row: row["region"]), ("type", lambda row: row["instance_type"]),
    ("charge", lambda row: row["charge_type"] or "?"),
    ("zone", lambda row: row["zone"]), ("tag:role", lambda row: row["tags"].get("role", "?"))])
def test_the_matrix_and_the_groups_are_of_what_is_chosen(served: App, opens: Opens, by: str,
                                                         value_of: Callable[[dict[str, Any]], str]) -> None:
    reader = opens().signs_in(served.token)
    page, counts = reader.page, Counter(map(value_of, rows(served)))
    page.select_option("#by", by)
    page.select_option("#group", by)
    assert f"by={by}" in page.url.replace("%3A", ":")
    assert f"group={by}" in page.url.replace("%3A", ":")
    if page.locator("[data-focus='whole matrix']").count():
        page.click("[data-focus='whole matrix']")
    assert {value: number(cells[0]) for value, cells in matrix(reader).items()} == counts
    first = page.locator("#place tbody").first
    value = first.get_attribute("data-group")
    assert f"{counts[value]} server" in first.locator("tr.group").inner_text()
    assert first.locator("tr[data-key]").count() == min(50, counts[value])
    first.locator("tr.group button").click()                    # a group's name filters
    assert number(page.inner_text(".number strong >> nth=0")) == counts[value]
    page.reload()
    reader.signs_in(served.token, fragment=page.url.partition("/twocloud/")[2])
    assert page.input_value("#by") == page.input_value("#group") == by
    assert number(page.inner_text(".number strong >> nth=0")) == counts[value]


def test_an_unknown_value_makes_a_total_a_lower_bound(served: App, opens: Opens) -> None:
    reader = opens()
    changed(reader, lambda row: row.update(mem_size=None, disk_size=None) if row["party"] == "aws" else
            row.update(disk_size=None))
    reader.signs_in(served.token)
    page, every = reader.page, rows(served)
    known = sum(row["mem_size"] for row in every if row["party"] == "qcloud")
    memory = page.locator("[data-total=memTotal]")
    assert memory.locator("strong").inner_text() == f"≥ {known:,} GB"
    assert "12 servers do not state it" in memory.inner_text()
    assert page.inner_text("[data-total=diskTotal] strong") == "?"
    assert "≥" not in page.inner_text("[data-total=cpuTotal]")
    assert violations(reader) == []


def test_a_source_that_failed_makes_every_count_that_it_could_raise_a_lower_bound(
        served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token)
    page = reader.page
    assert page.inner_text(".number >> nth=0").startswith("≥ 275")
    assert next(iter(matrix(reader))) == "aws"                  # above the others, not behind "more"
    assert matrix(reader)["aws"][0] == "?"
    assert number(matrix(reader)["qcloud"][0]) == 275
    assert "≥" not in matrix(reader)["qcloud"][0]
    assert page.inner_text('[data-facet="party"] [data-value="aws"] .n') == "?"
    assert page.inner_text('[data-facet="status"] [data-value="ACTIVE"] .n').startswith("≥")
    assert "lower bounds" in page.inner_text("#lower-bounds")
    page.click("th.c-server .head")
    assert page.inner_text(".number >> nth=0").startswith("≥ 275")
    reader.searches("party:qcloud ")                            # here the source could add nothing
    assert page.inner_text(".number >> nth=0").startswith("275")
    assert not page.locator("#lower-bounds").count()
    assert "0 of" not in page.inner_text("#sources")
    assert page.get_attribute("#sources", "class") == "plainlink warn"
    assert violations(reader) == []


@pytest.mark.slow
def test_clouds_have_names_for_people_and_codes_beneath_the_pointer(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#q=party:aws")
    page = reader.page
    reader.until("document.querySelector('#place td.c-party').innerText === 'Amazon EC2'")
    assert page.get_attribute("#place td.c-party [data-code] >> nth=0", "title") == "aws, Amazon EC2"
    assert "Amazon EC2" in page.inner_text('[data-facet="party"]')
    page.reload()
    reader.signs_in(served.token)
    reader.searches("tencent")
    assert set(reader.column("party")) == {"qcloud"}
    label = page.locator('[data-facet="region"] [data-value="ap-guangzhou"] .label')
    assert label.inner_text() == "South China (Guangzhou)"
    assert label.get_attribute("title").split(", ")[:2] == ["ap-guangzhou", "gz"]
    page.click("#language")
    assert label.inner_text() == "华南地区(广州)"
    assert label.get_attribute("title").split(", ")[:2] == ["ap-guangzhou", "gz"]
    page.click("#language")
    reader.searches("华南")                 # a name is found in either language
    assert set(reader.column("region")) == {"ap-guangzhou"}
    reader.searches("n. virginia")
    assert set(reader.column("region")) == {"us-east-1"}
    assert page.inner_text("#place td.c-region >> nth=0") == "US East (N. Virginia)"
    # Alibaba's region of this code is another place: without the cloud, the code is all that can be shown
    assert page.inner_text('[data-facet="region"] [data-value="us-east-1"] .label') == "us-east-1"
    page.route("**/parties", lambda route: route.abort("connectionrefused"))    # without names, the codes serve
    page.reload()
    reader.signs_in(served.token)
    assert "aws" in page.inner_text('[data-facet="party"]')
    reader.faults.clear()


@pytest.mark.slow
def test_facets_of_type_zone_project_and_tags(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#columns=server,type,zone,project,tags")
    page, every = reader.page, rows(served)
    for facet, field in {"type": "instance_type", "zone": "zone", "project": "project_id"}.items():
        value, count = Counter(row[field] or "?" for row in every).most_common()[-1]
        page.click(f'[data-facet="{facet}"] summary')
        if page.locator(f'[data-fold="{facet}"]').count():
            page.click(f'[data-fold="{facet}"]')
        page.click(f'[data-facet="{facet}"] [data-value="{value}"]')
        assert number(page.inner_text(".number strong >> nth=0")) == count, facet
        page.go_back()
    keys = Counter(key for row in every for key in row["tags"])
    page.click('[data-facet="tag"] summary')
    assert {button.get_attribute("data-value"): number(button.locator(".n").inner_text())
            for button in page.locator('[data-facet="tag"] [data-value]').all()
            if button.get_attribute("data-value") != "?"} == keys
    value = next(iter(keys))
    page.click(f'[data-facet="tag"] [data-value="{value}"]')
    assert f"tag:{value}" in page.url
    assert number(page.inner_text(".number strong >> nth=0")) == keys[value]
    assert page.evaluate("document.activeElement.dataset.value") == value       # drawn again, and still there


@pytest.mark.slow
def test_a_hostile_tag_key_can_be_chosen(served: App, opens: Opens) -> None:
    keys = ['a"b', "a=b", 'c:"d e\\', "名", "<b>", "__proto__"]
    machines(served, *[replace(one, tags={key: "x"}) for one, key in zip(named(*keys), keys, strict=True)])
    reader = opens().signs_in(served.token)
    reader.page.click('[data-facet="tag"] summary')
    for key in keys:
        button = reader.page.locator('[data-facet="tag"] .value').filter(
            has=reader.page.get_by_text(key, exact=True)).first
        button.click()
        assert reader.column("server") == [key], key
        reader.page.reload()
        reader.signs_in(served.token, fragment=reader.page.url.partition("/twocloud/")[2])
        assert reader.column("server") == [key], key
        reader.page.click("#chips .chip")


@pytest.mark.slow
def test_servers_that_end_soon_are_marked_and_found(served: App, opens: Opens) -> None:
    machines(served, *named("later", "soon", "ended", "open"))
    days = {"later": 31, "soon": 20, "ended": -2}
    now = datetime.fromtimestamp(served.clock(), UTC)
    reader = opens()
    changed(reader, lambda row: row.update(expires_at=(now + timedelta(days=days[row["instance_name"]])).strftime(
        "%Y-%m-%d %H:%M:%S") if row["instance_name"] in days else None))
    reader.signs_in(served.token)
    page = reader.page
    assert page.locator("#place .ends").count() == 2
    assert "ended 2 days ago" in page.inner_text("#place")
    assert re.search(r"ends in (19|20) days", page.inner_text("#place"))
    page.click("#ending")
    assert sorted(reader.column("server")) == ["ended", "soon"]
    reader.searches("name:later ")          # none is an answer, too
    assert page.inner_text("#ending") == "0 end within 30 days"
    page.press("#search", "Escape")
    page.click("#ending")
    assert "expires:30d" in page.url
    reader.searches("expires:60d ")                             # the same key twice: either
    assert sorted(reader.column("server")) == ["ended", "later", "soon"]
    assert violations(reader) == []


@pytest.mark.slow
def test_an_address_does_not_find_longer_ones(served: App, opens: Opens) -> None:
    addresses = {"own": "10.0.0.7", "longer": "10.0.0.70", "before": "110.0.0.7", "tagged": "10.0.0.9"}
    machines(served, *[replace(one, lan=(addresses[one.name],),
                               tags={"peers": "10.0.0.1,10.0.0.7"} if one.name == "tagged" else {})
                       for one in named(*addresses)])
    reader = opens().signs_in(served.token).searches("10.0.0.7")
    assert sorted(reader.column("server")) == ["own", "tagged"]
    assert sorted(reader.searches("10.0.0").column("server")) == sorted(addresses)


@pytest.mark.slow
def test_the_details_say_how_old_they_are(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    reader.page.click("#place tbody tr >> nth=0 >> .open")
    assert reader.page.inner_text("#drawer-age").startswith("as of ")
    reader.page.click("#language")
    assert reader.page.inner_text("#drawer-age").startswith("数据时间")


# ---------------------------------------------------------------- addresses

def copied(reader: Reader, form: str) -> str:
    reader.page.click(f'#sheet [data-form="{form}"]')
    reader.page.wait_for_selector("#toast:not(:empty)")
    return reader.page.evaluate("navigator.clipboard.readText()")


@pytest.mark.slow
def test_all_addresses_of_what_is_shown_are_copied(served: App, opens: Opens) -> None:
    names = [*HOSTILE, "web\nHost *\n  ProxyCommand id", "*", "web-1"]
    machines(served, *[replace(one, lan=(f"10.0.0.{n}",) if one.name != "*" else ())
                       for n, one in enumerate(named(*names))])
    reader = opens().signs_in(served.token)
    page = reader.page
    page.click("#addresses")
    expected = [f"10.0.0.{n}" for n in range(len(names)) if names[n] != "*"]
    assert copied(reader, "plain").split() == expected
    assert copied(reader, "comma") == ",".join(expected)
    lines = copied(reader, "ssh").splitlines()
    assert [line.removeprefix("  HostName ") for line in lines[1::2]] == expected
    assert all(re.fullmatch(r"Host [\w.-]+", line) for line in lines[::2])
    assert len({*lines[::2]}) == len(expected)
    assert "Host web-1" in lines
    assert all(re.fullmatch(r"[\w.-]+ ansible_host=[\d.]+", line) for line in copied(reader, "ansible").splitlines())
    assert "1 has none" in page.inner_text("#address-count")
    page.select_option("#address-kind", "wan")
    assert all(address.startswith("122.") for address in copied(reader, "plain").split())
    assert violations(reader) == []
    page.keyboard.press("Escape")
    reader.searches("name:web-1 ")
    page.click("#addresses")
    assert copied(reader, "comma") == expected[-1]


@pytest.mark.slow
def test_addresses_of_a_list_that_is_not_whole_say_so(served: App, opens: Opens) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens().signs_in(served.token)
    reader.page.click("#addresses")
    assert "1 source gave nothing" in reader.page.inner_text("#sheet")
    assert copied(reader, "ssh").startswith("# incomplete: aws ")
    assert copied(reader, "ansible").startswith("# incomplete: aws ")
    reader.page.keyboard.press("Escape")
    reader.searches("party:qcloud ")
    reader.page.click("#addresses")
    assert copied(reader, "ssh").startswith("Host ")


# ---------------------------------------------------------------- the details beside the table

@pytest.mark.slow
def test_details_stand_beside_the_table_and_follow_the_arrow_keys(served: App, opens: Opens) -> None:
    reader = opens().signs_in(served.token, fragment="#q=party:aws")
    page = reader.page
    page.click("#place tbody tr >> nth=2 >> .open")
    page.wait_for_selector("#drawer[open]")
    drawer, listing = page.locator("#drawer").bounding_box(), page.locator("#listing").bounding_box()
    assert drawer["x"] >= listing["x"] + listing["width"]
    names = reader.column("server")
    assert page.inner_text("#drawer-title") == names[2]
    assert page.evaluate("document.activeElement.textContent") == names[2]
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#drawer-title") == names[3]
    assert page.locator("tr.chosen").count() == 1
    page.locator("#place tbody tr").nth(5).locator("td.c-status").click()       # the table answers meanwhile
    assert page.inner_text("#drawer-title") == names[5]
    page.evaluate("document.querySelector('#drawer pre').dataset.mine = 1")
    reader.refreshes()
    assert page.locator("#drawer pre[data-mine]").count() == 1  # what is read is not drawn again under the reader
    assert violations(reader) == []
    page.keyboard.press("Escape")
    assert not page.is_visible("#drawer")
    assert "server=" not in page.url
    page.set_viewport_size({"width": 900, "height": 800})       # no room beside it
    page.click("#place tbody tr >> nth=1 >> .open")
    assert page.evaluate("document.querySelector('#drawer').matches(':modal')")
    page.keyboard.press("Escape")
    reader.until("!document.querySelector('#drawer').open")


@pytest.mark.slow
def test_the_cloud_s_own_page_is_linked_if_it_is_an_address(served: App, opens: Opens) -> None:
    reader = opens()
    changed(reader, lambda row: row.update(console_url="javascript:alert(1)" if row["party"] == "aws"
                                           else "https://console.example.com/i?id=1"))
    reader.signs_in(served.token, fragment="#columns=server,page")
    page = reader.page
    reader.searches("party:qcloud ")
    page.click("#place tbody tr >> nth=0 >> .open")
    link = page.locator("#drawer .about a")
    assert link.get_attribute("href") == "https://console.example.com/i?id=1"
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert page.locator("#place td.c-page a").count() == 50
    page.keyboard.press("Escape")
    page.click("#chips .chip")
    reader.searches("party:aws ")
    assert page.locator("#place td.c-page a").count() == 0
    page.click("#place tbody tr >> nth=0 >> .open")
    assert page.locator("#drawer .about a").count() == 0


@pytest.mark.slow
def test_the_copy_button_is_seen_while_its_value_is_pointed_at_or_has_the_focus(served: App,
                                                                                opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    page = reader.page
    opacity = "one => getComputedStyle(one).opacity"
    button = page.locator("#place tbody tr").nth(3).locator("td.c-lan .copy")
    assert button.evaluate(opacity) == "0"
    page.locator("#place tbody tr").nth(3).locator("td.c-lan bdi").hover()
    assert button.evaluate(opacity) == "1"
    page.click("#place tbody tr >> nth=0 >> .open")
    first = page.locator("#drawer dd .copy").first
    assert first.evaluate(opacity) == "0"
    first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert first.evaluate(opacity) == "1"
    page.keyboard.press("Enter")
    page.wait_for_selector("#toast:not(:empty)")


@pytest.mark.slow
def test_the_pager_stays_in_sight_and_a_page_has_the_rows_that_are_wanted(served: App,
                                                                          opens: Opens) -> None:
    reader = opens().signs_in(served.token)
    page = reader.page
    page.select_option("#page-size", "100")
    assert len(reader.column("server")) == 100
    assert "size=100" in page.url
    page.evaluate("scrollTo(0, 2000)")
    assert page.locator("#pager").bounding_box()["y"] == 0
    head = page.locator("#place thead th").first.bounding_box()
    assert abs(head["y"] - page.locator("#pager").bounding_box()["height"]) < 12
    page.click("#page-after")
    assert "101–200 of 287" in page.inner_text("#page-text")
    assert page.locator("#place tbody tr").first.bounding_box()["y"] > 0
    reader.page.click("#share")
    assert "size=100" in page.inner_text("#sheet")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"viewport": PHONE, "has_touch": True}, {"color_scheme": "dark"},
                                     {"locale": "zh-CN"}], ids=["phone", "dark", "Chinese"])
def test_nothing_is_inaccessible_with_groups_and_doubts(served: App, opens: Opens,
                                                        options: dict[str, Any]) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens(**options).signs_in(
        served.token, fragment="#by=region&group=type&server=qcloud/ap-guangzhou/ins-u23j34j2")
    reader.until("document.querySelector('#drawer').open")
    assert violations(reader) == []
    reader.page.keyboard.press("Escape")
    reader.until("!document.querySelector('#drawer').open")
    assert violations(reader) == []
    assert reader.wide() <= reader.page.viewport_size["width"]


# ---------------------------------------------------------------- many

@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_hundred_thousand_servers(engine: Any) -> None:
    """They are read in parts and in slices, and only a page of them is in the document: what a letter costs grows far
    slower than the fleet. A list that has not changed is not read again."""
    letters = dict[int, float]()
    for size in (2_000, 100_000):
        with long_fleet.api(size) as (address, queries):
            page = long_fleet.opened(engine, address)
            assert page.locator("#place tbody tr").count() == 50
            assert number(page.inner_text(".number strong >> nth=0")) == size
            assert page.inner_text("[data-total=memTotal] strong").startswith("≥")
            letters[size] = long_fleet.measured(page)["a letter typed"]
            before = len(queries)
            assert before == (1 if size == 2_000 else 27)       # the first is too long for one answer
            page.evaluate("document.querySelector('#pause').click()")
            if size > 4_000:
                page.fill("#search", "")
                page.click("#chips .chip")
                page.clock.install()
                page.evaluate("document.querySelector('#pause').click()")
                with page.expect_response(lambda answer: "/servers?" in answer.url):
                    page.clock.run_for(600_000)
                page.wait_for_selector("#asof[aria-busy=false]")
                assert [("f=1&" in query) for query in queries[before:]] == [True] * len(queries[before:])
                assert number(page.inner_text(".number strong >> nth=0")) == size
            page.close()
    assert letters[100_000] < 25 * letters[2_000]
