"""The console on a phone and on a tablet: what is in sight at once, what is cut, and what a finger can hit."""

from typing import Any

import pytest

from tests.fixtures import App
from tests.http.reader import HOSTILE, Opens, Reader, clock, engine, machines, named, opens, violations

__all__ = ["clock", "engine", "opens"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TABLET = {"viewport": {"width": 820, "height": 1180}, "has_touch": True, "is_mobile": True}
# what can be pressed and is smaller than this, in CSS pixels
SMALL = """([side, leaving]) => [...document.querySelectorAll("button, a, select, input, summary, [role=button]")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.matches(leaving))
    .map((one) => [one, one.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.height < side || box.width < 24))
    .map(([one, box]) => `${one.outerHTML.slice(0, 90)} ${box.width.toFixed()} × ${box.height.toFixed()}`)"""
IN_TEXT = "td a, td button, li a, .plainlink, .plain-number, .matrix a, .copy, input[type=checkbox]"


def small(reader: Reader, side: int, leaving: str = ":not(*)") -> list[str]:
    return reader.page.evaluate(SMALL, [side, leaving])


@pytest.mark.sample(2)
@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_the_first_server_is_on_a_phones_first_screen(served: App, opens: Opens, locale: str) -> None:
    reader = opens(**PHONE, locale=locale).signs_in(served.token)
    rows = [one.bounding_box() for one in reader.page.locator("#place tbody tr:has(.c-server)").all()[:3]]
    assert reader.page.evaluate("scrollY") == 0
    assert rows[0]["y"] + rows[0]["height"] <= 844              # all of it, and not by a hair:
    assert rows[2]["y"] <= 844              # two more follow
    assert max(row["height"] for row in rows) <= 100
    assert reader.wide() <= 390


@pytest.mark.slow
def test_compact_rows_leave_nothing_out_that_is_known(served: App, opens: Opens) -> None:
    reader = opens(**PHONE).signs_in(served.token, fragment="#q=party:qcloud")
    row = reader.page.locator("#place tbody tr:has(.c-server)").first
    text = " ".join(row.inner_text().split())
    first = served.get("party=all&tenant_id=123&region=all&max_age=999").json()["vm_servers"]
    name = row.locator(".open").inner_text()
    record = next(one for one in first if one["instance_name"] == name and one["party"] == "qcloud")
    assert row.locator("td.c-region [data-code]").get_attribute("data-code") == record["region"]
    names = {"ap-guangzhou": "South China (Guangzhou)", "ap-shanghai": "East China (Shanghai)"}
    for word in (record["status"], names[record["region"]], record["instance_type"],
                 record["lan_ip_set"].split(",")[0]):
        assert word in text, word
    assert reader.page.evaluate("(row) => getComputedStyle(row.querySelector('td.c-cpu'), '::after').content",
                                row.element_handle()) == '" vCPU"'


@pytest.mark.slow
@pytest.mark.parametrize("options", [PHONE, TABLET], ids=["phone", "tablet"])
def test_a_finger_hits_everything(served: App, opens: Opens, options: dict[str, Any]) -> None:
    served.clouds["aws"].fail("reset")
    reader = opens(**options).goes()
    assert reader.page.evaluate("matchMedia('(pointer: coarse)').matches")
    assert small(reader, 44, IN_TEXT) == []
    reader.signs_in(served.token)
    assert small(reader, 44, IN_TEXT) == []
    assert small(reader, 24) == []
    for fold in reader.page.locator("#fleet details > summary:visible").all():
        fold.click()
    assert small(reader, 44, IN_TEXT) == []
    assert small(reader, 24) == []
    for opener in ("#share", "#choose-columns", "#sources", "#place tbody tr:has(.c-server) >> nth=0"):
        reader.page.click(opener)
        reader.page.wait_for_selector("dialog[open]")
        assert small(reader, 24) == [], opener
        reader.page.keyboard.press("Escape")
    reader.page.click("#view-changes")
    reader.page.wait_for_selector("#place .periods")
    assert small(reader, 44, IN_TEXT) == []
    assert reader.wide() <= options["viewport"]["width"]


@pytest.mark.slow
def test_a_mouse_hits_everything(served: App, opens: Opens) -> None:
    """Beside what stands in a line of text, whose lines are 24 pixels apart."""
    reader = opens().signs_in(served.token)
    assert small(reader, 24, IN_TEXT) == []


@pytest.mark.sample(2)
@pytest.mark.parametrize("width", [820, 1024])
def test_a_table_that_is_cut_says_so(served: App, opens: Opens, width: int) -> None:
    """It fades out where more of it is, scrolls in its frame alone, and keeps the names in sight."""
    machines(served, *named(*HOSTILE, "a-very-long-name-" * 12))
    columns = "server,status,party,region,zone,id,type,cpu,mem,disk,lan,wan,created,updated,project,tags"
    reader = opens(viewport={"width": width, "height": 1180}).signs_in(served.token, fragment=f"#columns={columns}")
    page = reader.page
    assert reader.wide() <= width
    frame = "document.querySelector('#place .scroll')"
    assert page.evaluate(f"{frame}.scrollWidth > {frame}.clientWidth && getComputedStyle({frame}).overflowX === 'auto'")
    assert page.evaluate(f"getComputedStyle({frame}).backgroundAttachment") == "local, local, scroll, scroll"
    page.evaluate(f"{frame}.scrollLeft = 9999")
    name = page.locator("td.c-server").first.bounding_box()
    assert name["x"] >= page.locator("#place .scroll").bounding_box()["x"] - 1
    assert violations(reader) == []
