"""A reader of the console: a real browser, against the API over HTTP with simulator clouds behind it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chalicelib.simulators.fleet import Machine, Machines, seed_machine
from tests import browser
from tests.fixtures import App, Clock

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


def two_tenants(app: App) -> str:
    """A token for tenants 123 and 7. Tenant 7 has the 12 servers of aws too."""
    aws = app.clouds["aws"]
    ((key_id, secret),) = aws.keys.items()  # type: ignore[attr-defined]
    app.account("aws", {"access_key_id": key_id, "secret_access_key": secret}, aws.url, "7")
    return app.issue(app.user("bob", ("123", "7", "foreign")))


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


def violations(reader: Reader) -> list[str]:
    if not reader.page.evaluate("'axe' in window"):
        reader.page.evaluate(browser.axe())                     # by the debugger's own door, which no policy closes
    report = reader.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}" for one in report["violations"]
            for node in one["nodes"]]
