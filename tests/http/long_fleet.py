"""An API that answers the console with a fleet as long as one likes, made and not listed: what a browser does with it
is what is measured.

`python -m tests.http.long_fleet 100000` prints how long that takes.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chalicelib.http import console
from tests import browser

TOKEN = "tc_" + "0" * 36                    # of the right form; this API opens to anybody
_CLOUDS = {"qcloud": "ap-guangzhou", "aliyun": "cn-hangzhou", "aws": "us-east-1", "azure": "westeurope"}
_STATUSES = ("ACTIVE", "ACTIVE", "ACTIVE", "SHUTOFF", "BUILD")


def row(number: int) -> dict[str, Any]:
    party = sorted(_CLOUDS)[number % len(_CLOUDS)]
    return {
        "instance_name": f"web-{number * 7919 % 100_003}", "instance_id": f"i-{number:09}",
        "cpu_num": 2 ** (number % 5), "mem_size": None if number % 1000 == 0 else 4 * (1 + number % 8),
        "disk_size": 40 + number % 100,
        "lan_ip_set": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", "wan_ip_set": "",
        "status": _STATUSES[number % 5], "create_at": f"2026-0{1 + number % 9}-11 10:00:00",
        "update_at": "2026-10-01 10:00:00", "party": party, "tenant_id": "123", "region": _CLOUDS[party],
        "zone": f"{_CLOUDS[party]}-{number % 3}", "project_id": f"p-{number % 40}",
        "instance_type": f"s{number % 60}.large", "party_status": "running", "lan_ipv6_set": "", "wan_ipv6_set": "",
        "tags": {"role": f"role-{number % 20}", "team": f"team-{number % 200}", "host": f"h{number}"},
        "seen_at": "2026-11-30 01:00:00", "account": "default", "image_id": f"img-{number % 50}", "image_name": None,
        "os": "linux", "vpc_id": f"vpc-{number % 10}", "subnet_id": f"subnet-{number % 100}",
        "security_group_set": "sg-1", "key_name": None, "charge_type": "postpaid",
        "expires_at": None, "host_id": None, "console_url": None}


def sources(size: int) -> list[dict[str, Any]]:
    names = sorted(_CLOUDS)
    return [{"party": party, "region": _CLOUDS[party], "state": "ok", "count": len(range(at, size, len(names))),
             "age": 5, "error": None, "msg": "", "tenant_id": "123", "account": "default"}
            for at, party in enumerate(names)]


@contextmanager
def api(size: int) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the queries for servers that came."""
    queries: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url, headers, status = urlsplit(self.path), {"Content-Type": "application/json"}, 200
            if url.path == "/twocloud/":
                page = console.page("console.html")
                headers, body = page.headers, page.body
            elif url.path == "/twocloud/me":
                body = json.dumps({"tenants": ["123"], "accounts": []}).encode()
            elif url.path == "/twocloud/parties":
                body = json.dumps({"parties": [{"name": name, "title": f"Cloud {name}", "regions": {}}
                                               for name in _CLOUDS]}).encode()
            else:
                queries.append(url.query)
                query = parse_qs(url.query)
                status = 200 if "f" in query or size <= 4000 else 413
                rows = range(*(int(query["f"][0]) - 1, int(query["t"][0])) if "f" in query else (0, size))
                headers["X-List-Id"] = "list-1"
                body = json.dumps({"code": status, "msg": "", "error": "too_large"} if status == 413 else {
                    "code": 200, "msg": "", "vm_servers": [row(n) for n in rows if n < size], "complete": True,
                    "sources": sources(size)}).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/twocloud/", queries
        server.shutdown()


# From what a reader does to the layout of what it shows, in milliseconds, the middle of five; "longest task" while the
# list is read and shown: for so long the page does not answer.
STEPS = {
    "a letter typed": """n => { const box = document.querySelector("#search");
        box.value = ["w", "we", "web", "web-", "web-1"][n]; box.dispatchEvent(new Event("input")); }""",
    "a filter": "n => document.querySelector(`[data-facet='party'] [data-value]`).click()",
    "sorted by name": """n => document.querySelector(n % 2 ? "th.c-cpu .head" : "th.c-server .head").click()""",
    "the next page": """n => document.querySelector("#page-after").click()""",
    "another matrix": """n => { const box = document.querySelector("#by");
        box.value = ["region", "type", "tag:team", "zone", "party"][n]; box.dispatchEvent(new Event("change")); }""",
    "groups": """n => { const box = document.querySelector("#group");
        box.value = ["party", "type", "tag:team", "zone", ""][n]; box.dispatchEvent(new Event("change")); }""",
}


def measured(page: Any) -> dict[str, float]:
    return {name: page.evaluate(f"""() => {{ const act = {act}, times = [];
        for (let n = 0; n < 5; n += 1) {{ const began = performance.now(); act(n); document.body.offsetHeight;
            times.push(performance.now() - began); }}
        return times.sort((a, b) => a - b)[2]; }}""") for name, act in STEPS.items()}


def opened(chromium: Any, address: str) -> Any:
    """A page that is signed in and has read the fleet; `window.tasks`: how long each long task of it was."""
    page = chromium.new_page()
    page.set_default_timeout(200_000)
    page.goto(address)
    page.evaluate("""() => { window.tasks = []; new PerformanceObserver((list) => window.tasks.push(
        ...list.getEntries().map(({ duration }) => duration))).observe({ entryTypes: ["longtask"] }); }""")
    page.fill("#token", TOKEN)
    page.click("#signin-go")
    page.wait_for_selector("#place table")
    return page


def main(size: int) -> None:
    with api(size) as (address, _), tempfile.TemporaryDirectory() as folder, browser.chromium(Path(folder)) as chromium:
        began = time.monotonic()
        page = opened(chromium, address)
        print(f"{size} servers: shown after {time.monotonic() - began:.1f} s")
        page.wait_for_timeout(200)
        print(f"longest task {max(page.evaluate('window.tasks'), default=0):.0f} ms")
        for name, milliseconds in measured(page).items():
            print(f"{name}: {milliseconds:.0f} ms")
        print(f"heap {page.evaluate('performance.memory.usedJSHeapSize') / 1e6:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]))
