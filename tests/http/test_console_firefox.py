"""The console in a real Firefox: what somebody does in a minute, in both languages and both colour schemes.

The rest is shown in Chromium (the other test_console files); here is what another engine could do differently: the
policy, dialogs, the keyboard, downloads, the clipboard, the layout.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.fixtures import App
from tests.http.reader import (
    HOSTILE,
    Opens,
    Reader,
    clock,
    machines,
    named,
    opens,
    opens_and_closes_the_second,
    violations,
)
from tests.http.test_console_changes import history

__all__ = ["clock", "opens"]


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)],
                ids=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def folder(dark: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dark" if dark else "light")


@pytest.fixture(scope="module")
def engine(dark: bool, folder: Path) -> Iterator[Any]:
    with browser.firefox(folder, dark=dark) as made:
        yield made


def saved(reader: Reader, form: str, path: Path) -> bytes:
    """What the button for this format saves, when it is there."""
    reader.page.click(f'[data-format="{form}"]')
    ends = time.monotonic() + 30
    while not path.exists() or not path.read_bytes():
        assert time.monotonic() < ends, path
        reader.page.wait_for_timeout(30)
    return path.read_bytes()


@pytest.mark.slow
def test_a_minute_at_the_keyboard(served: App, opens: Opens, dark: bool) -> None:
    reader = opens().goes()
    page, press = reader.page, reader.page.keyboard.press
    page.keyboard.type(served.token)
    press("Enter")
    page.wait_for_selector("#place table")
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert "287 servers" in reader.text().replace("\n", " ")
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    press("/")
    page.keyboard.type("party:aws ")
    assert reader.column("party") == ["aws"] * 12
    assert page.url.endswith("#q=party:aws")
    opens_and_closes_the_second(reader)
    page.go_back()
    page.go_back()
    reader.until("location.hash === '#q=party:aws'")
    assert violations(reader) == []


@pytest.mark.slow
def test_hostile_names_are_text_and_nothing_else_runs(served: App, opens: Opens, folder: Path) -> None:
    machines(served, *named(*HOSTILE))
    reader = opens(locale="zh-CN").signs_in(served.token, fragment="#columns=server,lan")
    page = reader.page
    assert "台服务器" in reader.text()
    assert reader.column("server")[:3] == [*HOSTILE[:2], r"web\u{202e}gnp.exe"]
    assert page.locator("#place img, #place b, #place script").count() == 0
    assert page.evaluate("""async () => {
        const ran = [], attempt = (name, act) => { try { act(); ran.push(name); } catch {} };
        attempt("markup", () => { document.body.innerHTML += "<b>x</b>"; });
        const made = document.createElement("style");
        made.textContent = "body { display: none }";
        document.head.append(made);
        if (getComputedStyle(document.body).display === "none") ran.push("style");
        made.remove();
        try { await fetch("https://127.0.0.1:9/"); ran.push("fetch"); } catch {}
        return ran; }""") == []
    reader.requests = [url for url in reader.requests if "127.0.0.1:9/" not in url]
    page.click("#place tbody tr >> nth=0 >> td.c-lan .copy")
    page.wait_for_selector("#toast:not(:empty)")
    assert "已复制" in page.inner_text("#toast")
    page.click("#share")
    assert json.loads(saved(reader, "json", folder / "servers.json"))["complete"] is True
    assert saved(reader, "csv", folder / "servers.csv").startswith(b"instance_name,")
    assert violations(reader) == []
    ends = time.monotonic() + 30            # the browser's own words arrive when it likes
    blocked = ("require-trusted-types-for", "style-src", "connect-src")
    while not all(any(word in fault for fault in reader.faults) for word in blocked):
        assert time.monotonic() < ends, reader.faults
        page.wait_for_timeout(30)
    assert all(any(word in fault for word in blocked) for fault in reader.faults), reader.faults
    reader.faults.clear()


@pytest.mark.slow
def test_states_and_changes_on_a_phone(served: App, opens: Opens) -> None:
    history(served)
    served.clouds["aws"].fail("503")
    reader = opens(viewport={"width": 390, "height": 844}).signs_in(served.token)
    page = reader.page
    assert reader.kinds() == ["stale"]
    assert "The cloud cannot be reached." in page.inner_text("#notices")
    row = page.locator("#place tbody tr:has(.c-server)").first.bounding_box()
    assert row["y"] + row["height"] <= 844
    reader.searches("party:qcloud ")
    assert reader.kinds() == []
    page.click("#view-changes")
    page.wait_for_selector("[data-change]")
    assert "SHUTOFF" in page.inner_text("[data-change=changed] .diffs")
    page.locator(".span:enabled").last.click()
    assert page.evaluate("document.activeElement.dataset.line") == "0"
    assert reader.wide() <= 390
    assert violations(reader) == []
    page.click("[data-change=appeared] .open")
    page.wait_for_selector("#drawer[open]")
    assert page.inner_text("#drawer-title") == "new"
