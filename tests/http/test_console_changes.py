"""The console's changes: what changed from what to what, when and at which source, as GET /twocloud/changes has it."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fixtures import App
from tests.http.reader import HOSTILE, PHONE, Opens, Reader, clock, engine, machines, named, opens, violations

__all__ = ["clock", "engine", "opens"]
AGO = 86_400 - 3600                         # seconds since the first change
EVERYTHING = "party=all&tenant_id=123&region=all"


def history(app: App) -> None:
    """Three days ago the first list; yesterday `stays` is stopped and gets another tag; ten minutes ago `old` goes and
    `new` comes. All in one region of qcloud, beside the empty lists of aws."""
    old, stays, new = named("old", "stays", "new")
    stays = replace(stays, tags={"role": "web", "note": "x", "9": "kept"})
    stopped = replace(stays, state="stopped", tags={"role": "db", "9": "kept", "1": "=2"})
    now = app.clock.now
    for ago, fleet in ((3 * 86_400, (old, stays)), (AGO, (old, stopped)), (600, (stopped, new))):
        machines(app, *fleet)
        app.clock.now = now - ago
        assert app.get(EVERYTHING).status_code == 200
    app.clock.now = now


def days(app: App) -> int:
    """On how many days, in UTC, the changes are."""
    return len({datetime.fromtimestamp(app.clock.now - ago, UTC).date() for ago in (AGO, 600)})


def shown(reader: Reader) -> list[str]:
    return [re.sub(r"\s+", " ", text) for text in reader.page.locator("[data-change]").all_inner_texts()]


def test_a_change_says_from_what_to_what_when_and_where(served: App, opens: Opens) -> None:
    history(served)
    reader = opens().signs_in(served.token, fragment="#show=changes", wait="[data-change]")
    page = reader.page
    old, new, changed = shown(reader)
    assert "Appeared new Tencent Cloud CVM ap-guangzhou" in new
    assert "Vanished old" in old
    assert "Changed stays" in changed
    assert "Status ACTIVE → to SHUTOFF" in changed              # "to" is for those who listen
    assert "Tags: role web → to db" in changed
    assert "Tags: note x → to none" in changed
    assert "Tags: 1 none → to =2" in changed
    assert "kept" not in changed
    when = datetime.fromtimestamp(served.clock.now - 600, UTC)
    assert page.locator("[data-change=appeared] time").get_attribute("datetime").startswith(f"{when:%Y-%m-%dT%H:%M:%S}")
    assert f"{when:%H:%M:%S}" in new
    assert not any("changed_since" in url for url in reader.requests)
    page.click('[data-period="week"]')      # the first lists are no change: no fourth line
    page.wait_for_selector("[data-period=week][aria-pressed=true]")
    reader.until("document.querySelectorAll('#place .span').length > 6")
    assert len(shown(reader)) == 3
    assert "first listed in this time" in page.inner_text("#place")
    assert "since=week" in page.url
    assert page.locator("#place h3").count() == days(served)
    page.click("[data-change=changed] .open")
    page.wait_for_selector("#drawer[open]")
    assert page.inner_text("#drawer-title") == "stays"
    page.keyboard.press("Escape")
    assert violations(reader) == []


@pytest.mark.slow
def test_the_timeline_counts_by_day_and_leads_to_the_day(served: App, opens: Opens) -> None:
    history(served)
    reader = opens(viewport=PHONE).signs_in(served.token, fragment="#show=changes&since=week", wait="[data-change]")
    page = reader.page
    names = page.eval_on_selector_all(".span", "all => all.map(one => one.ariaLabel)")
    assert len(names) in (8, 9)             # today and the seven days before; 9 if midnight has just passed
    counted = [name.partition(": ")[2] for name in names]
    assert [text for text in counted if text != "none"] == (
        ["Changed 1", "Appeared 1, Vanished 1"] if days(served) == 2 else ["Appeared 1, Changed 1, Vanished 1"])
    assert page.locator(".span:enabled").count() == days(served)
    page.locator(".span:enabled >> nth=0").click()
    first = "changed" if days(served) == 2 else "vanished"      # the newest of that day
    assert page.evaluate("document.activeElement.dataset.change") == first
    assert reader.wide() <= PHONE["width"]
    assert violations(reader) == []


@pytest.mark.slow
def test_kinds_sources_and_the_tables_filters(served: App, opens: Opens) -> None:
    history(served)
    reader = opens().signs_in(served.token, fragment="#show=changes", wait="[data-change]")
    page = reader.page
    page.click('[data-focus="kind:vanished"]')
    assert len(shown(reader)) == 1
    assert "kind=vanished" in page.url
    page.go_back()
    assert len(shown(reader)) == 3
    page.click('[data-focus="per:source"]')
    assert page.inner_text("#place h3") == "Tencent Cloud CVM ap-guangzhou 3"
    for search, lines, hidden in (("party:aws ", 0, 0), ("-name:old ", 2, 0), ("shutoff", 1, 0),
                                  ("status:SHUTOFF ", 1, 1)):
        reader.searches(search)
        assert len(shown(reader)) == lines, search
        # of a server that is gone nobody knows the status: it is neither shown nor forgotten
        assert page.locator("[data-hidden]").count() == hidden, search
        page.press("#search", "Escape")
    served.clouds["qcloud"].fail("503")
    reader.refreshes()
    page.wait_for_selector("#place [data-kind=stale]")
    assert "9 sources are known up to their snapshots only" in page.inner_text("#place")
    assert "The cloud cannot be reached" in page.inner_text("#place [data-kind=stale]")
    reader.searches("party:aws ")
    assert page.locator("#place [data-kind=stale]").count() == 0


@pytest.mark.slow
def test_the_bars_count_changes(served: App, opens: Opens) -> None:
    """Those that a choice would leave: of a server that is gone the status is not known, so no status counts it."""
    history(served)
    reader = opens().signs_in(served.token, fragment="#show=changes", wait="[data-change]")
    page = reader.page

    def counts(facet: str) -> dict[str, str]:
        return {one.get_attribute("data-value"): one.locator(".n").inner_text()
                for one in page.locator(f'[data-facet="{facet}"] .value').all()}

    assert counts("party") == {"qcloud": "3", "aws": "0"}
    assert counts("status") == {"ACTIVE": "1", "SHUTOFF": "1"}  # `new` and `stays`
    for value in ("ACTIVE", "SHUTOFF"):
        page.click(f'[data-facet="status"] [data-value="{value}"]')
        assert len(shown(reader)) == 1
        assert counts("party")["qcloud"] == "1"
        assert counts("status") == {"ACTIVE": "1", "SHUTOFF": "1"}
        page.click(f'[data-facet="status"] [data-value="{value}"]')
    page.click('[data-focus="kind:vanished"]')
    assert counts("party") == {"qcloud": "1", "aws": "0"}
    assert counts("status") == {}
    served.clouds["qcloud"].fail("503")     # its later changes are not known
    reader.refreshes()
    page.wait_for_selector("#place [data-kind=stale]")
    assert counts("party") == {"qcloud": "≥ 1", "aws": "0"}


@pytest.mark.slow
def test_an_export_of_changes_is_what_the_api_writes(served: App, opens: Opens) -> None:
    history(served)
    machines(served, *named(*HOSTILE))
    served.get(EVERYTHING)
    reader = opens().signs_in(served.token, fragment="#show=changes", wait="[data-change]")
    page = reader.page
    page.click("#share")
    curl, command = page.locator("#sheet .command pre").all_inner_texts()[:2]
    query = re.search(r"changes\?([^']+)'", curl)[1]            # type: ignore[index]
    since = re.search(r"since=([^&]+)", query)[1].replace("%3A", ":")               # type: ignore[index]
    assert command == f"twocloud changes --url {served.url} --party all --tenant 123 --region all --since {since}"
    for form in ("csv", "ndjson", "json"):
        answer = served.get(f"{query}&format={form}", path="/twocloud/changes")
        assert answer.status_code == 200, answer.text
        assert reader.saves(form) == answer.content, form
    assert "tc_" not in page.inner_text("#sheet")
    assert violations(reader) == []
    page.keyboard.press("Escape")
    page.click('[data-focus="kind:appeared"]')
    reader.searches("party:qcloud ")
    page.click("#share")
    curl = page.locator("#sheet .command pre").all_inner_texts()[0]
    query = re.search(r"changes\?([^']+)'", curl)[1]            # type: ignore[index]
    assert "kind=appeared" in query
    assert "party=qcloud" in query
    assert reader.saves("csv") == served.get(f"{query}&format=csv", path="/twocloud/changes").content


@pytest.mark.slow
def test_more_changes_than_one_answer_carries(served: App, opens: Opens) -> None:
    """Read in parts, the newest first shown, a hundred lines at first."""
    history(served)
    machines(served, *named(*(f"web-{n}" for n in range(250))))
    served.get(EVERYTHING)
    reader = opens()
    refused = []

    def too_large(route: Any) -> None:
        if "&t=" in route.request.url:
            return route.continue_()
        refused.append(route.request.url)
        return route.fulfill(status=413, json={"code": 413, "error": "too_large", "msg": "", "request_id": "r"})

    reader.page.route("**/changes?*", too_large)
    reader.signs_in(served.token, fragment="#show=changes", wait="[data-change]")
    assert refused
    assert any("f=1&t=4000" in url for url in reader.requests)
    assert len(shown(reader)) == 100
    reader.page.click('[data-focus="more"]')
    assert len(shown(reader)) == 250 + 3    # two of the 250 were there under other names


@pytest.mark.slow
def test_no_change_and_no_history(served: App, opens: Opens) -> None:
    served.get(EVERYTHING)
    reader = opens(locale="zh-CN").signs_in(served.token, fragment="#show=changes", wait="#place .instead.empty")
    assert "没有变化" in reader.page.inner_text("#place")
    served.change_settings(history=3)
    reader.page.click('[data-period="week"]')
    reader.page.wait_for_selector("[data-kind=invalid]")
    assert "kept for 3 days" in reader.page.inner_text("#place")
