"""The console's pages in a real Chromium: what is served, hostile names, times and sizes, the reference, access for
everybody."""

import base64
import hashlib
import re
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from chalicelib.access import users
from chalicelib.http import console
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from tests import ROOT
from tests.fixtures import App
from tests.http.reader import (
    CHOOSER,
    HOSTILE,
    LISTED,
    PHONE,
    Opens,
    clock,
    engine,
    machines,
    measured,
    named,
    opens,
    violations,
)
from tests.http.test_me import put

__all__ = ["clock", "engine", "opens"]


SOURCES = ROOT / "chalicelib/http/console"


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
