"""How many calls to DynamoDB each kind of request makes, as the page on scale says: counted at the emulator."""

import base64
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from benchmarks import load
from chalicelib.access import accounts
from chalicelib.fleet import schedule
from chalicelib.http import api
from chalicelib.http.api import HttpRequest, HttpResponse
from chalicelib.model import Source
from chalicelib.simulators.fleet import Fleet
from chalicelib.storage.dynamodb import DynamoStore
from chalicelib.storage.store import Entry
from tests.fixtures import TABLE, App

pytestmark = pytest.mark.timeout(300)
SOURCES = 1000


class Calls:
    """A client of DynamoDB that counts calls by their names; each page of a paginator is one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.made: Counter[str] = Counter()

    def get_paginator(self, name: str) -> Any:
        calls, pages = self, self._client.get_paginator(name)

        class Pages:
            def paginate(self, **query: Any) -> Iterator[Any]:
                for page in pages.paginate(**query):
                    calls.made[_name(name)] += 1
                    yield page

        return Pages()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name in ("exceptions", "close", "meta"):
            return attribute

        def call(**query: Any) -> Any:
            self.made[_name(name)] += 1
            return attribute(**query)

        return call


def _name(method: str) -> str:
    return "".join(word.title() for word in method.split("_"))


@pytest.fixture
def calls(served: App, server_client: Any) -> Iterator[Calls]:
    """`served` on a table of its own, with two regions of servers at its cloud and their snapshots."""
    cloud: Any = served.clouds["qcloud"]
    cloud.rates.clear()
    cloud.fleets |= {"ap-guangzhou": Fleet(load.SERVERS), "ap-shanghai": Fleet(load.SERVERS, "sh")}
    table = f"twocloud-calls-{time.time_ns()}"
    server_client.create_table(TableName=table, **TABLE)
    made = Calls(server_client)
    store = DynamoStore(table, served.clock, made)      # type: ignore[arg-type]
    with served.deployment.store.moment() as moment:
        store.write(list(moment.walk()))
    msgspec.structs.force_setattr(served.deployment, "store", store)
    for title in (load.KINDS["several live"][0], load.KINDS["several kept"][0]):        # the first time writes more
        handle(served, title)
    yield made
    server_client.delete_table(TableName=table)


def handle(served: App, title: str) -> HttpResponse:
    path, text, _ = load.CALLS[title]
    query = dict(parse_qsl(text))
    if "list" in query:
        query["list"] = handle(served, load.KINDS["kept"][0]).headers["X-List-Id"]
        served.deployment.store._client.made.clear()    # type: ignore[attr-defined]
    basic = "Basic " + base64.b64encode(f"{served.token}:x".encode()).decode()
    response = api.answer(lambda: served.deployment, path, HttpRequest(
        "GET", path, [*query.items()], {"authorization": basic}, b"", "r", time.monotonic() + 25))
    assert response.status == (403 if title == "403" else 200), (title, response.body[:300])
    return response


def spread(served: App) -> None:
    """A thousand regions of the account, each with the snapshot of ten servers."""
    store, cloud = served.deployment.store, served.clouds["qcloud"]
    cloud.fleets["ap-shanghai"] = Fleet(10)             # type: ignore[attr-defined]
    served.clock.forward(600)
    refresh(served, "ap-shanghai")
    row = accounts.find(store, "123", "qcloud")
    codes = [f"ap-far{n}" for n in range(SOURCES)]
    store.put("account", "123/qcloud", msgspec.json.encode(msgspec.structs.replace(row, regions=tuple(codes))))
    kept = [(kind, key, rest) for kind in ("snapshot", "chunk")
            for key, rest in store.list(kind, "123/qcloud/ap-shanghai")]
    expires = int(served.clock()) + 86_400
    store.write([Entry(kind, key.replace("ap-shanghai", code), rest.value, rest.version, expires)
                 for code in codes for kind, key, rest in kept])
    accounts.remove(store, "123", "aws")


def refresh(served: App, region: str) -> None:
    (result,) = schedule.run(served.deployment, [Source("123", "qcloud", region)])
    assert result.error is None


def counted(served: App, calls: Calls, title: str) -> dict[str, int]:
    path, region, _ = load.CALLS[title]
    calls.made.clear()
    if path:
        handle(served, title)
    else:
        refresh(served, region)
    return dict(calls.made)


def said(many: bool) -> dict[str, dict[str, int]]:
    return {title: made for title, (_, _, made) in load.CALLS.items() if ("1,000 sources" in title) == many}


def test_a_request_makes_the_calls_that_the_page_says(served: App, calls: Calls) -> None:
    cloud: Any = served.clouds["qcloud"]
    counts: dict[str, dict[str, int]] = {}
    for title in said(many=False):
        if title.startswith("a refresh"):
            served.clock.forward(600)
            cloud.fleets["ap-guangzhou"] = Fleet(load.SERVERS - ("one server" in title))
        counts[title] = counted(served, calls, title)
    assert counts == said(many=False)


@pytest.mark.slow
def test_a_thousand_sources_make_the_calls_that_the_page_says(served: App, calls: Calls) -> None:
    spread(served)
    handle(served, next(iter(said(many=True))))         # notes that all of them are read
    assert {title: counted(served, calls, title) for title in said(many=True)} == said(many=True)
