"""The pictures in docs/console, of the demo's clouds, and how long things take with 10,000 servers: `make screenshots`.

Chinese needs a font that has it, such as Debian's fonts-noto-cjk.
"""

import io
import random
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests
from msgspec import structs

from chalicelib.fleet import many_sources
from chalicelib.http import serve
from chalicelib.settings import Settings
from chalicelib.simulators import demo
from chalicelib.simulators.fleet import Fleet, Machine, Machines
from tests import ROOT, browser
from tests.http.reader import Reader, measured

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5}
DAYS_AGO = (6.6, 5.2, 4.1, 3.4, 3.1, 1.6, 0.9, 0.1, 0)


def changed(chance: random.Random, fleet: Sequence[Machine]) -> Machines:
    """The fleet with a few machines stopped, started, tagged or gone."""
    machines = list(fleet)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(machines))
        one, kind = machines[at], chance.random()
        if kind < 0.5:
            machines[at] = replace(one, state="stopped" if one.state == "running" else "running")
        elif kind < 0.85:
            machines[at] = replace(one, tags={**one.tags, "owner": chance.choice(["ops", "data", "web"])})
        elif len(machines) > 1:
            del machines[at]
    return Machines(machines)


def a_week(deployment: Any, clouds: Mapping[str, Sequence[Any]], refresh: Callable[[], object]) -> None:
    """Lists as they would have been in the last days; the last one is of the demo's own fleets."""
    chance, clock = random.Random(7), deployment.clock
    places = [(cloud, region, cloud.fleets[region]) for party in ("qcloud", "aws", "aliyun", "gcp")
              for cloud in clouds[party] for region in list(cloud.fleets)[:2] if len(cloud.fleets[region])]
    for days in DAYS_AGO:
        structs.force_setattr(deployment, "clock", lambda ago=days * 86_400: time.time() - ago)
        for cloud, region, fleet in places:
            cloud.fleets[region] = changed(chance, fleet) if days and chance.random() < 0.6 else fleet
        refresh()
    structs.force_setattr(deployment, "clock", clock)


@dataclass
class Demo:
    """The demo, served, with a browser. `clouds`: by party."""

    url: str
    token: str
    clouds: dict[str, list[Any]]
    engine: Any


@contextmanager
def served(folder: Path) -> Generator[Demo]:
    """The demo, with a week of changes at four clouds."""
    with ExitStack() as stack:
        deployment = many_sources.open_deployment(Settings(
            store=f"sqlite:///{folder}/demo.db", key=f"file:{folder}/key", timezone=ZoneInfo("UTC"), max_age=0,
            stale_if_error=86_400, history=30, local=True, in_lambda=False))
        clouds: dict[str, list[Any]] = {**demo.start(deployment, stack)}
        server = serve.Server(deployment, "127.0.0.1", 0)
        threading.Thread(target=server.serve, daemon=True).start()
        made = Demo(f"http://{server.address}", demo.ready_token(deployment), clouds,
                    stack.enter_context(browser.chromium(folder)))
        query = {"party": "all", "tenant_id": "all", "region": "all", "on_error": "partial", "max_age": "0"}
        a_week(deployment, clouds, lambda: requests.get(f"{made.url}/twocloud/servers", query, auth=(made.token, ""),
                                                        timeout=60))
        yield made
        server.close()
        deployment.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as there:
        token, url, clouds = there.token, there.url, there.clouds

        def reader(**options: Any) -> Reader:
            context = there.engine.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 800},
                                              "reduced_motion": "reduce", **options})
            context.set_default_timeout(100_000)
            return Reader(context.new_page(), url)

        def keep(shown: Reader, name: str) -> None:
            from PIL import Image

            shown.page.evaluate("document.activeElement.blur()")
            shown.page.mouse.move(0, 0)
            shot = Image.open(io.BytesIO(shown.page.screenshot()))
            shot.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(ROOT / f"docs/console/{name}.png",
                                                                             optimize=True)

        keep(reader().signs_in(token), "light")
        keep(reader(color_scheme="dark").signs_in(
            token, fragment="#q=status:ACTIVE+party:qcloud&server=qcloud/ap-guangzhou/ins-u23j34j2",
            wait="#drawer[open]"), "dark")
        keep(reader(**PHONE).signs_in(token), "phone")
        keep(reader(locale="zh-CN").signs_in(token), "chinese")
        keep(reader().signs_in(token, fragment="#show=changes&since=week", wait="[data-change]"), "changes")
        for party, fault in (("aws", "reset"), ("qcloud", "503")):
            for cloud in clouds[party]:
                cloud.fail(fault)
        off = reader().signs_in(token)
        off.page.click("#refresh")
        off.page.wait_for_selector('[data-kind="stale"]')
        keep(off, "switched-off")
        docs = reader()
        docs.page.goto(f"{url}/twocloud/docs")
        docs.page.wait_for_selector(".operation")
        keep(docs, "reference")
        for cloud in chain(*clouds.values()):
            cloud.plans.clear()
        clouds["qcloud"][0].fleets["ap-shanghai"] = Fleet(9_043, "demo")
        clouds["qcloud"][0].rates.clear()
        time.sleep(11)                      # a cloud that failed is left alone for ten seconds
        many = reader().signs_in(token)
        many.page.click("#refresh")
        many.until("document.querySelector('.number').textContent.replace(/\\D/g, '') > 9000")
        print({name: f"{seconds * 1000:.0f} ms" for name, seconds in measured(many).items()},
              many.page.inner_text(".number"))
        began = time.monotonic()
        many.page.reload(wait_until="load")
        many.until("performance.getEntriesByName('first-contentful-paint').length === 1")
        print(f"first paint "
              f"{many.page.evaluate('performance.getEntriesByName(`first-contentful-paint`)[0].startTime'):.0f} ms, "
              f"loaded {1000 * (time.monotonic() - began):.0f} ms")


if __name__ == "__main__":
    main()
